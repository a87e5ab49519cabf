"""What to take under limits, and all pairs of methods, from a finished comparison.

Not a stage of the pipeline.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tunetrail.errors import TuneTrailError, unknown
from tunetrail.files import read_json
from tunetrail.layout import CERTIFICATE, COMPARISON
from tunetrail.report import text
from tunetrail.report.recommended import recommended
from tunetrail.verdicts.costs import costs_of

#: What is read of a comparison, of each task in it, of a verdict or pair, and of measured costs.
#: A file without one of these is of another version; anything else that is missing is a defect.
_COMPARISON_KEYS = ("tasks", "baseline", "margin")
_TASK_KEYS = ("primary", "metric_titles", "methods", "verdicts", "pairs")
_VERDICT_KEYS = ("difference", "low", "high", "p", "outcome", "not_worse", "needs")
_COST_KEYS = (
    "trainable_parameters",
    "train_seconds",
    "pretrain_seconds",
    "peak_memory_bytes",
    "artifact_bytes",
    "checkpoint_bytes",
)
_CERTIFICATE_KEYS = ("onnx_bytes",)


def recommendations(
    comparison: Path, runs: Path, limits: Mapping[str, float], task: str = ""
) -> dict[str, dict[str, Any]]:
    """The recommendation of each task.

    Args:
        comparison: Folder that the compare stage wrote.
        runs: Folder with costs and certificates.
        limits: Most that each cost may be, by name (:data:`verdicts.costs.COSTS`).
        task: The only task to look at, or empty.

    Returns:
        Task → what ``report.recommended.recommended`` returns.

    Raises:
        TuneTrailError: There is no comparison yet, one of another version, or no such task.
    """
    content = _finished(comparison, task)
    return {
        name: recommended(
            found,
            {label: _costs(runs, name, label) for label in found["methods"]},
            content["baseline"],
            content["margin"],
            limits,
        )
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
        TuneTrailError: There is no comparison yet, one of another version, or no such task.
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
    content = _with(_COMPARISON_KEYS, read_json(file), file)
    for found in content["tasks"].values():
        _with(_TASK_KEYS, found, file)
        for record in (*found["verdicts"].values(), *found["pairs"]):
            _with(_VERDICT_KEYS, record, file)
    if task and task not in content["tasks"]:
        raise unknown("task", task, content["tasks"])
    return content


def _costs(runs: Path, task: str, label: str) -> dict[str, float]:
    measured = {
        runs / "cost" / task / f"{label}.json": _COST_KEYS,
        runs / "export" / task / label / CERTIFICATE: _CERTIFICATE_KEYS,
    }
    return costs_of(
        *(
            _with(keys, read_json(file), file) if file.exists() else None
            for file, keys in measured.items()
        )
    )


def _with(keys: Iterable[str], content: dict[str, Any], file: Path) -> dict[str, Any]:
    """The content of a file that has all keys.

    Raises:
        TuneTrailError: One is missing.
    """
    if missing := [key for key in keys if key not in content]:
        raise TuneTrailError(
            f"'{file}' is of another version of TuneTrail: '{missing[0]}' is missing",
            "`tunetrail run` brings it up to date; nothing is trained again for that",
        )
    return content
