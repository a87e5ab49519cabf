"""The bottleneck that adapter methods are made of."""

from __future__ import annotations

import math

import torch
from torch import nn


class Bottleneck(nn.Module):
    """x + W2·activation(W1·x + b1) + b2, with 2·size·bottleneck + bottleneck + size parameters."""

    def __init__(self, *, size: int, bottleneck: int, activation: nn.Module) -> None:
        super().__init__()
        self.down = nn.Linear(size, bottleneck)
        self.activation = activation
        self.up = nn.Linear(bottleneck, size)

    def delta(self, x: torch.Tensor) -> torch.Tensor:
        """What the bottleneck adds to ``x``: shape ``(…, size)`` in and out."""
        changed: torch.Tensor = self.up(self.activation(self.down(x)))
        return changed

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape ``(…, size)`` in and out."""
        return x + self.delta(x)

    def start_truncated_normal(self, *, std: float) -> None:
        """Weights from a normal distribution cut at two deviations, biases zero."""
        for layer in (self.down, self.up):
            nn.init.trunc_normal_(layer.weight, std=std, a=-2 * std, b=2 * std)
            nn.init.zeros_(layer.bias)

    def start_normal(self, *, std: float) -> None:
        """Weights from a normal distribution, biases zero."""
        for layer in (self.down, self.up):
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)

    def start_at_zero(self) -> None:
        """Kaiming uniform (a = √5) down, zero up, biases zero: it adds nothing at first."""
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        nn.init.zeros_(self.up.weight)
        for layer in (self.down, self.up):
            nn.init.zeros_(layer.bias)
