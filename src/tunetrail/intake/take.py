"""New data for a task becomes a dataset version, or is turned away by the gate."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock, Timeout

from tunetrail.datafiles import check, get
from tunetrail.errors import TuneTrailError, unknown
from tunetrail.files import STATE_DIR, copy_bytes, file_digest, read_json, scratch
from tunetrail.intake.decision import carry_out, commit, write_decision
from tunetrail.intake.drift import QUANTILES, REMOVED, counts, drift, notes
from tunetrail.intake.incoming import (
    Incoming,
    check_unchanged,
    dropped,
    merged,
    named,
    read,
    repeated,
)
from tunetrail.intake.page import write_page
from tunetrail.intake.record import (
    Failed,
    Origin,
    TakenFile,
    Version,
    in_force,
    record_path,
    versions,
)
from tunetrail.intake.rows import changes, ids_of, read_rows, write_rows
from tunetrail.layout import CARD, DATA, RESULT
from tunetrail.machine import machine_errors, require_room
from tunetrail.params import read_params, task_of
from tunetrail.repository import md5_of
from tunetrail.stages.ingest import ingest
from tunetrail.stages.validate import validate
from tunetrail.tables import READERS
from tunetrail.task import TaskSpec

_log = logging.getLogger(__name__)

_PARAMS = Path("params.yaml")

#: What a record has of the dataset card.
_TOLD = ("rows", "labels", "numbers", "characters")

_FOUND = "found: the data as it was before an intake, with changes that no version had"

#: Says what is being done.
Say = Callable[[str], None]


@dataclass(frozen=True)
class _Place:
    """Where a version comes to be.

    Attributes:
        root: The project.
        task: Its task.
        source: The data file, relative to the project.
        in_git: Whether git has that file.
        known: The versions that there are.
    """

    root: Path
    task: TaskSpec
    source: Path
    in_git: bool
    known: list[Version]


@dataclass(frozen=True)
class _Data:
    """A data file as the task reads it: rows as they are written, and canonical ones, in order."""

    path: Path
    rows: pd.DataFrame
    canonical: pd.DataFrame
    card: dict[str, Any]


def intake(
    root: Path,
    task: TaskSpec | str,
    files: Sequence[Path] | None = None,
    replace: bool = False,
    say: Say = _log.info,
) -> Version | None:
    """Make a version of a task's data with new rows, if its gate lets them pass.

    What a killed intake began is ended first. A second intake in the project waits for the first.

    Args:
        root: Folder of the project.
        task: A task of its ``params.yaml``, or its name.
        files: Files with rows in the format of the task's data; None: what is in the drop folder.
            They are moved to ``data/incoming/TASK/taken/`` or ``…/rejected/``.
        replace: Whether the (one) file is the whole data instead of further rows.
        say: Called with a line before each step that takes time.

    Returns:
        The version, accepted or rejected; None where nothing is new.

    Raises:
        TuneTrailError: The data is no file of the project, or an incoming file cannot be read as
            the task says. Nothing is changed then.
    """
    root = root.absolute()
    given = None if files is None else [path.absolute() for path in files]
    with _alone(root, say):
        spec = _spec(task)
        source = _source(root, spec)
        ended = carry_out(root, spec.name)
        if not source.is_file():
            raise TuneTrailError(
                f"task '{spec.name}': source '{source}' does not exist",
                f"`tunetrail versions {spec.name}` lists its versions, --restore puts one back",
            )
        known = versions(root, spec.name)
        if given and known and _were_taken(given, known[-1]):
            return known[-1]
        paths = dropped(spec.name) if given is None else named(given, source)
        if not paths:
            return ended
        if replace and len(paths) > 1:
            raise TuneTrailError(
                f"--replace takes one file, and there are {len(paths)}: "
                f"{', '.join(path.name for path in paths)}",
                "name the one that is the whole data",
            )
        place = _Place(root, spec, source, check(root, source), known)
        require_room(root, 4 * sum(p.stat().st_size for p in (source, *paths)), "a data version")
        say(f"reading {source} and {len(paths)} new files")
        with scratch() as work:
            present = _read(spec, source, work / "present")
            incoming = [read(path, spec, list(present.rows.columns)) for path in paths]
            candidate = _candidate(spec, present, incoming, replace, work / "candidate")
            if not any(changes(present.rows, read_rows(candidate, spec.format), spec)[0].values()):
                return ended
            new = _read(spec, candidate, work / "new")
            say(f"checking {len(new.rows)} rows")
            failed = _failed(spec, new, incoming, work / "new", work / "report")
            check_unchanged(incoming)
            origin: Origin = "replaced" if replace else "added"
            _decide(place, work, present, new, origin, failed, incoming)
        return carry_out(root, spec.name)


def restore(root: Path, task: TaskSpec | str, number: int, say: Say = _log.info) -> Version | None:
    """Give the data file the bytes of an accepted version again, as a new version.

    Args:
        root: Folder of the project.
        task: A task of its ``params.yaml``, or its name.
        number: Of the version.
        say: Called with a line before each step that takes time.

    Returns:
        The new version; None where the data file has these bytes.

    Raises:
        TuneTrailError: There is no such version, it was rejected, or its bytes are gone.
    """
    root = root.absolute()
    with _alone(root, say):
        spec = _spec(task)
        source = _source(root, spec)
        ended = carry_out(root, spec.name)
        known = versions(root, spec.name)
        wanted = next((version for version in known if version.number == number), None)
        if wanted is None:
            numbers = [str(version.number) for version in known if version.accepted]
            raise unknown("version", str(number), numbers, f"task '{spec.name}'")
        if not wanted.accepted:
            raise TuneTrailError(
                f"version {number} of task '{spec.name}' was rejected: its bytes were not kept",
                f"`tunetrail versions {spec.name}` lists those that were accepted",
            )
        if source.as_posix() != wanted.file:
            raise TuneTrailError(
                f"version {number} of task '{spec.name}' is of '{wanted.file}', and its source is "
                f"'{source}' now",
                "let the task's source be that file again",
            )
        if source.is_file() and file_digest(source) == wanted.sha256:
            return ended
        place = _Place(root, spec, source, check(root, source), known)
        say(f"reading version {number}")
        with scratch() as work:
            candidate = work / "candidate" / source.name
            candidate.parent.mkdir()
            get(root, wanted.md5, candidate)
            present = _read(spec, source, work / "present") if source.is_file() else None
            new = _read(spec, candidate, work / "new")
            _decide(place, work, present, new, "restored", restores=number)
        return carry_out(root, spec.name)


@contextlib.contextmanager
def _alone(root: Path, say: Say) -> Iterator[None]:
    """The project's folder as the working one, for one intake at a time."""
    if not (root / "dvc.yaml").is_file():
        raise TuneTrailError(
            f"'{root}' is not a TuneTrail project (it has no dvc.yaml)", "name its folder"
        )
    with contextlib.chdir(root), machine_errors():
        STATE_DIR.mkdir(exist_ok=True)
        lock = FileLock(STATE_DIR / "intake.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            say("another intake is under way here: waiting for it")
            lock.acquire()
        try:
            yield
        finally:
            lock.release()


def _spec(task: TaskSpec | str) -> TaskSpec:
    """The task, which alone has its data file.

    Raises:
        TuneTrailError: There is no such task, or another one reads the same file.
    """
    params = read_params(_PARAMS)
    name = task if isinstance(task, str) else task.name
    if name not in params.tasks:
        raise unknown("task", name, params.tasks, str(_PARAMS))
    spec = task_of(params, name, _PARAMS) if isinstance(task, str) else task
    for other, given in params.tasks.items():
        if other != name and Path(str(given.get("source"))).resolve() == spec.source.resolve():
            raise TuneTrailError(
                f"tasks '{name}' and '{other}' have one source, '{spec.source}': the gate of one "
                "would decide about the data of the other",
                "give each task a file of its own",
            )
    return spec


def _source(root: Path, task: TaskSpec) -> Path:
    """The task's data file, relative to the project.

    Raises:
        TuneTrailError: It is no such file.
    """
    source = task.source
    where = f"task '{task.name}': source '{source}'"
    fix = (
        "intake adds rows to a data file inside the project (.csv, .tsv, .jsonl, .parquet), as "
        "`tunetrail init` makes one"
    )
    if source.suffix in {".yaml", ".yml"}:
        raise TuneTrailError(f"{where} is a pointer to data elsewhere", fix)
    if source.is_dir():
        raise TuneTrailError(f"{where} is a folder", fix)
    if source.suffix.lower() not in READERS:
        raise TuneTrailError(f"{where} is not a data file", fix)
    if source.is_symlink() or not source.resolve().is_relative_to(root.resolve()):
        raise TuneTrailError(f"{where} is not a file of the project itself", fix)
    return source.resolve().relative_to(root.resolve())


def _were_taken(files: Sequence[Path], last: Version) -> bool:
    """Whether all files are gone, and the last version has files of these names: a repetition."""
    names = {one.name for one in last.files}
    return all(not path.exists() and path.name in names for path in files)


def _read(task: TaskSpec, path: Path, out: Path) -> _Data:
    ingest(task.model_copy(update={"source": path}), out)
    return _Data(
        path=path,
        rows=read_rows(path, task.format),
        canonical=pd.read_parquet(out / DATA),
        card=read_json(out / CARD),
    )


def _candidate(
    task: TaskSpec, present: _Data, incoming: list[Incoming], replace: bool, out: Path
) -> Path:
    """The data file as it would become."""
    out.mkdir()
    path = out / present.path.name
    if replace:
        copy_bytes(incoming[0].path, path)
    else:
        write_rows(merged(present.rows, incoming, task), path, present.path, task.format)
    return path


def _failed(
    task: TaskSpec, new: _Data, incoming: list[Incoming], canonical: Path, out: Path
) -> tuple[Failed, ...]:
    """The checks of the gate that stop the candidate; its result and page are in ``out``."""
    try:
        validate(canonical, out)
    except TuneTrailError:
        if not (out / RESULT).exists():
            raise
    origins = _origins(task, new, incoming)
    return tuple(
        Failed(
            check=entry["check"],
            meaning=entry["meaning"],
            count=entry["count"],
            share=entry["share"],
            limit=entry["limit"],
            observed="" if entry["observed"] is None else str(entry["observed"]),
            error=entry["error"],
            examples=tuple(origins.get(row["id"], row["id"]) for row in entry["rows"]),
        )
        for entry in read_json(out / RESULT)["checks"]
        if entry["outcome"] == "failed"
    )


def _origins(task: TaskSpec, new: _Data, incoming: list[Incoming]) -> dict[str, str]:
    """Canonical id → file and row (from 1, as errors count) of each row that came in."""
    places = [f"{one.path.name} row {row + 1}" for one in incoming for row in range(len(one.rows))]
    if task.columns.id is None:
        last = new.canonical["id"].tolist()[-len(places) :]
        return dict(zip(last, places, strict=True))
    ids = [name for one in incoming for name in ids_of(one.rows, task) or []]
    return {name: f"{name} ({place})" for name, place in zip(ids, places, strict=True)}


def _decide(
    place: _Place,
    work: Path,
    present: _Data | None,
    new: _Data,
    origin: Origin,
    failed: tuple[Failed, ...] = (),
    incoming: Sequence[Incoming] = (),
    restores: int | None = None,
) -> None:
    """Let it count that ``new`` becomes the data, or does not for the checks that failed."""
    created = datetime.now(UTC).isoformat(timespec="seconds")
    last = in_force(place.known)
    number = place.known[-1].number + 1 if place.known else 1
    base = None if present is None else file_digest(present.path)
    records = []
    if present is not None and not failed and (last is None or base != last.sha256):
        found = _version(
            place, present, number, "found", created,
            against=None if last is None else last.number,
            notes=(_FOUND,),
        )  # fmt: skip
        records.append(found)
        last, number = found, number + 1
    difference = None if present is None else _difference(place.task, present, new)
    told = _notes(difference)
    if place.in_git and not failed:
        told.append(
            f"git: it does not have {place.source} any more, DVC keeps it: commit "
            f"{place.source}.dvc and {place.source.parent}/.gitignore"
        )
    compared = last is not None and base in (None, last.sha256)
    version = _version(
        place, new, number, origin, created,
        status="rejected" if failed else "accepted",
        against=last.number if last is not None and compared else None,
        restores=restores,
        files=tuple(
            TakenFile(name=one.path.name, sha256=one.sha256, rows=len(one.rows))
            for one in incoming
        ),
        repeated=repeated(present.rows, incoming) if present and origin == "added" else 0,
        failed=failed,
        difference=difference,
        notes=tuple(told),
    )  # fmt: skip
    report = work / "report" if incoming else None
    if report is not None:
        write_page(version, place.task, report)
    decision = work / "decision"
    decision.mkdir()
    write_decision(
        decision, [*records, version], base, None if failed else new.path, report,
        [one.path for one in incoming],
    )  # fmt: skip
    commit(decision, place.task.name)


def _version(
    place: _Place, data: _Data, number: int, origin: Origin, created: str, **more: Any
) -> Version:
    facts: dict[str, Any] = {
        "status": "accepted",
        "difference": None,
        "sha256": file_digest(data.path),
        "md5": md5_of(data.path),
        "rows": len(data.rows),
        "card": _card(data),
    }
    return Version(
        path=record_path(place.root, place.task.name, number),
        number=number,
        task=place.task.name,
        file=place.source.as_posix(),
        origin=origin,
        created=created,
        **facts | more,
    )


def _card(data: _Data) -> dict[str, Any]:
    """What the dataset card says of rows, labels and characters, and quantiles of the latter."""
    told = {key: data.card[key] for key in _TOLD if key in data.card}
    lengths = data.canonical["text"].dropna().str.len()
    quantiles = {f"{share:g}": float(lengths.quantile(share)) for share in QUANTILES}
    return told | {"characters": told["characters"] | {"quantiles": quantiles}}


def _difference(task: TaskSpec, before: _Data, after: _Data) -> dict[str, Any]:
    """Rows, labels, and how far the new rows are from those before."""
    became, fresh = changes(before.rows, after.rows, task)
    found: dict[str, Any] = {"rows": {"before": len(before.rows), **became}}
    if task.labels:
        found["label_counts"] = {
            "before": counts(before.canonical["label"], task),
            "after": counts(after.canonical["label"], task),
        }
    if fresh:
        found["new_rows"] = drift(before.canonical, after.canonical.iloc[fresh], task)
    return found


def _notes(difference: dict[str, Any] | None) -> list[str]:
    if difference is None:
        return []
    rows = difference["rows"]
    told = notes(difference.get("new_rows", {}))
    if rows["removed"] > REMOVED * rows["before"]:
        told.append(f"rows: {rows['removed']} of {rows['before']} are gone (level {REMOVED:.0%})")
    return told
