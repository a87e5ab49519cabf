"""train: one run, from a frozen spec to an adapter and its history.

Needs nothing but its inputs, so that a worker without the project's checkout can run it.
"""

from __future__ import annotations

import math
from pathlib import Path

from tunetrail.errors import TuneTrailError
from tunetrail.files import replacing, tree_digest, write_json
from tunetrail.layout import HISTORY
from tunetrail.methods import Method, attach, resolve
from tunetrail.modeling.adapter import save_adapter
from tunetrail.modeling.base import verified_base
from tunetrail.modeling.classifier import Classifier, build_classifier
from tunetrail.run import RunSpec, read_run
from tunetrail.training import numerics
from tunetrail.training.loop import Progress, fit, silent
from tunetrail.training.numerics import derived_seed
from tunetrail.training.rows import Rows, read_rows


def train(run: Path, base: Path, data: Path, out: Path, progress: Progress = silent) -> None:
    """Train one run and write adapter and history to ``out``.

    Killed and started again, it continues from its last checkpoint to the same weights.

    Args:
        run: The frozen run.
        base: What the base stage wrote.
        data: The ``fit`` output of the prepare stage.
        out: Folder of the adapter and ``history.json``.
        progress: See :data:`tunetrail.training.loop.Progress`.

    Raises:
        TuneTrailError: Inputs that are not those of the run.
        TrainingDiverged: The loss is no longer finite.
    """
    spec = read_run(run)
    weights = verified_base(base, spec.base.digest)
    if tree_digest(data) != spec.data.fit:
        raise TuneTrailError(
            f"{data} is not the data of this run", "run the prepare and resolve stages again"
        )
    numerics.apply(spec.numerics)
    rows = training_rows(spec, data)
    model, method = build_run_model(spec, weights)
    history = fit(
        model, spec, method.learning_rate, rows, read_rows(data / "selection.parquet"), progress
    )
    with replacing(out) as folder:
        save_adapter(model, folder, run=spec.digest, base=spec.base.digest)
        write_json(folder / HISTORY, {"run": spec.digest, **history})


def training_rows(spec: RunSpec, data: Path) -> Rows:
    """The run's share of the training rows; smaller shares are subsets of larger ones."""
    rows = read_rows(data / "train.parquet")
    return rows.first(max(2, math.ceil(spec.train_fraction * len(rows))))


def build_run_model(spec: RunSpec, weights: Path) -> tuple[Classifier, Method]:
    """The model of a run before any training step, with its method attached."""
    model = build_classifier(
        weights, len(spec.data.labels), spec.base.pooling, derived_seed(spec.seed, "head")
    )
    method = resolve(spec.method.name, spec.method.options, "run")
    attach(model, method, derived_seed(spec.seed, "method"))
    return model, method
