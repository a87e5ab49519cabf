"""Where in an architecture a method can attach: one row of a table per family."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tunetrail.errors import TuneTrailError

#: What a site is, whatever the architecture. Projections are linear layers.
SITES = {
    "attention": "the module that calls the attention function",
    "query": "projection to queries",
    "key": "projection to keys",
    "value": "projection to values",
    "attention_dense": "projection of the attention's output",
    "attention_output": "last module before the attention's residual",
    "attention_norm": "LayerNorm after the attention's residual",
    "ffn_in": "first projection of the feed-forward sublayer",
    "ffn_out": "last projection of the feed-forward sublayer",
    "ffn_output": "last module before the feed-forward residual",
    "ffn_norm": "LayerNorm after the feed-forward residual",
}

#: The sites that are linear layers.
PROJECTIONS = ("query", "key", "value", "attention_dense", "ffn_in", "ffn_out")


@dataclass(frozen=True)
class Family:
    """One row of the table.

    Attributes:
        layers: Path of the list of layers in the trunk.
        sites: Site → module path inside one layer.
        fused: Module path inside one layer → the sites that share it; it is taken apart when the
            model is built, so that every projection is a linear layer of its own.
        count: Key of the configuration that says how many different layers there are.
        prefixes: Whether keys and values pass through transformers' attention interface.
        causal: Whether a token sees only those before it.
        gated_ffn: Whether another projection beside ``ffn_in`` reads the same hidden states.
    """

    layers: str
    sites: Mapping[str, str]
    fused: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    count: str = "num_hidden_layers"
    prefixes: bool = True
    causal: bool = False
    gated_ffn: bool = False


_BERT = {
    "attention": "attention.self",
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "attention_dense": "attention.output.dense",
    "attention_output": "attention.output.dropout",
    "attention_norm": "attention.output.LayerNorm",
    "ffn_in": "intermediate.dense",
    "ffn_out": "output.dense",
    "ffn_output": "output.dropout",
    "ffn_norm": "output.LayerNorm",
}
_ENCODER = Family("encoder.layer", _BERT)
_LLAMA = Family(
    "layers",
    {
        "attention": "self_attn",
        "query": "self_attn.q_proj",
        "key": "self_attn.k_proj",
        "value": "self_attn.v_proj",
        "attention_dense": "self_attn.o_proj",
        "attention_output": "self_attn.o_proj",
        "ffn_in": "mlp.up_proj",
        "ffn_out": "mlp.down_proj",
        "ffn_output": "mlp.down_proj",
    },
    causal=True,
    gated_ffn=True,
)

#: ``model_type`` of the configuration → where things are.
FAMILIES: dict[str, Family] = {
    "bert": _ENCODER,
    "roberta": _ENCODER,
    "xlm-roberta": _ENCODER,
    "electra": _ENCODER,
    "distilbert": Family(
        "transformer.layer",
        {
            "attention": "attention",
            "query": "attention.q_lin",
            "key": "attention.k_lin",
            "value": "attention.v_lin",
            "attention_dense": "attention.out_lin",
            "attention_output": "attention.out_lin",
            "attention_norm": "sa_layer_norm",
            "ffn_in": "ffn.lin1",
            "ffn_out": "ffn.lin2",
            "ffn_output": "ffn.dropout",
            "ffn_norm": "output_layer_norm",
        },
    ),
    "albert": Family(
        "encoder.albert_layer_groups",
        {
            "attention": "albert_layers.0.attention",
            "query": "albert_layers.0.attention.query",
            "key": "albert_layers.0.attention.key",
            "value": "albert_layers.0.attention.value",
            "attention_dense": "albert_layers.0.attention.dense",
            "attention_output": "albert_layers.0.attention.output_dropout",
            "attention_norm": "albert_layers.0.attention.LayerNorm",
            "ffn_in": "albert_layers.0.ffn",
            "ffn_out": "albert_layers.0.ffn_output",
            "ffn_output": "albert_layers.0.ffn_output",
            "ffn_norm": "albert_layers.0.full_layer_layer_norm",
        },
        count="num_hidden_groups",
    ),
    "mpnet": Family(
        "encoder.layer",
        {
            **_BERT,
            "attention": "attention.attn",
            "query": "attention.attn.q",
            "key": "attention.attn.k",
            "value": "attention.attn.v",
            "attention_dense": "attention.attn.o",
            "attention_output": "attention.dropout",
            "attention_norm": "attention.LayerNorm",
        },
        prefixes=False,
    ),
    "deberta-v2": Family(
        "encoder.layer",
        {
            **_BERT,
            "query": "attention.self.query_proj",
            "key": "attention.self.key_proj",
            "value": "attention.self.value_proj",
        },
        prefixes=False,
    ),
    "modernbert": Family(
        "layers",
        {
            "attention": "attn",
            "query": "attn.Wqkv.query",
            "key": "attn.Wqkv.key",
            "value": "attn.Wqkv.value",
            "attention_dense": "attn.Wo",
            "attention_output": "attn.out_drop",
            "ffn_in": "mlp.Wi",
            "ffn_out": "mlp.Wo",
            "ffn_output": "mlp.Wo",
        },
        fused={"attn.Wqkv": ("query", "key", "value")},
    ),
    "gpt2": Family(
        "h",
        {
            "attention": "attn",
            "query": "attn.c_attn.query",
            "key": "attn.c_attn.key",
            "value": "attn.c_attn.value",
            "attention_dense": "attn.c_proj",
            "attention_output": "attn.resid_dropout",
            "ffn_in": "mlp.c_fc",
            "ffn_out": "mlp.c_proj",
            "ffn_output": "mlp.dropout",
        },
        fused={"attn.c_attn": ("query", "key", "value")},
        causal=True,
    ),
    "llama": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
}

#: Families that count positions from the padding token's index on.
_OFFSET_POSITIONS = {"roberta", "xlm-roberta", "mpnet"}


@dataclass(frozen=True)
class Sites:
    """The sites of one model."""

    architecture: str
    family: Family
    count: int

    def paths(self, site: str, layers: Sequence[int] | None = None) -> list[str]:
        """Module paths of ``site`` in the trunk, first layer first.

        Args:
            site: Name of the site.
            layers: Only these layers, from 0; default: all.

        Raises:
            TuneTrailError: The architecture has no such site.
        """
        inner = self.family.sites.get(site)
        if inner is None:
            raise TuneTrailError(
                f"base model architecture '{self.architecture}' has no site '{site}'",
                f"use one of {', '.join(self.family.sites)}",
            )
        paths = [f"{layer}.{inner}" for layer in self.layers()]
        return paths if layers is None else [paths[index] for index in layers]

    def has(self, site: str) -> bool:
        """Whether the architecture has ``site``."""
        return site in self.family.sites

    def layers(self) -> list[str]:
        """Module paths of the layers."""
        return [f"{self.family.layers}.{index}" for index in range(self.count)]


def check_layers(method: str, layers: Sequence[int], count: int) -> None:
    """Refuse layers that a model of ``count`` layers does not have.

    Raises:
        TuneTrailError: With the method and the first such layer.
    """
    outside = [index for index in layers if not 0 <= index < count]
    if outside:
        raise TuneTrailError(
            f"{method}: layer {outside[0]} is not one of the model's {count} layers",
            f"give layers from 0 to {count - 1}",
        )


def usable_positions(config: Any) -> int:
    """Tokens that a text may have, from a model's configuration."""
    # 1 is what transformers takes where a configuration of these families does not say it.
    padding = 1 if config.pad_token_id is None else config.pad_token_id
    offset = padding + 1 if config.model_type in _OFFSET_POSITIONS else 0
    return int(config.max_position_embeddings) - offset


