"""BitFit: train the bias terms (Ben Zaken et al., arXiv 2106.10199)."""

from typing import ClassVar, Literal

from pydantic import Field

from tunetrail.errors import TuneTrailError
from tunetrail.methods import Method
from tunetrail.modeling.classifier import Classifier


class BitFit(Method):
    """Train every parameter named ``bias`` (LayerNorms and pooler included) and the head.

    Or, as a subset of the paper, the biases of queries and of the first FFN projection alone.
    """

    title: ClassVar[str] = "BitFit"
    paper: ClassVar[str] = "arXiv 2106.10199"
    verified: ClassVar[str | None] = "authors' code"

    learning_rate: float = Field(default=2e-3, gt=0, description="peak learning rate")
    biases: Literal["all", "query_and_ffn"] = Field(
        default="all", description="query_and_ffn: of queries and the first FFN projection"
    )

    def attach(self, model: Classifier) -> None:
        """Unfreeze the biases of the trunk.

        Raises:
            TuneTrailError: The base model has none of them.
        """
        parameters = dict(model.trunk.named_parameters())
        if self.biases == "all":
            biases = [p for name, p in parameters.items() if name.endswith(".bias")]
        else:
            paths = [path for site in ("query", "ffn_in") for path in model.sites.paths(site)]
            biases = [parameters[f"{path}.bias"] for path in paths if f"{path}.bias" in parameters]
        if not biases:
            raise TuneTrailError(
                f"bitfit: the base model has no biases to train (biases: {self.biases})",
                "use another method" + ("" if self.biases == "all" else ", or biases: all"),
            )
        for bias in biases:
            bias.requires_grad_(True)

    def claims(self) -> dict[str, str]:
        """The biases."""
        return {"biases": f"training of biases ({self.biases})"}
