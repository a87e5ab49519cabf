"""One shape for projections: fused or transposed layers become plain linear layers."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from tunetrail.modeling.sites import Sites


class Split(nn.Module):
    """Linear layers side by side, in the place of one fused layer."""

    def __init__(self, parts: dict[str, nn.Linear]) -> None:
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)
        self._names = tuple(parts)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(…, in)`` to the outputs of all parts, one after the other in the last dimension."""
        return torch.cat([getattr(self, name)(x) for name in self._names], dim=-1)


def make_plain(trunk: nn.Module, sites: Sites) -> None:
    """Make every projection of ``trunk`` a linear layer of its own; what it computes stays."""
    module: Any
    for path, module in list(trunk.named_modules()):
        if type(module).__name__ == "Conv1D":  # GPT-2's linear layer, with the weight transposed
            _put(trunk, path, _linear(module.weight.T, module.bias))
    for layer in sites.layers():
        for inner, names in sites.family.fused.items():
            fused: Any = trunk.get_submodule(f"{layer}.{inner}")
            weights = fused.weight.chunk(len(names))
            biases = fused.bias.chunk(len(names)) if fused.bias is not None else [None] * len(names)
            parts = {n: _linear(w, b) for n, w, b in zip(names, weights, biases, strict=True)}
            _put(trunk, f"{layer}.{inner}", Split(parts))


def _linear(weight: torch.Tensor, bias: torch.Tensor | None) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    layer.weight = nn.Parameter(weight.detach().clone())
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach().clone())
    return layer


def _put(trunk: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(trunk.get_submodule(parent), name, module)
