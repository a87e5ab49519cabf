"""Deep prompts: new virtual tokens in every layer (VPT, Jia et al., arXiv 2203.12119)."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field

from tunetrail.methods import Method
from tunetrail.modeling.classifier import Classifier
from tunetrail.modeling.prompts import SoftPrompt, check_positions, renew_in_layers


class DeepPrompt(Method):
    """``length`` virtual tokens before the text, with new ones in their place in every layer.

    Carried over from images: the first ones get positions and segments like tokens, and they start
    uniform within √(6 / (embedding size + hidden size)), the authors' bound with a token in the
    place of a patch.
    """

    title: ClassVar[str] = "deep prompts"
    paper: ClassVar[str] = "arXiv 2203.12119"
    verified: ClassVar[str | None] = "authors' code"
    not_mergeable: ClassVar[str | None] = "tokens are added, not weights"
    starts_at_base: ClassVar[bool] = False

    learning_rate: float = Field(default=1e-2, gt=0, description="peak learning rate")
    length: int = Field(default=10, ge=1, description="virtual tokens")
    depth: Literal["shallow", "deep"] = Field(
        default="deep", description="shallow: virtual tokens before the first layer alone"
    )

    def attach(self, model: Classifier) -> None:
        """Give the model its prompt, and the layers theirs."""
        width, hidden = model.module_of_tokens().embedding_dim, model.hidden_size
        bound = math.sqrt(6 / (width + hidden))
        layers = len(model.sites.layers())
        model.prompt = SoftPrompt(torch.empty(self.length, width).uniform_(-bound, bound))
        if self.depth == "deep" and layers > 1:
            vectors = torch.empty(layers - 1, self.length, hidden).uniform_(-bound, bound)
            renew_in_layers(model, vectors)

    def claims(self) -> dict[str, str]:
        """A model has one prompt."""
        return {"prompt": "virtual tokens"}

    def check(self, base: Mapping[str, Any], max_length: int) -> None:
        """Prompt and text together need positions."""
        option = f"{type(self).__module__.rpartition('.')[2]}: length"
        check_positions(option, self.length, base, max_length)
