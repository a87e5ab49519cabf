"""Answers to questions: LoRA on every matrix, after a single step and after some epochs.

Runs the shipped flow in a folder of its own and prints the table; it goes on where it was stopped,
if the folder is the same.

    python -m benchmarks.squad_quality --data FOLDER --folder SCRATCH     # the Parquet files
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.tasks import run_flow

_SITES = ["query", "key", "value", "attention_dense", "ffn_in", "ffn_out"]


def main() -> None:
    """Run, print, and write the scores."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=6000, help="questions to train on")
    parser.add_argument("--test", type=int, default=500, help="questions of the test set")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--out", type=Path, help="write scores here as JSON")
    options = parser.parse_args()
    limits = {"train": options.rows, "selection": 100, "test": options.test}
    changes = {
        "project": "squad",
        "base": {"max_length": 256},
        "tasks": {"squad": {"source": str(options.data.absolute()), "limits": limits}},
        "methods": {
            "lora": {"learning_rate": 2e-3, "rank": 16, "sites": _SITES},
        },
        "baseline": "lora",
        "seeds": options.seeds,
        "budgets": {"full": {"epochs": options.epochs}, "start": {"steps": 1}},
        "training": {"batch_size": 8},
        "cost": {"steps": 3},
    }
    run_flow(options.folder, changes)
    comparison = json.loads((options.folder / "comparison" / "comparison.json").read_text())
    if options.out:
        options.out.write_text(json.dumps(_scores(comparison["tasks"]["squad"]), indent=2) + "\n")


def _scores(task: dict[str, Any]) -> dict[str, Any]:
    return {
        "rows": task["rows"],
        "budgets": task["budgets"],
        task["majority_title"]: task["majority"],
        "options": task["methods"]["lora"]["options"],
        "scores": {
            budget: {str(run["seed"]): run["test"] for run in result["runs"]}
            for budget, result in task["methods"]["lora"]["budgets"].items()
        },
    }


if __name__ == "__main__":
    main()
