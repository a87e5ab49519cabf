"""Updates of many matrices as the slices of one low-rank (CP) tensor."""

from __future__ import annotations

import math

import torch
from torch import nn


class Factors(nn.Module):
    """A·diag(heads ∘ matrices ∘ layers)·B for every head, matrix and layer.

    A is ``(hidden, rank)``, B ``(rank, hidden / heads)``, the others a row of ``rank`` for each.
    """

    def __init__(self, *, hidden: int, heads: int, matrices: int, layers: int, rank: int) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.empty(hidden, rank))
        self.b = nn.Parameter(torch.zeros(rank, hidden // heads))
        self.heads = nn.Parameter(torch.empty(heads, rank))
        self.matrices = nn.Parameter(torch.empty(matrices, rank))
        self.layers = nn.Parameter(torch.empty(layers, rank))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))
        for factor in (self.heads, self.matrices, self.layers):
            nn.init.kaiming_uniform_(factor)

    def pair(self, layer: int, matrix: int) -> tuple[torch.Tensor, torch.Tensor]:
        """``(hidden, rank)`` and ``(rank, hidden)``, whose product is one update, head by head."""
        mixed = self.heads * self.matrices[matrix] * self.layers[layer]
        return self.a, (mixed.T[:, :, None] * self.b[:, None, :]).flatten(1)


class TensorLinear(nn.Module):
    """W·x plus its update from the tensor, whose heads cut the outputs or the inputs."""

    def __init__(
        self, base: nn.Linear, factors: Factors, place: tuple[int, int], scale: float, outputs: bool
    ) -> None:
        super().__init__()
        self.base = base
        self._shared = (factors, place)  # not a submodule of every layer
        self.scale = scale
        self.outputs = outputs

    def pair(self) -> tuple[torch.Tensor, torch.Tensor]:
        """``(in, rank)`` and ``(rank, out)``, whose product is the update."""
        factors, place = self._shared
        whole, cut = factors.pair(*place)
        return (whole, cut) if self.outputs else (cut.T, whole.T)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape ``(…, in)`` to ``(…, out)``."""
        down, up = self.pair()
        out: torch.Tensor = self.base(x) + x @ down @ up * self.scale
        return out

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """The base layer with the update added to its weight."""
        down, up = self.pair()
        self.base.weight.add_((down @ up).T * self.scale)
        return self.base
