"""Houlsby adapters: two bottlenecks a layer (Houlsby et al., arXiv 1902.00751)."""

from typing import ClassVar

from pydantic import Field
from torch import nn

from tunetrail.methods import Method
from tunetrail.modeling.bottleneck import Bottleneck
from tunetrail.modeling.classifier import Classifier


class Houlsby(Method):
    """x + W2·GELU(W1·x + b1) + b2 on both sublayer outputs, before residual and LayerNorm.

    LayerNorms train too, as in the authors' code. Weights start at a normal distribution of
    standard deviation 1e-3 truncated at two deviations, so the start is close to the base model.
    """

    title: ClassVar[str] = "Houlsby adapter"
    paper: ClassVar[str] = "arXiv 1902.00751"
    verified: ClassVar[str | None] = "AdapterHub"
    not_mergeable: ClassVar[str | None] = "the bottleneck is not linear"
    starts_at_base: ClassVar[bool] = False

    learning_rate: float = Field(default=1e-3, gt=0, description="peak learning rate")
    bottleneck: int = Field(default=64, ge=1, description="width of the bottleneck")

    def attach(self, model: Classifier) -> None:
        """Put an adapter after the dropout of each sublayer; unfreeze the LayerNorms."""
        for site in ("attention_output", "ffn_output"):
            for path in model.sites.paths(site):
                adapter = Bottleneck(
                    size=model.hidden_size, bottleneck=self.bottleneck, activation=nn.GELU()
                )
                adapter.start_truncated_normal(std=1e-3)
                model.replace(path, nn.Sequential(model.module(path), adapter))
        for module in model.trunk.modules():
            if isinstance(module, nn.LayerNorm):
                module.requires_grad_(True)

    def claims(self) -> dict[str, str]:
        """The ends of both sublayers."""
        return dict.fromkeys(("attention_output", "ffn_output"), "an adapter")
