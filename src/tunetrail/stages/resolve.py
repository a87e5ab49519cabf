"""resolve: one frozen JSON a run, so that a change invalidates exactly the runs it decides."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any, Literal

from tunetrail import methods
from tunetrail.code import code_digest
from tunetrail.errors import TuneTrailError
from tunetrail.files import read_json, replacing, tree_digest
from tunetrail.kinds import kind_of
from tunetrail.layout import CARD, PRETRAIN
from tunetrail.methods._count import trained_parameters
from tunetrail.modeling.base import check_base, checkpoint_folder, read_base
from tunetrail.params import Params, method_name, method_of, start_of
from tunetrail.run import (
    PRETRAINED,
    BaseModel,
    Budget,
    Data,
    MethodSpec,
    PlannedRun,
    Pooling,
    RunSpec,
    Start,
    write_run,
)
from tunetrail.task import read_task
from tunetrail.training.numerics import settled


def resolve(
    params: Params, path: Path, canonical: Path, base: Path, prepared: Path, out: Path
) -> None:
    """Write ``out/METHOD/BUDGET/SEED.json`` for every run of one task.

    ``out/METHOD.json`` is one of them, with the main budget: what stands for the method where one
    run is enough.

    Args:
        params: The parameters.
        path: Where they were read, for messages.
        canonical: What the ingest stage wrote for the task.
        base: What the base stage wrote.
        prepared: What the prepare stage wrote for the task.
        out: Folder of the task's part of the plan.

    Raises:
        TuneTrailError: A method's options do not fit the base model, a budget does not fit the
            data, or two labels are one run.
    """
    task = read_task(canonical)
    weights, card = read_base(base)
    config = check_base(weights)
    data = Data(
        task=task.name,
        labels=task.labels,
        range=task.range,
        answers=task.answers,
        metrics=task.metrics,
        fit=tree_digest(prepared / "fit"),
        test=tree_digest(prepared / "test"),
    )
    pooling = params.base.pooling if kind_of(task).pooled else "none"
    numerics = settled(params.numerics.precision, params.numerics.threads)
    for label, budget in params.budgets.items():
        _check_shots(budget, read_json(prepared / "fit" / CARD)["sets"]["train"], label, path)
    seen: dict[str, str] = {}
    with replacing(out) as folder:
        for label in params.methods:
            method = method_of(params, label, path)
            method.check(card, params.base.max_length)
            trained_parameters(method, config, pooling)  # attaches it, without numbers
            name = method_name(params, label)
            spec = {
                **_started(start_of(params, label, path), params, base, task.name, pooling),
                "data": data,
                "method": MethodSpec(name=name, options=method.model_dump(mode="json")),
                "training": params.training,
                "numerics": numerics,
                "code": training_code(name, task.metrics),
            }
            for (budget_label, budget), seed in product(params.budgets.items(), params.seeds):
                frozen = RunSpec.model_validate({**spec, "budget": budget, "seed": seed})
                run = PlannedRun(label, budget_label, frozen)
                what = f"'{label}' with budget '{budget_label}'"
                if frozen.digest in seen:
                    raise TuneTrailError(
                        f"{path}: {seen[frozen.digest]} and {what} are the same run",
                        "change an option of one of them, or remove it",
                    )
                seen[frozen.digest] = what
                write_run(folder / run.file, run)
                if (budget_label, seed) == (params.main_budget, params.seeds[0]):
                    write_run(folder / f"{label}.json", run)


def _started(
    start: str, params: Params, base: Path, task: str, pooling: Pooling | Literal["none"]
) -> dict[str, Any]:
    """The parts of a run that say what it starts from.

    Raises:
        TuneTrailError: That checkpoint is not there.
    """
    folder = checkpoint_folder(start, base, task)
    model = BaseModel(
        digest=read_base(folder)[1]["digest"],
        max_length=params.base.max_length,
        pooling=pooling,
    )
    if start == PRETRAINED:
        return {"base": model}
    pretraining = read_json(folder / PRETRAIN)["pretraining"]
    return {"base": model, "start": Start(name=start, digest=pretraining)}


def _check_shots(budget: Budget, train: dict[str, Any], label: str, path: Path) -> None:
    for name, rows in train["labels"].items():
        if budget.shots is not None and 0 < rows < budget.shots:
            raise TuneTrailError(
                f"{path}: budgets.{label}: shots is {budget.shots}, "
                f"but the training set has {rows} rows of '{name}'",
                f"lower shots to {rows} or less, or raise the task's limits.train",
            )


def training_code(method: str, metrics: tuple[str, ...]) -> str:
    """Digest of all source code that decides what training this method gives."""
    return code_digest(
        "tunetrail.stages.train",
        f"{methods.__name__}.{method}",
        *(f"tunetrail.metrics.{name}" for name in metrics),
    )
