"""A project inside the project, which trains the method of a task's champion again, and no other.

It has the same pipeline with a ``dvc.lock`` of its own, so the last whole comparison stays as it
is. Commands, paths and inputs of its stages are those of the project, so DVC's run cache gives
each what the other has executed.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml

from tunetrail.errors import TuneTrailError
from tunetrail.files import copy_bytes, read_json, write_text
from tunetrail.layout import COMPARISON
from tunetrail.params import Params, read_params, start_of, task_of
from tunetrail.place import CHAMPIONS, CODE, PIPELINE
from tunetrail.run import BASE, PRETRAINED, TAPT
from tunetrail.settings import read_yaml

_MARK = "# The champion's part of the project's params.yaml. Retraining writes this file anew.\n"

_COMPARISON = Path("comparison") / COMPARISON

#: Keys that are for the whole comparison, or for the project.
_LEFT_OUT = {"more_seeds", "retrain"}


def check_champion(params: Params, path: Path, task: str, label: str) -> None:
    """Whether the champion's method can be trained by itself.

    Args:
        params: The project's parameters.
        path: Where they were read, for messages.
        task: Name of the task.
        label: What params.yaml called the champion's method.

    Raises:
        TuneTrailError: The method is not there any more, what it starts from depends on other
            tasks, or a source lies above the project.
    """
    whole = "or train the whole comparison with retrain.methods: all"
    if label not in params.methods:
        raise TuneTrailError(
            f"{path}: the champion of task '{task}' was made by the method '{label}', which is not "
            "under 'methods' any more",
            f"put it back, {whole}",
        )
    start = start_of(params, label, path)
    if start not in (PRETRAINED, TAPT):
        raise TuneTrailError(
            f"{path}: the champion of task '{task}', '{label}', starts from '{start}', whose text "
            "is cleaned of what all tasks hold out: it cannot be trained for one task alone",
            "train the whole comparison with retrain.methods: all",
        )
    for key, source in _sources(params, path, task).items():
        if ".." in source.parts:
            raise TuneTrailError(
                f"{path}: {key}: '{source}' lies outside of the project's folder",
                f"name it by its absolute path, put it into the folder, {whole}",
            )


def known_champions(root: Path, params: Params) -> dict[str, str]:
    """Task → the champion's method as far as the project knows it, without the registry.

    That is the method that was trained again last, or else the winner of the last comparison.
    """
    found: dict[str, str] = {}
    compared = root / _COMPARISON
    winners = read_json(compared)["tasks"] if compared.exists() else {}
    for task in params.tasks:
        again = root / CHAMPIONS / task / "params.yaml"
        if again.exists():
            (found[task],) = read_yaml(again)["methods"]
        elif task in winners:
            found[task] = winners[task]["winner"]["method"]
    return found


def write_champion(params: Params, path: Path, task: str, label: str) -> Path:
    """Write the folder that trains a champion's method again; results in it are kept.

    Args:
        params: As of :func:`check_champion`, which has been called; so are the others.
        path: ``params.yaml`` of the project, in its folder.
        task: Name of the task.
        label: Of the method.

    Returns:
        The folder, ``champions/TASK``.
    """
    root = path.absolute().parent
    folder = root / CHAMPIONS / task
    content = champion_part(read_yaml(path), params, path, task, label)
    written = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    write_text(folder / "params.yaml", _MARK + written)
    copy_bytes(root / "dvc.yaml", folder / "dvc.yaml")
    ignored = (PIPELINE.parent / "gitignore").read_text(encoding="utf-8")
    links = "".join(f"/{link.as_posix()}\n" for link in _links(params, path, task))
    write_text(
        folder / ".gitignore", f"{ignored}\n# Links into the project: `tunetrail mend`\n{links}"
    )
    link_champions(root)
    return folder


def link_champions(root: Path) -> list[Path]:
    """Link code and data of the project into the folders of its champions, as in a fresh clone.

    Args:
        root: The project.

    Returns:
        The links that were not there, or led elsewhere.
    """
    made = []
    for path in sorted((root / CHAMPIONS).glob("*/params.yaml")):
        for link in _links(read_params(path), path, path.parent.name):
            if _link(path.parent / link, root / link):
                made.append(path.parent / link)
    return made


def _links(params: Params, path: Path, task: str) -> list[Path]:
    return [CODE, *(s for s in _sources(params, path, task).values() if not s.is_absolute())]


def champion_part(
    content: dict[str, Any], params: Params, path: Path, task: str, label: str
) -> dict[str, Any]:
    """Parameters of one task and one method, with the main budget and all seeds.

    Args:
        content: What ``params.yaml`` has.
        params: The same, read.
        path: Where it was read, for messages.
        task: Name of the task.
        label: Of the method.
    """
    part: dict[str, Any] = {
        "tasks": {task: content["tasks"][task]},
        "methods": {label: content["methods"][label]},
        "baseline": "",
    }
    budgets = {params.main_budget}
    tuned = params.tuning.decides(params.main_budget, params.main_budget)
    if tuned is not None:
        budgets |= {tuned}  # it may be that of another budget
        tuning = content["tuning"]
        search = {name: how for name, how in tuning.get("search", {}).items() if name == label}
        part["tuning"] = tuning | {"trials": {tuned: tuning["trials"][tuned]}, "search": search}
    part["budgets"] = {name: how for name, how in content["budgets"].items() if name in budgets}
    if start_of(params, label, path) == TAPT:
        part["pretraining"] = {"task": {BASE: content["pretraining"]["task"][BASE]}}
    kept = content.keys() - _LEFT_OUT - ({"pretraining", "tuning"} - part.keys())
    return {key: part.get(key, content[key]) for key in content if key in kept}


def _sources(params: Params, path: Path, task: str) -> dict[str, Path]:
    """What the base model and the task are read from, by key."""
    return {
        "base.source": params.base.source,
        f"tasks.{task}.source": task_of(params, task, path).source,
    }


def _link(link: Path, target: Path) -> bool:
    """Let ``link`` lead to ``target``, wherever the project is; returns whether it did not."""
    wanted = os.path.relpath(target, link.parent)
    if link.is_symlink() and os.readlink(link) == wanted:
        return False
    link.parent.mkdir(parents=True, exist_ok=True)
    temporary = link.with_name(f".{link.name}.{os.getpid()}.tmp")
    temporary.symlink_to(wanted)
    os.replace(temporary, link)
    return True