def model_modules() -> list[str]:
    """The transformers modules of the usual families, for whoever wants to import them ahead."""
    names = ("bert", "roberta", "xlm_roberta", "electra")
    return [f"transformers.models.{name}.modeling_{name}" for name in names]


def sites_of(config: Any) -> Sites:
    """The sites of a model with this (transformers) configuration.

    Raises:
        TuneTrailError: The family is not in the table.
    """
    family = family_of(config.model_type)
    return Sites(config.model_type, family, int(getattr(config, family.count)))


def family_of(model_type: str) -> Family:
    """The row of the table for an architecture.

    Raises:
        TuneTrailError: There is none.
    """
    family = FAMILIES.get(model_type)
    if family is None:
        raise TuneTrailError(
            f"base model architecture '{model_type}' has no declared sites ({', '.join(SITES)})",
            f"use one of {', '.join(sorted(FAMILIES))}, or declare where they are: "
            "a row of modeling/sites.py",
        )
    return family


def check_masked(model_type: str) -> None:
    """Refuse architectures without masked-language modelling.

    Raises:
        TuneTrailError: It is a decoder, or not in the table.
    """
    if family_of(model_type).causal:
        raise TuneTrailError(
            f"base model architecture '{model_type}' is a decoder: there is no masked-language "
            "modelling to continue",
            "use an encoder, or remove 'pretraining' and the methods that start from it",
        )
