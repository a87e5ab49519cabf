"""What every training has: how long it is, its optimiser, the learning rate of each step."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from tunetrail.run import Training

#: Called with (step, steps in all, mean loss of the last steps).
Progress = Callable[[int, int, float], None]


#: Called with the scores of the selection set so far (step and metrics), where training goes on
#: after the last of them. What it raises ends the training.
Watch = Callable[[list[Any]], None]


def silent(step: int, steps: int, loss: float) -> None:
    """Progress that nobody watches."""


def unwatched(scores: list[Any]) -> None:
    """Scores that end nothing."""


class Length:
    """How long a run is: a number of steps, or steps until the time is up.

    Args:
        steps: Optimiser steps, or None with a time limit.
        minutes: The time limit. Only training steps count, not the scoring between them.
        spent: Seconds of it that are spent already.
    """

    def __init__(self, steps: int | None, minutes: float | None, spent: float) -> None:
        self._steps, self._seconds, self.spent = steps, (minutes or 0.0) * 60, spent

    def total(self, done: int) -> int:
        """Steps of the whole run; under a time limit foretold from the pace of those ``done``."""
        if self._steps is not None:
            return self._steps
        return max(done + 1, round(done * self._seconds / self.spent)) if self.spent else done + 1

    def reached(self, step: int) -> bool:
        """Whether ``step``, just done, was the last one."""
        return step >= self._steps if self._steps is not None else self.spent >= self._seconds


def build_optimizer(
    model: nn.Module, learning_rate: float, training: Training
) -> torch.optim.AdamW:
    """AdamW over what trains; vectors (biases, norms, scales) are not decayed."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": training.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=learning_rate, fused=True)


def rate_factor(step: int, steps: int, training: Training) -> float:
    """Share of the peak learning rate at ``step`` (1 … ``steps``)."""
    warmup = round(training.warmup * steps)
    if step <= warmup:
        return step / max(1, warmup)
    if training.schedule == "constant":
        return 1.0
    rest = (steps - step + 1) / max(1, steps - warmup)
    if training.schedule == "linear":
        return rest
    return 0.5 * (1 - math.cos(math.pi * rest))
