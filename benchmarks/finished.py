"""What a finished project costs that is looked at again: status, plan, and MLflow.

    python benchmarks/finished.py PROJECT DATABASE

Started by ``benchmarks.scale`` with the code to be measured on PYTHONPATH, like ``head.py``.
DATABASE is the URI of an empty database.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

from tunetrail.dag import Dag, stale_cells
from tunetrail.staleness import expected

now = time.process_time


def look(root: Path, database: str) -> dict[str, Any]:
    """Processor seconds of this process, which has no part in those of a database's server."""
    os.chdir(root)
    os.environ["MLFLOW_TRACKING_URI"] = database
    found: dict[str, Any] = {}
    started = now()
    dag = Dag(root)
    found["open"] = now() - started
    started = now()
    found["stale"] = len(stale_cells(dag))
    found["status"] = now() - started
    lock = Path("dvc.lock")
    lock.rename("aside.lock")
    started = now()
    expected(Dag(root), lambda _: None)
    found["plan_of_everything"] = now() - started
    Path("aside.lock").rename(lock)

    from tunetrail.tracking.sync import bring_up_to_date

    for part in ("sync", "sync_again"):
        started = now()
        done = bring_up_to_date(Path("receipt.json"))
        found[part] = now() - started
        found[f"{part}_created"] = done["runs_created"] + done["groups_created"]
    found["peak_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {key: round(v, 3) if isinstance(v, float) else v for key, v in found.items()}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(look(Path(sys.argv[1]), sys.argv[2])) + "\n")
