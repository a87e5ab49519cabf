"""Plain LoRA and (IA)³ adapters in the file format of the peft library, both ways.

The format has no place for a classification head: what is written and read is the trunk's part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from tunetrail.errors import TuneTrailError
from tunetrail.files import read_json, replacing, write_json
from tunetrail.modeling.classifier import Classifier
from tunetrail.modeling.sites import PROJECTIONS, Sites

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"

_PREFIX = "base_model.model."
#: Settings under which a LoRA adapter computes something else than W·x + scale·B·A·x.
_BEYOND_LORA = (
    "alora_invocation_tokens", "alpha_pattern", "arrow_config", "layer_replication", "lora_bias",
    "rank_pattern", "target_parameters", "use_dora", "use_qalora",
)  # fmt: skip
#: Starts that leave the base model's weights as they are.
_PLAIN_STARTS = (True, False, "gaussian", "orthogonal", "eva")


@dataclass(frozen=True)
class PeftAdapter:
    """What a folder in peft's format holds.

    Attributes:
        method: ``lora`` or ``ia3``.
        options: Options of that method with which its modules have the same places and shapes.
        tensors: Name of a parameter in the trunk → its values.
    """

    method: str
    options: dict[str, Any]
    tensors: dict[str, torch.Tensor]

    def put(self, model: Classifier) -> None:
        """Copy the tensors into a model to which the method is attached with these options.

        Raises:
            TuneTrailError: The model has other parameters, or other shapes.
        """
        wanted = _trained(model)
        for name in sorted(wanted.keys() ^ self.tensors.keys()):
            where = "adapter" if name in self.tensors else "model"
            raise TuneTrailError(
                f"'{name}' is in the {where} alone",
                f"attach '{self.method}' with the options that the adapter was read with",
            )
        with torch.no_grad():
            for name, parameter in wanted.items():
                if parameter.shape != self.tensors[name].shape:
                    raise TuneTrailError(
                        f"'{name}' is {tuple(self.tensors[name].shape)} in the adapter and "
                        f"{tuple(parameter.shape)} in the model",
                        "use the base model that the adapter was trained on",
                    )
                parameter.copy_(self.tensors[name])


def write_lora(
    model: Classifier, folder: Path, *, alpha: float, dropout: float = 0.0, base: str = ""
) -> None:
    """Write the LoRA updates of a model so that peft finds the same hidden states.

    Args:
        model: With LoRA attached, and nothing else that trains in its trunk.
        folder: Folder to write.
        alpha: The updates are scaled by alpha / rank.
        dropout: On the input of A.
        base: Name or path of the base model, for peft's own use.

    Raises:
        TuneTrailError: Something else trains, or transformers has no such module.
    """
    matrices = {"a": "lora_A.weight", "b": "lora_B.weight"}
    paths, tensors = _renamed(model, matrices, "LoRA updates")
    ranks = {t.shape[0] for name, t in tensors.items() if name.endswith(matrices["a"])}
    config = {
        "peft_type": "LORA",
        "r": ranks.pop(),
        "lora_alpha": int(alpha) if float(alpha).is_integer() else alpha,
        "lora_dropout": dropout,
        "bias": "none",
        "target_modules": paths,
    }
    _write(folder, config, tensors, base)


def write_ia3(model: Classifier, folder: Path, *, base: str = "") -> None:
    """Write the (IA)³ factors of a model so that peft finds the same hidden states.

    Args and errors are those of :func:`write_lora`.
    """
    paths, tensors = _renamed(model, {"factors": "ia3_l"}, "(IA)³ factors")
    inputs = [path for path in paths if path in model.sites.paths("ffn_out")]
    for path in paths:
        name = f"{_PREFIX}{path}.ia3_l"
        tensors[name] = tensors[name][None] if path in inputs else tensors[name][:, None]
    config = {"peft_type": "IA3", "target_modules": paths, "feedforward_modules": inputs}
    _write(folder, config, tensors, base)


#: Method → what writes a model that was trained with it and these options.
WRITERS: dict[str, Callable[[Classifier, Path, Mapping[str, Any]], None]] = {
    "lora": lambda model, folder, options: write_lora(
        model, folder, alpha=options["alpha"], dropout=options["dropout"]
    ),
    "ia3": lambda model, folder, _: write_ia3(model, folder),
}


def _trained(model: Classifier) -> dict[str, torch.Tensor]:
    named = {name.removeprefix("trunk."): p for name, p in model.trained().items()}
    return {name: p for name, p in named.items() if not name.startswith("head.")}


def _renamed(
    model: Classifier, endings: Mapping[str, str], what: str
) -> tuple[list[str], dict[str, torch.Tensor]]:
    """Paths of the modules and tensors by peft's names."""
    fused = [f".{inner}." for inner in model.sites.family.fused]
    paths, tensors = [], {}
    for name, parameter in _trained(model).items():
        path, _, ending = name.rpartition(".")
        if ending not in endings:
            raise TuneTrailError(
                f"'{name}' trains as well, and has no place among {what} in peft's format",
                "write models that were trained with that method alone",
            )
        if any(part in f"{path}." for part in fused):
            raise TuneTrailError(
                f"'{path}' is a part of one fused layer in transformers: peft cannot name it",
                "train the method on other sites, or another base model",
            )
        paths += [path] if path not in paths else []
        tensors[f"{_PREFIX}{path}.{endings[ending]}"] = parameter.detach().cpu().contiguous()
    if not tensors:
        raise TuneTrailError(f"the model has no {what}", "attach the method before writing it")
    return paths, tensors


