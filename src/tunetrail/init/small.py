"""A small copy of a project: the same plan with few rows, steps and seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import yaml

from tunetrail.errors import TuneTrailError
from tunetrail.files import write_text
from tunetrail.init.project import write_pipeline
from tunetrail.params import check_sources, read_params, sources
from tunetrail.place import link_code, link_to
from tunetrail.repository import allow_missing_git
from tunetrail.settings import read_yaml

#: First line of the parameters: what has it is written over.
_MARK = "# Cut down by `tunetrail small`, which writes this file anew.\n"
#: Steps of the cost stage, and of a new masked-LM head.
_FEW = 3


class Size(NamedTuple):
    """How small.

    Attributes:
        train: Most training rows of a task.
        selection: Most selection rows.
        test: Most test rows.
        steps: Optimiser steps of a run, and of continued pretraining.
        seeds: How many of the seeds, the first ones.
    """

    train: int
    selection: int
    test: int
    steps: int
    seeds: int


def write_small(path: Path, folder: Path, size: Size, cache: Path | None = None) -> None:
    """Write the small project, or bring one that is there up to date; results in it are kept.

    Args:
        path: ``params.yaml`` of the project, in its folder.
        folder: Of the small project. Relative sources become links in it.
        size: How small.
        cache: DVC's cache to use instead of one of its own.

    Raises:
        TuneTrailError: The parameters are wrong, a source is missing or lies above the project, or
            the folder has another project.
    """
    params, root = read_params(path), path.absolute().parent
    check_sources(params, path)
    present = folder / "params.yaml"
    if present.exists() and not present.read_text(encoding="utf-8").startswith(_MARK):
        raise TuneTrailError(f"'{folder}' has a project of its own", "name another folder")
    named = {k: source for k, source in sources(params, path).items() if not source.is_absolute()}
    for key, source in named.items():
        if ".." in source.parts:
            raise TuneTrailError(
                f"{path}: {key}: '{source}' lies outside of the project's folder",
                "name it by its absolute path, or put it into the folder",
            )
    write_pipeline(folder)
    write_text(
        present,
        _MARK
        + yaml.safe_dump(cut_down(read_yaml(path), size), sort_keys=False, allow_unicode=True),
    )
    local = folder / ".dvc" / "config.local"
    local.unlink(missing_ok=True)
    allow_missing_git(folder)
    if cache is not None:
        with local.open("a", encoding="utf-8") as config:
            config.write(f"[cache]\n    dir = {cache.absolute()}\n")
    for source in named.values():
        link_to(folder / source, root / source)
    link_code(folder)


def cut_down(content: dict[str, Any], size: Size) -> dict[str, Any]:
    """Parameters of the small plan: tasks, methods, baseline and margin stay as they are.

    Only the main budget is left, and it has ``steps``. Nothing is tuned, no seeds are added.

    Args:
        content: What ``params.yaml`` has, already checked.
        size: How small.
    """
    most = {"train": size.train, "selection": size.selection, "test": size.test}
    tasks = {
        name: task
        | {"limits": {of: min(rows, _limit(task, of, rows)) for of, rows in most.items()}}
        for name, task in content["tasks"].items()
    }
    kept = {key: content[key] for key in content.keys() - {"tuning", "more_seeds"}}
    cut: dict[str, Any] = {
        "tasks": tasks,
        "seeds": content["seeds"][: size.seeds],
        "budgets": {content["main_budget"]: {"steps": size.steps}},
        "cost": {"steps": _FEW},
    }
    if pretraining := content.get("pretraining"):
        few = {"budget": {"steps": size.steps}, "head_steps": _FEW}
        cut["pretraining"] = {
            kind: {name: how | few for name, how in objectives.items()}
            for kind, objectives in pretraining.items()
        }
        for how in cut["pretraining"].get("domain", {}).values():
            how["limit"] = min(size.train, how.get("limit", size.train))
    return {key: (kept | cut)[key] for key in content if key in kept}


def _limit(task: dict[str, Any], of: str, default: int) -> int:
    return int(task.get("limits", {}).get(of) or default)
