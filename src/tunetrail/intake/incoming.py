"""Files with new rows: which are there to be taken in, and what is new in them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from tunetrail.errors import TuneTrailError
from tunetrail.files import file_digest, scratch
from tunetrail.intake.rows import ids_of, read_rows, row_keys
from tunetrail.stages.ingest import ingest
from tunetrail.task import TaskSpec

#: Where files for a task are dropped, below the project.
DROP = Path("data/incoming")

#: Seconds without a write after which a file counts as whole.
SETTLED = 1.0

#: How names of files end that a program is still writing.
_UNFINISHED = (".tmp", ".part", ".crdownload", "~")


@dataclass(frozen=True)
class Incoming:
    """A file that was read.

    Attributes:
        path: Where it is.
        sha256: Of the bytes that were read.
        rows: Its rows.
    """

    path: Path
    sha256: str
    rows: pd.DataFrame


def dropped(task: str) -> list[Path]:
    """The whole files in the drop folder, by name; what is hidden or unfinished is left alone."""
    folder = DROP / task
    if not folder.is_dir():
        return []
    candidates = [
        path
        for path in sorted(folder.iterdir())
        if path.is_file() and not path.name.startswith(".") and not _unfinished(path)
    ]
    growing = _growing(candidates)
    return [path for path in candidates if path not in growing]


def named(files: Sequence[Path], source: Path) -> list[Path]:
    """Files that were named one by one.

    Raises:
        TuneTrailError: One is missing, is being written, is the data itself (``source``), or shares
            its name with another.
    """
    for path in files:
        if not path.is_file():
            what = "is a folder" if path.is_dir() else "does not exist"
            raise TuneTrailError(f"'{path}' {what}", "name files with rows of the task")
        if path.samefile(source):
            raise TuneTrailError(
                f"'{path}' is the data of the task itself", "name files with new rows"
            )
    twice = [path for i, path in enumerate(files) if path.name in {p.name for p in files[:i]}]
    if twice:
        raise TuneTrailError(
            f"two of the files are called '{twice[0].name}'", "give them different names"
        )
    unfinished = [path for path in files if _unfinished(path)] or sorted(_growing(files))
    if unfinished:
        raise TuneTrailError(
            f"'{unfinished[0]}' is still being written", "wait until it is whole, and repeat"
        )
    return list(files)


def _unfinished(path: Path) -> bool:
    return path.name.endswith(_UNFINISHED)


def _growing(files: Sequence[Path]) -> set[Path]:
    """Files that somebody writes to while this looks, or that vanish."""

    def state(path: Path) -> tuple[int, ...]:
        try:
            facts = path.stat()
        except FileNotFoundError:
            return ()
        return facts.st_ino, facts.st_size, facts.st_mtime_ns

    seen = {path: state(path) for path in files}
    youngest = max((facts[2] for facts in seen.values() if facts), default=0)
    if time.time_ns() - youngest < SETTLED * 1e9:  # also where its clock is ahead of ours
        time.sleep(SETTLED)
    return {path for path, facts in seen.items() if not facts or state(path) != facts}


def read(path: Path, task: TaskSpec, columns: Sequence[str]) -> Incoming:
    """Read a file that is to have the columns of the task's data.

    Raises:
        TuneTrailError: Unreadable, another format, other columns, or rows that the task refuses.
    """
    source = task.source
    if path.suffix.lower() != source.suffix.lower():
        raise TuneTrailError(
            f"'{path}' is not of the format of '{source}' ({source.suffix})",
            f"convert it, or move it out of {path.parent}",
        )
    digest = file_digest(path)
    rows = read_rows(path, task.format)
    missing = [name for name in columns if name not in rows.columns]
    foreign = [name for name in rows.columns if name not in columns]
    if missing or foreign:
        found = [f"has no column {name!r}" for name in missing]
        found += [f"has a column {name!r}, which the data has not" for name in foreign]
        raise TuneTrailError(
            f"task '{task.name}': '{path.name}' {', '.join(found)}",
            f"give it the columns of '{source}': {', '.join(columns)} (in any order)",
        )
    with scratch() as folder:  # for what it says of labels, texts and ids, with the file's own rows
        ingest(task.model_copy(update={"source": path}), folder / "canonical")
    return Incoming(path, digest, rows[list(columns)])


def check_unchanged(files: Sequence[Incoming]) -> None:
    """Check that files are what was read of them.

    Raises:
        TuneTrailError: Somebody wrote to one meanwhile, or took it away.
    """
    for one in files:
        if not one.path.is_file() or file_digest(one.path) != one.sha256:
            raise TuneTrailError(
                f"'{one.path}' changed while it was read", "wait until it is whole, and repeat"
            )


def merged(present: pd.DataFrame, files: Sequence[Incoming], task: TaskSpec) -> pd.DataFrame:
    """The data with the files' rows, one file after the other.

    Where rows have ids, a row with a known one takes the place of that row; else all are appended.

    Args:
        present: The rows that are there.
        files: Files with the same columns.
        task: Says whether rows have ids.
    """
    together = pd.concat([present, *(one.rows for one in files)], ignore_index=True)
    ids = ids_of(together, task)
    if ids is None:
        return together
    places: dict[str, int] = {}  # in the order in which ids first came
    for row, name in enumerate(ids):
        places[name] = row
    return together.iloc[list(places.values())].reset_index(drop=True)


def repeated(present: pd.DataFrame, files: Sequence[Incoming]) -> int:
    """How many of the files' rows the data, or an earlier row of theirs, has already."""
    columns = list(present.columns)
    seen, count = set(row_keys(present, columns)), 0
    for one in files:
        for row in row_keys(one.rows, columns):
            count += row in seen
            seen.add(row)
    return count
