"""Quality on a GLUE task: full fine-tuning and LoRA, three epochs, three seeds.

Runs the shipped flow in a scratch copy of this checkout and prints the table. Some 15 minutes on
two cores.

    python -m benchmarks.glue_quality mrpc --data FOLDER     # the task's Parquet files
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from benchmarks.tasks import TASKS, run_flow


def main() -> None:
    """Run, print, and write the scores."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("task", choices=sorted(TASKS))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--pooling", choices=["mean", "cls"], default="mean")
    parser.add_argument("--out", type=Path, help="write scores here as JSON")
    options = parser.parse_args()
    changes = {
        "project": options.task,
        "base": {"pooling": options.pooling},
        "tasks": {options.task: TASKS[options.task] | {"source": str(options.data.absolute())}},
        "methods": {"full": {"learning_rate": 5e-5}, "lora": {"learning_rate": 1e-3}},
        "budgets": {"full": {"epochs": 3}},
    }
    with tempfile.TemporaryDirectory() as scratch:
        run_flow(Path(scratch), changes)
        comparison = json.loads((Path(scratch) / "comparison" / "comparison.json").read_text())
    if options.out:
        options.out.write_text(
            json.dumps(comparison["tasks"][options.task]["methods"], indent=2) + "\n"
        )


if __name__ == "__main__":
    main()
