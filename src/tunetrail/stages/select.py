"""select: for each method of a task, the seed to ship. It sees selection scores, never the test."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from tunetrail.errors import TuneTrailError
from tunetrail.files import read_json, replacing, write_json
from tunetrail.layout import CHOICE, HISTORY, RUN
from tunetrail.run import planned_runs


def select(plan: Path, trained: Path, out: Path) -> None:
    """Write every method's chosen run, and the task's winner, to ``out``.

    Args:
        plan: The task's folder of the plan.
        trained: The task's folder of trained runs, ``LABEL/SEED``.
        out: ``LABEL/run.json`` and ``LABEL/adapter``, and ``choice.json``: every run's selection
            score, the chosen seed of each method and the winning method.
    """
    runs: dict[str, list[dict[str, Any]]] = {}
    metric = ""
    for label, seed, spec in planned_runs(plan):
        history = read_json(trained / label / str(seed) / HISTORY)
        if history["run"] != spec.digest:
            raise TuneTrailError(
                f"{trained / label / str(seed)} is not the planned run", "run the train stage again"
            )
        metric = spec.data.metrics[0]
        runs.setdefault(label, []).append(
            {"run": spec.digest, "seed": seed, "selection": history["selection"][-1][1]}
        )
    with replacing(out) as folder:
        chosen: dict[str, int] = {}
        for label, candidates in runs.items():
            # Ties go to the lowest seed, so that the choice is the same everywhere.
            best = max(candidates, key=lambda c: (c["selection"][metric], -c["seed"]))
            chosen[label] = best["seed"]
            shutil.copytree(trained / label / str(best["seed"]), folder / label / "adapter")
            shutil.copyfile(plan / label / f"{best['seed']}.json", folder / label / RUN)
        winner = max(runs, key=lambda label: _mean(runs[label], metric))
        write_json(
            folder / CHOICE,
            {"metric": metric, "runs": runs, "seeds": chosen, "winner": winner},
        )


def _mean(candidates: list[dict[str, Any]], metric: str) -> float:
    """A method is judged by all its seeds, not by its luckiest."""
    return float(sum(c["selection"][metric] for c in candidates) / len(candidates))
