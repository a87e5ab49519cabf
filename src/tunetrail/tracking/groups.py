"""A parent run for each task and method: the mean of its seeds, its runs folded away below it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tunetrail.files import digest_of, file_digest
from tunetrail.layout import DATA
from tunetrail.place import project_of
from tunetrail.run import representatives
from tunetrail.tracking.parameters import parameters, share


def record(root: Path, group: dict[str, Any], verdict: dict[str, str]) -> dict[str, Any]:
    """What MLflow should hold of a task and method.

    Metrics have the names of the runs' own, so that they stand in the same columns: ``test/NAME``
    is the mean over the seeds of the main budget, ``_low`` and ``_high`` are the ends of its 95 %
    interval, where there are several seeds. What a champion's method gave when it was trained again
    has a parent of its own, so that those of the last comparison stay beside each other.

    Args:
        root: The project, or the folder of a champion.
        group: An entry of the receipt: task, label, seeds, summary, and whether it was chosen.
        verdict: Tags of the verdict on the method.
    """
    task, label = group["task"], group["label"]
    run = representatives(root / "plan" / task)[label]
    stage = "comparison" if project_of(root) == root else "retraining"
    params = {key: value for key, value in parameters(run).items() if key != "seed"}
    metrics: dict[str, float] = {}
    for metric, found in group["summary"].items():
        ends = {"": "mean", "_low": "low", "_high": "high", "_std": "std"}
        metrics |= {
            f"test/{metric}{end}": found[key] for end, key in ends.items() if found[key] is not None
        }
    metrics["seeds"] = float(len(group["seeds"]))
    tags = {
        "task": task,
        "method": label,
        "budget": run.budget,
        **share(run),
        "stage": stage,
        "seeds": " ".join(map(str, group["seeds"])),
        "chosen": "yes" if group["chosen"] else "no",
        "data_digest": file_digest(root / "data" / "canonical" / task / DATA),
        **verdict,
    }
    return {
        "run": digest_of(["group", task, label] + ([stage] if stage != "comparison" else [])),
        "name": f"{task}-{label}" if stage == "comparison" else f"{task}-{label}-retrained",
        "params": params,
        "metrics": metrics,
        "points": [],
        # With the tags: one of an earlier verdict does not stay.
        "content": digest_of([params, metrics, tags]),
        "tags": tags,
        "artifacts": [],
    }
