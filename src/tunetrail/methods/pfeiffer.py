"""Pfeiffer adapters: one bottleneck a layer (Pfeiffer et al., arXiv 2005.00247)."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import nn

from tunetrail.errors import TuneTrailError
from tunetrail.methods import Method
from tunetrail.modeling.bottleneck import Bottleneck
from tunetrail.modeling.classifier import Classifier


class AdaptedNorm(nn.Module):
    """LN(z + f(LN(z))) with z = FFN output + residual, and f the bottleneck.

    A ``gate`` of the bottleneck's input multiplies what it adds.
    """

    def __init__(self, norm: nn.Module, adapter: Bottleneck, gate: nn.Module | None = None) -> None:
        super().__init__()
        self.norm = norm
        self.adapter = adapter
        self.gate = gate

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """Shape ``(batch, length, hidden)`` in and out."""
        normed = self.norm(z)
        delta, gate = self.adapter.delta(normed), self.gate
        changed: torch.Tensor = self.norm(z + (delta if gate is None else delta * gate(normed)))
        return changed


class AdaptedOutput(nn.Module):
    """y + f(y) of the FFN output, where no LayerNorm follows the residual."""

    def __init__(self, output: nn.Module, adapter: Bottleneck, gate: nn.Module | None) -> None:
        super().__init__()
        self.output = output
        self.adapter = adapter
        self.gate = gate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape ``(batch, length, …)`` to ``(batch, length, hidden)``."""
        y = self.output(x)
        delta = self.adapter.delta(y)
        adapted: torch.Tensor = y + (delta if self.gate is None else delta * self.gate(y))
        return adapted


def add_adapters(
    model: Classifier,
    reduction: int,
    layers: Sequence[int] | None = None,
    gate: Callable[[], nn.Module | None] = lambda: None,
) -> None:
    """Put a ReLU bottleneck after the FFN of the layers, each behind a gate of its own if any."""
    norms = model.sites.has("ffn_norm")
    size = model.hidden_size
    for path in model.sites.paths("ffn_norm" if norms else "ffn_output", layers):
        adapter = Bottleneck(size=size, bottleneck=size // reduction, activation=nn.ReLU())
        adapter.start_normal(std=0.02)
        wrapper = AdaptedNorm if norms else AdaptedOutput
        model.replace(path, wrapper(model.module(path), adapter, gate()))


class Pfeiffer(Method):
    """One ReLU bottleneck a layer after the FFN; the layer's own LayerNorm is used twice, frozen.

    That second pass is part of the published placement: the start is not exactly the base model.
    """

    title: ClassVar[str] = "Pfeiffer adapter"
    paper: ClassVar[str] = "arXiv 2005.00247"
    verified: ClassVar[str | None] = "AdapterHub"
    not_mergeable: ClassVar[str | None] = "the bottleneck is not linear"
    starts_at_base: ClassVar[bool] = False

    learning_rate: float = Field(default=1e-3, gt=0, description="peak learning rate")
    reduction: int = Field(default=16, ge=1, description="hidden size / bottleneck width")

    def attach(self, model: Classifier) -> None:
        """Wrap the LayerNorm after each FFN."""
        add_adapters(model, self.reduction)

    def claims(self) -> dict[str, str]:
        """The end of the feed-forward sublayer, with or without a LayerNorm."""
        return dict.fromkeys(("ffn_output", "ffn_norm"), "an adapter")

    def check(self, base: Mapping[str, Any], max_length: int) -> None:
        """The bottleneck needs a width of at least one."""
        most = base["hidden_size"]
        if self.reduction > most:
            raise TuneTrailError(
                f"pfeiffer: reduction is {self.reduction}, larger than the hidden size {most}: "
                "no bottleneck is left",
                f"give a reduction of at most {most}",
            )
