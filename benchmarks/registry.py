"""What it takes to bring MLflow to a finished project, and to find that it is there.

    python benchmarks/registry.py PROJECT DATABASE

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

from tunetrail.tracking.sync import bring_up_to_date


def now() -> float:
    """Processor seconds of this process and of what it started; a database's server is neither."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def sync(root: Path, database: str) -> dict[str, Any]:
    """Seconds of a first and a second call, the tables of the database included."""
    os.chdir(root)
    os.environ["MLFLOW_TRACKING_URI"] = database
    found: dict[str, Any] = {}
    for part in ("sync", "sync_again"):
        started = now()
        done = bring_up_to_date(Path("receipt.json"))
        found[part] = round(now() - started, 2)
        found[f"{part}_created"] = done["runs_created"] + done["groups_created"]
    found["peak_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return found


if __name__ == "__main__":
    sys.stdout.write(json.dumps(sync(Path(sys.argv[1]), sys.argv[2])) + "\n")
