"""Dropout whose random numbers are cheap on CPU.

PyTorch draws a CPU mask in some ten nanoseconds an element, a sixth of a training step of a small
model. Here one 64-bit draw of SFC64 makes four elements: the same Bernoulli masks (probabilities
in steps of 1/65536) for a few percent of the time. On a GPU PyTorch's own dropout is used.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn


class Noise:
    """The random numbers of one model's dropout, reseeded before every step."""

    def __init__(self) -> None:
        self._bits = np.random.SFC64(0)

    def reseed(self, seed: int) -> None:
        """Start again from ``seed``, on every device."""
        self._bits = np.random.SFC64(seed)
        torch.manual_seed(seed)

    def keep(self, shape: torch.Size, p: float) -> torch.Tensor:
        """A boolean CPU tensor, False with probability ``p``."""
        count = shape.numel()
        raw = self._bits.random_raw((count + 3) // 4).view(np.int16)[:count]
        threshold = np.int16(round(p * 65536) - 32768)
        return torch.from_numpy(raw >= threshold).view(shape)


class Dropout(nn.Module):
    """Zero elements with probability ``p`` in training and scale the others by 1/(1 - p)."""

    def __init__(self, p: float, noise: Noise) -> None:
        super().__init__()
        self.p = p
        self._noise = noise

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Any shape in and out."""
        if not self.training or self.p == 0.0:
            return x
        if x.device.type != "cpu":
            return nn.functional.dropout(x, self.p)
        keep = self._noise.keep(x.shape, self.p)
        return x * keep.to(x.dtype).mul_(1 / (1 - self.p))


def share_noise(model: nn.Module) -> Noise:
    """Give every dropout of ``model`` one source of random numbers and return it."""
    noise = Noise()
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.Dropout):
                setattr(module, name, Dropout(child.p, noise))
    return noise
