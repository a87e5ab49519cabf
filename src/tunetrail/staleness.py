"""Which stages will be executed and why, as far as that can be known before anything runs.

DVC says which inputs of a stage differ from those of its last execution. Two things are added for
people: a stage below a stale one is given the *root* reason (the file or parameter that changed),
and the plan is resolved on the side, so that a run is only listed if something that decides its
result has changed.
"""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from tunetrail.dag import Cell, Dag
from tunetrail.files import read_json, write_json
from tunetrail.layout import LEDGER, TUNED
from tunetrail.params import read_params, start_of
from tunetrail.run import PRETRAINED
from tunetrail.stages.tune import study_digest

#: Runs a ``tunetrail`` command, given its arguments.
Execute = Callable[[Sequence[str]], None]

#: Stages whose outcome concerns only runs that start from a checkpoint, and their plan.
_PRETRAINING = {"corpus", "dapt", "tapt"}

_PARAMS = Path("params.yaml")

#: What an output will hold: path → how it differs from what is there now.
Differences = dict[str, list[str]]


def expected(dag: Dag, execute: Execute) -> dict[str, list[str]]:
    """Cell → root reasons, of every cell that has to be expected to run.

    Must be called in the project's folder. Nothing in it is changed.

    Raises:
        TuneTrailError: The plan cannot be resolved as the parameters are now.
    """
    why: dict[str, list[str]] = {}
    foreseen: dict[str, Differences] = {}
    place = {name: i for i, name in enumerate(dag.cells)}
    for name, cell in dag.cells.items():
        own = dag.changes(name)
        reasons = list(own)
        stale_above = sorted(why.keys() & cell.upstream, key=place.__getitem__)
        stages_above = {dag.cells[above].stage for above in stale_above}
        passed: dict[str, list[str]] = {}
        if reasons != [Dag.NEVER]:
            passed = {
                above: _passed_on(why[above], foreseen.get(above), cell) for above in stale_above
            }
            known = [reason for some in passed.values() for reason in some if reason != Dag.NEVER]
            reasons += known or [f"{above} was never executed" for above in passed if passed[above]]
        if not reasons:
            continue
        why[name] = list(dict.fromkeys(reasons))
        if reasons == [Dag.NEVER] or not stages_above <= _PRETRAINING | {"tune"}:
            continue
        unsettled = bool(stages_above & _PRETRAINING)
        if cell.stage == "tune" and not _tunes_anew(cell, unsettled):
            foreseen[name] = {}
        elif cell.stage == "resolve" and not (own and unsettled):
            tunings = [dag.cells[a] for a in cell.upstream if dag.cells[a].stage == "tune"]
            found = _foresee(cell, execute, tunings) if own else {}
            for above in passed:
                if dag.cells[above].stage in _PRETRAINING:
                    found |= _started(cell, why[name])
                else:
                    found |= _retuned(cell, dag.cells[above], _told(above, passed[above]))
            foreseen[name] = found
    return why


def _told(name: str, reasons: list[str]) -> list[str]:
    """What a cell passes on, as the cells below it say it."""
    return [f"{name} was never executed" if reason == Dag.NEVER else reason for reason in reasons]


def _passed_on(reasons: list[str], differences: Differences | None, below: Cell) -> list[str]:
    """The part of an upstream cell's reasons that concerns a cell below it."""
    if differences is None:
        return reasons
    return [
        reason
        for path, found in differences.items()
        for reason in found
        if any(PurePosixPath(path).is_relative_to(read) for read in below.inputs)
    ]


def _started(cell: Cell, reasons: list[str]) -> Differences:
    """The frozen runs that start from a checkpoint, each for ``reasons``."""
    (out,) = cell.outputs
    frozen = _frozen(Path(out))
    return {f"{out}/{path}": reasons for path, (_, spec) in frozen.items() if "start.name" in spec}


def _tunes_anew(cell: Cell, unsettled: bool) -> bool:
    """Whether the trials of a tuning may differ from those that are there.

    Args:
        cell: The cell that tunes.
        unsettled: Whether checkpoints will change that its method may start from.
    """
    label, budget, *inputs, out = shlex.split(cell.command)[2:]
    params = read_params(_PARAMS)
    ledger = Path(out) / LEDGER
    if not ledger.is_file() or (unsettled and start_of(params, label, _PARAMS) != PRETRAINED):
        return True
    base, fit, task = map(Path, inputs)
    digest = study_digest(params, _PARAMS, label, budget, base, fit, task)
    return bool(read_json(ledger)["study"] != digest)


