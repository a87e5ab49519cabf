"""Sums over all rows of a batch, where several processes compute a part of them each."""

from __future__ import annotations

from typing import Any

import torch
from torch import distributed


class _Sum(torch.autograd.Function):
    """All processes need the sum, so the gradient of a part is the sum of all gradients."""

    @staticmethod
    def forward(_: Any, part: torch.Tensor) -> torch.Tensor:
        return _summed(part)

    @staticmethod
    def backward(_: Any, *gradients: torch.Tensor) -> torch.Tensor:
        return _summed(gradients[0])


def _summed(part: torch.Tensor) -> torch.Tensor:
    whole = part.detach().clone().contiguous()
    distributed.all_reduce(whole)
    return whole


def several() -> bool:
    """Whether several processes train the model together."""
    return distributed.is_available() and distributed.is_initialized()


def summed(part: torch.Tensor) -> torch.Tensor:
    """The sum over the processes, with its gradient; in one process ``part`` itself."""
    if not several():
        return part
    whole: torch.Tensor = _Sum.apply(part)  # type: ignore[no-untyped-call]
    return whole


def summed_numbers(parts: list[float], like: torch.Tensor) -> list[float]:
    """Sums over the processes of plain numbers, exchanged on the device of ``like``."""
    if not several():
        return parts
    numbers: list[float] = _summed(torch.tensor(parts, device=like.device)).tolist()
    return numbers
