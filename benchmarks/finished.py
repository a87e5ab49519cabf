"""What a finished project costs that is looked at again: status and plan.

    python benchmarks/finished.py PROJECT

Started by ``benchmarks.scale`` with the code to be measured on PYTHONPATH, like ``head.py``.
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


def look(root: Path) -> dict[str, Any]:
    """Processor seconds of each."""
    os.chdir(root)
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
    found["peak_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {key: round(v, 3) if isinstance(v, float) else v for key, v in found.items()}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(look(Path(sys.argv[1]))) + "\n")
