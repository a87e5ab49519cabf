"""Metrics, one module each; a module's name is the metric's name."""

from __future__ import annotations

import abc
from typing import ClassVar

import numpy as np

from tunetrail.discovery import load, modules
from tunetrail.errors import TuneTrailError, unknown


class Metric(abc.ABC):
    """A score of predictions. Higher is better for every metric here."""

    title: ClassVar[str]
    #: The number of classes that it is defined for, or None for any.
    only_for: ClassVar[int | None] = None
    #: Whether it scores numbers instead of classes.
    of_numbers: ClassVar[bool] = False

    @classmethod
    def check(cls, classes: int, where: str) -> None:
        """Refuse a task that the metric is not defined for (0 classes: a number is predicted)."""
        name = cls.__module__.rpartition(".")[2]
        if cls.of_numbers != (classes == 0):
            kinds = ("classes", "a number")
            raise TuneTrailError(
                f"{where}: metric '{name}' scores {kinds[cls.of_numbers]}, "
                f"the task predicts {kinds[classes == 0]}",
                f"use one of {', '.join(_names(of_numbers=classes == 0))}",
            )
        if cls.only_for not in (None, classes):
            raise TuneTrailError(
                f"{where}: metric '{name}' is for {cls.only_for} classes, the task has {classes}",
                "use 'f1_macro' or 'f1_micro'",
            )

    @staticmethod
    @abc.abstractmethod
    def score(labels: np.ndarray, predictions: np.ndarray, classes: int) -> float:
        """Score in raw units (0.81, not 81).

        Args:
            labels: True class indices (or numbers), shape ``(rows,)``.
            predictions: Predicted ones, shape ``(rows,)``.
            classes: Number of declared classes; some may be absent from ``labels``.
        """


def find(name: str, where: str = "") -> type[Metric]:
    """The metric called ``name``.

    Raises:
        TuneTrailError: No such metric.
    """
    if name not in modules(__name__):
        raise unknown("metric", name, modules(__name__), where)
    metric: type[Metric] = load(__name__, name, Metric)
    return metric


def _names(*, of_numbers: bool) -> list[str]:
    return sorted(n for n in modules(__name__) if find(n).of_numbers == of_numbers)


def score_all(
    names: tuple[str, ...], labels: np.ndarray, predictions: np.ndarray, classes: int
) -> dict[str, float]:
    """Every named metric of one set of predictions."""
    return {name: float(find(name).score(labels, predictions, classes)) for name in names}
