"""Learned keys and values before those of the text, and the network that makes them in training."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from tunetrail.modeling.classifier import Classifier


class Prefix(nn.Module):
    """Learned keys and values that every token attends to, before those of the text.

    Attributes:
        key: ``(length, heads · head size)``.
        value: As ``key``.
        gate: Called for a factor ``(batch, 1, 1, 1)`` on both, if set.
    """

    def __init__(self, key: torch.Tensor, value: torch.Tensor) -> None:
        super().__init__()
        self.key, self.value = nn.Parameter(key), nn.Parameter(value)
        self.gate: Any = None

    def forward(
        self, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Keys and values ``(batch, heads, length, head size)`` and the mask, extended."""
        own_key, own_value = self.pair()
        if mask is not None:  # additive: 0 lets every token see the prefix
            mask = nn.functional.pad(mask, (own_key.shape[0], 0))
        return self._before(own_key, key), self._before(own_value, value), mask

    def pair(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values, ``(length, heads · head size)``."""
        return self.key, self.value

    def _before(self, own: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
        batch, heads, _, size = others.shape
        first = own.to(others.dtype).view(1, -1, heads, size).transpose(1, 2)
        first = first.expand(batch, -1, -1, -1)
        if self.gate is not None:
            first = first * self.gate().to(first.dtype)
        return torch.cat([first, others], dim=2)


class Maker(nn.Module):
    """Embedding → linear → tanh → linear: the prefixes of all layers while they train."""

    def __init__(self, length: int, size: int, width: int, layers: int) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.randn(length, size))
        self.inner = nn.Linear(size, width)
        self.outer = nn.Linear(width, layers * 2 * size)

    def part(self, index: int) -> torch.Tensor:
        """Part ``index`` of all keys and values, ``(length, size)``."""
        size = self.embedding.shape[1]
        rows = slice(index * size, (index + 1) * size)
        hidden = torch.tanh(self.inner(self.embedding))
        part: torch.Tensor = nn.functional.linear(
            hidden, self.outer.weight[rows], self.outer.bias[rows]
        )
        return part


class MadePrefix(Prefix):
    """A prefix that is made anew in every forward pass."""

    def __init__(self, maker: Maker, layer: int) -> None:
        nn.Module.__init__(self)
        self.gate = None
        self._shared = (maker, layer)  # not a submodule of every prefix

    def pair(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values, ``(length, size)``."""
        maker, layer = self._shared
        return maker.part(2 * layer), maker.part(2 * layer + 1)


def add_prefixes(model: Classifier, paths: list[str], length: int, width: int) -> None:
    """Give the attention modules at ``paths`` prefixes, made by a network if it has a width."""
    size = model.hidden_size
    maker = Maker(length, size, width, len(paths)) if width else None
    if maker is not None:
        model.add_module("prefix_maker", maker)
    for layer, path in enumerate(paths):
        model.module(path).prefix = (
            Prefix(torch.randn(length, size), torch.randn(length, size))
            if maker is None
            else MadePrefix(maker, layer)
        )


def fold_prefixes(model: Classifier) -> None:
    """Replace prefixes that are made by prefixes as they are now."""
    for path in model.sites.paths("attention"):
        module = model.module(path)
        made = getattr(module, "prefix", None)
        if isinstance(made, MadePrefix):
            module.prefix = Prefix(*(x.detach().clone() for x in made.pair()))
            module.prefix.gate = made.gate
    if hasattr(model, "prefix_maker"):
        del model.prefix_maker
