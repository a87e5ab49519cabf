"""Quality on a GLUE task: full fine-tuning and LoRA, three epochs, three seeds.

Runs the shipped flow in a scratch copy of this checkout and prints the table. Some 15 minutes on
two cores.

    python -m benchmarks.glue_quality mrpc --data FOLDER     # the task's Parquet files
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from benchmarks.tasks import MRPC, STSB

_TASKS = {"mrpc": MRPC, "stsb": STSB}
_TREE = ("src", "pipelines", "data/minilm.yaml", "dvc.yaml", "params.yaml", ".dvc/config")


def main() -> None:
    """Run, print, and write the scores."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("task", choices=sorted(_TASKS))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--pooling", choices=["mean", "cls"], default="mean")
    parser.add_argument("--out", type=Path, help="write scores here as JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        for name in _TREE:
            source, target = Path(name), root / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copyfile(source, target)
        params = yaml.safe_load((root / "params.yaml").read_text())
        params |= {
            "project": options.task,
            "tasks": {
                options.task: {**_TASKS[options.task], "source": str(options.data.absolute())}
            },
            "methods": {"full": {"learning_rate": 5e-5}, "lora": {"learning_rate": 1e-3}},
            "budgets": {"full": {"epochs": 3}},
        }
        params["base"]["pooling"] = options.pooling
        (root / "params.yaml").write_text(yaml.safe_dump(params))
        environment = os.environ | {"PYTHONPATH": f"{root / 'src'}{os.pathsep}{root}"}
        command = [sys.executable, "-m", "pipelines.compare"]
        subprocess.run(command, cwd=root, env=environment, check=True)
        comparison = json.loads((root / "comparison" / "comparison.json").read_text())
    if options.out:
        options.out.write_text(
            json.dumps(comparison["tasks"][options.task]["methods"], indent=2) + "\n"
        )


if __name__ == "__main__":
    main()
