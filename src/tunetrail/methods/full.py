"""Full fine-tuning: every parameter trains."""

from typing import ClassVar

from pydantic import Field

from tunetrail.methods import Method
from tunetrail.modeling.classifier import Classifier


class Full(Method):
    """Train all weights of the base model and the head."""

    title: ClassVar[str] = "full fine-tuning"
    paper: ClassVar[str] = "arXiv 1810.04805"
    verified: ClassVar[str | None] = "transformers"

    learning_rate: float = Field(default=1e-4, gt=0, description="peak learning rate")

    def attach(self, model: Classifier) -> None:
        """Unfreeze the trunk."""
        model.trunk.requires_grad_(True)

    def claims(self) -> dict[str, str]:
        """All there is."""
        return dict.fromkeys(("weights", "biases"), "training of every parameter")
