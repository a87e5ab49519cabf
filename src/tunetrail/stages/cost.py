"""cost: what a method costs on this machine, measured alone for a fixed number of steps."""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path

import numpy as np
import torch

from tunetrail.files import scratch, write_json
from tunetrail.modeling.adapter import WEIGHTS, save_adapter
from tunetrail.modeling.base import verified_start
from tunetrail.run import read_run
from tunetrail.stages.train import build_run_model, training_rows
from tunetrail.training import numerics
from tunetrail.training.loop import TrainStep, count_steps, groups_of_batches

_WARMUP_STEPS = 2


def cost(run: Path, base: Path, data: Path, steps: int, out: Path) -> None:
    """Measure ``steps`` optimiser steps of a run and write the figures to ``out``.

    The figures are seconds, samples and tokens a second (medians over the steps, so that a
    hiccup of the machine does not count), the peak memory of the process in bytes (its GPU memory
    on a GPU), parameters, the size of the adapter file, and the seconds that the whole run takes at
    this rate. They are kept apart from training's outputs, which stay free of times.
    """
    spec = read_run(run)
    weights = verified_start(spec, base)
    numerics.apply(spec.numerics)
    rows = training_rows(spec, data)
    model, method = build_run_model(spec, weights)
    trained = sum(p.numel() for p in model.trained().values())
    total = sum(p.numel() for p in model.parameters())
    all_steps, per_epoch = count_steps(spec, len(rows))
    step = TrainStep(model, spec, method.learning_rate, all_steps or per_epoch, method)
    model.train()
    seconds, samples, tokens = [], [], []
    lengths = rows.lengths
    for _, group in zip(
        range(_WARMUP_STEPS + steps), groups_of_batches(rows, spec, start=0), strict=False
    ):
        started = time.perf_counter()
        float(step(rows, group))  # reading the loss waits for a GPU
        seconds.append(time.perf_counter() - started)
        samples.append(sum(len(index) for index in group))
        tokens.append(sum(int(lengths[index].sum()) for index in group))
    measured = slice(_WARMUP_STEPS, None)
    per_step = float(np.median(seconds[measured]))
    method.fold(model)
    with scratch() as folder:
        save_adapter(model, folder, run=spec.digest, base=spec.base.digest)
        artifact_bytes = (folder / WEIGHTS).stat().st_size
    per_token = float(np.median(np.array(seconds[measured]) / np.array(tokens[measured])))
    minutes = spec.budget.minutes
    write_json(
        out,
        {
            "run": spec.digest,
            "steps": steps,
            "seconds_per_step": per_step,
            "samples_per_second": float(np.sum(samples[measured]) / np.sum(seconds[measured])),
            "tokens_per_second": 1 / per_token,
            # By tokens, not by steps: batches differ in length and only a few were measured.
            "train_seconds": minutes * 60
            if minutes is not None
            else per_token * float(lengths.sum()) * (all_steps or 0) / per_epoch,
            "peak_memory_bytes": _peak_memory(),
            "trainable_parameters": trained,
            "total_parameters": total,
            "artifact_bytes": artifact_bytes,
            "device": "cuda" if torch.cuda.is_available() else "cpu",
        },
    )


def _peak_memory() -> int:
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
