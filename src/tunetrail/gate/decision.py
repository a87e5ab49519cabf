"""The decision between a champion and a challenger, from their predictions of the same rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from tunetrail import metrics
from tunetrail.gate.policy import Gate
from tunetrail.kinds import kind_of
from tunetrail.metrics import AnswerMetric
from tunetrail.task import TaskSpec
from tunetrail.verdicts.influence import row_values
from tunetrail.verdicts.shipped import ERROR, Bound, lower_bound


@dataclass(frozen=True)
class Served:
    """A model as it serves.

    Attributes:
        version: Its version in the registry.
        predictions: Of the gate's rows, ``(rows,)``, as metrics take them (``Kind.served``).
        latency_ms: Median for one text.
        size_bytes: Of its ONNX file.
    """

    version: str
    predictions: np.ndarray
    latency_ms: float
    size_bytes: int


def decide(
    rows: pd.DataFrame, task: TaskSpec, champion: Served, challenger: Served, policy: Gate
) -> dict[str, Any]:
    """Compare both on the gate's rows.

    The challenger passes when it is shown not to be worse than the champion by more than the
    margin, and keeps every limit of the policy.

    Args:
        rows: Of the gate set: ``group``, ``text``, ``text_pair``, ``label``.
        task: The task they belong to.
        champion: What serves now.
        challenger: What may replace it.
        policy: Margin and limits.

    Returns:
        ``passed``, ``reasons`` (why not), and everything that it rests on, for JSON.
    """
    kind = kind_of(task)
    truths = kind.accepted(rows["label"])
    metric = task.primary_metric
    pair = (challenger.predictions, champion.predictions)
    ours, theirs = (_values(metric, truths, p, len(task.labels)) for p in pair)
    # Where a metric is not one of single rows, neighbours may be one unit.
    groups = rows["group"].to_numpy() if len(ours) == len(rows) else np.arange(len(ours))
    bound = lower_bound(ours, theirs, groups, policy.margin)
    scores = [metrics.score_all(task.metrics, truths, p, len(task.labels)) for p in pair]
    slices = list(_slices(rows, task, truths, *pair, policy))
    ratios = {
        "latency": challenger.latency_ms / champion.latency_ms,
        "size": challenger.size_bytes / champion.size_bytes,
    }
    reasons = []
    if bound.low <= -policy.margin:
        reasons.append(_not_shown(metric, bound, policy.margin, len(rows)))
    reasons += [
        f"{metric if entry['by'] != 'label' else 'accuracy'} falls by {entry['drop']:.3f} where "
        f"{entry['by']} is {entry['slice']} ({entry['rows']} rows); {entry['limit']:g} is the most"
        for entry in slices
        if entry["passed"] is False
    ]
    limits = {"latency": policy.latency, "size": policy.size}
    reasons += [
        f"{name} is {ratios[name]:.2f} times the champion's; {limit:g} times is the most"
        for name, limit in limits.items()
        if limit is not None and ratios[name] > limit
    ]
    return {
        "task": task.name,
        "champion": champion.version,
        "challenger": challenger.version,
        "passed": not reasons,
        "reasons": reasons,
        "metric": metric,
        "scores": {"challenger": scores[0], "champion": scores[1]},
        "difference": bound.mean,
        "low": bound.low,
        "level": 1 - ERROR,
        "margin": policy.margin,
        "rows": len(rows),
        "groups": bound.groups,
        "disagreements": kind.flips(*pair),
        "slices": slices,
        "latency_ms": {"challenger": challenger.latency_ms, "champion": champion.latency_ms},
        "size_bytes": {"challenger": challenger.size_bytes, "champion": champion.size_bytes},
        "policy": policy.model_dump(mode="json"),
    }


def _not_shown(metric: str, bound: Bound, margin: float, rows: int) -> str:
    needed = bound.rows_needed
    more = (
        f"about {needed:,} rows of the gate instead of {rows:,} would show it, should the "
        "difference stay as it is"
        if needed is not None
        else "it is worse by more than the margin as it stands"
    )
    return (
        f"not shown to be as good within the margin of {margin:g}: {metric} differs by "
        f"{bound.mean:+.3f} and may be as low as {bound.low:+.3f}; {more}"
    )


def _values(name: str, truths: np.ndarray, predictions: np.ndarray, classes: int) -> np.ndarray:
    metric = metrics.find(name)
    if issubclass(metric, AnswerMetric):
        return metric.each(truths, predictions)
    return row_values(lambda a, b: metric.score(a, b, classes), truths, predictions)


def _slices(
    rows: pd.DataFrame,
    task: TaskSpec,
    truths: np.ndarray,
    ours: np.ndarray,
    theirs: np.ndarray,
    policy: Gate,
) -> Iterator[dict[str, Any]]:
    """Both scores in every slice, and whether the challenger drops by more than its limit."""
    for by, limit in policy.slices.items():
        for name, inside in _members(by, rows, task):
            # Within one class the first metric may say nothing; its accuracy there is its recall.
            metric = "accuracy" if by == "label" else task.primary_metric
            score = metrics.find(metric).score
            with np.errstate(invalid="ignore"):
                new, old = (
                    float(score(truths[inside], p[inside], len(task.labels)))
                    for p in (ours, theirs)
                )
            drop = old - new
            judged = int(inside.sum()) >= policy.slice_rows and np.isfinite(drop)
            yield {
                "by": by,
                "slice": name,
                "rows": int(inside.sum()),
                "challenger": new,
                "champion": old,
                "drop": drop,
                "limit": limit,
                "passed": bool(drop <= limit) if judged else None,
            }


def _members(by: str, rows: pd.DataFrame, task: TaskSpec) -> Iterator[tuple[str, np.ndarray]]:
    """Name of each slice, and which rows are in it."""
    if by == "label":
        for i, name in enumerate(task.labels):
            yield name, (rows["label"] == i).to_numpy()
        return
    if by == "length":
        lengths = rows["text"].str.len() + rows["text_pair"].fillna("").str.len()
        # By rank: many texts of one length do not make an empty third.
        third = (lengths.rank(method="first") - 1) * 3 // len(rows)
        for i, name in enumerate(("short", "middle", "long")):
            yield name, (third == i).to_numpy()
        return
    for name, index in rows.groupby(by).indices.items():
        inside = np.zeros(len(rows), dtype=bool)
        inside[index] = True
        yield str(name), inside
