"""What methods train on the base model of the project, for the list of methods."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunetrail.errors import TuneTrailError

#: The sizes of the base model in the shipped params.yaml, for where none is there yet.
_MINILM = {
    "hidden_size": 384,
    "num_hidden_layers": 6,
    "num_attention_heads": 12,
    "intermediate_size": 1536,
}


@dataclass(frozen=True)
class Base:
    """A base model by its name, (transformers) configuration and, once it is there, card."""

    name: str
    config: Any
    card: Mapping[str, Any] | None = None


def chosen_base(folder: Path) -> Base:
    """What the base stage wrote to ``folder``, or the default."""
    if (folder / "model" / "config.json").is_file():
        from tunetrail.modeling.base import check_base, read_base

        model, card = read_base(folder)
        source = card["source"]
        name = next(
            (source[key] for key in ("name", "repository", "url", "path") if key in source),
            str(model),
        )
        return Base(str(name), check_base(model), card)
    from transformers import BertConfig

    return Base("all-MiniLM-L6-v2", BertConfig(**_MINILM))


def counts(kinds: Mapping[str, Any], base: Base) -> dict[str, int | None]:
    """Parameters of each method by its name; None where its defaults do not fit the base model."""
    from tunetrail.methods._count import trained_parameters

    found: dict[str, int | None] = {}
    for name, kind in kinds.items():
        method = kind()
        try:
            if base.card is not None:
                method.check(base.card, max_length=0)
            found[name] = trained_parameters(method, base.config, "mean")
        except TuneTrailError:
            found[name] = None
    return found
