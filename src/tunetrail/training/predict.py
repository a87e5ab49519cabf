"""Predictions of a model on a set."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from tunetrail.kinds import kind_of
from tunetrail.metrics import score_all
from tunetrail.run import Data
from tunetrail.training.rows import Rows, sorted_batches

_BATCH = 64


@torch.inference_mode()
def predict_logits(model: nn.Module, rows: Rows, device: torch.device | None = None) -> np.ndarray:
    """What :func:`outputs` has of a model; sets it to eval."""
    model.eval()

    def run(batch: dict[str, torch.Tensor]) -> np.ndarray:
        if device is not None:
            batch = {name: tensor.to(device) for name, tensor in batch.items()}
        logits: np.ndarray = model(**batch).float().cpu().numpy()
        return logits

    return outputs(rows, run)


def outputs(rows: Rows, run: Callable[[dict[str, torch.Tensor]], np.ndarray]) -> np.ndarray:
    """What ``run`` gives for every row, ``(rows, classes or 1)``, in row order.

    What it gives for tokens is ``(rows, tokens of the longest row, …)``, with zeros behind the
    batch of a row.
    """
    filled: np.ndarray | None = None
    for index in sorted_batches(rows.lengths, _BATCH):  # the longest row first
        out = run(rows.batch(index))
        if filled is None:
            filled = np.zeros((len(rows), *out.shape[1:]), dtype=np.float32)
        filled[index, : out.shape[1]] = out
    if filled is None:
        raise ValueError("no rows to predict")
    return filled


def score(data: Data, rows: Rows, logits: np.ndarray) -> dict[str, float]:
    """The task's metrics of the outputs of a model."""
    kind = kind_of(data)
    found = kind.decide(rows, logits)
    return score_all(data.metrics, kind.truths(rows), found, len(data.labels))
