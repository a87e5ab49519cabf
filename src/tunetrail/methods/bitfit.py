"""BitFit: train the bias terms (Ben Zaken et al., arXiv 2106.10199)."""

from typing import ClassVar

from pydantic import Field

from tunetrail.methods import Method
from tunetrail.modeling.classifier import Classifier


class BitFit(Method):
    """Train every parameter named ``bias`` (LayerNorms and pooler included) and the head."""

    title: ClassVar[str] = "BitFit"
    paper: ClassVar[str] = "arXiv 2106.10199"

    learning_rate: float = Field(default=2e-3, gt=0, description="peak learning rate")

    def attach(self, model: Classifier) -> None:
        """Unfreeze the biases of the trunk."""
        for name, parameter in model.trunk.named_parameters():
            if name.endswith(".bias"):
                parameter.requires_grad_(True)

    def claims(self) -> dict[str, str]:
        """The biases."""
        return {"biases": "training of every bias"}
