"""train: one run, from a frozen spec to an adapter and its history.

Needs nothing but its inputs, so that a worker without the project's checkout can run it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from tunetrail.errors import TuneTrailError
from tunetrail.files import replacing, scratch, tree_digest, write_json
from tunetrail.kinds import kind_of
from tunetrail.layout import HISTORY
from tunetrail.machine import require_room
from tunetrail.methods import Method, attach, resolve
from tunetrail.modeling.adapter import WEIGHTS, save_adapter
from tunetrail.modeling.base import verified_start
from tunetrail.modeling.classifier import Classifier, build_classifier
from tunetrail.run import RunSpec, read_run, with_seed
from tunetrail.training import numerics
from tunetrail.training.checkpoint import forget
from tunetrail.training.loop import fit
from tunetrail.training.numerics import derived_seed
from tunetrail.training.processes import check_devices, together, whole
from tunetrail.training.rows import Rows, read_rows
from tunetrail.training.schedule import Progress, Watch, silent, unwatched


def train(
    run: Path,
    base: Path,
    data: Path,
    out: Path,
    progress: Progress = silent,
    seed: int | None = None,
) -> None:
    """Train one run and write adapter and history to ``out``.

    Killed and started again, it continues from its last checkpoint to the same weights.

    Args:
        run: The frozen run.
        base: What the base stage wrote.
        data: The ``fit`` output of the prepare stage.
        out: Folder of the adapter and ``history.json``.
        progress: See :data:`tunetrail.training.schedule.Progress`.
        seed: Seed to train with instead of that of the run.

    Raises:
        TuneTrailError: Inputs that are not those of the run.
        TrainingDiverged: The loss is no longer finite.
    """
    spec = with_seed(read_run(run), seed)
    model, history = trained(spec, base, data, out, progress)
    with replacing(out) as folder:
        save_adapter(model, folder, run=spec.digest, base=spec.base.digest)
        write_json(folder / HISTORY, {"run": spec.digest, **history})
    forget(spec.digest)


def trained(
    spec: RunSpec,
    base: Path,
    data: Path,
    out: Path,
    progress: Progress = silent,
    watch: Watch = unwatched,
) -> tuple[Classifier, dict[str, Any]]:
    """The model of a run after its training, and the history of it; nothing is written.

    Its checkpoint stays until it is forgotten.

    Args:
        spec: The run.
        base: What the base stage wrote.
        data: The ``fit`` output of the prepare stage.
        out: Where results will be written; there must be room.
        progress: See :data:`tunetrail.training.schedule.Progress`.
        watch: See :data:`tunetrail.training.schedule.Watch`.

    Raises:
        TuneTrailError: Inputs that are not those of the run.
        TrainingDiverged: The loss is no longer finite.
    """
    weights = verified_start(spec, base)
    if tree_digest(data) != spec.data.fit:
        raise TuneTrailError(
            f"{data} is not the data of this run", "run the prepare and resolve stages again"
        )
    check_devices(spec.numerics)
    numerics.apply(spec.numerics)
    rows = training_rows(spec, data)
    model, method = build_run_model(spec, weights)
    # A checkpoint holds what trains, two moments of the optimiser and, with patience, the best
    # weights; it goes when the next one is there. A megabyte for what describes them.
    copies = 2 * (3 if spec.budget.patience is None else 4)
    trained = sum(p.nbytes for p in model.trained().values())
    require_room(out, copies * trained + 1_000_000, "this training")
    if spec.numerics.processes > 1:
        history = _trained_together(model, spec, weights, data, progress, watch)
    else:
        selection = read_rows(data / "selection.parquet")
        history = fit(model, spec, method.learning_rate, rows, selection, progress, method, watch)
    method.fold(model)
    return model, history


def _trained_together(
    model: Classifier,
    spec: RunSpec,
    weights: Path,
    data: Path,
    progress: Progress,
    watch: Watch,
) -> dict[str, Any]:
    """Train ``model`` as ``fit`` does, in processes that each build their own."""
    with scratch() as folder:
        arguments = {"spec": spec, "weights": weights, "data": data, "out": folder / WEIGHTS}
        heard: dict[str, Callable[..., None]] = {"progress": progress, "watch": watch}
        history: dict[str, Any] = together(spec.numerics, _fit_with_others, arguments, heard)
        tensors = load_file(folder / WEIGHTS)
    with torch.no_grad():
        for name, parameter in model.trained().items():
            parameter.copy_(tensors[name])
    return history


def _fit_with_others(
    spec: RunSpec, weights: Path, data: Path, out: Path, progress: Progress, watch: Watch
) -> dict[str, Any]:
    """In one of several processes: train; the first one writes what was trained to ``out``."""
    numerics.apply(spec.numerics)
    rows, selection = training_rows(spec, data), read_rows(data / "selection.parquet")
    model, method = build_run_model(spec, weights)
    history = fit(model, spec, method.learning_rate, rows, selection, progress, method, watch)
    tensors = {name: whole(tensor).contiguous() for name, tensor in model.trained().items()}
    if torch.distributed.get_rank() == 0:
        save_file(tensors, out)
    return history


def training_rows(spec: RunSpec, data: Path) -> Rows:
    """The rows that the run's budget allows.

    A seed draws its own rows, so that seeds differ in their data as well. What it draws for a
    smaller share is a subset of what it draws for a larger one, whatever the method.

    Raises:
        TuneTrailError: What is drawn has one class only.
    """
    rows = read_rows(data / "train.parquet")
    budget = spec.budget
    if budget.shots is None and budget.fraction == 1.0:
        return rows
    # Of examples that are cut into windows all are drawn.
    place = {name: i for i, name in enumerate(dict.fromkeys(rows.ids))}
    order = np.random.default_rng(derived_seed(spec.seed, "sample")).permutation(len(place))
    if budget.shots is None:
        drawn = order[: max(2, math.ceil(budget.fraction * len(place)))]
    else:
        labels = rows.labels[order]
        drawn = np.concatenate([order[labels == c][: budget.shots] for c in np.unique(labels)])
    kept = np.flatnonzero(np.isin([place[name] for name in rows.ids], drawn))
    if len(np.unique(rows.labels[kept], axis=0)) < 2:
        raise TuneTrailError(
            f"the {len(drawn)} training rows of fraction {budget.fraction} and seed {spec.seed} "
            f"have the same label",
            "raise the budget's fraction, or use shots",
        )
    return rows.take(kept)


def build_run_model(spec: RunSpec, weights: Path) -> tuple[Classifier, Method]:
    """The model of a run before any training step, with its method attached."""
    kind = kind_of(spec.data)
    model = build_classifier(
        weights,
        kind.outputs,
        spec.base.pooling,
        derived_seed(spec.seed, "head"),
        kind.interval,
    )
    method = resolve(spec.method.name, spec.method.options, "run")
    attach(model, method, derived_seed(spec.seed, "method"))
    return model, method
