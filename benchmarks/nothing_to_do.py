"""How long it takes to find that nothing is to be done: the shipped comparison, again.

    python -m benchmarks.nothing_to_do --folder SCRATCH

Runs the shipped comparison in the folder first, unless that is done there already.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.tasks import run_flow

_WAYS = {
    "flow (make run)": [sys.executable, "-m", "pipelines.compare", "--json"],
    "dvc repro": ["dvc", "repro", "--quiet"],
    "tunetrail plan": ["tunetrail", "plan", "--json"],
}


def main() -> None:
    """Measure and print medians."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    run_flow(options.folder, {})
    for name, command in _WAYS.items():
        seconds = []
        for _ in range(options.repeats):
            started = time.perf_counter()
            subprocess.run(command, cwd=options.folder, check=True, stdout=subprocess.DEVNULL)
            seconds.append(time.perf_counter() - started)
        print(f"{name}: {statistics.median(seconds):.1f} s (median of {len(seconds)})")


if __name__ == "__main__":
    main()
