"""How a comparison goes to 10,000 runs and 100 workers, and what saturates first.

    python -m benchmarks.scale --folder SCRATCH --before CHECKOUT \\
        --out benchmarks/results/scale.json

Everything but trainings is the shipped code. BEFORE is a checkout whose code is measured beside
this one's. Times are processor seconds, so that other work on the machine hardly counts; what waits
for a disk does not count either.

1. *The parts of the head's work that could grow*, each by itself (``parts.py``).
2. *The head's work for a cell* (``head.py``) in projects whose graph and dvc.lock have all their
   runs, but whose results are there for a sample only, and random bytes: other entries of dvc.lock
   are copies of true ones.
3. *Everything else* (``finished.py``, ``registry.py``), in projects in which all results exist and
   every cell was recorded; trainings are made up (``synthetic.py``).
4. *A queue*: 100 workers before one head, simulated with the times of the first two.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.head import ASIDE
from benchmarks.plans import write_project
from benchmarks.queueing import simulate
from tunetrail.dag import Dag
from tunetrail.files import write_text
from tunetrail.provenance import provenance

HERE = Path(__file__).resolve().parent

#: Runs → tasks, methods, budgets, seeds.
SIZES = {
    100: (1, 10, 1, 10),
    1_000: (1, 20, 5, 10),
    3_000: (3, 20, 5, 10),
    10_000: (10, 20, 5, 10),
}

#: Runs of which the head's work is measured.
_SAMPLE = 6

#: Of the simulated queue.
_WORKERS = 100

#: How often DVC reads and writes its list of who works on what for a cell, in pairs: while it is
#: handed out, and while it is recorded.
_EDITS = (2, 1)

now = time.process_time


def prepare_sample(root: Path, runs: int) -> None:
    """A project with all of a plan's runs in dvc.lock but a few, whose results lie aside.

    To record a result takes its bytes, not what they mean: here they are random ones.
    """
    write_project(root, *SIZES[runs])
    chance = np.random.default_rng(0)

    def fill(folder: Path, **sizes: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for name, size in sizes.items():
            (folder / name).write_bytes(chance.bytes(size))

    fill(root / "models" / "base", card=500, weights=100_000, tokenizer=20_000)
    fill(root / "data" / "prepared" / "task0" / "fit", card=500, train=30_000, selection=10_000)
    fill(root / "data" / "prepared" / "task0" / "test", card=500, test=10_000)
    os.chdir(root)
    dag = Dag(root)
    trained = [n for n in dag.cells if n.startswith("train@task0-")][: _SAMPLE + 1]
    sample = [n for name in trained for n in (name, name.replace("train", "evaluate", 1))]
    for name in sample:
        cell, sizes = dag.cells[name], {"adapter": 20_000, "history": 1_500, "card": 200}
        if cell.trains:
            plan = root / cell.inputs[0]
            plan.parent.mkdir(parents=True, exist_ok=True)
            plan.write_bytes(chance.bytes(1_500))
        else:
            sizes = {"metrics": 100, "predictions": 8_000}
        if name not in sample[:2]:
            fill(root / ASIDE / name, **sizes)
    with dag.claimed():
        for name in sample[:2]:
            dag.begin(name)
            fill(root / dag.cells[name].outputs[0], result=20_000)
            dag.record(name)
    lock = root / "dvc.lock"
    head, *pieces = re.split(r"^(?=  \S)", lock.read_text(encoding="utf-8"), flags=re.MULTILINE)
    like = {piece.strip().partition("@")[0]: piece for piece in pieces}
    of = sample[0].partition("@")[2]
    copies = [
        _copy(like[cell.stage], of, name.partition("@")[2])
        for name, cell in dag.cells.items()
        if cell.stage in like and name not in sample
    ]
    write_text(lock, head + "".join([*pieces, *copies]))


def _copy(piece: str, of: str, name: str) -> str:
    """The piece of a cell in dvc.lock, made into that of another cell of its stage."""
    parts, wanted = of.split("-"), name.split("-")
    for sign in "-/":
        piece = piece.replace(sign.join(parts), sign.join(wanted))
    return piece.replace(f"prepared/{parts[0]}/", f"prepared/{wanted[0]}/")


def finish(root: Path, runs: int) -> dict[str, Any]:
    """A project in which everything is done and recorded, and the seconds that it took."""
    from benchmarks.synthetic import Results
    from tests.tiny import write_model

    write_project(root, *SIZES[runs])
    write_model(root / "data" / "tiny")
    os.chdir(root)
    dag, results = Dag(root), Results()
    made: dict[str, float] = defaultdict(float)
    started = now()
    with dag.claimed():
        for name, cell in dag.cells.items():
            dag.begin(name)
            begun = now()
            results.make(cell)
            made[cell.stage] += now() - begun
            dag.record(name)
    recorded = now() - started - sum(made.values())
    for command in (["init", "-q"], ["add", "dvc.yaml"], ["commit", "-q", "-m", "plan"]):
        who = ["-c", "user.name=scale", "-c", "user.email=scale@example.org"]
        subprocess.run(["git", *who, *command], cwd=root, check=True)
    own = ("resolve", "select", "compare", "register")
    return {
        "cells": len(dag.cells),
        "record": round(recorded / len(dag.cells), 4),
        **{stage: round(made[stage], 2) for stage in own},
        "lock_bytes": (root / "dvc.lock").stat().st_size,
        "report_bytes": (root / "comparison" / "report.html").stat().st_size,
        "receipt_bytes": (root / "receipt.json").stat().st_size,
        "objects": sum(p.is_file() for p in (root / ".dvc" / "cache" / "files").rglob("*")),
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def push(root: Path) -> dict[str, float]:
    """Send everything to a remote that is an empty folder, and then again."""
    dvc = [sys.executable, "-m", "dvc"]
    found = {}
    with tempfile.TemporaryDirectory(dir=root.parent) as remote:
        subprocess.run([*dvc, "remote", "add", "-d", "-f", "store", remote], cwd=root, check=True)
        for part in ("push", "push_again"):
            before = _of_children()
            subprocess.run([*dvc, "push", "--run-cache", "-q"], cwd=root, check=True)
            found[part] = round(_of_children() - before, 2)
    return found


def _of_children() -> float:
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def measured(script: str, code: Path, *arguments: object) -> Any:
    """What a script of this folder says, run with the code of a checkout."""
    environment = os.environ | {"PYTHONPATH": f"{code / 'src'}{os.pathsep}{code}"}
    command = [sys.executable, str(HERE / script), *map(str, arguments)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def queues(found: dict[str, Any]) -> list[dict[str, Any]]:
    """The simulated flow with each code, for runs of half a minute and of five minutes.

    The work for a cell is that in the smallest project, and what the parts that grow add to it:
    before, DVC's own way to record a stage, its list of who works on what, and the order; now the
    order and one write of dvc.lock every two seconds. Straight lines go through what was measured;
    beyond that they are extrapolated.
    """
    prefect = found["prefect"]["tasks"]["head"]
    flows = []
    for code in ("before", "after"):
        head = min(found[f"head_{code}"].values(), key=lambda one: one["cells"])
        small = {part: float(np.median(seconds)) for part, seconds in head["seconds"].items()}
        for runs, seconds in ((100, 30), (1_000, 30), (10_000, 30), (10_000, 300)):
            cells, own = 2 * runs, found[f"parts_{code}"]
            grown = {
                part: _line(own, part, cells) - _line(own, part, head["cells"])
                for part in ("schedule", "claims")
            }
            out = small["changes"] + small["begin"] + grown["schedule"] + prefect
            record = small["record"]
            if code == "before":
                out += _EDITS[0] * grown["claims"]
                record += _EDITS[1] * grown["claims"]
                ways = found["parts_after"]  # measured there, and the same in both
                # On the way to all cells dvc.lock has half of them on average.
                by_dvc = [_line(ways, "lock_by_dvc", n) for n in (cells // 2, head["cells"])]
                record += by_dvc[0] - by_dvc[1]
            share = _line(own, "lock_write", cells) / 2 if code == "after" else 0.0
            slower = 1 / (1 - share)
            flow = simulate(runs, _WORKERS, seconds, seconds / 10, out * slower, record * slower)
            flows.append(
                {"code": code, "runs": runs, "train_seconds": seconds}
                | {"hand_out": out * slower, "record": record * slower}
                | asdict(flow)
            )
    return [
        {key: round(v, 4) if isinstance(v, float) else v for key, v in one.items()} for one in flows
    ]


def _line(parts: dict[str, Any], part: str, cells: int) -> float:
    """A part's seconds at a size: on the line through what was measured."""
    sizes = [one for one in parts.values() if part in one]
    values = [one[part]["outputs"] if part == "claims" else one[part] for one in sizes]
    fit = np.polyfit([one["cells"] for one in sizes], values, 1)
    return max(0.0, float(np.polyval(fit, cells)))


