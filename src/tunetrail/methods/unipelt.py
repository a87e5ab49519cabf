"""UniPELT: adapter, prefix and LoRA, each behind a gate (Mao et al., arXiv 2110.07577)."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from tunetrail.methods import Method
from tunetrail.methods.lora import LoRA, LoRALinear
from tunetrail.methods.pfeiffer import Pfeiffer, add_adapters
from tunetrail.methods.prefix_tuning import PrefixTuning
from tunetrail.modeling.classifier import Classifier
from tunetrail.modeling.gates import Gate, GatedInput, gate_means
from tunetrail.modeling.prefix import add_prefixes, fold_prefixes
from tunetrail.modeling.sites import check_layers

Part = Literal["adapter", "prefix", "lora"]


class UniPELT(Method):
    """Pfeiffer adapter, prefix and LoRA on query and value in every layer, as the authors wrote it.

    A gate is sigmoid(w·h + b) averaged over the tokens: of the layer's input for prefix and LoRA
    (where it replaces alpha/rank), of the adapter's input for the adapter.
    """

    title: ClassVar[str] = "UniPELT"
    paper: ClassVar[str] = "arXiv 2110.07577"
    verified: ClassVar[str | None] = "AdapterHub"
    not_mergeable: ClassVar[str | None] = "its gates depend on the input"
    starts_at_base: ClassVar[bool] = False

    learning_rate: float = Field(default=1e-3, gt=0, description="peak learning rate")
    parts: tuple[Part, ...] = Field(
        default=("adapter", "prefix", "lora"), min_length=1, description="AP is adapter and prefix"
    )
    gated: bool = Field(default=True, description="false: the parts side by side, without gates")
    gate_over: Literal["tokens", "all"] = Field(
        default="tokens", description="all: padding counts in a gate, as in the authors' code"
    )
    reduction: int = Field(default=16, ge=1, description="hidden size / width of the adapter")
    prefix_length: int = Field(default=10, ge=1, description="pairs of keys and values in a layer")
    prefix_width: int = Field(default=512, ge=0, description="network that makes the prefixes")
    rank: int = Field(default=8, ge=1, description="rank of LoRA")
    alpha: float = Field(default=16.0, gt=0, description="LoRA is scaled by alpha / rank (ungated)")
    layers: tuple[int, ...] | None = Field(default=None, min_length=1, description="default: all")

    @field_validator("parts", "layers")
    @classmethod
    def _different(cls, value: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
        if value is not None and len(set(value)) != len(value):
            raise ValueError("each can be named once")
        return value

    def attach(self, model: Classifier) -> None:
        """Attach the parts to the chosen layers."""
        if "lora" in self.parts:
            sites = {s: model.sites.paths(s, self.layers) for s in ("query", "value")}
            for site, path in ((s, path) for s, paths in sites.items() for path in paths):
                base, gate = model.module(path), self.gate(model, f"LoRA {site}")
                model.replace(path, LoRALinear(base, self.rank, self.alpha, 0.0, gate))
        if "prefix" in self.parts:
            attentions = model.sites.paths("attention", self.layers)
            add_prefixes(model, attentions, self.prefix_length, self.prefix_width)
            queries = model.sites.paths("query", self.layers)
            for attention, query in zip(attentions, queries, strict=True):
                if (gate := self.gate(model, "prefix")) is not None:
                    watched = GatedInput(model.module(query), gate)
                    model.replace(query, watched)
                    model.module(attention).prefix.gate = watched.value
        if "adapter" in self.parts:
            add_adapters(model, self.reduction, self.layers, lambda: self.gate(model, "adapter"))

    def gate(self, model: Classifier, of: str) -> Gate | None:
        """A new gate, or None where there are none."""
        mask = None if self.gate_over == "all" else lambda: model.mask
        return Gate(model.hidden_size, mask, of) if self.gated else None

    def fold(self, model: Classifier) -> None:
        """Keep the prefixes, drop the network that made them."""
        fold_prefixes(model)

    def observe(self, model: Classifier) -> dict[str, float]:
        """Mean of every gate over the selection set, by layer and part."""
        return gate_means(model)

    def claims(self) -> dict[str, str]:
        """What its parts claim, and queries: their input decides a gate."""
        parts = {"adapter": Pfeiffer(), "prefix": PrefixTuning(), "lora": LoRA()}
        claims = {k: v for part in self.parts for k, v in parts[part].claims().items()}
        return claims | ({"query": "gates"} if self.gated else {})

    def check(self, base: Mapping[str, Any], max_length: int) -> None:
        """Every part must fit, and so must the layers."""
        if "prefix" in self.parts:
            PrefixTuning().check(base, max_length)
        Pfeiffer(reduction=self.reduction).check(base, max_length)
        LoRA(rank=self.rank).check(base, max_length)
        check_layers("unipelt", self.layers or (), base["layers"])
