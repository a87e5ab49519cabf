"""LoRA: low-rank updates of weight matrices (Hu et al., arXiv 2106.09685)."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import AfterValidator, Field
from torch import nn

from tunetrail.errors import TuneTrailError
from tunetrail.methods import Method
from tunetrail.modeling.classifier import Classifier

Site = Literal["query", "key", "value", "attention_dense", "ffn_in", "ffn_out"]


def _different(sites: tuple[Site, ...]) -> tuple[Site, ...]:
    if len(set(sites)) != len(sites):
        raise ValueError("a site can be named once")
    return sites


#: The matrices that a method changes, each at most once.
Sites = Annotated[tuple[Site, ...], Field(min_length=1), AfterValidator(_different)]


class LoRALinear(nn.Module):
    """W·x + (alpha/rank)·B·A·dropout(x); A is ``(rank, in)``, B is ``(out, rank)``.

    A ``gate`` of the input takes the place of alpha/rank.
    """

    def __init__(
        self,
        base: nn.Linear,
        rank: int,
        alpha: float,
        dropout: float,
        gate: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.base = base
        self.scale = alpha / rank
        self.gate = gate
        self.dropout = nn.Dropout(dropout)
        self.a = nn.Parameter(torch.empty(rank, base.in_features))
        self.b = nn.Parameter(torch.zeros(base.out_features, rank))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape ``(…, in)`` to ``(…, out)``."""
        low = nn.functional.linear(self.dropout(x), self.a)
        scale = self.scale if self.gate is None else self.gate(x)
        out: torch.Tensor = self.base(x) + nn.functional.linear(low, self.b) * scale
        return out

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """The base layer with the update added to its weight, in float32."""
        update = self.b.float() @ self.a.float() * self.scale
        self.base.weight.copy_(self.base.weight.float() + update)
        return self.base


class LoRA(Method):
    """A starts uniform (Kaiming, a = √5), B at zero, so training starts at the base model."""

    title: ClassVar[str] = "LoRA"
    paper: ClassVar[str] = "arXiv 2106.09685"
    verified: ClassVar[str | None] = "peft"

    learning_rate: float = Field(default=2e-3, gt=0, description="peak learning rate")
    rank: int = Field(default=8, ge=1, description="rank of the update")
    alpha: float = Field(default=16.0, gt=0, description="the update is scaled by alpha / rank")
    dropout: float = Field(default=0.0, ge=0, le=0.9, description="on the input of A")
    sites: Sites = Field(default=("query", "value"), description="matrices that get an update")

    def attach(self, model: Classifier) -> None:
        """Wrap the chosen matrices of every layer."""
        for path in (path for site in self.sites for path in model.sites.paths(site)):
            base = model.module(path)
            model.replace(path, LoRALinear(base, self.rank, self.alpha, self.dropout))

    def merge(self, model: Classifier) -> None:
        """Add every update to its matrix."""
        for path in (path for site in self.sites for path in model.sites.paths(site)):
            model.replace(path, model.module(path).merged())

    def claims(self) -> dict[str, str]:
        """The chosen matrices."""
        return dict.fromkeys(self.sites, "a low-rank update")

    def check(self, base: Mapping[str, Any], max_length: int) -> None:
        """The rank of an update cannot exceed the matrix."""
        most = base["hidden_size"]
        if self.rank > most:
            problem = f"lora: rank is {self.rank}, larger than the hidden size {most}"
            raise TuneTrailError(problem, f"give a rank of at most {most} (8 is usual)")
