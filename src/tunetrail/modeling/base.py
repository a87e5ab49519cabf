"""The base model's folder as the base stage writes it: ``model/`` and ``card.json``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tunetrail.errors import TuneTrailError
from tunetrail.files import read_json, tree_digest
from tunetrail.layout import CARD, TOKENIZER


def read_base(folder: Path) -> tuple[Path, dict[str, Any]]:
    """The model folder and its card."""
    return folder / "model", read_json(folder / CARD)


def verified_base(folder: Path, expected: str) -> Path:
    """The model folder, after checking its bytes against the digest that a run names.

    Raises:
        TuneTrailError: These are not the run's weights.
    """
    model = folder / "model"
    actual = tree_digest(model)
    if actual != expected:
        raise TuneTrailError(
            f"{model} is not the base model of this run\n  run    {expected}\n  actual {actual}",
            "run the base and resolve stages again",
        )
    return model


def check_base(base: Path) -> dict[str, Any]:
    """The configuration of a model folder, checked for what TuneTrail needs.

    Raises:
        TuneTrailError: No configuration, no safetensors weights, or no tokenizer.
    """
    config_file = base / "config.json"
    if not config_file.is_file():
        raise TuneTrailError(
            f"base model: no config.json in {base}", "point 'base.source' at a model folder"
        )
    config = read_json(config_file)
    needed = ("model_type", "hidden_size", "num_hidden_layers", "max_position_embeddings")
    absent = [key for key in needed if not isinstance(config, dict) or key not in config]
    if absent:
        raise TuneTrailError(
            f"base model: config.json in {base} does not say '{absent[0]}'",
            "point 'base.source' at the folder of a transformers encoder",
        )
    if not list(base.glob("*.safetensors")):
        pickled = [p.name for p in base.iterdir() if p.suffix in {".bin", ".pt", ".pth", ".ckpt"}]
        raise TuneTrailError(
            f"base model: no .safetensors weights in {base}"
            + (f" ({pickled[0]} is a pickle and is never loaded)" if pickled else ""),
            "convert the weights to safetensors",
        )
    if not (base / TOKENIZER).is_file():
        raise TuneTrailError(
            f"base model: no {TOKENIZER} in {base}",
            "save the fast tokenizer next to the weights",
        )
    return dict(config)
