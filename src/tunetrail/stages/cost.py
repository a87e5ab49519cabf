"""cost: what a method costs on this machine, measured alone for a fixed number of steps."""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path

import numpy as np
import torch

from tunetrail.files import read_json, scratch, write_json
from tunetrail.layout import PRETRAIN
from tunetrail.methods import Method
from tunetrail.modeling.adapter import WEIGHTS, save_adapter
from tunetrail.modeling.base import checkpoint_folder, read_base, verified_start
from tunetrail.modeling.classifier import Classifier
from tunetrail.modeling.masked_lm import load_masked_lm
from tunetrail.pretraining import PretrainSpec
from tunetrail.run import PRETRAINED, TAPT, RunSpec, read_run
from tunetrail.stages.train import build_run_model, training_rows
from tunetrail.training import numerics
from tunetrail.training.loop import TrainStep, count_steps, groups_of_batches
from tunetrail.training.masking import MaskedStep, read_text, read_vocabulary
from tunetrail.training.processes import together
from tunetrail.training.rows import Rows

_WARMUP_STEPS = 2


def cost(run: Path, base: Path, data: Path, steps: int, out: Path) -> None:
    """Measure ``steps`` optimiser steps of a run and write the figures to ``out``.

    The figures are seconds, samples and tokens a second (medians over the steps, so that a
    hiccup of the machine does not count), the peak memory of the process in bytes (its GPU memory
    on a GPU), parameters, the size of the adapter file, and the seconds that the whole run takes at
    this rate (with patience: at most). They are kept apart from training's outputs, which stay free
    of times. Where several processes share a run, seconds and rates are those of all together, the
    memory is that of the first.

    What a run needs besides, where it starts from a checkpoint, has fields of its own, which are 0
    elsewhere: ``pretrain_seconds`` to make the checkpoint, and ``checkpoint_bytes``, the weights
    that the adapter is of no use without.
    """
    spec = read_run(run)
    weights = verified_start(spec, base)
    numerics.apply(spec.numerics)
    rows = training_rows(spec, data)
    if spec.numerics.processes > 1:
        arguments = {"spec": spec, "weights": weights, "data": data, "steps": steps}
        measured, peak_memory = together(spec.numerics, _measured_with_others, arguments, {})
        model, method = build_run_model(spec, weights)
    else:
        model, method = build_run_model(spec, weights)
        measured, peak_memory = _measured(spec, model, method, rows, steps), None
    trained = sum(p.numel() for p in model.trained().values())
    total = sum(p.numel() for p in model.parameters())
    # The adapter of full fine-tuning has every weight itself.
    needs_checkpoint = spec.start_name != PRETRAINED and not all(
        p.requires_grad for p in model.trunk.parameters()
    )
    all_steps, per_epoch = count_steps(spec, len(rows))
    seconds, samples, tokens = np.array(measured).T
    method.fold(model)
    with scratch() as folder:
        save_adapter(model, folder, run=spec.digest, base=spec.base.digest)
        artifact_bytes = (folder / WEIGHTS).stat().st_size
    per_token = float(np.median(seconds / tokens))
    minutes = spec.budget.minutes
    peak_memory = peak_memory or _peak_memory()
    del model  # room for the model that is pretrained
    write_json(
        out,
        {
            "run": spec.digest,
            "steps": steps,
            "seconds_per_step": float(np.median(seconds)),
            "samples_per_second": float(samples.sum() / seconds.sum()),
            "tokens_per_second": 1 / per_token,
            # By tokens, not by steps: batches differ in length and only a few were measured.
            "train_seconds": minutes * 60
            if minutes is not None
            else per_token * float(rows.lengths.sum()) * (all_steps or 0) / per_epoch,
            "pretrain_seconds": _pretrain_seconds(spec, base, data, steps),
            "peak_memory_bytes": peak_memory,
            "trainable_parameters": trained,
            "total_parameters": total,
            "artifact_bytes": artifact_bytes,
            "checkpoint_bytes": sum(f.stat().st_size for f in weights.glob("*.safetensors"))
            if needs_checkpoint
            else 0,
            "device": "cuda" if torch.cuda.is_available() else "cpu",
        },
    )


