"""resolve: one frozen JSON a run, so that a change invalidates exactly the runs it decides."""

from __future__ import annotations

from pathlib import Path

from tunetrail import methods
from tunetrail.code import code_digest
from tunetrail.errors import TuneTrailError
from tunetrail.files import replacing, tree_digest
from tunetrail.modeling.base import read_base
from tunetrail.params import Params, method_name, method_of
from tunetrail.run import BaseModel, Data, MethodSpec, Numerics, RunSpec, write_run
from tunetrail.task import read_task
from tunetrail.training.numerics import best_precision


def resolve(
    params: Params, path: Path, canonical: Path, base: Path, prepared: Path, out: Path
) -> None:
    """Write ``out/LABEL/SEED.json`` for every run of one task.

    Args:
        params: The parameters.
        path: Where they were read, for messages.
        canonical: What the ingest stage wrote for the task.
        base: What the base stage wrote.
        prepared: What the prepare stage wrote for the task.
        out: Folder of the task's part of the plan.

    Raises:
        TuneTrailError: A method's options do not fit the base model, or two labels are one run.
    """
    task = read_task(canonical)
    _, card = read_base(base)
    data = Data(
        task=task.name,
        labels=task.labels,
        metrics=task.metrics,
        fit=tree_digest(prepared / "fit"),
        test=tree_digest(prepared / "test"),
    )
    model = BaseModel(
        digest=card["digest"], max_length=params.base.max_length, pooling=params.base.pooling
    )
    requested = params.numerics
    numerics = Numerics(
        precision=best_precision() if requested.precision == "auto" else requested.precision,
        threads=requested.threads,
    )
    seen: dict[str, str] = {}
    with replacing(out) as folder:
        for label in params.methods:
            method = method_of(params, label, path)
            method.check(card["hidden_size"])
            name = method_name(params, label)
            spec = {
                "base": model,
                "data": data,
                "method": MethodSpec(name=name, options=method.model_dump(mode="json")),
                "train_fraction": params.train_fraction,
                "budget": params.budget,
                "training": params.training,
                "numerics": numerics,
                "code": training_code(name, task.metrics),
            }
            for seed in params.seeds:
                run = RunSpec.model_validate({**spec, "seed": seed})
                if run.digest in seen:
                    raise TuneTrailError(
                        f"{path}: methods '{seen[run.digest]}' and '{label}' are the same run",
                        "change an option of one of them, or remove it",
                    )
                seen[run.digest] = label
                write_run(folder / label / f"{seed}.json", run, label)


def training_code(method: str, metrics: tuple[str, ...]) -> str:
    """Digest of all source code that decides what training this method gives."""
    return code_digest(
        "tunetrail.stages.train",
        f"{methods.__name__}.{method}",
        *(f"tunetrail.metrics.{name}" for name in metrics),
    )
