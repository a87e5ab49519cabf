"""Predictions of a model on a set."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from tunetrail.training.rows import Rows, sorted_batches

_BATCH = 64


@torch.inference_mode()
def predict_logits(model: nn.Module, rows: Rows, device: torch.device | None = None) -> np.ndarray:
    """Logits of every row, ``(rows, classes)``, in row order; the model is left in eval mode."""
    model.eval()
    logits: np.ndarray | None = None
    for index in sorted_batches(rows.lengths, _BATCH):
        batch = rows.batch(index)
        if device is not None:
            batch = {name: tensor.to(device) for name, tensor in batch.items()}
        out = model(**batch).float().cpu().numpy()
        if logits is None:
            logits = np.empty((len(rows), out.shape[1]), dtype=np.float32)
        logits[index] = out
    if logits is None:
        raise ValueError("no rows to predict")
    return logits


def softmax(logits: np.ndarray) -> np.ndarray:
    """Class probabilities of logits, ``(rows, classes)``."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    scores: np.ndarray = shifted / shifted.sum(axis=1, keepdims=True)
    return scores
