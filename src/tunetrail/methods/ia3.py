"""(IA)³: learned factors on keys, values and the feed-forward layer (arXiv 2205.05638)."""

from typing import ClassVar

import torch
from pydantic import Field
from torch import nn

from tunetrail.methods import Method
from tunetrail.modeling.classifier import Classifier


class Scaled(nn.Module):
    """A linear layer with a learned factor on each output, or on each input."""

    def __init__(self, base: nn.Linear, *, inputs: bool) -> None:
        super().__init__()
        self.base = base
        self.inputs = inputs
        self.factors = nn.Parameter(torch.ones(base.in_features if inputs else base.out_features))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape ``(…, in)`` to ``(…, out)``."""
        out: torch.Tensor = self.base(x * self.factors) if self.inputs else self.base(x)
        return out if self.inputs else out * self.factors

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """The base layer with the factors in its weight (and bias), in float32."""
        if self.inputs:
            self.base.weight.mul_(self.factors)
        else:
            self.base.weight.mul_(self.factors[:, None])
            if self.base.bias is not None:
                self.base.bias.mul_(self.factors)
        return self.base


class IA3(Method):
    """Keys, values, and what enters the last feed-forward projection are multiplied; from ones."""

    title: ClassVar[str] = "(IA)³"
    paper: ClassVar[str] = "arXiv 2205.05638"
    verified: ClassVar[str | None] = "peft"

    learning_rate: float = Field(default=3e-3, gt=0, description="peak learning rate")

    def attach(self, model: Classifier) -> None:
        """Wrap the three projections of every layer."""
        for site in ("key", "value", "ffn_out"):
            for path in model.sites.paths(site):
                model.replace(path, Scaled(model.module(path), inputs=site == "ffn_out"))

    def claims(self) -> dict[str, str]:
        """The three projections."""
        return dict.fromkeys(("key", "value", "ffn_out"), "learned factors")

    def merge(self, model: Classifier) -> None:
        """Multiply the factors into the weights."""
        for site in ("key", "value", "ffn_out"):
            for path in model.sites.paths(site):
                model.replace(path, model.module(path).merged())
