"""Prefix tuning: learned keys and values in every layer (Li & Liang, arXiv 2101.00190)."""

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from tunetrail.errors import TuneTrailError
from tunetrail.methods import Method
from tunetrail.modeling.classifier import Classifier
from tunetrail.modeling.prefix import add_prefixes, fold_prefixes


class PrefixTuning(Method):
    """Every token also attends to ``length`` learned pairs, which no mask hides.

    They are trained through a two-layer network, which is dropped when the run is saved.
    """

    title: ClassVar[str] = "prefix tuning"
    paper: ClassVar[str] = "arXiv 2101.00190"
    verified: ClassVar[str | None] = "AdapterHub"
    not_mergeable: ClassVar[str | None] = "keys and values are added, not weights"
    starts_at_base: ClassVar[bool] = False

    learning_rate: float = Field(default=1e-3, gt=0, description="peak learning rate")
    length: int = Field(default=10, ge=1, description="pairs of keys and values in a layer")
    width: int = Field(default=512, ge=0, description="of the network; 0 trains the pairs directly")

    def attach(self, model: Classifier) -> None:
        """Give every attention module a prefix."""
        add_prefixes(model, model.sites.paths("attention"), self.length, self.width)

    def fold(self, model: Classifier) -> None:
        """Keep what the network makes, and drop the network."""
        fold_prefixes(model)

    def claims(self) -> dict[str, str]:
        """An attention module has one prefix."""
        return {"attention": "a prefix"}

    def check(self, base: Mapping[str, Any], max_length: int) -> None:
        """Attention must go through transformers' interface."""
        if not base["prefixes"]:
            raise TuneTrailError(
                f"prefix_tuning: the attention of '{base['architecture']}' takes no prefix",
                "use a method that changes weights or hidden states, or another base model",
            )
