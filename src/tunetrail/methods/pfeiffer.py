"""Pfeiffer adapters: one bottleneck a layer (Pfeiffer et al., arXiv 2005.00247)."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import nn

from tunetrail.errors import TuneTrailError
from tunetrail.methods import Method
from tunetrail.modeling.bottleneck import Bottleneck
from tunetrail.modeling.classifier import Classifier


class AdaptedNorm(nn.Module):
    """LN(z + f(LN(z))) with z = FFN output + residual, and f the bottleneck."""

    def __init__(self, norm: nn.Module, adapter: Bottleneck) -> None:
        super().__init__()
        self.norm = norm
        self.adapter = adapter

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """Shape ``(batch, length, hidden)`` in and out."""
        normed = self.norm(z)
        changed: torch.Tensor = self.norm(z + self.adapter.delta(normed))
        return changed


class Pfeiffer(Method):
    """One ReLU bottleneck a layer after the FFN; the layer's own LayerNorm is used twice, frozen.

    The second pass through LayerNorm is part of the published placement, so the model does not
    start exactly at the base model.
    """

    title: ClassVar[str] = "Pfeiffer adapter"
    paper: ClassVar[str] = "arXiv 2005.00247"
    not_mergeable: ClassVar[str | None] = "the bottleneck is not linear"
    starts_at_base: ClassVar[bool] = False

    learning_rate: float = Field(default=1e-3, gt=0, description="peak learning rate")
    reduction: int = Field(default=16, ge=1, description="hidden size / bottleneck width")

    def attach(self, model: Classifier) -> None:
        """Wrap the LayerNorm after each FFN."""
        norms = model.sites.has(
            "ffn_norm"
        )  # without one after it, the sublayer's output is adapted
        for path in model.sites.paths("ffn_norm" if norms else "ffn_output"):
            adapter = Bottleneck(
                size=model.hidden_size,
                bottleneck=model.hidden_size // self.reduction,
                activation=nn.ReLU(),
            )
            adapter.start_normal(std=0.02)
            adapted = AdaptedNorm if norms else nn.Sequential
            model.replace(path, adapted(model.module(path), adapter))

    def check(self, base: Mapping[str, Any], max_length: int) -> None:
        """The bottleneck needs a width of at least one."""
        hidden_size = base["hidden_size"]
        if self.reduction > hidden_size:
            raise TuneTrailError(
                f"pfeiffer: reduction is {self.reduction}, larger than the hidden size "
                f"{hidden_size}: no bottleneck is left",
                f"give a reduction of at most {hidden_size}",
            )
