"""select: for each method of a task, the seed to ship. It sees selection scores, never the test."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tunetrail.errors import TuneTrailError
from tunetrail.files import read_json, replacing, write_json
from tunetrail.layout import CHOICE, HISTORY, RUN
from tunetrail.run import PlannedRun, planned_runs, representatives, write_run


def select(plan: Path, trained: Path, out: Path) -> None:
    """Write every method's chosen run, and the task's winner, to ``out``.

    Only runs with the main budget are candidates.

    Args:
        plan: The task's folder of the plan.
        trained: The task's folder of trained runs, ``METHOD/BUDGET/SEED``.
        out: ``METHOD/run.json`` and ``METHOD/adapter``, and ``choice.json``: every candidate's
            selection score, the chosen seed of each method and the winning method.
    """
    choice, chosen = choose(planned_runs(plan), main_budget(plan), trained)
    with replacing(out) as folder:
        for run in chosen:
            shutil.copytree(trained / run.place, folder / run.method / "adapter")
            write_run(folder / run.method / RUN, run)
        write_json(folder / CHOICE, choice)


def main_budget(plan: Path) -> str:
    """The budget that a task's choice is made with."""
    return next(iter(representatives(plan).values())).budget


def choose(
    runs: Sequence[PlannedRun], budget: str, trained: Path
) -> tuple[dict[str, Any], list[PlannedRun]]:
    """What ``choice.json`` says, and the chosen run of each method.

    Args:
        runs: Planned runs of one task, all of them trained.
        budget: The main budget.
        trained: The task's folder of trained runs.

    Raises:
        TuneTrailError: What was trained is not what is planned.
    """
    candidates: dict[str, list[dict[str, Any]]] = {}
    metric = ""
    by_digest = {run.spec.digest: run for run in runs if run.budget == budget}
    for digest, run in by_digest.items():
        history = read_json(trained / run.place / HISTORY)
        if history["run"] != digest:
            raise TuneTrailError(
                f"{trained / run.place} is not the planned run", "run the train stage again"
            )
        metric = run.spec.data.metrics[0]
        candidates.setdefault(run.method, []).append(
            {"run": digest, "seed": run.seed, "selection": history["kept"][1]}
        )
    # Ties go to the lowest seed, so that the choice is the same everywhere.
    best = {
        label: max(entries, key=lambda c: (c["selection"][metric], -c["seed"]))
        for label, entries in candidates.items()
    }
    choice = {
        "metric": metric,
        "budget": budget,
        "runs": candidates,
        "seeds": {label: entry["seed"] for label, entry in best.items()},
        "winner": max(candidates, key=lambda label: _mean(candidates[label], metric)),
    }
    return choice, [by_digest[entry["run"]] for entry in best.values()]


def _mean(candidates: list[dict[str, Any]], metric: str) -> float:
    """A method is judged by all its seeds, not by its luckiest."""
    return float(sum(c["selection"][metric] for c in candidates) / len(candidates))
