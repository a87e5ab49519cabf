"""select: for each method of a task, the seed to ship. It sees selection scores, never the test."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from tunetrail.errors import TuneTrailError
from tunetrail.files import read_json, replacing, write_json
from tunetrail.layout import CHOICE, HISTORY, RUN
from tunetrail.run import planned_runs, representatives, write_run


def select(plan: Path, trained: Path, out: Path) -> None:
    """Write every method's chosen run, and the task's winner, to ``out``.

    Only runs with the main budget are candidates.

    Args:
        plan: The task's folder of the plan.
        trained: The task's folder of trained runs, ``METHOD/BUDGET/SEED``.
        out: ``METHOD/run.json`` and ``METHOD/adapter``, and ``choice.json``: every candidate's
            selection score, the chosen seed of each method and the winning method.
    """
    runs: dict[str, list[dict[str, Any]]] = {}
    metric = ""
    budget = next(iter(representatives(plan).values())).budget
    candidates = {r.spec.digest: r for r in planned_runs(plan) if r.budget == budget}
    for digest, run in candidates.items():
        history = read_json(trained / run.place / HISTORY)
        if history["run"] != digest:
            raise TuneTrailError(
                f"{trained / run.place} is not the planned run", "run the train stage again"
            )
        metric = run.spec.data.metrics[0]
        runs.setdefault(run.method, []).append(
            {"run": digest, "seed": run.seed, "selection": history["kept"][1]}
        )
    with replacing(out) as folder:
        chosen: dict[str, int] = {}
        for label, entries in runs.items():
            # Ties go to the lowest seed, so that the choice is the same everywhere.
            best = max(entries, key=lambda c: (c["selection"][metric], -c["seed"]))
            chosen[label] = best["seed"]
            run = candidates[best["run"]]
            shutil.copytree(trained / run.place, folder / label / "adapter")
            write_run(folder / label / RUN, run)
        winner = max(runs, key=lambda label: _mean(runs[label], metric))
        write_json(
            folder / CHOICE,
            {
                "metric": metric,
                "budget": budget,
                "runs": runs,
                "seeds": chosen,
                "winner": winner,
            },
        )


def _mean(candidates: list[dict[str, Any]], metric: str) -> float:
    """A method is judged by all its seeds, not by its luckiest."""
    return float(sum(c["selection"][metric] for c in candidates) / len(candidates))
