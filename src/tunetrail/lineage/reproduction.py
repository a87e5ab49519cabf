"""The commands that make a registered model again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

Command = dict[str, str]


def address(place: Path, cell: str) -> str:
    """What DVC calls a cell of the graph in ``place``, a folder of the project, from there."""
    return cell if place == Path() else f"{(place / 'dvc.yaml').as_posix()}:{cell}"


def commands(
    task: str,
    label: str,
    git: Mapping[str, Any],
    environment: Mapping[str, Any],
    place: Path = Path(),
) -> list[Command]:
    """What to type, in order, each with what it does.

    Args:
        task: Name of the task.
        label: The shipped method.
        git: Commit and changed files, as of the lineage.
        environment: As of the lineage.
        place: Where in the project the results lie; that of a champion has its own graph.
    """
    export, register = (address(place, cell) for cell in (f"export@{task}-{label}", "register"))
    receipt = "" if place == Path() else f" {(place / 'receipt.json').as_posix()}"
    found = []
    if git["git_commit"]:
        found += [checkout(git["git_commit"], git["changed"])]
    if environment["lock"]:
        what = f"the versions that ran together (Python {environment['python']})"
        found += [_command(f"pip install -r {environment['lock']['file']}", what)]
    if place != Path():
        found += [_command("tunetrail mend", f"the links that {place.as_posix()} needs")]
    return [
        *found,
        _command("dvc pull", "fetches data and results, where they were pushed"),
        _command(f"dvc repro {export}", "the model, and what it is made from"),
        _command(
            f"dvc repro {register}", "every run that it was compared with, and the comparison"
        ),
        _command(f"tunetrail sync{receipt}", "registers it"),
    ]


def checkout(commit: str, changed: list[str]) -> Command:
    """The commit of the results, and what was not as in it."""
    what = "code, parameters and dvc.lock of the results"
    if changed:
        shown = ", ".join(changed[:5]) + (f" and {len(changed) - 5} more" if changed[5:] else "")
        what = f"NOT all: {shown} had changes that this commit lacks"
    return _command(f"git checkout {commit}", what)


def _command(command: str, what: str) -> Command:
    return {"command": command, "what": what}
