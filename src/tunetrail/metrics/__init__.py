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
    #: What it scores: ``classes``, ``a number`` or ``answers``.
    scores: ClassVar[str] = "classes"

    @classmethod
    def check(cls, predicts: str, classes: int, where: str) -> None:
        """Refuse a task that the metric is not defined for.

        Args:
            predicts: What the task predicts, as in ``scores``.
            classes: How many classes, if it does.
            where: File and key, for the message.
        """
        name = cls.__module__.rpartition(".")[2]
        if cls.scores != predicts:
            raise TuneTrailError(
                f"{where}: metric '{name}' scores {cls.scores}, the task predicts {predicts}",
                f"use one of {', '.join(_names(predicts))}",
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
            labels: True class indices (or numbers, or all accepted answers of each question), shape
                ``(rows,)``.
            predictions: Predicted ones, shape ``(rows,)``.
            classes: Number of declared classes; some may be absent from ``labels``.
        """


class AnswerMetric(Metric):
    """The mean score of answers, each compared with the accepted answer that it is closest to."""

    scores = "answers"

    @staticmethod
    @abc.abstractmethod
    def agreement(prediction: str, truth: str) -> float:
        """Score of one answer by one accepted answer."""

    @classmethod
    def each(cls, labels: np.ndarray, predictions: np.ndarray) -> np.ndarray:
        """Score of every answer, ``(rows,)``."""
        pairs = zip(labels, predictions, strict=True)
        return np.array(
            [max(cls.agreement(text, truth) for truth in truths) for truths, text in pairs]
        )

    @classmethod
    def score(cls, labels: np.ndarray, predictions: np.ndarray, classes: int) -> float:
        """Mean of :meth:`each`."""
        return float(np.mean(cls.each(labels, predictions)))


def find(name: str, where: str = "") -> type[Metric]:
    """The metric called ``name``.

    Raises:
        TuneTrailError: No such metric.
    """
    if name not in modules(__name__):
        raise unknown("metric", name, modules(__name__), where)
    metric: type[Metric] = load(__name__, name, Metric)
    return metric


def _names(predicts: str) -> list[str]:
    return sorted(n for n in modules(__name__) if find(n).scores == predicts)


def score_all(
    names: tuple[str, ...], labels: np.ndarray, predictions: np.ndarray, classes: int
) -> dict[str, float]:
    """Every named metric of one set of predictions."""
    return {name: float(find(name).score(labels, predictions, classes)) for name in names}


def score_each(
    names: tuple[str, ...], labels: np.ndarray, predictions: np.ndarray
) -> dict[str, np.ndarray]:
    """Score of every prediction, ``(rows,)``, by those named metrics that are a mean over them."""
    found = {name: find(name) for name in names}
    return {
        name: metric.each(labels, predictions)
        for name, metric in found.items()
        if issubclass(metric, AnswerMetric)
    }
