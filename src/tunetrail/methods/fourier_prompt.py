"""Fourier prompts: a share of deep prompts in the frequency domain (VFPT, arXiv 2411.01327)."""

import math
from typing import ClassVar, Literal

from pydantic import Field
from torch.nn.utils import parametrize

from tunetrail.methods.deep_prompt import DeepPrompt
from tunetrail.modeling.classifier import Classifier
from tunetrail.modeling.prompts import Fourier


class FourierPrompt(DeepPrompt):
    """Of the virtual tokens of each layer, the first ``share`` (rounded down) are transformed.

    What a layer sees of them is the real part of their Fourier transform over features and then
    over tokens. The transform serves training: what it gives is kept.
    """

    title: ClassVar[str] = "Fourier prompts"
    paper: ClassVar[str] = "arXiv 2411.01327"
    verified: ClassVar[str | None] = "authors' code"

    #: A tenth of the deep prompts': the transform makes vectors and steps many times as large.
    learning_rate: float = Field(default=1e-3, gt=0, description="peak learning rate")
    share: float = Field(default=0.5, ge=0, le=1, description="of the tokens, that is transformed")
    over: Literal["both", "tokens", "features"] = Field(
        default="both", description="dimension of the transform"
    )

    def attach(self, model: Classifier) -> None:
        """Attach deep prompts, and the transform to them."""
        super().attach(model)
        count = math.floor(self.share * self.length)
        for module in (model.prompt, getattr(model, "layer_prompts", None)):
            if module is not None and count:
                parametrize.register_parametrization(module, "vectors", Fourier(count, self.over))

    def fold(self, model: Classifier) -> None:
        """Keep what the transform gives: it does not depend on the input."""
        for module in (model.prompt, getattr(model, "layer_prompts", None)):
            if module is not None and parametrize.is_parametrized(module, "vectors"):
                parametrize.remove_parametrizations(module, "vectors")
