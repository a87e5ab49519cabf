"""What the head of a run does for a cell, in a project with any number of runs.

    python benchmarks/head.py PROJECT SAMPLE

Started by ``benchmarks.scale`` with the code to be measured on PYTHONPATH, so it calls only what
versions have in common. Times are processor seconds: other work on the machine does not count.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from pipelines.scheduler import Scheduler
from tunetrail.dag import Dag
from tunetrail.estimate import Estimator

#: Where the results of cells that were never executed wait, by the names of the cells.
ASIDE = Path(".aside")

now = time.process_time


def head(root: Path, most: int) -> dict[str, Any]:
    """Processor seconds of opening the graph, of each part of a cell's work, and of the rest."""
    os.chdir(root)
    started = now()
    dag = Dag(root)
    found: dict[str, Any] = {"cells": len(dag.cells), "open": now() - started}
    found["open_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    names = [name for name in dag.cells if (ASIDE / name).exists()][:most]
    parts: dict[str, list[float]] = {"changes": [], "begin": [], "record": []}
    started = now()
    with dag.claimed():
        found["claim"] = now() - started
        for name in names:
            (out,) = map(Path, dag.cells[name].outputs)
            begun = now()
            assert dag.changes(name) == [Dag.NEVER], name
            looked = now()
            assert not dag.begin(name), name
            cleared = now()
            out.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(ASIDE / name, out)
            there = now()
            dag.record(name)
            parts["changes"].append(looked - begun)
            parts["begin"].append(cleared - looked)
            parts["record"].append(now() - there)
        closing = now()
    found["close"] = now() - closing
    found["seconds"] = {part: [round(s, 4) for s in seconds] for part, seconds in parts.items()}
    found["cell"] = sum(map(statistics.median, parts.values()))
    found["lock_bytes"] = Path("dvc.lock").stat().st_size
    found |= _order(dag)
    return {key: round(v, 5) if isinstance(v, float) else v for key, v in found.items()}


def _order(dag: Dag) -> dict[str, float]:
    """Handing cells out, for as many as 300 of them, and one look at the time that is left."""
    scheduler = Scheduler(dag.cells, 200)
    started, handed = now(), 0
    while handed < 300 and scheduler.busy:
        running = []
        while (cell := scheduler.next()) is not None:
            running.append(cell.name)
        for name in running:
            scheduler.finish(name)
        handed += len(running)
    schedule = (now() - started) / handed
    names = list(dag.cells)
    estimator = Estimator({name: 1.0 for name in names[: len(names) // 2]})
    some = names[:: max(1, len(names) // 50)]
    started = now()
    estimator.left(some, {}, set(), 100)
    return {"schedule": schedule, "time_left": (now() - started) / len(some) * len(names)}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(head(Path(sys.argv[1]), int(sys.argv[2]))) + "\n")
