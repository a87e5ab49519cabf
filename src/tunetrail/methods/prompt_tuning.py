"""Prompt tuning: learned vectors before the token embeddings (Lester et al., arXiv 2104.08691)."""

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from tunetrail.methods import Method
from tunetrail.modeling.classifier import Classifier
from tunetrail.modeling.prompts import Init, SoftPrompt, check_positions, first_vectors


class PromptTuning(Method):
    """``length`` virtual tokens that position and segment embeddings are added to like to others.

    The head sees the tokens of the text alone.
    """

    title: ClassVar[str] = "prompt tuning"
    paper: ClassVar[str] = "arXiv 2104.08691"
    verified: ClassVar[str | None] = "peft"
    not_mergeable: ClassVar[str | None] = "tokens are added, not weights"
    starts_at_base: ClassVar[bool] = False

    learning_rate: float = Field(default=3e-2, gt=0, description="peak learning rate")
    length: int = Field(default=10, ge=1, description="virtual tokens")
    init: Init = Field(default="uniform", description="±0.5, or tokens drawn from the vocabulary")

    def attach(self, model: Classifier) -> None:
        """Give the model its prompt."""
        model.prompt = SoftPrompt(first_vectors(model, self.length, self.init))

    def claims(self) -> dict[str, str]:
        """A model has one prompt."""
        return {"prompt": "virtual tokens"}

    def check(self, base: Mapping[str, Any], max_length: int) -> None:
        """Prompt and text together need positions."""
        check_positions("prompt_tuning: length", self.length, base, max_length)
