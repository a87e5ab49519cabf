"""Tasks that benchmarks share, and the ways to run them: stages alone, or the shipped flow."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from tunetrail.stages.base import fetch_base
from tunetrail.stages.ingest import ingest
from tunetrail.stages.prepare import prepare
from tunetrail.stages.validate import validate
from tunetrail.task import TaskSpec

#: Built-in tasks that benchmarks run, each from a folder with its splits as Parquet, and what the
#: published figures of docs/benchmarks.md have otherwise.
TASKS: dict[str, dict[str, Any]] = {
    "mrpc": {"metrics": ["accuracy", "f1"]},
    "cola": {},
    "stsb": {},
    "squad": {},
}

_TREE = (
    "src",
    "pipelines",
    "data/hutto.yaml",
    "data/minilm.yaml",
    "dvc.yaml",
    "params.yaml",
    ".dvc/config",
    ".dvcignore",
)


def prepared_task(task: TaskSpec, folder: Path) -> tuple[Path, Path]:
    """The base model's folder, and the folder of the task's training and selection sets."""
    fetch_base(Path("data/minilm.yaml"), folder / "base")
    ingest(task, folder / "canonical")
    validate(folder / "canonical", folder / "validated")
    prepare(folder / "canonical", folder / "validated", folder / "base", 128, folder / "prepared")
    return folder / "base" / "model", folder / "prepared" / "fit"


def checkout(root: Path, changes: dict[str, Any]) -> None:
    """Make a copy of this checkout, or bring one up to date, with these keys of params.yaml."""
    for name in _TREE:
        source, target = Path(name), root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, target, ignore=ignored, dirs_exist_ok=True)
        else:
            shutil.copyfile(source, target)
    params = yaml.safe_load((root / "params.yaml").read_text())
    for key, value in changes.items():
        params[key] = params[key] | value if key == "base" else value
    (root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))


def run_flow(root: Path, changes: dict[str, Any]) -> None:
    """Run the shipped flow on a copy of this checkout, with these keys of params.yaml changed.

    A folder in which it ran before goes on where it stopped.

    Raises:
        subprocess.CalledProcessError: The flow failed; it has said why.
    """
    checkout(root, changes)
    environment = os.environ | {"PYTHONPATH": f"{root / 'src'}{os.pathsep}{root}"}
    command = [sys.executable, "-m", "pipelines.compare"]
    subprocess.run(command, cwd=root, env=environment, check=True)
