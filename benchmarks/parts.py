"""The parts of the head's work that could grow with the plan, each by itself.

    python benchmarks/parts.py RUNS [--slow]

Started by ``benchmarks.scale`` with the code to be measured on PYTHONPATH, like ``head.py``; needs
no project. With ``--slow`` also what DVC does to record a stage, which is what the head did before.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pipelines.scheduler import Scheduler
from tunetrail.dag import Cell
from tunetrail.estimate import Estimator

now = time.process_time

_PIECE = """  {stage}@task{task}-lora_{method}-b2-{seed}:
    cmd: tunetrail {stage} plan/task{task}/lora_{method}/b2/{seed}.json models/base
      data/prepared/task{task}/fit runs/{stage}/task{task}/lora_{method}/b2/{seed}
    deps:
    - path: data/prepared/task{task}/fit
      hash: md5
      md5: 8dd0af7d9a9f1fba1cbd4a1b3d4f1c26.dir
      size: 41034
      nfiles: 3
    - path: models/base
      hash: md5
      md5: 0a9b4cfe7b1dbb2a1b9ce3e3f6b5d0b1.dir
      size: 120500
      nfiles: 3
    - path: plan/task{task}/lora_{method}/b2/{seed}.json
      hash: md5
      md5: {md5}
      size: 1500
    outs:
    - path: runs/{stage}/task{task}/lora_{method}/b2/{seed}
      hash: md5
      md5: {md5}.dir
      size: 21700
      nfiles: 3
"""


def parts(runs: int, slow: bool) -> dict[str, Any]:
    """Part → processor seconds a cell (``time_left``: a look; ``lock_write``: a write)."""
    places = [(stage, *place) for place in _places(runs) for stage in ("train", "evaluate")]
    found: dict[str, Any] = {"cells": len(places)}
    found |= _order(places)
    with tempfile.TemporaryDirectory() as folder:
        found["claims"] = _claims(Path(folder), [_output(*place) for place in places])
        text = "schema: '2.0'\nstages:\n" + "".join(map(_piece, places))
        found["lock_bytes"] = len(text)
        found |= _recorded(Path(folder), text, slow)
    return {key: round(v, 6) if isinstance(v, float) else v for key, v in found.items()}


def _places(runs: int) -> list[tuple[int, int, int]]:
    return [(i // 1000, i % 1000 // 50, i % 50) for i in range(runs)]


def _piece(place: tuple[str, int, int, int]) -> str:
    stage, task, method, seed = place
    md5 = hashlib.md5(repr(place).encode()).hexdigest()
    return _PIECE.format(stage=stage, task=task, method=method, seed=seed, md5=md5)


def _output(stage: str, task: int, method: int, seed: int) -> str:
    return f"runs/{stage}/task{task}/lora_{method}/b2/{seed}"


def _order(places: list[tuple[str, int, int, int]]) -> dict[str, float]:
    """Handing 200 cells out, and a look at the time that is left with half of them done."""
    cells: dict[str, Cell] = {}
    for stage, task, method, seed in places:
        name = f"{stage}@task{task}-lora_{method}-b2-{seed}"
        above = frozenset({name.replace("evaluate", "train")} - {name})
        cells[name] = Cell(name, "", above, False)
    scheduler = Scheduler(cells, 200)
    handed: list[str] = []
    started = now()
    while len(handed) < 200 and (cell := scheduler.next()) is not None:
        handed.append(cell.name)
    for name in handed:
        scheduler.finish(name)
    schedule = (now() - started) / len(handed)
    names = list(cells)
    estimator = Estimator({name: 1.0 for name in names[::2]})
    some = names[1::2][:40]
    started = now()
    estimator.left(some, {}, set(), 100)
    return {"schedule": schedule, "time_left": (now() - started) / len(some) * len(names) / 2}


def _claims(folder: Path, outputs: list[str]) -> dict[str, float]:
    """DVC notes who reads a cell's inputs, while all outputs are claimed: by output, by folder."""
    from dvc.fs import localfs
    from dvc.rwlock import rwlock

    found = {}
    for way, claimed in (
        ("outputs", outputs),
        ("folders", sorted({"/".join(path.split("/")[:2]) for path in outputs})),
    ):
        place = folder / way
        place.mkdir()
        with rwlock(str(place), localfs, "head", [str(folder / p) for p in claimed], [], False):
            started = now()
            for path in outputs[:3]:
                with rwlock(str(place), localfs, "head", [str(folder / path)], [], False):
                    pass
            found[way] = round((now() - started) / 3, 6)
    return found


def _recorded(folder: Path, text: str, slow: bool) -> dict[str, float]:
    """One more stage in a dvc.lock with this text."""
    from dvc.dvcfile import Lockfile
    from dvc.repo import Repo

    repo, lock = Repo.init(str(folder), no_scm=True), folder / "dvc.lock"
    (folder / "dvc.yaml").write_text("stages: {one: {cmd: touch a, outs: [a]}}\n")
    (folder / "a").write_text("a")
    (stage,) = repo.index.stages
    stage.save()
    lock.write_text(text, encoding="utf-8")
    found: dict[str, float] = {}
    ours: Callable[[Path], Any] | None = None
    if importlib.util.find_spec("tunetrail.lockfile"):
        ours = importlib.import_module("tunetrail.lockfile").LockFile
    if ours is not None:
        file = ours(lock)
        for part in ("lock_first_write", "lock_write"):
            started = now()
            file.put(stage)
            found["lock_put"] = now() - started
            started = now()
            file.write()
            found[part] = now() - started
    if slow:
        started = now()
        Lockfile(SimpleNamespace(fs=repo.fs, scm_context=repo.scm_context), str(lock)).dump(stage)
        found["lock_by_dvc"] = now() - started
    return found


if __name__ == "__main__":
    sys.stdout.write(json.dumps(parts(int(sys.argv[1]), "--slow" in sys.argv)) + "\n")
