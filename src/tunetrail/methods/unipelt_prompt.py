"""UniPELT with a layer of soft prompts (arXiv 2405.05493)."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from tunetrail.methods.unipelt import UniPELT
from tunetrail.modeling.classifier import Classifier
from tunetrail.modeling.gates import Gate
from tunetrail.modeling.prompts import (
    Init,
    SoftPrompt,
    check_positions,
    first_vectors,
    renew_in_layers,
    uniform,
)


class UniPELTPrompt(UniPELT):
    """UniPELT and ``prompt_length`` virtual tokens before the text.

    The paper does not say where its prompt layer sits; here it is at the embeddings, or, as an
    option, renewed in every layer.
    """

    title: ClassVar[str] = "UniPELT + prompt"
    paper: ClassVar[str] = "arXiv 2405.05493"
    verified: ClassVar[str | None] = None

    prompt_length: int = Field(default=10, ge=1, description="virtual tokens")
    prompt_init: Init = Field(
        default="uniform", description="±0.5, or tokens drawn from the vocabulary"
    )
    prompt_gated: bool = Field(default=False, description="a gate of the text's embeddings on them")
    prompt_at: Literal["embeddings", "layers"] = Field(
        default="embeddings", description="layers: new virtual tokens in every layer"
    )

    def attach(self, model: Classifier) -> None:
        """Attach UniPELT, then the prompt."""
        super().attach(model)
        width = model.module_of_tokens().embedding_dim
        gate = Gate(width, self._text_mask(model), "prompt") if self.prompt_gated else None
        first = first_vectors(model, self.prompt_length, self.prompt_init)
        model.prompt = SoftPrompt(first, gate)
        if self.prompt_at == "layers":
            layers = len(model.sites.layers()) - 1
            renew_in_layers(model, uniform(layers, self.prompt_length, model.hidden_size))

    def _text_mask(self, model: Classifier) -> Any:
        return None if self.gate_over == "all" else lambda: model.mask[:, self.prompt_length :]

    def claims(self) -> dict[str, str]:
        """UniPELT's, and the prompt."""
        return super().claims() | {"prompt": "virtual tokens"}

    def check(self, base: Mapping[str, Any], max_length: int) -> None:
        """UniPELT must fit, and prompt and text together need positions."""
        super().check(base, max_length)
        check_positions("unipelt_prompt: prompt_length", self.prompt_length, base, max_length)
