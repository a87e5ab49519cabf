"""Trained parameters (without the head) of every method against closed forms and publications."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.tiny import make_spec, tiny_config, write_base
from tunetrail import methods
from tunetrail.methods._count import trained_parameters
from tunetrail.stages.train import build_run_model

#: Configurations by their numbers, so that nothing is fetched.
BASES: dict[str, dict[str, int]] = {
    "bert-base": {},
    "bert-large": {
        "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16,
        "intermediate_size": 4096,
    },
    "roberta-base": {
        "vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1,
        "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2,
    },
}  # fmt: skip


def config_of(base: str) -> Any:
    from transformers import BertConfig, RobertaConfig

    return (RobertaConfig if base.startswith("roberta") else BertConfig)(**BASES[base])


# Hidden size, FFN size, layers and heads of BERT-base and RoBERTa-base.
D, F, L, H = 768, 3072, 12, 12
NORMS = (2 * L + 1) * 2 * D  # weight and bias of every LayerNorm, embeddings included
BERT_BASE = 109_482_240  # with pooler
HALF = {"parts": ["adapter", "prefix"]}
SIX = ["query", "key", "value", "attention_dense", "ffn_in", "ffn_out"]

#: Base, method, options, pooling, trained parameters. Plain numbers are published ones.
COUNTS: list[tuple[str, str, dict[str, Any], str, int]] = [
    ("bert-base", "head", {}, "mean", 0),
    ("bert-base", "full", {}, "cls", BERT_BASE),
    ("bert-base", "full", {}, "mean", BERT_BASE - (D * D + D)),
    ("bert-base", "bitfit", {}, "cls", 102_912),
    ("bert-base", "bitfit", {}, "mean", 102_912 - D),
    ("roberta-base", "bitfit", {}, "cls", 102_912),
    ("bert-large", "bitfit", {}, "cls", 272_384),
    ("bert-base", "bitfit", {"biases": "query_and_ffn"}, "cls", L * (D + F)),
    ("bert-base", "houlsby", {}, "mean", 2_379_264 + NORMS),
    ("bert-base", "houlsby", {"bottleneck": 8}, "cls", 2 * L * (2 * D * 8 + 8 + D) + NORMS),
    ("bert-large", "houlsby", {}, "mean", 48 * (2 * 1024 * 64 + 64 + 1024) + 49 * 2 * 1024),
    ("bert-base", "pfeiffer", {}, "mean", 894_528),
    ("roberta-base", "pfeiffer", {}, "mean", 894_528),
    ("bert-base", "pfeiffer", {"reduction": 2}, "cls", L * (2 * D * 384 + 384 + D)),
    ("bert-base", "lora", {}, "mean", 294_912),
    ("roberta-base", "lora", {}, "cls", 294_912),
    ("bert-large", "lora", {}, "mean", 24 * 2 * 2 * 1024 * 8),
    ("bert-base", "lora", {"rank": 4, "sites": ["query", "key", "value"]}, "cls", 3 * L * 8 * D),
    ("bert-base", "lora", {"sites": ["ffn_in", "ffn_out"]}, "mean", 2 * L * 8 * (D + F)),
    ("bert-base", "prefix_tuning", {}, "mean", 184_320),
    ("roberta-base", "prefix_tuning", {"length": 3}, "mean", 2 * 3 * L * D),
    ("bert-base", "prompt_tuning", {}, "mean", 10 * D),
    ("bert-large", "prompt_tuning", {"length": 100}, "mean", 100 * 1024),
    ("bert-base", "unipelt", HALF, "mean", 1_097_304),
    ("bert-base", "unipelt", {}, "mean", 1_410_672),
    ("bert-base", "unipelt", {"gated": False}, "mean", 1_410_672 - 36_912),
    ("roberta-base", "unipelt", {}, "mean", 1_410_672),
    ("bert-base", "unipelt_prompt", {}, "mean", 1_410_672 + 10 * D),
    ("bert-base", "unipelt_prompt", {"prompt_at": "layers"}, "mean", 1_410_672 + L * 10 * D),
    ("bert-base", "ia3", {}, "mean", 55_296),
    ("bert-large", "ia3", {}, "mean", 24 * (2 * 1024 + 4096)),
    ("bert-base", "ether", {}, "mean", 82_944),
    ("roberta-base", "ether", {"blocks": 4}, "cls", 82_944),
    ("bert-base", "ether", {"sides": "two"}, "mean", 331_776 // 2),
    ("bert-base", "ether_plus", {}, "mean", 331_776),
    ("roberta-base", "ether_plus", {"blocks": 32}, "mean", 331_776),
    ("bert-base", "ether_plus", {"sides": "one"}, "mean", 2 * 82_944),
    ("bert-base", "lorta", {"rank": 4}, "mean", 4 * (D + D // H + H + 4 + L)),
    ("roberta-base", "lorta", {"heads": "inputs"}, "mean", 8 * (D + D // H + H + 4 + L)),
    ("bert-large", "lorta", {}, "mean", 8 * (1024 + 64 + 16 + 4 + 24)),
    ("bert-base", "arc", {}, "mean", 2 * D * 50 + 2 * L * (50 + D)),
    ("bert-base", "arc", {"positions": ["attention"], "rank": 8}, "mean", D * 8 + L * (8 + D)),
    ("bert-large", "arc", {}, "mean", 2 * 1024 * 50 + 2 * 24 * (50 + 1024)),
    ("bert-base", "dsee", {}, "mean", 2 * L * (2 * D * 16 + 16)),
    ("bert-base", "dsee", {"rank": 2, "entries": 64, "sites": ["ffn_out"]}, "mean",
     L * ((D + F) * 2 + 64)),
    ("bert-base", "deep_prompt", {}, "mean", L * 10 * D),
    ("bert-large", "fourier_prompt", {"length": 5}, "mean", 24 * 5 * 1024),
    ("bert-base", "hiwi", {}, "mean", L * (F + D)),
    ("bert-base", "pafi", {}, "mean", (BERT_BASE - (D * D + D) - 31_036 * D) // 200),
    ("bert-base", "pafi", {"share": 1.0, "embeddings": True}, "cls", BERT_BASE),
    ("bert-base", "union", {}, "mean", 294_912 + 102_912 - D),
    ("bert-base", "peft_adapter", {}, "mean", 294_912 + L * 2 * D),
    ("bert-base", "peft_adapter", {"config": {"peft_type": "IA3"}}, "mean", 55_296),
    ("roberta-base", "peft_adapter", {"config": {"peft_type": "LN_TUNING"}}, "mean", NORMS - 2 * D),
    ("bert-base", "dyt", {}, "mean", L * (2 * D * 64 + 64 + D) + L * (D + 1)),
]  # fmt: skip


@pytest.mark.parametrize(("base", "name", "options", "pooling", "expected"), COUNTS)
def test_the_parameter_count_is_the_published_one(
    base: str, name: str, options: dict[str, Any], pooling: str, expected: int
) -> None:
    method = methods.resolve(name, options, "test")
    assert trained_parameters(method, config_of(base), pooling) == expected


def test_every_method_is_counted() -> None:
    assert {name for _, name, *_ in COUNTS} == set(methods.names())


@pytest.mark.parametrize("name", methods.names())
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_a_count_without_numbers_is_that_of_the_model(
    name: str, pooling: str, tmp_path: Path
) -> None:
    base = write_base(tmp_path)
    spec = make_spec(name, base={**make_spec().base.model_dump(), "pooling": pooling})
    model, method = build_run_model(spec, base / "model")
    method.fold(model)
    trained = sum(p.numel() for k, p in model.trained().items() if not k.startswith("head."))
    assert trained_parameters(method, tiny_config(), pooling) == trained
