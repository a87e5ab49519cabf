"""Predictions of a model on a set."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from tunetrail.metrics import score_all
from tunetrail.run import Data
from tunetrail.training.rows import Rows, sorted_batches

_BATCH = 64


@torch.inference_mode()
def predict_logits(model: nn.Module, rows: Rows, device: torch.device | None = None) -> np.ndarray:
    """Outputs for every row, ``(rows, classes or 1)``, in row order; sets the model to eval."""
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


def decide(data: Data, logits: np.ndarray) -> np.ndarray:
    """What the outputs of a model predict: class indices, or numbers, ``(rows,)``."""
    predictions: np.ndarray = logits.argmax(axis=1) if data.labels else logits[:, 0]
    return predictions


def score(data: Data, labels: np.ndarray, logits: np.ndarray) -> dict[str, float]:
    """The task's metrics of the outputs of a model."""
    return score_all(data.metrics, labels, decide(data, logits), len(data.labels))


def softmax(logits: np.ndarray) -> np.ndarray:
    """Class probabilities of logits, ``(rows, classes)``."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    scores: np.ndarray = shifted / shifted.sum(axis=1, keepdims=True)
    return scores
