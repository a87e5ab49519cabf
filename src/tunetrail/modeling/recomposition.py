"""A linear adapter whose projection all layers share, in front of linear layers."""

from __future__ import annotations

import torch
from torch import nn


class Recomposition(nn.Module):
    """x + ((x·(W∘c))·Wᵀ + b): one W for all layers, a scale c and a bias b for each.

    Args:
        size: Width of x.
        rank: Columns of W.
        layers: Layers that share W.
        scaled: Whether the scales start off zero; if not, training starts at the identity.
    """

    def __init__(self, *, size: int, rank: int, layers: int, scaled: bool) -> None:
        super().__init__()
        self.projection = nn.Parameter(nn.init.xavier_uniform_(torch.empty(size, rank)))
        self.scales = nn.ParameterList(torch.zeros(rank) for _ in range(layers))
        self.biases = nn.ParameterList(torch.zeros(size) for _ in range(layers))
        if scaled:
            for scale in self.scales:
                nn.init.xavier_uniform_(scale.data[None])

    def change(self, x: torch.Tensor, layer: int) -> torch.Tensor:
        """What the adapter of ``layer`` adds to ``x`` but its bias: ``(…, size)`` in and out."""
        changed: torch.Tensor = x @ (self.projection * self.scales[layer]) @ self.projection.T
        return changed

    def forward(self, x: torch.Tensor, layer: int) -> torch.Tensor:
        """Shape ``(…, size)`` in and out."""
        adapted: torch.Tensor = x + (self.change(x, layer) + self.biases[layer])
        return adapted


class RecomposedLinear(nn.Module):
    """A linear layer whose input passes the adapter of its layer first."""

    def __init__(self, base: nn.Linear, adapter: Recomposition, layer: int) -> None:
        super().__init__()
        self.base = base
        self._shared = (adapter, layer)  # not a submodule of every linear layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape ``(…, in)`` to ``(…, out)``."""
        adapter, layer = self._shared
        out: torch.Tensor = self.base(adapter(x, layer))
        return out

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """The base layer with the adapter in its weight and bias."""
        adapter, layer = self._shared
        weight = self.base.weight
        bias = weight @ adapter.biases[layer]
        # The adapter's matrix is symmetric, so it acts on the rows of the weight.
        self.base.weight.copy_(weight + adapter.change(weight, layer))
        if self.base.bias is None:
            self.base.bias = nn.Parameter(bias, requires_grad=False)
        else:
            self.base.bias.add_(bias)
        return self.base
