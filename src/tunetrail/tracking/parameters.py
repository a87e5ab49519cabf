"""A run's parameters, as MLflow has them."""

from __future__ import annotations

import json

from tunetrail.run import PlannedRun


def share(run: PlannedRun) -> dict[str, str]:
    """The tag that says how much data the run's budget allows, ``fraction`` (1: all) or shots."""
    budget = run.spec.budget
    if budget.shots is not None:
        return {"shots": str(budget.shots)}
    return {"fraction": f"{budget.fraction:g}"}


def parameters(run: PlannedRun) -> dict[str, str]:
    """Flat parameters with shared names, so that MLflow's compare page lines them up."""
    spec = run.spec
    dumped = spec.model_dump(mode="json")
    flat = {
        "task": spec.data.task,
        "method": run.method,
        "budget": run.budget,
        "seed": spec.seed,
        "base_digest": spec.base.digest,
        "start": spec.start_name,
        **spec.method.options,
        **{k: v for k, v in dumped["budget"].items() if v is not None},
        **dumped["training"],
        **dumped["numerics"],
    }
    return {k: v if isinstance(v, str) else json.dumps(v) for k, v in flat.items()}
