"""A random BERT small enough to train in milliseconds, and runs and rows that go with it."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from tunetrail.files import tree_digest, write_json
from tunetrail.modeling.classifier import Classifier, build_classifier
from tunetrail.run import RunSpec
from tunetrail.stages.train import build_run_model
from tunetrail.training.rows import Rows

torch.set_num_threads(1)

HIDDEN, LAYERS, MAX_LENGTH, CLASSES = 32, 2, 64, 3
_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
_PIECES = string.ascii_lowercase + string.digits + ".,!?'"
VOCABULARY = [*_SPECIAL, *_PIECES, *(f"##{piece}" for piece in _PIECES)]


def tiny_config(**changes: Any) -> Any:
    """The configuration of the tiny model."""
    from transformers import BertConfig

    options = {
        "vocab_size": len(VOCABULARY),
        "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": MAX_LENGTH + 16,  # room for virtual tokens
        # The usual 0.02 leaves so small a model nearly linear: differences would hide.
        "initializer_range": 0.2,
    }
    return BertConfig(**{**options, **changes})


def family_config(family: str) -> Any:
    """The configuration of a tiny model of an architecture."""
    from transformers import AutoConfig

    sizes = {
        "vocab_size": len(VOCABULARY), "hidden_size": HIDDEN, "num_hidden_layers": LAYERS,
        "num_attention_heads": 4, "intermediate_size": 64,
        "max_position_embeddings": MAX_LENGTH + 16,
        "initializer_range": 0.2, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3,
    }  # fmt: skip
    own = {
        "albert": {"embedding_size": HIDDEN, "num_hidden_groups": LAYERS},
        "distilbert": {"dim": HIDDEN, "n_layers": LAYERS, "n_heads": 4, "hidden_dim": 64},
        "electra": {"embedding_size": HIDDEN},
        "gpt2": {
            "n_embd": HIDDEN, "n_layer": LAYERS, "n_head": 4, "n_inner": 64,
            "n_positions": MAX_LENGTH + 16,
        },
        "llama": {"num_key_value_heads": 2},
        "modernbert": {"cls_token_id": 2, "sep_token_id": 3},
        "qwen2": {"num_key_value_heads": 2},
        "qwen3": {"num_key_value_heads": 2, "head_dim": 8},
    }  # fmt: skip
    known = AutoConfig.for_model(family).to_dict()
    sizes = {k: v for k, v in sizes.items() if k in known or k == "pad_token_id"}
    return AutoConfig.for_model(family, **sizes, **own.get(family, {}))


def write_family(folder: Path, family: str) -> Path:
    """Write a random model folder of an architecture."""
    from transformers import AutoModel

    torch.manual_seed(0)
    AutoModel.from_config(family_config(family)).save_pretrained(folder)
    write_tokenizer(folder)
    return folder


def write_tokenizer(folder: Path) -> None:
    """A WordPiece tokenizer that spells words letter by letter."""
    from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
    from tokenizers.models import WordPiece
    from transformers import PreTrainedTokenizerFast

    ids = {piece: index for index, piece in enumerate(VOCABULARY)}
    tokenizer = Tokenizer(WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(name, ids[name]) for name in ("[CLS]", "[SEP]")],
    )
    names = {f"{name.strip('[]').lower()}_token": name for name in _SPECIAL}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)


def write_model(folder: Path, **changes: Any) -> Path:
    """Write a random model folder (the same one every time); ``changes`` go to its config."""
    from transformers import BertModel

    torch.manual_seed(0)
    model = BertModel(tiny_config(**changes))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:  # zero biases and unit norms would hide mistakes
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
            assert parameter.isfinite().all(), name
    model.save_pretrained(folder, safe_serialization=True)
    write_tokenizer(folder)
    return folder


def write_base(out: Path, **changes: Any) -> Path:
    """What the base stage writes: ``model`` and ``card.json``."""
    model = write_model(out / "model", **changes)
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    card = {
        "source": {"kind": "tiny"},
        "digest": tree_digest(model),
        "architecture": config["model_type"],
        "hidden_size": config["hidden_size"],
        "layers": config["num_hidden_layers"],
        "heads": config["num_attention_heads"],
        "ffn_size": config["intermediate_size"],
        "max_positions": config["max_position_embeddings"],
        "prefixes": True,
    }
    write_json(out / "card.json", card)
    return out


def make_spec(name: str = "head", options: dict[str, Any] | None = None, **changes: Any) -> RunSpec:
    """A run of method ``name``; ``changes`` replace parts, and ``training`` single settings.

    Like the resolve stage it spells out every option of the method.
    """
    from tunetrail import methods

    method = methods.resolve(name, options or {}, "test")
    content = {
        "base": {"digest": "b" * 64, "max_length": MAX_LENGTH, "pooling": "mean"},
        "data": {
            "task": "toy",
            "labels": [f"class {index}" for index in range(CLASSES)],
            "metrics": ["accuracy", "f1_macro"],
            "fit": "f" * 64,
            "test": "e" * 64,
        },
        "method": {"name": name, "options": method.model_dump(mode="json")},
        "seed": 1,
        "budget": {"epochs": 1},
        "numerics": {"precision": "fp32", "threads": 1},
        "code": "c" * 64,
    }
    training = {"batch_size": 8, **changes.pop("training", {})}
    return RunSpec.model_validate({**content, "training": training, **changes})


def run_model(spec: RunSpec, base: Path) -> Classifier:
    """The model of a run with its method attached."""
    return build_run_model(spec, base / "model")[0]


def bare_model(spec: RunSpec, base: Path, seed: int = 0) -> Classifier:
    """The classifier without any method."""
    return build_classifier(base / "model", len(spec.data.labels), spec.base.pooling, seed)


def make_rows(count: int, seed: int = 0, longest: int = 24) -> Rows:
    """Rows of ragged length whose label is in their tokens, so that there is something to learn."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, CLASSES, size=count)
    tokens, segments = [], []
    for label in labels:
        body = generator.integers(8, len(VOCABULARY), size=int(generator.integers(1, longest - 2)))
        body[generator.random(len(body)) < 0.5] = 5 + label
        tokens.append(np.array([2, *body, 3], dtype=np.int64))
        segments.append((np.arange(len(body) + 2) > len(body) // 2).astype(np.int64))
    return Rows([f"row {i}" for i in range(count)], labels.astype(np.int64), tokens, segments)


def write_rows(rows: Rows, path: Path) -> None:
    """Write rows as the prepare stage does."""
    frame = pd.DataFrame({"id": rows.ids, "label": rows.labels})
    frame["input_ids"] = [list(map(int, t)) for t in rows.tokens]
    frame["token_type_ids"] = [list(map(int, s)) for s in rows.segments]
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.to_parquet(path, index=False)


def logits_of(model: Classifier, rows: Rows) -> torch.Tensor:
    """Logits of all rows in one padded batch, without dropout."""
    with torch.inference_mode():
        logits: torch.Tensor = model.eval()(**rows.batch(np.arange(len(rows))))
    return logits.clone()


def move(model: Classifier, scale: float = 0.05) -> None:
    """Move everything that trains off its starting point."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.trained().values():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=scale)


def onnx_logits(path: Path, rows: Rows) -> np.ndarray:
    """What an exported model gives for ``rows``."""
    from tunetrail.stages import export
    from tunetrail.training.predict import outputs

    session = export.open_session(path, 1)
    return outputs(rows, lambda batch: export.ask(session, batch))
