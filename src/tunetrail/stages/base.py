"""base: fetch the base model, check it and write it to a folder of its own."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from tunetrail.errors import TuneTrailError
from tunetrail.files import replacing, scratch, tree_digest, write_json
from tunetrail.layout import CARD
from tunetrail.machine import from_machine, require_room
from tunetrail.modeling.base import check_base, same_tokens, unloadable
from tunetrail.modeling.classifier import Classifier, build_classifier
from tunetrail.modeling.sites import usable_positions
from tunetrail.sources import read_source

#: What a model folder may contain besides weights and tokenizer is left behind.
_KEEP = {".json", ".txt", ".safetensors", ".model"}


def fetch_base(source: Path, out: Path) -> None:
    """Materialise the base model at ``out/model`` with its card ``out/card.json``.

    Raises:
        TuneTrailError: The source fails, or the folder is not a usable model.
    """
    origin = read_source(source)
    with scratch() as unpacked:
        folder = origin.fetch(unpacked)
        if not folder.is_dir():
            raise TuneTrailError(
                f"base model: '{folder}' is a file", "point 'base.source' at a model folder"
            )
        config = check_base(folder)
        kept = [p for p in sorted(folder.iterdir()) if p.is_file() and p.suffix in _KEEP]
        require_room(out, sum(p.stat().st_size for p in kept), "the base model")
        loaded = _load_once(folder)
        with replacing(out) as target:
            model = target / "model"
            model.mkdir()
            for path in kept:
                shutil.copyfile(path, model / path.name)
            card: dict[str, Any] = {
                "source": origin.provenance(),
                "digest": tree_digest(model),
                "architecture": config.model_type,
                "hidden_size": config.hidden_size,
                "layers": loaded.sites.count,
                "heads": config.num_attention_heads,
                "ffn_size": loaded.module(loaded.sites.paths("ffn_out")[0]).in_features,
                "max_positions": usable_positions(config),
                "prefixes": loaded.sites.family.prefixes,
            }
            write_json(target / CARD, card)


def _load_once(folder: Path) -> Classifier:
    """Load model and tokenizer, so that what is wrong with them shows before any other work.

    Raises:
        TuneTrailError: They cannot be loaded, or a weight is not a finite number.
    """
    try:
        model = build_classifier(folder, classes=2, pooling="mean", seed=0)
        same_tokens(folder)
    except TuneTrailError:
        raise
    except Exception as error:  # transformers and what it calls have errors of many classes
        raise from_machine(error) or unloadable(folder, error) from error
    for name, weight in model.trunk.named_parameters():
        if not weight.isfinite().all():
            raise TuneTrailError(
                f"base model: '{name}' in {folder} holds numbers that are not finite",
                "copy or download the weights again",
            )
    return model
