"""LoRTA: one low-rank tensor updates the attention of all layers (arXiv 2410.04060)."""

from typing import ClassVar, Literal

from pydantic import Field

from tunetrail.errors import TuneTrailError
from tunetrail.methods import Method
from tunetrail.modeling.classifier import Classifier
from tunetrail.modeling.cp_tensor import Factors, TensorLinear

#: The matrices of a layer in the order of their factors.
MATRICES = ("query", "key", "value", "attention_dense")


class LoRTA(Method):
    """A low-rank tensor over inputs, head outputs, heads, the four attention matrices and layers.

    B starts at zero, so training starts at the base model. By the formula heads cut the outputs of
    query, key and value, and the inputs of the projection after attention.
    """

    title: ClassVar[str] = "LoRTA"
    paper: ClassVar[str] = "arXiv 2410.04060"
    verified: ClassVar[str | None] = "authors' code"

    learning_rate: float = Field(default=1e-2, gt=0, description="peak learning rate")
    rank: int = Field(default=8, ge=1, description="rank of the tensor")
    alpha: float = Field(default=8.0, gt=0, description="the update is scaled by alpha / rank")
    heads: Literal["outputs", "inputs"] = Field(
        default="outputs", description="inputs: of query, key and value too, as the authors' code"
    )

    def attach(self, model: Classifier) -> None:
        """Wrap the attention matrices of all layers around one tensor.

        Raises:
            TuneTrailError: A matrix is not square: its heads are not those of the tensor.
        """
        hidden, heads = model.hidden_size, model.config.num_attention_heads
        layers = len(model.sites.layers())
        model.add_module(
            "lorta",
            factors := Factors(
                hidden=hidden, heads=heads, matrices=len(MATRICES), layers=layers, rank=self.rank
            ),
        )
        for matrix, site in enumerate(MATRICES):
            outputs = self.heads == "outputs" and site != "attention_dense"
            for layer, path in enumerate(model.sites.paths(site)):
                base = model.module(path)
                if {base.in_features, base.out_features} != {hidden}:
                    raise TuneTrailError(
                        f"lorta: '{site}' has {base.in_features} inputs and {base.out_features} "
                        f"outputs: one tensor needs {hidden} of both in every matrix",
                        "use lora, or a base model whose keys and values have as many heads",
                    )
                scale = self.alpha / self.rank
                model.replace(path, TensorLinear(base, factors, (layer, matrix), scale, outputs))

    def merge(self, model: Classifier) -> None:
        """Add every slice of the tensor to its matrix."""
        for path in (path for site in MATRICES for path in model.sites.paths(site)):
            model.replace(path, model.module(path).merged())
        del model.lorta

    def claims(self) -> dict[str, str]:
        """The four matrices."""
        return dict.fromkeys(MATRICES, "a slice of one tensor")
