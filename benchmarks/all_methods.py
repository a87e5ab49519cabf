"""Every method with its default options on GLUE tasks, under one protocol: `make run`'s flow.

Writes scores, sizes, time ratios and certificates as JSON, the tables as Markdown, and copies the
plots. It goes on where it was stopped, if the folder is the same. Hours on two cores.

    python -m benchmarks.all_methods mrpc --data GLUE --folder SCRATCH --rows 1200 --out FILES
    python -m benchmarks.all_methods cola stsb --data GLUE --folder OTHER --rows 1200 --seeds 1
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from benchmarks.tasks import TASKS, run_flow
from tunetrail import methods
from tunetrail.layout import HISTORY

_PLOTS = ("score", "parameters", "time")


def _measured(comparison: Any, runs: Path) -> dict[str, Any]:
    """Task → label → what there is to know of a method, times relative to full fine-tuning.

    ``selection`` has steps and scores after each epoch, by seed.
    """
    found: dict[str, Any] = {}
    for task, content in comparison["tasks"].items():
        costs, certificates = (
            {label: json.loads((runs / kind / task / name).read_text()) for label, name in files}
            for kind, files in (
                ("cost", [(label, f"{label}.json") for label in content["methods"]]),
                ("export", [(label, f"{label}/certificate.json") for label in content["methods"]]),
            )
        )
        full, seconds, trained = costs["full"], "train_seconds", runs / "train" / task
        latency = certificates["full"]["latency"]["onnx_p50_ms"]
        found[task] = {
            "title": content["title"],
            "rows": content["rows"],
            "budget": content["budgets"][content["main_budget"]],
            "primary": content["primary"],
            "majority": content["majority"],
            "methods": {
                label: {
                    "title": method["title"],
                    "options": method["options"],
                    "scores": {m: method["summary"][m] for m in content["metrics"]},
                    "seeds": {str(r["seed"]): r["test"] for r in method["runs"]},
                    "selection": {
                        str(r["seed"]): json.loads(
                            (
                                trained / label / content["main_budget"] / str(r["seed"]) / HISTORY
                            ).read_text()
                        )["selection"]
                        for r in method["runs"]
                    },
                    "trainable_parameters": costs[label]["trainable_parameters"],
                    "artifact_bytes": costs[label]["artifact_bytes"],
                    "train_time_ratio": costs[label][seconds] / full[seconds],
                    "inference_time_ratio": certificates[label]["latency"]["onnx_p50_ms"] / latency,
                    "onnx_bytes": certificates[label]["onnx_bytes"],
                    "certificate": {
                        key: certificates[label][key]
                        for key in (
                            "passed",
                            "largest_logit_difference",
                            "prediction_flips",
                            "rows",
                        )
                    },
                }
                for label, method in content["methods"].items()
            },
        }
    return found


def _table(task: dict[str, Any]) -> str:
    """Markdown, the best method first."""
    primary, majority = task["primary"], task["majority"][task["primary"]]
    head = (
        f"| method | {primary} | 95 % interval | trainable | training time | inference time "
        "| artifact | logits differ by |"
    )
    lines = [head, "|---|---:|---:|---:|---:|---:|---:|---:|"]
    ranked = sorted(task["methods"].values(), key=lambda m: -m["scores"][primary]["mean"])
    for method in ranked:
        score = method["scores"][primary]
        several = score["low"] is not None
        spread = f" ± {score['std']:.3f}" if several else ""
        interval = f"[{score['low']:.3f}, {score['high']:.3f}]" if several else ""
        proof = method["certificate"]
        lines.append(
            f"| {method['title']} | {score['mean']:.3f}{spread} | {interval} "
            f"| {method['trainable_parameters']:,} | {method['train_time_ratio']:.2f} "
            f"| {method['inference_time_ratio']:.2f} | {method['artifact_bytes'] / 1e6:.2f} MB "
            f"| {proof['largest_logit_difference']:.0e} |"
        )
    return "\n".join([*lines, f"| *constant answer* | {majority:.3f} |  |  |  |  |  |  |"])


def main() -> None:
    """Run, and write what was found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("tasks", nargs="+", choices=sorted(TASKS))
    parser.add_argument("--data", type=Path, required=True, help="a folder for each task")
    parser.add_argument("--folder", type=Path, required=True, help="where it runs, and goes on")
    parser.add_argument("--rows", type=int, help="training rows of a task (default: all)")
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--out", type=Path, help="start of the names of the files to write")
    options = parser.parse_args()
    limits = {"limits": {"train": options.rows}} if options.rows else {}
    changes = {
        "project": "all-methods",
        "tasks": {
            task: TASKS[task] | limits | {"source": str((options.data / task).absolute())}
            for task in options.tasks
        },
        "methods": {name: {} for name in methods.names()},
        "seeds": options.seeds,
        "budgets": {"full": {"epochs": options.epochs}},
    }
    run_flow(options.folder, changes)
    comparison = options.folder / "comparison"
    found = _measured(
        json.loads((comparison / "comparison.json").read_text()), options.folder / "runs"
    )
    for name, task in found.items():
        print(f"\n{task['title']}\n\n{_table(task)}")
        if options.out:
            start = f"{options.out}-{name}"
            Path(f"{start}.json").write_text(json.dumps(task, indent=2) + "\n")
            Path(f"{start}.md").write_text(_table(task) + "\n")
            for plot in _PLOTS:
                shutil.copyfile(comparison / "plots" / name / f"{plot}.svg", f"{start}-{plot}.svg")


if __name__ == "__main__":
    main()
