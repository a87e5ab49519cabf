"""HiWi: an adapter on the weights instead of the hidden states (Liao et al., arXiv 2305.16742)."""

import math
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import nn

from tunetrail.errors import TuneTrailError
from tunetrail.methods import Method
from tunetrail.modeling.classifier import Classifier

Target = Literal["biases", "weights"]


class AdaptedLinear(nn.Module):
    """A linear layer whose bias, or weight, is p + W_up·ReLU(W_down·p) of the pretrained p.

    W_down is ``(width, out)`` and W_up ``(out, width)``: a weight is adapted input by input.
    """

    def __init__(self, base: nn.Linear, width: int, target: Target) -> None:
        super().__init__()
        self.base = base
        self.target = target
        self.down = nn.Parameter(torch.empty(width, base.out_features))
        self.up = nn.Parameter(torch.zeros(base.out_features, width))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def adapted(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Weight ``(out, in)`` and bias ``(out,)``."""
        weight, bias = self.base.weight, self.base.bias
        if self.target == "biases":
            return weight, bias + self.change(bias)
        return weight + self.change(weight.T).T, bias

    def change(self, rows: torch.Tensor) -> torch.Tensor:
        """What the adapter adds to ``rows``, ``(…, out)``."""
        inner = nn.functional.linear(rows, self.down).relu()
        return nn.functional.linear(inner, self.up)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape ``(…, in)`` to ``(…, out)``."""
        return nn.functional.linear(x, *self.adapted())

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """The base layer with the adapted weight and bias, in float32."""
        weight, bias = self.adapted()
        self.base.weight.copy_(weight)
        if bias is not None:
            self.base.bias.copy_(bias)
        return self.base


class HiWi(Method):
    """The feed-forward biases (or weights) pass through an adapter, which serves training alone.

    Of an adapted bias the result is kept and saved, in place of the adapter. Of an adapted weight
    the adapter is kept until it is merged, because it is smaller.
    """

    title: ClassVar[str] = "HiWi"
    paper: ClassVar[str] = "arXiv 2305.16742"

    learning_rate: float = Field(default=3e-3, gt=0, description="peak learning rate")
    target: Target = Field(default="biases", description="what the adapter changes")
    width: int = Field(default=16, ge=1, description="width of the adapter")

    def attach(self, model: Classifier) -> None:
        """Put an adapter on both feed-forward projections of every layer."""
        for path in (path for site in ("ffn_in", "ffn_out") for path in model.sites.paths(site)):
            if self.target == "biases" and model.module(path).bias is None:
                raise TuneTrailError(
                    f"hiwi: target is biases, and '{path}' of this base model has none",
                    "set the target to weights",
                )
            model.replace(path, AdaptedLinear(model.module(path), self.width, self.target))

    def fold(self, model: Classifier) -> None:
        """Replace adapted biases by what they have become, which is what is saved."""
        if self.target == "biases":
            self.merge(model)
            for path in (p for site in ("ffn_in", "ffn_out") for p in model.sites.paths(site)):
                model.module(path).bias.requires_grad_(True)

    def merge(self, model: Classifier) -> None:
        """Write adapted biases and weights into their layers."""
        for path in (path for site in ("ffn_in", "ffn_out") for path in model.sites.paths(site)):
            layer = model.module(path)
            if isinstance(layer, AdaptedLinear):  # not folded
                model.replace(path, layer.merged())

    def claims(self) -> dict[str, str]:
        """The feed-forward projections, and with them their biases."""
        what = f"an adapter of its {self.target}"
        return dict.fromkeys(("ffn_in", "ffn_out", self.target), what)
