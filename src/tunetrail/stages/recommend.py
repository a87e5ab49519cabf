"""What to take under limits, and all pairs of methods, from a finished comparison.

Not a stage of the pipeline.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunetrail.errors import TuneTrailError, unknown
from tunetrail.files import read_json
from tunetrail.layout import CERTIFICATE, COMPARISON
from tunetrail.report import text
from tunetrail.verdicts.costs import COSTS, costs_of, known_pairs
from tunetrail.verdicts.recommend import recommend


def recommendations(
    comparison: Path, runs: Path, limits: Mapping[str, float], task: str = ""
) -> dict[str, dict[str, Any]]:
    """The recommendation of each task.

    A method is set aside as dominated by the costs that have limits or, without any, by all.

    Args:
        comparison: Folder that the compare stage wrote.
        runs: Folder with costs and certificates.
        limits: Most that each cost may be, by name (:data:`verdicts.costs.COSTS`).
        task: The only task to look at, or empty.

    Returns:
        Task → ``pick`` (label or None), ``candidates`` and the others with reasons, the methods'
        ``scores``, ``titles`` and ``costs``, and ``reasons`` in sentences.

    Raises:
        TuneTrailError: There is no comparison yet, or no such task.
    """
    content = _finished(comparison, task)
    return {
        name: _task(name, found, content["baseline"], content["margin"], runs, limits)
        for name, found in content["tasks"].items()
        if task in ("", name)
    }


def all_pairs(comparison: Path, task: str = "") -> dict[str, dict[str, Any]]:
    """Every pair of methods of each task.

    Args:
        comparison: Folder that the compare stage wrote.
        task: The only task to look at, or empty.

    Returns:
        Task → ``pairs`` (``text.every_pair``) and the ``metric``.

    Raises:
        TuneTrailError: There is no comparison yet, or no such task.
    """
    content = _finished(comparison, task)
    return {
        name: {
            "pairs": text.every_pair(found, content["baseline"]),
            "metric": found["metric_titles"][found["primary"]],
        }
        for name, found in content["tasks"].items()
        if task in ("", name)
    }


def _finished(comparison: Path, task: str) -> dict[str, Any]:
    """The comparison, which has ``task`` if that is not empty."""
    file = comparison / COMPARISON
    if not file.exists():
        raise TuneTrailError(f"'{file}' is not there", "`tunetrail run` makes the comparison")
    content: dict[str, Any] = read_json(file)
    if task and task not in content["tasks"]:
        raise unknown("task", task, content["tasks"])
    return content


def _task(
    name: str,
    task: dict[str, Any],
    baseline: str,
    margin: float,
    runs: Path,
    limits: Mapping[str, float],
) -> dict[str, Any]:
    costs = {label: _costs(runs, name, label) for label in task["methods"]}
    scores = {
        label: method["summary"][task["primary"]]["mean"]
        for label, method in task["methods"].items()
    }
    counted = [cost for cost in COSTS if cost in limits] or list(COSTS)
    found = recommend(scores, costs, known_pairs(task, baseline, margin), limits, counted)
    return {
        "pick": found.pick,
        "candidates": found.candidates,
        "dominated": {
            label: {"by": by, "why": why} for label, (by, why) in found.dominated.items()
        },
        "outside": found.outside,
        "reasons": found.reasons,
        "titles": {label: method["title"] for label, method in task["methods"].items()},
        "scores": {
            label: {k: method["summary"][task["primary"]][k] for k in ("mean", "low", "high")}
            for label, method in task["methods"].items()
        },
        "metric": task["metric_titles"][task["primary"]],
        "costs": costs,
    }


def _costs(runs: Path, task: str, label: str) -> dict[str, float]:
    measured = runs / "cost" / task / f"{label}.json"
    certificate = runs / "export" / task / label / CERTIFICATE
    return costs_of(*(read_json(f) if f.exists() else None for f in (measured, certificate)))
