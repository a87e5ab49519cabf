"""The base model's folder as the base stage writes it: ``model/`` and ``card.json``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tunetrail.errors import TuneTrailError
from tunetrail.files import read_json, tree_digest
from tunetrail.layout import CARD, TOKENIZER
from tunetrail.modeling.sites import family_of
from tunetrail.run import BASE, PRETRAINED, TAPT, RunSpec

#: Storage types of weights that are no longer numbers one can train from.
_QUANTISED = {"I8", "U8", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F4", "U16", "U32", "I16"}

#: Case, accents, blanks, scripts, symbols: what tokenizers treat differently.
_SAMPLE = "A naïve  TEST,\tof 42 things: 漢字 ☃ \U0001f600."


def read_base(folder: Path) -> tuple[Path, dict[str, Any]]:
    """The model folder and its card."""
    return folder / "model", read_json(folder / CARD)


def checkpoint_folder(start: str, base: Path, task: str) -> Path:
    """Where a start lies, as the base stage or a pretrain stage wrote it.

    Args:
        start: Name of the start.
        base: What the base stage wrote: the others lie where dvc.yaml puts them beside it.
        task: Name of the task.
    """
    if start == PRETRAINED:
        return base
    after, _, tapt = start.rpartition("+") if start != TAPT else (BASE, "", TAPT)
    if tapt != TAPT:
        return base.parent / start
    return base.parent.parent / "data" / "prepared" / task / TAPT / after


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


def verified_start(spec: RunSpec, base: Path) -> Path:
    """The model folder that a run starts from, after checking its bytes.

    Args:
        spec: The frozen run.
        base: What the base stage wrote; checkpoints of continued pretraining lie beside it.

    Raises:
        TuneTrailError: These are not the run's weights.
    """
    return verified_base(checkpoint_folder(spec.start_name, base, spec.data.task), spec.base.digest)


def check_base(base: Path) -> Any:
    """transformers' configuration of a model folder, checked for what TuneTrail needs.

    Nothing is loaded. No code that the folder brings is run, and no pickle is opened.

    Raises:
        TuneTrailError: No usable configuration, safetensors weights or tokenizer, or parts that do
            not belong together.
    """
    config = _configuration(base)
    _check_weights(base)
    _check_tokenizer(base, config)
    return config


def _configuration(base: Path) -> Any:
    file = base / "config.json"
    if not file.is_file():
        raise TuneTrailError(
            f"base model: no config.json in {base}", "point 'base.source' at a model folder"
        )
    config = _json(file)
    for name in ("config.json", "tokenizer_config.json"):
        content = _json(base / name) if (base / name).is_file() else {}
        if "auto_map" in content:
            raise TuneTrailError(
                f"base model: {base / name} names code of its own ('auto_map'), and the code of a "
                "model is never run",
                "use a model that transformers knows by itself",
            )
    if "model_type" not in config:
        raise _silent(base, "model_type")
    family = family_of(config["model_type"])

    from transformers import AutoConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    names = CONFIG_MAPPING[config["model_type"]].attribute_map
    for key in ("hidden_size", "num_hidden_layers", "max_position_embeddings"):
        if key not in config and names.get(key, key) not in config:
            raise _silent(base, key)
    if config.get("is_decoder") and not family.causal:
        raise TuneTrailError(
            f"base model: config.json in {base} says 'is_decoder': every token would see only "
            "those before it",
            "use an encoder",
        )
    if "quantization_config" in config:
        raise _quantised(f"config.json in {base} has a 'quantization_config'")
    try:
        return AutoConfig.from_pretrained(base, local_files_only=True)
    except Exception as error:  # transformers and what it calls have errors of many classes
        raise unloadable(base, error) from error


def unloadable(base: Path, error: Exception) -> TuneTrailError:
    """The error for a model that transformers refuses, in its words."""
    return TuneTrailError(
        f"base model: {base} cannot be loaded: {' '.join(str(error).split())[:300]}",
        "use a model folder as transformers' save_pretrained writes it",
    )


def _silent(base: Path, key: str) -> TuneTrailError:
    return TuneTrailError(
        f"base model: config.json in {base} does not say '{key}'",
        "point 'base.source' at the folder of a transformers model",
    )


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise TuneTrailError(
            f"base model: {file} is not valid JSON ({error})", "copy or download the model again"
        ) from None
    return content if isinstance(content, dict) else {}


def _check_weights(base: Path) -> None:
    from safetensors import SafetensorError, safe_open

    files = {path.name: path for path in base.glob("*.safetensors")}
    if not files:
        pickled = [p.name for p in base.iterdir() if p.suffix in {".bin", ".pt", ".pth", ".ckpt"}]
        raise TuneTrailError(
            f"base model: no .safetensors weights in {base}"
            + (f" ({pickled[0]} is a pickle and is never loaded)" if pickled else ""),
            "convert the weights to safetensors",
        )
    index = base / "model.safetensors.index.json"
    shards = set(_json(index).get("weight_map", {}).values()) if index.is_file() else set()
    absent = sorted((shards or {"model.safetensors"}) - files.keys())
    if absent:
        raise TuneTrailError(
            f"base model: no {absent[0]} in {base}, only {', '.join(sorted(files)[:3])}",
            "copy or download all of the model",
        )
    for path in files.values():
        try:
            with safe_open(path, "np") as weights:
                kinds = {weights.get_slice(name).get_dtype(): name for name in weights.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise TuneTrailError(
                f"base model: {path} is not a whole safetensors file ({error})",
                "copy or download it again (`git lfs pull` where git keeps large files elsewhere)",
            ) from None
        small = sorted(kinds.keys() & _QUANTISED)
        if small:
            raise _quantised(f"'{kinds[small[0]]}' in {path} is {small[0]}")


def _quantised(found: str) -> TuneTrailError:
    return TuneTrailError(
        f"base model: {found}: quantised weights cannot be trained",
        "use the model's weights in float32, float16 or bfloat16",
    )


def _check_tokenizer(base: Path, config: Any) -> None:
    from tokenizers import Tokenizer

    path = base / TOKENIZER
    if not path.is_file():
        raise TuneTrailError(
            f"base model: no {TOKENIZER} in {base}",
            "save the fast tokenizer next to the weights",
        )
    try:
        tokenizer = Tokenizer.from_file(str(path))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        encoded = tokenizer.encode(_SAMPLE)
    except Exception as error:  # the library has no error class of its own
        raise TuneTrailError(
            f"base model: {path} cannot be used: {error}", "copy or download the model again"
        ) from None
    largest, embeddings = max(tokenizer.get_vocab().values()), config.vocab_size
    if largest >= embeddings:
        raise TuneTrailError(
            f"base model: {path} has ids up to {largest}, the model has {embeddings} embeddings: "
            "it is the tokenizer of another model",
            "save this model's own tokenizer next to its weights",
        )
    marks = encoded.special_tokens_mask
    if not (marks[0] and marks[-1]) and not family_of(config.model_type).causal:
        raise TuneTrailError(
            f"base model: {path} puts no special tokens around a text ({encoded.tokens[0]!r} is "
            "the first)",
            "save the tokenizer with the post-processor that this model was trained with",
        )


def same_tokens(base: Path) -> None:
    """Check that transformers, which prepares the data, reads the tokenizer like serving does.

    Raises:
        TuneTrailError: The files of the tokenizer contradict each other.
    """
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer

    served = Tokenizer.from_file(str(base / TOKENIZER))
    served.no_truncation()
    served.no_padding()
    trained = AutoTokenizer.from_pretrained(base, local_files_only=True)
    for texts in ((_SAMPLE,), (_SAMPLE, "b")):
        one, two = served.encode(*texts).ids, trained(*texts)["input_ids"]
        if one != two:
            raise TuneTrailError(
                f"base model: {TOKENIZER} and tokenizer_config.json in {base} contradict each "
                f"other: {_SAMPLE!r} is {one[:8]}… by the one and {two[:8]}… by the other",
                "save the tokenizer again with save_pretrained",
            )
