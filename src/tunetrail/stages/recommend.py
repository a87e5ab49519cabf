"""What to take under limits, and all pairs of methods, from a finished comparison.

Not a stage of the pipeline.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tunetrail.errors import TuneTrailError, unknown
from tunetrail.files import read_json
from tunetrail.layout import CERTIFICATE, COMPARISON
from tunetrail.report import text
from tunetrail.report.recommended import recommended
from tunetrail.verdicts.costs import costs_of


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
    with _written_by_this_version(comparison):
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
    with _written_by_this_version(comparison):
        return {
            name: {
                "pairs": text.every_pair(found, content["baseline"]),
                "metric": found["metric_titles"][found["primary"]],
            }
            for name, found in content["tasks"].items()
            if task in ("", name)
        }


@contextmanager
def _written_by_this_version(comparison: Path) -> Iterator[None]:
    try:
        yield
    except KeyError as missing:
        raise TuneTrailError(
            f"'{comparison}' or a cost is of another version of TuneTrail: {missing} is missing",
            "`tunetrail run` brings them up to date; nothing is trained again for that",
        ) from missing


def _finished(comparison: Path, task: str) -> dict[str, Any]:
    """The comparison, which has ``task`` if that is not empty."""
    file = comparison / COMPARISON
    if not file.exists():
        raise TuneTrailError(f"'{file}' is not there", "`tunetrail run` makes the comparison")
    content: dict[str, Any] = read_json(file)
    if task and task not in content["tasks"]:
        raise unknown("task", task, content["tasks"])
    return content


def _costs(runs: Path, task: str, label: str) -> dict[str, float]:
    measured = runs / "cost" / task / f"{label}.json"
    certificate = runs / "export" / task / label / CERTIFICATE
    return costs_of(*(read_json(f) if f.exists() else None for f in (measured, certificate)))
