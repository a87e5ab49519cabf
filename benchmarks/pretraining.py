"""Full fine-tuning from four starts (pretrained, DAPT, TAPT, DAPT then TAPT), by `make run`'s flow.

It goes on where it was stopped, if the folder is the same. Writes scores by seed and the held-out
losses of pretraining as JSON, and a table as Markdown.

    python -m benchmarks.pretraining chemprot --data DOMAIN --text biomed.parquet --folder SCRATCH
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.tasks import run_flow

#: Built-in tasks of a domain whose data is at hand.
_TASKS = ("acl_arc", "agnews", "chemprot")
_STARTS = ("pretrained", "dapt", "tapt", "dapt+tapt")


def _measured(task: dict[str, Any]) -> dict[str, Any]:
    primary = task["primary"]
    return {
        "title": task["title"],
        "rows": task["rows"],
        "metric": primary,
        "budget": task["budgets"][task["main_budget"]],
        "majority": task["majority"][primary],
        "pretraining": task["pretraining"],
        "starts": {
            method["start"]: {
                "summary": method["summary"][primary],
                "seeds": {str(run["seed"]): run["test"] for run in method["runs"]},
            }
            for method in task["methods"].values()
        },
    }


def _table(found: dict[str, Any]) -> str:
    """Markdown, a row a start."""
    lines = [f"| start | {found['metric']} | 95 % interval | held-out loss before → after |"]
    lines += ["|---|---:|---:|---:|"]
    for start, entry in found["starts"].items():
        summary = entry["summary"]
        several = summary["low"] is not None
        spread = f" ± {summary['std']:.3f}" if several else ""
        interval = f"[{summary['low']:.3f}, {summary['high']:.3f}]" if several else ""
        loss = found["pretraining"].get(start, {}).get("held_out_loss")
        shown = f"{loss['before']:.2f} → {loss['after']:.2f}" if loss else ""
        lines.append(f"| {start} | {summary['mean']:.3f}{spread} | {interval} | {shown} |")
    return "\n".join(lines)


def main() -> None:
    """Run, and write what was found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("task", choices=_TASKS)
    parser.add_argument("--data", type=Path, required=True, help="folder with a folder for each")
    parser.add_argument("--text", type=Path, required=True, help="text of the domain")
    parser.add_argument("--folder", type=Path, required=True, help="scratch folder of the project")
    parser.add_argument("--rows", type=int, default=640, help="training rows")
    parser.add_argument("--test", type=int, default=400, help="test rows")
    parser.add_argument("--epochs", type=int, default=4, help="of fine-tuning")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--dapt-steps", type=int, default=1000)
    parser.add_argument("--tapt-epochs", type=int, default=10)
    parser.add_argument("--head-steps", type=int, default=400)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args()
    tapt = {"budget": {"epochs": options.tapt_epochs}, "head_steps": options.head_steps}
    dapt = {
        "text": str(options.text.absolute()),
        "budget": {"steps": options.dapt_steps},
        "head_steps": options.head_steps,
    }
    limits = {"train": options.rows, "selection": 200, "test": options.test}
    source = str((options.data / options.task).absolute())
    changes = {
        "project": "pretraining",
        "tasks": {options.task: {"source": source, "limits": limits}},
        "methods": {
            start.replace("+", "_"): {"method": "full", "start": start} for start in _STARTS
        },
        "baseline": "pretrained",
        "pretraining": {"domain": {"dapt": dapt}, "task": {"base": tapt, "dapt": tapt}},
        "seeds": options.seeds,
        "budgets": {"full": {"epochs": options.epochs}},
    }
    run_flow(options.folder, changes)
    comparison = json.loads((options.folder / "comparison" / "comparison.json").read_text())
    found = _measured(comparison["tasks"][options.task])
    print(f"\n{found['title']}\n\n{_table(found)}")
    if options.out:
        options.out.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
