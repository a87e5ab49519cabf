"""Views over all tasks together, after Agarwal et al. (NeurIPS 2021), with bootstrap intervals.

They are secondary: no verdict rests on them. The bootstrap draws seeds within each task, so it
covers other seeds on the same tasks and test rows. With few seeds such a bootstrap is too narrow;
docs/verdicts.md has how narrow for one difference, and not for these views.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

_RESAMPLES = 2000
_LEVEL = 0.95


class Estimate(NamedTuple):
    """A value and its bootstrap interval; no interval for one seed."""

    value: float
    low: float | None
    high: float | None


def interquartile_mean(scores: np.ndarray) -> np.ndarray:
    """Mean of the middle half of all runs; ``(…, seeds, tasks)`` to ``(…)``."""
    flat = np.sort(scores.reshape(*scores.shape[:-2], -1), axis=-1)
    cut = flat.shape[-1] // 4
    middle: np.ndarray = flat[..., cut : flat.shape[-1] - cut].mean(axis=-1)
    return middle


def improvement(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Probability that a run of one beats a run of the other on the same task, mean over tasks.

    Ties count half. ``(…, seeds, tasks)`` both, to ``(…)``.
    """
    mine, theirs = one[..., :, None, :], other[..., None, :, :]
    wins: np.ndarray = ((mine > theirs) + 0.5 * (mine == theirs)).mean(axis=(-3, -2, -1))
    return wins


def profile(scores: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Share of runs above each threshold; ``(…, seeds, tasks)`` to ``(…, thresholds)``."""
    above = scores[..., None] > thresholds
    shares: np.ndarray = above.mean(axis=(-3, -2))
    return shares


def mean_ranks(scores: np.ndarray) -> np.ndarray:
    """Rank of each method's mean on a task, averaged over tasks; 1 is the highest, ties share.

    ``(methods, …, seeds, tasks)`` to ``(methods, …)``.
    """
    from scipy.stats import rankdata

    ranks: np.ndarray = rankdata(-scores.mean(axis=-2), axis=0).mean(axis=-1)
    return ranks


def bootstrap(
    statistic: Callable[..., np.ndarray], *samples: np.ndarray, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Ends of a percentile interval: seeds are drawn with replacement, within each task.

    Args:
        statistic: Of arrays like ``samples`` with one axis more, of resamples, before the last two.
        samples: Scores of shape ``(…, seeds, tasks)``, each drawn by itself.
        seed: Of the draws.
    """
    generator = np.random.default_rng(seed)
    drawn = []
    for scores in samples:
        *before, seeds, tasks = scores.shape
        wide = np.broadcast_to(scores[..., None, :, :], (*before, _RESAMPLES, seeds, tasks))
        picks = generator.integers(seeds, size=wide.shape)
        drawn.append(np.take_along_axis(wide, picks, axis=-2))
    # What is before the last two axes stays where it is, so resamples come right after it.
    ends = [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2]
    low, high = np.quantile(statistic(*drawn), ends, axis=samples[0].ndim - 2)
    return low, high


def summary(scores: dict[str, np.ndarray], baseline: str) -> dict[str, dict[str, Estimate]]:
    """Interquartile mean, mean rank and, against the baseline, probability of improvement.

    Args:
        scores: Label → scores of shape ``(seeds, tasks)``, comparable between tasks.
        baseline: A label, or empty.

    Returns:
        Label → ``iqm``, ``rank`` and, for others than the baseline, ``improvement``.
    """
    labels = list(scores)
    ranks = _estimates(mean_ranks, np.stack([scores[label] for label in labels]))
    found: dict[str, dict[str, Estimate]] = {}
    for place, label in enumerate(labels):
        entry = {"iqm": _estimates(interquartile_mean, scores[label])[0], "rank": ranks[place]}
        if baseline in scores and label != baseline:
            entry["improvement"] = _estimates(improvement, scores[label], scores[baseline])[0]
        found[label] = entry
    return found


def record(scores: dict[str, np.ndarray], baseline: str) -> dict[str, Any]:
    """Everything as ``comparison.json`` has it; arguments as of :func:`summary`."""
    thresholds = np.linspace(0, 1, 51)
    profiles = {}
    for label, found in scores.items():
        shares = profile(found, thresholds)
        ends = bootstrap(lambda drawn: profile(drawn, thresholds), found)
        profiles[label] = dict(
            zip(("share", "low", "high"), (part.tolist() for part in (shares, *ends)), strict=True)
        )
    return {
        "methods": {
            label: {name: estimate._asdict() for name, estimate in entry.items()}
            for label, entry in summary(scores, baseline).items()
        },
        "thresholds": thresholds.tolist(),
        "profiles": profiles,
    }


def _estimates(statistic: Callable[..., np.ndarray], *samples: np.ndarray) -> list[Estimate]:
    values = np.atleast_1d(statistic(*samples))
    if samples[0].shape[-2] < 2:
        return [Estimate(float(value), None, None) for value in values]
    ends = (np.atleast_1d(end) for end in bootstrap(statistic, *samples))
    return [Estimate(*map(float, each)) for each in zip(values, *ends, strict=True)]
