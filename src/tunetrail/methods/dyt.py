"""DyT: adapters, and tokens that skip the feed-forward sublayer (Zhao et al., arXiv 2403.11808)."""

from typing import ClassVar

import torch
from pydantic import Field

from tunetrail.methods import Method
from tunetrail.modeling.classifier import Classifier
from tunetrail.modeling.gates import layer_of
from tunetrail.modeling.routing import add_routers, routers


class DyT(Method):
    """x + s∘FFN(x) + adapter(x) with a gate s of 0 or 1 for each token; the first one is always 1.

    The gate, sigmoid(w·x + b), has Gumbel noise in training and none in prediction. Where a
    LayerNorm follows the residual, x is what it gave; where one comes before the sublayer, gate and
    adapter read what it gives. Padding is not counted in the share of tokens that enter.
    """

    title: ClassVar[str] = "DyT"
    paper: ClassVar[str] = "arXiv 2403.11808"
    verified: ClassVar[str | None] = "authors' code"
    not_mergeable: ClassVar[str | None] = "which tokens enter a layer depends on the input"
    starts_at_base: ClassVar[bool] = False

    learning_rate: float = Field(default=1e-3, gt=0, description="peak learning rate")
    width: int = Field(default=64, ge=1, description="of the adapter")
    dropout: float = Field(default=0.1, ge=0, le=0.9, description="inside the adapter")
    tau: float = Field(default=5.0, gt=0, description="temperature of the gate in training")
    target: float = Field(default=0.5, gt=0, le=1, description="share of tokens that should enter")
    weight: float = Field(default=2.0, ge=0, description="of the squared distance from the target")
    skip: bool = Field(
        default=True, description="leave skipped tokens out when predicting; else multiply by zero"
    )

    def attach(self, model: Classifier) -> None:
        """Put a router around every feed-forward sublayer."""
        add_routers(model, self.width, self.dropout, self.tau, self.skip)

    def penalty(self, model: Classifier) -> torch.Tensor | None:
        """Weight · (mean share of the layers - target)²."""
        shares = torch.stack([router.share for router in routers(model).values()])
        return self.weight * (shares.mean() - self.target) ** 2

    def observe(self, model: Classifier) -> dict[str, float]:
        """Share of the tokens of the selection set that entered each layer."""
        found = routers(model).items()
        return {" ".join([*layer_of(model, name), "tokens"]): r.mean() for name, r in found}

    def claims(self) -> dict[str, str]:
        """Both ends of the feed-forward sublayer."""
        return dict.fromkeys(("ffn_in", "ffn_output"), "a gate of tokens")
