"""How far new rows are from those before: labels, lengths of texts, words.

Measured is what is new against all rows of the version before. A batch of few rows differs from a
large dataset by chance alone, so each figure comes with what chance does: a p-value, or the largest
value among :data:`DRAWS` draws of as many rows from the version before.

The levels below make a note in the version's record. They warn; nothing stops by them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from tunetrail.near_duplicates import plain
from tunetrail.task import TaskSpec

#: p-values below this are not put down to chance.
CHANCE = 0.01
#: Total variation distance of label shares, from 0 (equal) to 1 (nothing in common).
LABELS = 0.1
#: Kolmogorov–Smirnov distance of lengths, or of predicted numbers, from 0 to 1.
LENGTHS = 0.2
#: How far the share of unknown words, or the distance of word frequencies, may exceed the draws.
WORDS = 0.05
#: Share of the rows before that are gone.
REMOVED = 0.1

#: Random draws of old rows that new words are held against.
DRAWS = 20

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def drift(before: pd.DataFrame, fresh: pd.DataFrame, task: TaskSpec) -> dict[str, Any]:
    """Every figure about new rows that there is for the task.

    Args:
        before: Canonical rows of the version before (``text``, ``text_pair``, ``label``).
        fresh: Canonical rows that it does not have; at least one.
        task: Says what labels are.
    """
    texts = ["text", "text_pair"] if task.columns.text_pair else ["text"]
    found: dict[str, Any] = {
        "lengths": {
            column: distance_of_numbers(_lengths(before[column]), _lengths(fresh[column]))
            for column in texts
        },
        "words": distance_of_words(_texts(before, texts), _texts(fresh, texts)),
    }
    if task.labels:
        old, new = counts(before["label"], task), counts(fresh["label"], task)
        found["labels"] = distance_of_labels(old, new)
    if task.range is not None:
        numbers = [frame["label"].dropna().to_numpy(dtype=float) for frame in (before, fresh)]
        found["numbers"] = distance_of_numbers(*numbers)
    return found


def counts(labels: pd.Series, task: TaskSpec) -> dict[str, int]:
    """Rows of each declared class."""
    found = labels.value_counts()
    return {name: int(found.get(index, 0)) for index, name in enumerate(task.labels)}


def distance_of_labels(old: Mapping[str, int], new: Mapping[str, int]) -> dict[str, Any]:
    """Total variation distance of the shares, and the p-value of Pearson's χ² test.

    Args:
        old: Rows of each class before.
        new: Rows of each class that are new; the same classes.

    Returns:
        ``before`` and ``new`` (counts), ``distance``, ``p``; these two are None where either has no
        row with a label, and ``p`` also where only one class occurs.
    """
    table = np.array([[old[name], new[name]] for name in old]).T
    result: dict[str, Any] = {"before": dict(old), "new": dict(new), "distance": None, "p": None}
    if not table.sum(axis=1).all():
        return result
    shares = table / table.sum(axis=1, keepdims=True)
    result["distance"] = _rounded(np.abs(shares[0] - shares[1]).sum() / 2)
    occurring = table[:, table.sum(axis=0) > 0]
    if occurring.shape[1] > 1:
        from scipy.stats import chi2_contingency

        result["p"] = _rounded(chi2_contingency(occurring, correction=False).pvalue)
    return result


def distance_of_numbers(old: np.ndarray, new: np.ndarray) -> dict[str, Any]:
    """Quantiles (:data:`QUANTILES`) of both, Kolmogorov–Smirnov distance and p-value.

    Args:
        old: Numbers before, ``(rows,)``.
        new: New numbers, ``(rows,)``.
    """
    result: dict[str, Any] = {"before": _quantiles(old), "new": _quantiles(new)}
    if not len(old) or not len(new):
        return result | {"distance": None, "p": None}
    from scipy.stats import ks_2samp

    test = ks_2samp(old, new)
    return result | {"distance": _rounded(test.statistic), "p": _rounded(test.pvalue)}


def distance_of_words(old: list[str], new: list[str]) -> dict[str, Any]:
    """Share of new words that are unknown, and Jensen–Shannon distance of word frequencies.

    Words are compared without case and punctuation. The distance has base 2: from 0 to 1. For both
    ``by_chance`` is the largest value of draws of as many old rows (half of them at most) from
    the others.

    Args:
        old: Texts before.
        new: New texts.
    """
    rows, words = _words([*old, *new])
    size = int(words.max(initial=-1)) + 1
    is_new = np.arange(len(old) + len(new)) >= len(old)

    def compared(chosen: np.ndarray, among: np.ndarray) -> tuple[float, float]:
        """Rows that count as new, and rows that count at all (flags, ``(rows,)``)."""
        there = among[rows]
        picked = chosen[rows] & there
        drawn = np.bincount(words[picked], minlength=size)
        rest = np.bincount(words[~picked & there], minlength=size)
        if not drawn.any() or not rest.any():
            return float("nan"), float("nan")
        from scipy.spatial.distance import jensenshannon

        return float(drawn[rest == 0].sum() / drawn.sum()), float(jensenshannon(drawn, rest, 2))

    unknown, distance = compared(is_new, np.full(len(is_new), True))
    generator = np.random.default_rng(0)
    draws = []
    for _ in range(DRAWS if len(old) > 1 else 0):
        chosen = np.zeros(len(is_new), dtype=bool)
        chosen[generator.permutation(len(old))[: max(1, min(len(new), len(old) // 2))]] = True
        draws.append(compared(chosen, ~is_new))
    chance = np.array(draws).max(axis=0) if draws else [float("nan")] * 2
    return {
        "unknown": {"share": _rounded(unknown), "by_chance": _rounded(chance[0])},
        "frequencies": {"distance": _rounded(distance), "by_chance": _rounded(chance[1])},
    }


def notes(found: Mapping[str, Any]) -> list[str]:
    """A sentence for each level that is passed: what it is about, a colon, what was found."""
    told = []
    labels = found.get("labels")
    if labels and _beyond(labels, LABELS):
        old, new = _shares(labels["before"]), _shares(labels["new"])
        moved = sorted(old, key=lambda name: -abs(new[name] - old[name]))[:3]
        shown = ", ".join(f"{name} {old[name]:.0%} → {new[name]:.0%}" for name in moved)
        told.append(
            f"labels: distributed differently in the new rows: {shown} (distance "
            f"{labels['distance']:.2f}, level {LABELS:g})"
        )
    spread = {"numbers": found.get("numbers")}
    spread |= {
        f"length of '{column}'": lengths for column, lengths in found.get("lengths", {}).items()
    }
    for what, measured in spread.items():
        if measured and _beyond(measured, LENGTHS):
            middle = QUANTILES.index(0.5)
            told.append(
                f"{what}: different in the new rows: median {measured['before'][middle]:g} → "
                f"{measured['new'][middle]:g} (distance {measured['distance']:.2f}, level "
                f"{LENGTHS:g})"
            )
    words = found.get("words")
    if words and _exceeds(words["unknown"], "share"):
        told.append(
            f"unknown words: {words['unknown']['share']:.0%} of the words in the new rows were "
            f"never there before; in as many old rows {words['unknown']['by_chance']:.0%} at most"
        )
    if words and _exceeds(words["frequencies"], "distance"):
        told.append(
            "word frequencies: others in the new rows (distance "
            f"{words['frequencies']['distance']:.2f}, in as many old rows "
            f"{words['frequencies']['by_chance']:.2f} at most)"
        )
    return told


def _beyond(measured: Mapping[str, Any], level: float) -> bool:
    distance, p = measured["distance"], measured["p"]
    return distance is not None and p is not None and distance > level and p < CHANCE


def _exceeds(measured: Mapping[str, Any], key: str) -> bool:
    value, chance = measured[key], measured["by_chance"]
    return value is not None and chance is not None and value > chance + WORDS


def _shares(rows: Mapping[str, int]) -> dict[str, float]:
    total = sum(rows.values())
    return {name: count / total for name, count in rows.items()}


def _lengths(texts: pd.Series) -> np.ndarray:
    """Characters of each text that is there."""
    lengths: np.ndarray = texts.dropna().str.len().to_numpy(dtype=float)
    return lengths


def _texts(frame: pd.DataFrame, columns: list[str]) -> list[str]:
    parts = [frame[column].fillna("") for column in columns]
    return [" ".join(texts) for texts in zip(*parts, strict=True)]


def _words(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """For every word of every text, the row it is in and the number of the word."""
    numbers: dict[str, int] = {}
    found = [
        [numbers.setdefault(word, len(numbers)) for word in plain(text, words=None).split()]
        for text in texts
    ]
    rows = np.repeat(np.arange(len(found)), [len(words) for words in found])
    return rows, np.array([word for words in found for word in words], dtype=np.int64)


def _quantiles(numbers: np.ndarray) -> list[float]:
    return [_rounded(q) for q in np.quantile(numbers, QUANTILES)] if len(numbers) else []


def _rounded(value: float) -> Any:
    """Four digits: enough to read, the same on every machine. None for what cannot be told."""
    return None if np.isnan(value) else float(f"{value:.4g}")
