"""What to take under limits, from a finished comparison. Not a stage of the pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunetrail.errors import TuneTrailError, unknown
from tunetrail.files import read_json
from tunetrail.layout import CERTIFICATE, COMPARISON
from tunetrail.verdicts.recommend import Pair, recommend

_MEBIBYTE = 2**20

#: Costs by the names of their limits, in the order to show them.
COSTS = (
    "trainable_parameters",
    "train_seconds",
    "memory_mb",
    "artifact_mb",
    "model_mb",
    "latency_ms",
)


def recommendations(
    comparison: Path, runs: Path, limits: Mapping[str, float], task: str = ""
) -> dict[str, dict[str, Any]]:
    """The recommendation of each task.

    A method is set aside as dominated by the costs that have limits or, without any, by all.

    Args:
        comparison: Folder that the compare stage wrote.
        runs: Folder with costs and certificates.
        limits: Most that each cost may be, by name (:data:`COSTS`).
        task: The only task to look at, or empty.

    Returns:
        Task → ``pick`` (label or None), ``candidates`` and the others with reasons, the methods'
        ``scores``, ``titles`` and ``costs``, and ``reasons`` in sentences.

    Raises:
        TuneTrailError: There is no comparison yet, or no such task.
    """
    file = comparison / COMPARISON
    if not file.exists():
        raise TuneTrailError(f"'{file}' is not there", "`tunetrail run` makes the comparison")
    content = read_json(file)
    if task and task not in content["tasks"]:
        raise unknown("task", task, content["tasks"])
    return {
        name: _task(name, found, content["baseline"], content["margin"], runs, limits)
        for name, found in content["tasks"].items()
        if task in ("", name)
    }


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


def known_pairs(task: dict[str, Any], baseline: str, margin: float) -> dict[tuple[str, str], Pair]:
    """Every pair of methods, in both directions, with what their interval says."""
    intervals = {
        (label, baseline): (record["low"], record["high"])
        for label, record in task["verdicts"].items()
    }
    intervals |= {tuple(pair["of"]): (pair["low"], pair["high"]) for pair in task["pairs"]}
    found = {}
    for (one, other), (low, high) in intervals.items():
        if low is not None:
            found[one, other] = Pair(low > 0, low > -margin)
            found[other, one] = Pair(high < 0, high < margin)
    return found


def _costs(runs: Path, task: str, label: str) -> dict[str, float]:
    """What a method costs; what was not measured is left out."""
    costs: dict[str, float] = {}
    measured, certificate = (
        runs / "cost" / task / f"{label}.json",
        runs / "export" / task / label / CERTIFICATE,
    )
    if measured.exists():
        cost = read_json(measured)
        costs |= {name: cost[name] for name in ("trainable_parameters", "train_seconds")}
        costs["memory_mb"] = cost["peak_memory_bytes"] / _MEBIBYTE
        costs["artifact_mb"] = cost["artifact_bytes"] / _MEBIBYTE
    if certificate.exists():
        exported = read_json(certificate)
        costs["model_mb"] = exported["onnx_bytes"] / _MEBIBYTE
        if latency := exported.get("latency"):
            costs["latency_ms"] = latency["onnx_p50_ms"]
    return costs
