"""What the processes of tests do: trainings that one process can repeat alone."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file

from tests.tiny import make_rows
from tunetrail.modeling import routing
from tunetrail.run import RunSpec
from tunetrail.stages.train import build_run_model
from tunetrail.training.loop import fit
from tunetrail.training.predict import predict_logits
from tunetrail.training.processes import whole
from tunetrail.training.rows import read_rows

#: With batches of eight: one of two, and last one of a single row.
ROWS = make_rows(25, seed=4)
SELECTION = make_rows(70, seed=5)


def train_every(specs: dict[str, RunSpec], base: Path, out: Path) -> dict[str, object]:
    """Train a run after the other; returns their histories, and writes what was trained to ``out``.

    Every process writes a file of its own.
    """
    # Noise is drawn for the rows of a process, as dropout is: without it nothing is left to chance.
    routing.gumbel_noise = torch.zeros_like
    histories, tensors = {}, {}
    for name, spec in specs.items():
        model, method = build_run_model(spec, base / "model")
        history = fit(model, spec, 1e-2, ROWS, SELECTION, method=method)
        histories[name] = history
        tensors |= {f"{name}/{k}": whole(v).contiguous() for k, v in model.trained().items()}
        logits = predict_logits(model, SELECTION)
        tensors[f"{name}/logits"] = torch.from_numpy(logits)
    rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
    save_file(tensors, out.with_suffix(f".{rank}"))
    return histories


def wait_for_ever(begun: Callable[[], None]) -> None:
    """Say so, and stay."""
    begun()
    threading.Event().wait()


def train_and_kill_the_second(spec: RunSpec, weights: Path, data: Path) -> None:
    """Train until the second process kills itself after the second epoch."""

    def watch(scores: list[object]) -> None:
        if torch.distributed.get_rank() == 1 and len(scores) == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    train, selection = read_rows(data / "train.parquet"), read_rows(data / "selection.parquet")
    model, method = build_run_model(spec, weights)
    fit(model, spec, method.learning_rate, train, selection, method=method, watch=watch)
