"""DSEE: low-rank and sparse updates of weights that are pruned (Chen et al., arXiv 2111.00160)."""

from collections.abc import Mapping
from typing import Any, ClassVar, get_args

import torch
from pydantic import Field
from torch import nn

from tunetrail.errors import TuneTrailError
from tunetrail.methods import Method
from tunetrail.methods.lora import LoRA, LoRALinear, Site, Sites
from tunetrail.modeling.classifier import Classifier
from tunetrail.modeling.sparse import SparseUpdate, outstanding, zero_smallest


class SparseLoRALinear(LoRALinear):
    """W·x + (alpha/rank)·(B·A + S)·x with S sparse, A normal, B and S zero at the start."""

    #: Of the first layer: whether the pretrained weights of the model are pruned.
    pruned = False

    def __init__(self, base: nn.Linear, rank: int, alpha: float, entries: int) -> None:
        super().__init__(base, rank, alpha, dropout=0.0)
        nn.init.normal_(self.a, std=0.02)
        self.s = SparseUpdate(outstanding(base.weight, entries), base.in_features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape ``(…, in)`` to ``(…, out)``."""
        return self.s.add_to(super().forward(x), x, self.scale)

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """The base layer with the update added to its weight, in float32."""
        layer = super().merged()
        layer.weight[self.s.rows, self.s.columns] += self.s.values() * self.scale
        return layer


class DSEE(Method):
    """LoRA and a sparse matrix on the entries that stand out from a low-rank part of W.

    With ``prune`` it has its second stage: the projections' pretrained weights of least magnitude
    become zero, and training goes on. The choice follows from the base model alone.
    """

    title: ClassVar[str] = "DSEE"
    paper: ClassVar[str] = "arXiv 2111.00160"
    verified: ClassVar[str | None] = "authors' code"

    learning_rate: float = Field(default=2e-3, gt=0, description="peak learning rate")
    rank: int = Field(default=16, ge=1, description="rank of the low-rank update")
    alpha: float = Field(default=32.0, gt=0, description="the update is scaled by alpha / rank")
    entries: int = Field(default=16, ge=1, description="values of the sparse update of a matrix")
    prune: float = Field(default=0.0, ge=0, lt=1, description="share of pretrained weights zeroed")
    prune_at: float = Field(default=0.5, ge=0, lt=1, description="share of training before that")
    sites: Sites = Field(default=("query", "value"), description="matrices that get an update")

    def attach(self, model: Classifier) -> None:
        """Wrap the chosen matrices of every layer."""
        for path in (path for site in self.sites for path in model.sites.paths(site)):
            layer = SparseLoRALinear(model.module(path), self.rank, self.alpha, self.entries)
            model.replace(path, layer)

    def before_step(self, model: Classifier, share: float) -> None:
        """Prune once the first stage is over."""
        if share >= self.prune_at:
            self.fold(model)

    def fold(self, model: Classifier) -> None:
        """Prune, as training has, unless it is done."""
        wrapped = [model.module(path) for s in self.sites for path in model.sites.paths(s)]
        if self.prune and not wrapped[0].pruned:
            every = [model.module(path) for s in get_args(Site) for path in model.sites.paths(s)]
            zero_smallest([getattr(m, "base", m).weight for m in every], self.prune)
            wrapped[0].pruned = True

    def shard_obstacle(self) -> str | None:
        """To prune it compares all weights."""
        return "it prunes by comparing whole weights (prune: 0 does not)" if self.prune else None

    def merge(self, model: Classifier) -> None:
        """Add every update to its matrix."""
        for path in (path for site in self.sites for path in model.sites.paths(site)):
            model.replace(path, model.module(path).merged())

    def claims(self) -> dict[str, str]:
        """The chosen matrices, and all of them if they are pruned."""
        sites = get_args(Site) if self.prune else self.sites
        return dict.fromkeys(sites, "a low-rank and sparse update")

    def check(self, base: Mapping[str, Any], max_length: int) -> None:
        """Neither part of an update can exceed the matrix."""
        LoRA(rank=self.rank).check(base, max_length)
        most = base["hidden_size"] ** 2
        if self.entries > most:
            problem = f"dsee: entries is {self.entries}, more than a matrix has ({most})"
            raise TuneTrailError(problem, f"give at most {most} entries (16 is usual)")
