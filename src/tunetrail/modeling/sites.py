"""Where in an architecture a method can attach: one row of a table per family."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tunetrail.errors import TuneTrailError

#: Site → module path inside one layer. Methods use the names on the left and nothing else.
_BERT = {
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

#: Family (``model_type`` of the configuration) → path of the layers in the trunk, sites in a layer.
_FAMILIES: dict[str, tuple[str, dict[str, str]]] = {
    "bert": ("encoder.layer", _BERT),
    "roberta": ("encoder.layer", _BERT),
    "xlm-roberta": ("encoder.layer", _BERT),
    "electra": ("encoder.layer", _BERT),
}


#: Families that count positions from the padding token's index on.
_OFFSET_POSITIONS = {"roberta", "xlm-roberta"}


@dataclass(frozen=True)
class Sites:
    """The sites of one model."""

    layers: str
    within_layer: dict[str, str]
    count: int

    def paths(self, site: str) -> list[str]:
        """Module paths of ``site`` in the trunk, first layer first."""
        inner = self.within_layer[site]
        return [f"{self.layers}.{index}.{inner}" for index in range(self.count)]


def usable_positions(config: dict[str, Any]) -> int:
    """Tokens that a text may have, from a model's configuration."""
    # 1 is what transformers takes where a configuration of these families does not say it.
    offset = config.get("pad_token_id", 1) + 1 if config["model_type"] in _OFFSET_POSITIONS else 0
    return int(config["max_position_embeddings"]) - offset


def model_modules() -> list[str]:
    """The transformers modules of the families, for whoever wants to import them ahead."""
    names = [family.replace("-", "_") for family in _FAMILIES]
    return [f"transformers.models.{name}.modeling_{name}" for name in names]


def sites_of(model_type: str, layers: int) -> Sites:
    """The sites of a family with this many layers.

    Raises:
        TuneTrailError: The family is not in the table.
    """
    if model_type not in _FAMILIES:
        raise TuneTrailError(
            f"base model architecture '{model_type}' has no declared sites",
            f"use an encoder of one of the families {', '.join(sorted(_FAMILIES))}, or add a row "
            "to modeling/sites.py",
        )
    path, within = _FAMILIES[model_type]
    return Sites(layers=path, within_layer=within, count=layers)
