"""Adapter files: the trained tensors (head included), and on which base and run they belong."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from tunetrail.errors import TuneTrailError
from tunetrail.files import read_json, write_json
from tunetrail.modeling.classifier import Classifier

WEIGHTS = "adapter.safetensors"
CARD = "adapter.json"


def save_adapter(model: Classifier, folder: Path, *, run: str, base: str) -> None:
    """Write what was trained, and nothing else, to ``folder``."""
    tensors = {k: v.detach().cpu().contiguous() for k, v in model.trained().items()}
    save_file(tensors, folder / WEIGHTS)
    parameters = sum(t.numel() for t in tensors.values())
    write_json(folder / CARD, {"run": run, "base": base, "trained_parameters": parameters})


def load_adapter(model: Classifier, folder: Path, *, run: str, base: str) -> None:
    """Put trained tensors into a model to which the same method is attached.

    Raises:
        TuneTrailError: The adapter belongs to another run or base, or does not fit the model.
    """
    card = read_json(folder / CARD)
    for what, expected in (("base", base), ("run", run)):
        if card[what] != expected:
            raise TuneTrailError(
                f"{folder}: adapter of another {what}\n"
                f"  adapter {card[what]}\n  wanted  {expected}",
                "use the adapter that this run's train stage wrote",
            )
    try:
        tensors = load_file(folder / WEIGHTS)
    except SafetensorError as error:
        raise TuneTrailError(
            f"{folder / WEIGHTS} is not a whole safetensors file ({error})",
            "delete the folder and train this run again",
        ) from None
    wanted = model.trained()
    if tensors.keys() != wanted.keys():
        odd = sorted(tensors.keys() ^ wanted.keys())[0]
        raise TuneTrailError(
            f"{folder}: adapter and model disagree about '{odd}'",
            "train this run again: the method's code has changed",
        )
    for name, parameter in wanted.items():
        if tensors[name].shape != parameter.shape:
            raise TuneTrailError(
                f"{folder}: '{name}' is {tuple(tensors[name].shape)} in the adapter and "
                f"{tuple(parameter.shape)} in the model",
                "train this run again: the method's code has changed",
            )
    with torch.no_grad():
        for name, parameter in wanted.items():
            parameter.copy_(tensors[name])
