"""resolve: one frozen JSON a run, so that a change invalidates exactly the runs it decides."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

from tunetrail import methods
from tunetrail.errors import TuneTrailError
from tunetrail.files import read_json, replacing
from tunetrail.layout import LEDGER, TUNED
from tunetrail.params import Params, method_name, method_of
from tunetrail.run import PlannedRun, write_run
from tunetrail.stages.freezing import Freezer
from tunetrail.task import read_task


def resolve(
    params: Params, path: Path, canonical: Path, base: Path, prepared: Path, out: Path
) -> None:
    """Write ``out/METHOD/BUDGET/SEED.json`` for every run of one task.

    ``out/METHOD.json`` is one of them, with the main budget: what stands for the method where one
    run is enough. Where options were tuned, the runs have those that the trials chose.

    Args:
        params: The parameters.
        path: Where they were read, for messages.
        canonical: What the ingest stage wrote for the task.
        base: What the base stage wrote.
        prepared: What the prepare, pretrain and tune stages wrote for the task.
        out: Folder of the task's part of the plan.

    Raises:
        TuneTrailError: A method's options do not fit the base model, a budget does not fit the
            data, or two labels are one run.
    """
    task = read_task(canonical)
    freezer = Freezer(params, path, task, base, prepared / "fit", prepared / "test")
    seen: dict[str, str] = {}
    with replacing(out) as folder:
        for label, budget in product(params.methods, params.budgets):
            method = method_of(params, label, path)
            chosen = _chosen(params, prepared, label, budget)
            if chosen:
                options = method.model_dump(mode="json") | chosen
                method = methods.resolve(method_name(params, label), options, str(path))
            freezer.check(method)
            for seed in params.seeds:
                run = PlannedRun(label, budget, freezer.run(label, method, budget, seed))
                what = f"'{label}' with budget '{budget}'"
                if run.spec.digest in seen:
                    raise TuneTrailError(
                        f"{path}: {seen[run.spec.digest]} and {what} are the same run",
                        "change an option of one of them, or remove it",
                    )
                seen[run.spec.digest] = what
                write_run(folder / run.file, run)
                if (budget, seed) == (params.main_budget, params.seeds[0]):
                    write_run(folder / f"{label}.json", run)


def _chosen(params: Params, prepared: Path, label: str, budget: str) -> dict[str, Any]:
    """The options that tuning chose for a label's runs with a budget; none where nothing did."""
    tuned = params.tuning.decides(budget, params.main_budget)
    if tuned is None:
        return {}
    chosen: dict[str, Any] = read_json(prepared / TUNED / label / tuned / LEDGER)["chosen"]
    return chosen
