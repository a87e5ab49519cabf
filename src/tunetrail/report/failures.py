"""What is left to read when a comparison could not be finished: which stages failed, and why."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from tunetrail.files import write_json, write_text
from tunetrail.report import text
from tunetrail.report.html import SCRIPT
from tunetrail.report.page import page
from tunetrail.report.templates import fill
from tunetrail.report.text import Json

PAGE = "failures.html"
RECORD = "failures.json"
#: Folder of the comparison of what was finished all the same.
FINISHED = "finished"


def failures_page(project: str, failures: Sequence[Json], blocked: Sequence[str]) -> str:
    """A self-contained page.

    Args:
        project: Name of the project.
        failures: ``stage``, ``reason`` and, where there is one, ``log``, a path relative to the
            page.
        blocked: Stages that wait for them.
    """
    linked = [f | {"link": quote(f["log"])} if f.get("log") else f for f in failures]
    body = fill("failures.html.j2", failures=linked, blocked=blocked)
    lead = f"{text.plural(len(failures), 'stage')} failed; {len(blocked)} more wait for them."
    return page(
        f"{project}: not finished",
        body,
        subtitle=lead,
        script=SCRIPT.read_text(encoding="utf-8"),
    )


def write_failures(
    folder: Path, project: str, failed: dict[str, str], blocked: Sequence[str]
) -> Path:
    """Write the page and ``failures.json`` to ``folder``; returns the path of the page.

    Args:
        folder: Where ``logs/STAGE.log`` are, too.
        project: Name of the project.
        failed: Stage → reason.
        blocked: Stages that wait for them.
    """
    failures = [
        {"stage": stage, "reason": reason}
        | ({"log": log} if (folder / (log := f"logs/{stage}.log")).is_file() else {})
        for stage, reason in failed.items()
    ]
    write_json(folder / RECORD, {"project": project, "failed": failures, "blocked": list(blocked)})
    write_text(folder / PAGE, failures_page(project, failures, blocked))
    return folder / PAGE


def clear_failures(folder: Path) -> None:
    """Remove what ``write_failures`` wrote, if it did, and the comparison of what was finished."""
    for name in (PAGE, RECORD):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / FINISHED, ignore_errors=True)
