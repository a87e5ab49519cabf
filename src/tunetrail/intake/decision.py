"""What was decided about incoming data, and carrying it out so that a kill does not matter.

A decision is a folder that appears in one step. Before it, nothing of the project has changed. From
then on it is carried out step by step; each step is left out where it is done already, so whoever
comes next ends what a killed process began. With the folder gone, everything is done.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tunetrail.datafiles import put
from tunetrail.files import STATE_DIR, copy_bytes, file_digest, read_json, scratch, write_json
from tunetrail.intake.incoming import DROP
from tunetrail.intake.record import REPORTS, Version, record_path
from tunetrail.settings import parse

_DECISION = "decision.json"
_DATA = "data"
_REPORT = "report"


def write_decision(
    out: Path,
    records: list[Version],
    base: str | None,
    data: Path | None,
    report: Path | None,
    incoming: list[Path],
) -> None:
    """Write a decision to the folder ``out``; it counts once :func:`commit` put it in its place.

    Args:
        out: A folder that is there, empty.
        records: The version to make, after one of the data as it was found, if that is to be kept.
        base: sha256 of the data file that it was decided for; None where there was none.
        data: The bytes that an accepted version gives the data file.
        report: Folder with what the gate said.
        incoming: The files that the version was made of, in the order of its record.
    """
    content = {
        "records": [record.model_dump(mode="json") for record in records],
        "base": base,
        "incoming": [str(path) for path in incoming],
    }
    write_json(out / _DECISION, content)
    if data is not None:
        copy_bytes(data, out / _DATA)
    if report is not None:
        shutil.copytree(report, out / _REPORT)


def commit(decision: Path, task: str) -> None:
    """Let the decision count, in one step."""
    place = _place(task)
    place.parent.mkdir(parents=True, exist_ok=True)
    os.replace(decision, place)


def carry_out(root: Path, task: str) -> Version | None:
    """End what was decided about a task's data.

    Where somebody changed the data file between the decision and now, nothing is done and the
    decision is dropped: the incoming files are still there, and the next intake takes them to the
    data as it is now.

    Returns:
        The version that was decided on; None where there is no decision.

    Raises:
        TuneTrailError: A DVC command works on the file.
        OSError: The disk is full, say. The decision stays.
    """
    place = _place(task)
    if not place.exists():
        return None
    decision = read_json(place / _DECISION)
    *found, version = [
        parse(Version, {**content, "path": record_path(root, task, content["number"])}, str(place))
        for content in decision["records"]
    ]
    if not version.path.exists():
        file = root / version.file
        now = file_digest(file) if file.is_file() else None
        if now not in (decision["base"], version.sha256):
            _drop(place)
            return None
        _make(root, place, found, version)
    _move(decision["incoming"], version)
    _drop(place)
    return version


def _make(root: Path, place: Path, found: list[Version], version: Version) -> None:
    """Records, data file and report."""
    file = root / version.file
    for kept in found:
        if not kept.path.exists():
            put(root, Path(version.file), file)
            kept.write()
    if version.accepted:
        put(root, Path(version.file), place / _DATA)
    if (place / _REPORT).exists():
        report = REPORTS / version.task / f"{version.number:04d}"
        shutil.rmtree(report, ignore_errors=True)
        report.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(place / _REPORT, report)
    version.write()


def _move(incoming: list[str], version: Version) -> None:
    """Put the incoming files away, where each is still the one that was read."""
    kind = "taken" if version.accepted else "rejected"
    for one, named in zip(version.files, incoming, strict=True):
        source = Path(named)
        target = DROP / version.task / kind / f"{version.number:04d}" / one.name
        if not source.is_file() or file_digest(source) != one.sha256:
            continue
        if not target.exists():
            copy_bytes(source, target)
        source.unlink()


def _place(task: str) -> Path:
    return STATE_DIR / "intake" / task


def _drop(place: Path) -> None:
    with scratch() as folder:  # gone in one step
        os.replace(place, folder / "done")