def _measured(
    spec: RunSpec, model: Classifier, method: Method, rows: Rows, steps: int
) -> list[tuple[float, int, int]]:
    """Seconds, samples and tokens of each of the measured steps."""
    all_steps, per_epoch = count_steps(spec, len(rows))
    step = TrainStep(model, spec, method.learning_rate, all_steps or per_epoch, method)
    model.train()
    lengths, found = rows.lengths, []
    for _, group in zip(
        range(_WARMUP_STEPS + steps), groups_of_batches(rows, spec, start=0), strict=False
    ):
        started = time.perf_counter()
        float(step(rows, group))  # reading the loss waits for a GPU, and for other processes
        seconds = time.perf_counter() - started
        samples = sum(len(index) for index in group)
        found.append((seconds, samples, sum(int(lengths[index].sum()) for index in group)))
    return found[_WARMUP_STEPS:]


def _measured_with_others(
    spec: RunSpec, weights: Path, data: Path, steps: int
) -> tuple[list[tuple[float, int, int]], int]:
    """:func:`_measured` in one of several processes, and the peak memory of this one."""
    numerics.apply(spec.numerics)
    model, method = build_run_model(spec, weights)
    measured = _measured(spec, model, method, training_rows(spec, data), steps)
    return measured, _peak_memory()


def _pretrain_seconds(spec: RunSpec, base: Path, data: Path, steps: int) -> float:
    """Seconds to make what a run starts from out of the base model, all checkpoints on the way."""
    start = spec.start_name
    if start == PRETRAINED:
        return 0.0
    text = read_text(data / "train.parquet")
    chain = dict.fromkeys((start.removesuffix(f"+{TAPT}"), start))
    folders = [checkpoint_folder(name, base, spec.data.task) for name in chain]
    return sum(_checkpoint_seconds(folder, text, steps) for folder in folders)


def _checkpoint_seconds(checkpoint: Path, text: Rows, steps: int) -> float:
    """Seconds of the training steps of a checkpoint, at the rate of ``steps`` like them.

    Like them: the same objective, with as many tokens as its steps had on average. Which tokens
    does not matter, so those of ``text`` do for a domain, too.
    """
    record = read_json(checkpoint / PRETRAIN)
    made = PretrainSpec.model_validate(record["spec"])
    objective, training = made.objective, made.objective.training
    numerics.apply(made.numerics)
    weights, _ = read_base(checkpoint)
    model = load_masked_lm(weights, objective.seed)
    step = MaskedStep(model, made, read_vocabulary(weights))
    model.train()
    count = training.batch_size * training.accumulate
    length = max(1, round(record["tokens"] / record["steps"] / count))
    tokens = np.resize(np.concatenate(text.tokens), (count, length))
    rows = Rows([""] * count, np.zeros(count), list(tokens), list(np.zeros_like(tokens)))
    group = list(np.arange(count).reshape(training.accumulate, training.batch_size))

    def per_step() -> float:
        seconds = []
        for number in range(_WARMUP_STEPS + steps):
            started = time.perf_counter()
            # Without a rate nothing is learned, and all is computed.
            float(step(rows, group, 0.0, f"cost {number}"))
            seconds.append(time.perf_counter() - started)
        return float(np.median(seconds[_WARMUP_STEPS:]))

    minutes = objective.budget.minutes
    found = minutes * 60 if minutes is not None else per_step() * record["steps"]
    if record["head"] == "new":  # it was trained alone first
        model.model.base_model.requires_grad_(False)
        found += per_step() * objective.head_steps
    return found


def _peak_memory() -> int:
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
