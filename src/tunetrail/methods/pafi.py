"""PaFi: train the pretrained parameters of smallest magnitude (Liao et al., arXiv 2305.16742)."""

from typing import ClassVar, Literal

from pydantic import Field

from tunetrail.methods import Method
from tunetrail.modeling.classifier import Classifier
from tunetrail.modeling.sites import PROJECTIONS
from tunetrail.modeling.sparse import pretrained, settle_entries, smallest, train_entries


class PaFi(Method):
    """A ``share`` of the pretrained parameters trains: those nearest to zero, whatever the task.

    Which they are follows from the base model alone, so what is saved is how much each of
    them changes. Embeddings take no part unless asked for.
    """

    title: ClassVar[str] = "PaFi"
    paper: ClassVar[str] = "arXiv 2305.16742"

    learning_rate: float = Field(default=1e-3, gt=0, description="peak learning rate")
    share: float = Field(default=0.005, gt=0, le=1, description="of the parameters, that trains")
    within: Literal["model", "tensor"] = Field(
        default="model", description="tensor: this share of each tensor, not of all together"
    )
    embeddings: bool = Field(default=False, description="whether embeddings take part")

    def attach(self, model: Classifier) -> None:
        """Take the smallest entries out of their tensors."""
        places = list(pretrained(model.trunk, embeddings=self.embeddings))
        tensors = [getattr(module, name) for module, name in places]
        if self.within == "model":
            indices = smallest(tensors, self.share)
        else:
            indices = [smallest([tensor], self.share)[0] for tensor in tensors]
        for (module, name), index in zip(places, indices, strict=True):
            if len(index):
                train_entries(module, name, index)

    def merge(self, model: Classifier) -> None:
        """Put the entries back."""
        settle_entries(model.trunk)

    def claims(self) -> dict[str, str]:
        """It takes every tensor apart, so no layer that others wrap is what it was."""
        what = "single entries of every tensor"
        return dict.fromkeys(("weights", "biases", *PROJECTIONS), what)
