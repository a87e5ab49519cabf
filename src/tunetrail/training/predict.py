"""Predictions of a model on a set."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from tunetrail.kinds import kind_of
from tunetrail.metrics import score_all
from tunetrail.run import Data
from tunetrail.training.rows import Rows, sorted_batches

if TYPE_CHECKING:
    from tunetrail.training.processes import Team

_BATCH = 64


@torch.inference_mode()
def predict_logits(
    model: nn.Module,
    rows: Rows,
    device: torch.device | None = None,
    team: Team | None = None,
) -> np.ndarray:
    """What :func:`outputs` has of a model; sets it to eval."""
    model.eval()

    def run(batch: dict[str, torch.Tensor]) -> np.ndarray:
        if device is not None:
            batch = {name: tensor.to(device) for name, tensor in batch.items()}
        logits: np.ndarray = model(**batch).float().cpu().numpy()
        return logits

    return outputs(rows, run, team)


def outputs(
    rows: Rows,
    run: Callable[[dict[str, torch.Tensor]], np.ndarray],
    team: Team | None = None,
) -> np.ndarray:
    """What ``run`` gives for every row, ``(rows, classes or 1)``, in row order.

    What it gives for tokens is ``(rows, tokens of the longest row, …)``, with zeros behind the
    batch of a row. The processes of ``team`` run some of the batches each; all get all outputs.
    """
    filled: np.ndarray | None = None
    batches = sorted_batches(rows.lengths, _BATCH)  # the longest row first
    own = batches if team is None else team.divided(batches)
    found = ((index, run(rows.batch(index))) for index in own)
    for index, out in found if team is None else team.gathered(found):
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
