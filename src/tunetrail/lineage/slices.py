"""Scores of the shipped run on parts of the test set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

#: Parts of the range of a number.
_PARTS = 3


def slices(predictions: pd.DataFrame, task: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A record a label: rows, and how well they were predicted. Empty for answers.

    Of classes it is the share of the class's rows that were found, with Wilson's 95% interval. Of
    numbers, the mean absolute error in each third of the range.

    Args:
        predictions: What the evaluate stage wrote of the run: columns ``label``, ``prediction``.
        task: One task of the comparison.

    Returns:
        Records with ``of``, ``rows``, ``measure``, ``score``, ``low`` and ``high``; the last three
        are None where there are no rows, the ends also where none are known.
    """
    if task["labels"]:
        return [
            _found(name, predictions[predictions["label"] == place])
            for place, name in enumerate(task["labels"])
        ]
    if task["range"]:
        return _thirds(predictions, *task["range"])
    return []


def _found(name: str, rows: pd.DataFrame) -> dict[str, Any]:
    from scipy.stats import binomtest

    record = {"of": name, "rows": len(rows), "measure": "found"}
    if rows.empty:
        return {**record, "score": None, "low": None, "high": None}
    right = int((rows["prediction"] == rows["label"]).sum())
    ends = binomtest(right, len(rows)).proportion_ci(0.95, method="wilson")
    low, high = float(ends.low), float(ends.high)
    return {**record, "score": right / len(rows), "low": low, "high": high}


def _thirds(predictions: pd.DataFrame, low: float, high: float) -> list[dict[str, Any]]:
    edges = np.linspace(low, high, _PARTS + 1)
    # Labels outside the declared range do not pass the gate.
    part = np.clip(np.digitize(predictions["label"], edges) - 1, 0, _PARTS - 1)
    errors = (predictions["prediction"] - predictions["label"]).abs()
    found = []
    for place in range(_PARTS):
        of = errors[part == place]
        found.append(
            {
                "of": f"{edges[place]:g} to {edges[place + 1]:g}",
                "rows": len(of),
                "measure": "mean absolute error",
                "score": float(of.mean()) if len(of) else None,
                "low": None,
                "high": None,
            }
        )
    return found
