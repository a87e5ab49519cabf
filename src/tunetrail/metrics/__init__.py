"""Metrics, one module each; a module's name is the metric's name."""

from __future__ import annotations

import abc
from typing import ClassVar

import numpy as np

from tunetrail.discovery import load, modules
from tunetrail.errors import unknown


class Metric(abc.ABC):
    """A score of predictions. Higher is better for every metric here."""

    title: ClassVar[str]

    @staticmethod
    @abc.abstractmethod
    def score(labels: np.ndarray, predictions: np.ndarray, classes: int) -> float:
        """Score in raw units (0.81, not 81).

        Args:
            labels: True class indices, shape ``(rows,)``.
            predictions: Predicted class indices, shape ``(rows,)``.
            classes: Number of declared classes; some may be absent from ``labels``.
        """


def find(name: str) -> type[Metric]:
    """The metric called ``name``.

    Raises:
        TuneTrailError: No such metric.
    """
    if name not in modules(__name__):
        raise unknown("metric", name, modules(__name__))
    metric: type[Metric] = load(__name__, name, Metric)
    return metric


def score_all(
    names: tuple[str, ...], labels: np.ndarray, predictions: np.ndarray, classes: int
) -> dict[str, float]:
    """Every named metric of one set of predictions."""
    return {name: float(find(name).score(labels, predictions, classes)) for name in names}
