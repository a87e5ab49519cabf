"""Commands about the project's own data: take new rows in, list versions, put one back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tunetrail.cli import names
from tunetrail.cli.output import print_json, print_table
from tunetrail.cli.root import JsonOption, app

if TYPE_CHECKING:
    from tunetrail.intake import Version

TaskArgument = Annotated[
    str, typer.Argument(help="A task of params.yaml.", autocompletion=names.planned_tasks)
]


@app.command()
def intake(
    task: TaskArgument,
    files: Annotated[
        list[Path] | None,
        typer.Argument(help="Files with new rows (default: those in data/incoming/TASK)."),
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="The file is the whole data, not further rows.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Take new rows in as a new version of a task's data, if they pass the data checks.

    The task's data must be a file of the project. New files have its format and columns. Where rows
    have ids, a known one replaces its row. DVC keeps the bytes of every version; its record, with
    the difference to the last one, is in data/versions/TASK. Files are moved to taken/ or rejected/
    in data/incoming/TASK.

    Exits 0 when the version is accepted or nothing is new, 1 when a check fails: the data is then
    as it was.

    Example: tunetrail intake tickets monday.csv
    """
    from tunetrail.intake import intake as take
    from tunetrail.place import project_root

    root = project_root(Path.cwd())
    with _saying() as say:
        version = take(root, task, files or None, replace, say)
    if as_json:
        print_json(None if version is None else _facts(version))
    elif version is None:
        where = "these files" if files else f"data/incoming/{task}"
        typer.echo(f"Nothing new in {where}: no version is made.")
    else:
        typer.echo(_told(version, root))
    if version is not None and not version.accepted:
        raise typer.Exit(1)


@app.command()
def versions(
    task: TaskArgument,
    restore: Annotated[
        int | None, typer.Option(min=1, help="Give the data file the bytes of this version again.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List the versions of a task's data, or put one back.

    A version that is put back becomes a new version, which says so. Nothing is lost by it. Under
    notes is what was found about a version, in short; its record has the sentences.

    Example: tunetrail versions tickets --restore 2
    """
    from tunetrail.intake import restore as put_back
    from tunetrail.intake import versions as read
    from tunetrail.place import project_root

    root = project_root(Path.cwd())
    if restore is not None:
        with _saying() as say:
            version = put_back(root, task, restore, say)
        if as_json:
            print_json(None if version is None else _facts(version))
        elif version is None:
            typer.echo(f"The data of {task} is that of version {restore} already.")
        else:
            typer.echo(_told(version, root))
        return
    found = read(root, task)
    if as_json:
        print_json([_facts(version) for version in found])
    elif not found:
        typer.echo(f"There are no versions of {task} yet: `tunetrail intake {task}` makes them.")
    else:
        print_table(_HEADER, [_row(version) for version in found], right={0, 2, 3, 4, 5})


_HEADER = ["version", "made", "rows", "added", "removed", "changed", "status", "notes"]


def _row(version: Version) -> list[str]:
    rows = (version.difference or {}).get("rows", {})
    notes = [failed.check for failed in version.failed]
    notes = notes or [note.partition(":")[0] for note in version.notes]
    return [
        str(version.number),
        version.created[:16].replace("T", " "),
        str(version.rows),
        *(str(rows.get(what, "")) for what in ("added", "removed", "changed")),
        _status(version),
        ", ".join(dict.fromkeys(notes)),
    ]


def _status(version: Version) -> str:
    if version.restores is not None:
        return f"{version.status} (version {version.restores} again)"
    return f"{version.status} ({version.origin})" if version.accepted else version.status


def _facts(version: Version) -> dict[str, Any]:
    """The record, with its place and its failed checks in words."""
    facts = version.model_dump(mode="json")
    return facts | {"path": str(version.path), "reasons": version.reasons}


def _told(version: Version, root: Path) -> str:
    """What became of it, why, and what to do."""
    lines = [f"Version {version.number} of {version.task}: {_status(version)}, {_rows(version)}"]
    if version.repeated:
        lines.append(f"  {version.repeated} of the new rows were there already, cell by cell")
    lines += [f"  note: {note}" for note in version.notes]
    record = version.path.relative_to(root)
    if version.accepted:
        kept = f"{version.file}.dvc"
        lines += [
            f"Record      {record}",
            f"Commit      {kept} and {record.parent} (DVC has the bytes; `dvc push` shares them)",
            "Next        `tunetrail plan` shows what this makes stale, `tunetrail run` executes it",
        ]
    else:
        lines += _way_out(version, root, record)
    return "\n".join(lines)


def _rows(version: Version) -> str:
    rows = (version.difference or {}).get("rows", {})
    became = [f"{rows[what]} {what}" for what in ("added", "removed", "changed") if rows.get(what)]
    return f"{version.rows} rows" + (f" ({', '.join(became)})" if became else "")


def _way_out(version: Version, root: Path, record: Path) -> list[str]:
    """Why the gate turned a version away, rows that show it, and what can be done."""
    from tunetrail.intake import examples

    drop = f"data/incoming/{version.task}"
    lines = []
    for failed, shown in zip(version.failed, examples(root, version), strict=True):
        lines += [f"  failed: {failed.said}", *(f"    {example}" for example in shown)]
    return [
        *lines,
        f"{version.file} is as it was.",
        f"  fix: correct the files in {drop}/rejected/{version.number:04d},",
        f"       or in params.yaml raise the share under tasks.{version.task}.checks, or waive the "
        "check with your reason;",
        f"       then put the files into {drop}, and repeat",
        f"Record      {record}",
        f"Page        .tunetrail/versions/{version.task}/{version.number:04d}/version.html",
    ]


@contextmanager
def _saying() -> Iterator[Callable[[str], None]]:
    """What shows the step that is being done: on a terminal alone, and in the log."""
    import logging

    from rich.console import Console

    log = logging.getLogger("tunetrail.intake")
    with Console(stderr=True).status("") as status:

        def say(step: str) -> None:
            log.info(step)
            status.update(step)

        yield say
