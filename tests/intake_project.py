"""A project with a task of tickets, files with new rows for it, and what is seen afterwards."""

from __future__ import annotations

import csv
import json
import os
import random
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.conftest import Project, new_project
from tunetrail.files import file_digest

QUEUES = ("billing", "bug", "other")
HEADER = ("id", "message", "queue")

_WORDS = (
    "invoice refund crash login printer window update price late screen mail key " * 2
).split()


def rows(numbers: Iterable[int]) -> list[tuple[str, str, str]]:
    """Tickets with ids, each the same whenever it is asked for."""
    made = []
    for number in numbers:
        words = random.Random(number).choices(_WORDS, k=8)
        made.append((f"T{number}", f"{' '.join(words)}, ticket {number}", QUEUES[number % 3]))
    return made


def write(path: Path, content: Sequence[Sequence[str]], header: Sequence[str] = HEADER) -> Path:
    """A CSV file that nobody writes to any more."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as handle:
        csv.writer(handle, lineterminator="\n").writerows([header, *content])
    return settled(path)


def settled(path: Path) -> Path:
    """The file, as old as one that was dropped some time ago."""
    os.utime(path, (1e9, 1e9))
    return path


def tickets(root: Path, ids: bool = True, **task: Any) -> Project:
    """A project, committed to git, whose one task has 120 tickets in ``data/own.csv``."""
    project = new_project(root)
    write(root / "data" / "own.csv", rows(range(120)))
    columns = {"text": "message", "label": "queue"} | ({"id": "id"} if ids else {})
    own = {"source": "data/own.csv", "columns": columns, "labels": list(QUEUES)}
    project.change(tasks={"own": {**own, "metrics": ["accuracy"], **task}})
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    subprocess.run(["git", *identity, "commit", "-qam", "data"], cwd=root, check=True)
    return project


def drop(project: Project, name: str, content: Sequence[Sequence[str]], **more: Any) -> Path:
    """A file in the drop folder."""
    return write(project.root / "data" / "incoming" / "own" / name, content, **more)


def state(root: Path) -> dict[str, Any]:
    """Everything that an intake may change, without the times of records."""
    files = [p for folder in ("data", ".dvc/cache/files") for p in (root / folder).rglob("*")]
    files += (root / ".tunetrail" / "versions").rglob("*")
    found: dict[str, Any] = {
        path.relative_to(root).as_posix(): file_digest(path) for path in files if path.is_file()
    }
    for path in (root / "data" / "versions").rglob("*.json"):
        found[path.relative_to(root).as_posix()] = json.loads(path.read_text()) | {"created": ""}
    git = subprocess.run(["git", "ls-files"], cwd=root, capture_output=True, text=True, check=True)
    found["git"] = git.stdout
    found["left"] = [
        str(path) for path in root.rglob(".*.tmp") if ".tunetrail/tmp" not in path.as_posix()
    ]
    found["decisions"] = [str(path) for path in (root / ".tunetrail" / "intake").glob("*")]
    return found


def kept(project: Project, file: str = "data/own.csv") -> Path:
    """Where DVC has the bytes that ``FILE.dvc`` names."""
    (out,) = yaml.safe_load((project.root / f"{file}.dvc").read_text())["outs"]
    md5 = out["md5"]
    return project.root / ".dvc" / "cache" / "files" / "md5" / md5[:2] / md5[2:]
