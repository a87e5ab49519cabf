"""Head only: the trunk stays as it is (linear probing)."""

from typing import ClassVar

from pydantic import Field

from tunetrail.methods import Method
from tunetrail.modeling.classifier import Classifier


class Head(Method):
    """Train the classification head on the frozen base model."""

    title: ClassVar[str] = "head only"
    paper: ClassVar[str] = "arXiv 1610.01644"
    verified: ClassVar[str | None] = "transformers"

    learning_rate: float = Field(default=1e-2, gt=0, description="peak learning rate")

    def attach(self, model: Classifier) -> None:
        """Nothing to add: the head trains already."""