def _write(
    folder: Path, config: dict[str, Any], tensors: dict[str, torch.Tensor], base: str
) -> None:
    with replacing(folder) as target:
        save_file(tensors, target / WEIGHTS, metadata={"format": "pt"})
        write_json(
            target / CONFIG,
            {**config, "base_model_name_or_path": base, "task_type": None, "inference_mode": True},
        )


def read_peft(folder: Path, sites: Sites) -> PeftAdapter:
    """Read a folder that peft, or this module, wrote.

    Args:
        folder: With ``adapter_config.json`` and ``adapter_model.safetensors``.
        sites: Those of the base model that it belongs to.

    Raises:
        TuneTrailError: Another kind of adapter, or settings or places that the method here has not.
    """
    config = read_json(folder / CONFIG)
    kind = config.get("peft_type")
    if kind not in ("LORA", "IA3"):
        raise TuneTrailError(
            f"{folder}: peft_type is {kind!r}, and only plain LORA and IA3 adapters are read",
            "train it here with the method peft_adapter",
        )
    tensors = load_file(folder / WEIGHTS)
    return (
        _read_lora(folder, config, tensors, sites)
        if kind == "LORA"
        else _read_ia3(folder, tensors, sites)
    )


def _read_lora(
    folder: Path, config: Mapping[str, Any], tensors: dict[str, torch.Tensor], sites: Sites
) -> PeftAdapter:
    start = config.get("init_lora_weights", True)
    beyond = [key for key in _BEYOND_LORA if config.get(key)]
    beyond += [] if start in _PLAIN_STARTS else ["init_lora_weights"]
    if beyond:
        raise TuneTrailError(
            f"{folder}: {beyond[0]} is {config[beyond[0]]!r}, so this is not plain LoRA",
            "use an adapter without it",
        )
    found = _own_names(folder, tensors, {"lora_A.weight": "a", "lora_B.weight": "b"})
    rank = config["r"]
    # Rank-stabilised LoRA divides by the root of the rank.
    alpha = config["lora_alpha"] * (rank**0.5 if config.get("use_rslora") else 1.0)
    options = {
        "rank": rank,
        "alpha": float(alpha),
        "dropout": float(config.get("lora_dropout", 0.0)),
        "sites": _sites_of(folder, found, sites),
    }
    return PeftAdapter("lora", options, found)


def _read_ia3(folder: Path, tensors: dict[str, torch.Tensor], sites: Sites) -> PeftAdapter:
    found = _own_names(folder, tensors, {"ia3_l": "factors"})
    chosen = _sites_of(folder, found, sites)
    if set(chosen) != {"key", "value", "ffn_out"}:
        raise TuneTrailError(
            f"{folder}: the factors are at {', '.join(chosen)}, not at key, value and ffn_out",
            "use an adapter of these three",
        )
    for name, factors in found.items():
        of_inputs = name.removesuffix(".factors") in sites.paths("ffn_out")
        if factors.shape[0 if of_inputs else 1] != 1:
            raise TuneTrailError(
                f"{folder}: '{name}' multiplies {'outputs' if of_inputs else 'inputs'}",
                "use an adapter whose feedforward_modules are the last feed-forward projections",
            )
        found[name] = factors.flatten()
    return PeftAdapter("ia3", {}, found)


def _own_names(
    folder: Path, tensors: dict[str, torch.Tensor], endings: Mapping[str, str]
) -> dict[str, torch.Tensor]:
    found = {}
    for name, tensor in tensors.items():
        ending = next((e for e in endings if name.endswith(f".{e}")), None)
        if ending is None or not name.startswith(_PREFIX):
            raise TuneTrailError(
                f"{folder}: it holds '{name}', which the plain method has not",
                "use an adapter without it",
            )
        path = name.removeprefix(_PREFIX).removesuffix(ending)
        found[f"{path}{endings[ending]}"] = tensor
    return found


def _sites_of(folder: Path, found: Mapping[str, torch.Tensor], sites: Sites) -> list[str]:
    """Sites that are adapted in every layer.

    Raises:
        TuneTrailError: A module is no site, or a site is adapted in some layers only.
    """
    paths = {name.rpartition(".")[0] for name in found}
    chosen = []
    for site in PROJECTIONS:
        if not sites.has(site):
            continue
        there = [path for path in sites.paths(site) if path in paths]
        if there and len(there) < sites.count:
            raise TuneTrailError(
                f"{folder}: of {sites.count} layers only {len(there)} have an adapter at '{site}'",
                "use an adapter of all layers",
            )
        chosen += [site] if there else []
        paths -= set(there)
    if paths:
        raise TuneTrailError(
            f"{folder}: '{sorted(paths)[0]}' is no site of a base model '{sites.architecture}'",
            f"use an adapter of {', '.join(PROJECTIONS)}",
        )
    return chosen
