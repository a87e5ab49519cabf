"""base: fetch the base model, check it and write it to a folder of its own."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from tunetrail.errors import TuneTrailError
from tunetrail.files import replacing, scratch, tree_digest, write_json
from tunetrail.layout import CARD
from tunetrail.modeling.base import check_base
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
        with replacing(out) as target:
            model = target / "model"
            model.mkdir()
            for path in folder.iterdir():
                if path.is_file() and path.suffix in _KEEP:
                    shutil.copyfile(path, model / path.name)
            card: dict[str, Any] = {
                "source": origin.provenance(),
                "digest": tree_digest(model),
                "architecture": config["model_type"],
                "hidden_size": config["hidden_size"],
                "layers": config["num_hidden_layers"],
                "max_positions": usable_positions(config),
            }
            write_json(target / CARD, card)