def _retuned(cell: Cell, tuning: Cell, reasons: list[str]) -> Differences:
    """The frozen runs whose options a tuning chooses, each for ``reasons``; none without them."""
    if not reasons:
        return {}
    label, budget = shlex.split(tuning.command)[2:4]
    params = read_params(_PARAMS)
    (out,) = cell.outputs
    places = {path: PurePosixPath(path).with_suffix("").parts for path in _frozen(Path(out))}
    return {
        f"{out}/{path}": reasons
        for path, (method, *rest) in places.items()
        if method == label
        and params.tuning.decides((rest or [params.main_budget])[0], params.main_budget) == budget
    }


def _foresee(cell: Cell, execute: Execute, tunings: list[Cell]) -> Differences:
    """Resolve a task's plan elsewhere, and compare it with the present one.

    What was not tuned yet keeps its own options there.
    """
    (out,) = cell.outputs
    with tempfile.TemporaryDirectory(prefix="tunetrail-") as scratch:
        target = Path(scratch) / "plan"
        arguments = shlex.split(cell.command)[1:]
        moved = {out: str(target)}
        prepared, shadow = Path(arguments[3]), Path(scratch) / "prepared"
        if tunings:
            moved[str(prepared)] = str(shadow)
            shadow.mkdir()
            for child in prepared.iterdir():
                if child.name != TUNED:
                    (shadow / child.name).symlink_to(child.absolute())
        for tuning in tunings:
            (ledger,) = (Path(path) / LEDGER for path in tuning.outputs)
            chosen = read_json(ledger)["chosen"] if ledger.is_file() else {}
            write_json(shadow / ledger.relative_to(prepared), {"chosen": chosen})
        execute([moved.get(argument, argument) for argument in arguments])
        present, planned = _frozen(Path(out)), _frozen(target)
    code = {  # label → whether the code that trains it changed
        label: present[path][1].get("code") != spec.get("code")
        for path, (label, spec) in planned.items()
        if path in present
    }
    shared = len(code) > 1 and all(code.values())
    differences: Differences = {}
    for path in sorted(present.keys() | planned.keys()):
        label, now = planned.get(path, ("", {}))
        before = present.get(path, ("", {}))[1]
        if path not in planned:
            found = [f"{path.removesuffix('.json')} is no longer planned"]
        elif path not in present:
            found = [f"{path.removesuffix('.json')} is new"]
        else:
            found = [
                _phrase(key, label, before, now, shared)
                for key in dict.fromkeys([*now, *before])
                if before.get(key) != now.get(key)
            ]
        if found:
            differences[f"{out}/{path}"] = found
    return differences


def _frozen(plan: Path) -> dict[str, tuple[str, dict[str, Any]]]:
    """Path below ``plan`` → label and flat content of each frozen run."""
    runs = {}
    for path in plan.rglob("*.json"):
        content = read_json(path)
        spec = dict(_leaves(content.get("spec", content)))
        runs[path.relative_to(plan).as_posix()] = (str(content.get("method", "")), spec)
    return runs


def _leaves(value: Any, key: str = "") -> Iterable[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _leaves(inner, f"{key}.{name}" if key else name)
    else:
        yield key, value


def _phrase(key: str, label: str, before: dict[str, Any], now: dict[str, Any], shared: bool) -> str:
    """How a person would say that part ``key`` of a run differs."""
    start = now.get("start.name")
    named = {
        "code": "training code changed" if shared else f"code of {label} changed",
        "base.digest": f"checkpoint of {start} changed" if start else "base model changed",
        "start.digest": f"what decides {start} changed",
        "data.fit": "training rows changed",
        "data.test": "test rows changed",
    }
    if key in named:
        return named[key]
    shown = key.replace("method.options", f"methods.{label}")
    return f"parameter {shown} changed: {before.get(key)} → {now.get(key)}"


def planned_runs(dag: Dag) -> dict[str, dict[str, Any]]:
    """Cell that trains a run → its place in the plan: task, method, budget, seed."""
    found = {}
    for name, cell in dag.cells.items():
        if cell.trains:
            task, method, budget, seed = PurePosixPath(cell.outputs[0]).parts[-4:]
            found[name] = {"task": task, "method": method, "budget": budget, "seed": int(seed)}
    return found
