"""Tuning in MLflow: a run for each method, task and budget, and its trials nested below it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tunetrail.files import digest_of, read_json
from tunetrail.layout import LEDGER, TRIALS, TUNED
from tunetrail.run import PlannedRun, read_run
from tunetrail.tracking.parameters import parameters, share

#: The tag by which MLflow's pages fold a run away below another one.
PARENT_TAG = "mlflow.parentRunId"


def records(root: Path, tuned: dict[str, str]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What MLflow should hold of one tuning, and of each of its trials.

    Args:
        root: The project.
        tuned: An entry of the receipt: task, label and budget.
    """
    task, label, budget = (tuned[key] for key in ("task", "label", "budget"))
    folder = root / "data" / "prepared" / task / TUNED / label / budget
    ledger = read_json(folder / LEDGER)
    place = {"task": task, "method": label, "budget": budget}
    tags = {**place, "stage": "tuning"}
    best = max(t["score"] for t in ledger["trials"] if t["state"] == "complete")
    chosen = {key: json.dumps(value) for key, value in ledger["chosen"].items()}
    whole = {
        "run": ledger["study"],
        "name": f"{task}-{label}-{budget}-tuning",
        "params": place | chosen,
        "metrics": {f"selection/{ledger['metric']}": best},
        "points": [],
        "tags": tags,
        "artifacts": [folder / LEDGER],
    }
    tried: dict[str, dict[str, Any]] = {}  # what was drawn twice was trained once
    for number, trial in enumerate(ledger["trials"]):
        file = folder / TRIALS / f"{trial['run']}.json"
        record = {
            "run": trial["run"],
            "name": f"{task}-{label}-{budget}-trial-{number}",
            "params": parameters(PlannedRun(label, budget, read_run(file))),
            "metrics": {},
            "points": _points(read_json(file)),
            "tags": tags
            | {"state": trial["state"], "seed": str(read_run(file).seed)}
            | share(PlannedRun(label, budget, read_run(file))),
            "artifacts": [file],
        }
        tried.setdefault(trial["run"], record)
    for record in (whole, *tried.values()):
        parts = ("params", "metrics", "points")
        record["content"] = digest_of([record[part] for part in parts])
    return whole, list(tried.values())


def _points(trial: dict[str, Any]) -> list[tuple[str, int, float]]:
    points = [("train/loss", step, loss) for step, loss in trial["loss"]]
    for step, scores in trial["selection"]:
        points += [(f"selection/{name}", step, score) for name, score in scores.items()]
    return points