def main() -> None:
    """Measure, simulate, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True, help="scratch, gigabytes of it")
    parser.add_argument("--before", type=Path, required=True, help="a checkout to compare with")
    parser.add_argument("--parts", type=int, nargs="*", default=[100, 300, 1_000, 10_000])
    parser.add_argument("--heads", type=int, nargs="*", default=[100, 1_000, 10_000])
    parser.add_argument(
        "--slow", type=int, default=1_000, help="largest size for what is quadratic"
    )
    parser.add_argument("--finished", type=int, nargs="*", default=[100])
    parser.add_argument("--postgres", help="URI of an empty database, for the largest of those")
    parser.add_argument("--out", type=Path, required=True, help="what it has already is kept")
    options = parser.parse_args()
    places: list[Path] = [options.folder, options.before, options.out]
    folder, before, out = (place.absolute() for place in places)
    found: dict[str, Any] = json.loads(out.read_text()) if out.exists() else {}
    found |= provenance()
    ways = {"before": before, "after": HERE.parent}

    def keep(part: str, name: object, content: Any) -> None:
        found.setdefault(part, {})[str(name)] = content
        out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        sys.stderr.write(f"{part} {name}: {json.dumps(content)}\n")

    def fresh(name: str) -> Path:
        shutil.rmtree(folder / name, ignore_errors=True)
        return folder / name

    for runs in options.parts:
        for way, code in ways.items():
            slow = ["--slow"] if way == "after" and runs <= options.slow else []
            keep(f"parts_{way}", runs, measured("parts.py", code, runs, *slow))
    for runs in options.heads:
        root = fresh(f"head-{runs}")
        prepare_sample(root, runs)
        for way, code in ways.items():
            if way == "after" or runs <= options.slow:
                copy = fresh("copy")
                shutil.copytree(root, copy, symlinks=True)
                # What takes seconds a cell is clear after two.
                sample = 2 if way == "before" else 2 * _SAMPLE
                keep(f"head_{way}", runs, measured("head.py", code, copy, sample))
    for runs in options.finished:
        root = fresh(f"finished-{runs}")
        keep("finished", runs, in_process(finish, root, runs))
        keep("remote", runs, push(root))
        for way, code in ways.items():
            keep(f"again_{way}", runs, measured("finished.py", code, root))
            database = folder / "mlflow.db"
            database.unlink(missing_ok=True)
            keep(
                f"mlflow_{way}", runs, measured("registry.py", code, root, f"sqlite:///{database}")
            )
        if options.postgres and runs == max(options.finished):
            content = measured("registry.py", HERE.parent, root, options.postgres)
            keep("mlflow_postgres", runs, content)
    if "prefect" not in found:
        place = fresh("prefect")
        place.mkdir(parents=True)
        keep("prefect", "tasks", measured("prefect_tasks.py", HERE.parent, place, 30))
    for queue in queues(found):
        name = f"{queue['code']}, {queue['runs']} runs of {queue['train_seconds']} s"
        keep("queues", name, queue)


def in_process(work: Callable[[Path, int], Any], root: Path, runs: int) -> Any:
    """The result of ``work`` in a process of its own: its memory is its own, too."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, root, runs).result()


if __name__ == "__main__":
    main()
