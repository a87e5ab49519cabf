"""Trained parameters (without the head) of every method against closed forms and publications."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tunetrail import methods
from tunetrail.modeling import attention
from tunetrail.modeling.classifier import Classifier

#: Configurations by their numbers, so that nothing is fetched.
BASES: dict[str, dict[str, int]] = {
    "bert-base": {},
    "bert-large": {
        "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16,
        "intermediate_size": 4096,
    },
    "two layers": {"num_hidden_layers": 2, "vocab_size": 10},
    "roberta-base": {
        "vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1,
        "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2,
    },
}  # fmt: skip


def count(base: str, name: str, options: dict[str, Any], pooling: str, device: str) -> int:
    """What is saved besides the head, on the meta device: shapes without numbers."""
    from transformers import AutoModel, BertConfig, RobertaConfig

    kind = RobertaConfig if base.startswith("roberta") else BertConfig
    with torch.device(device):
        config = kind(**BASES[base])
        trunk = AutoModel.from_config(
            config,
            attn_implementation=attention.register(),
            **({} if pooling == "cls" else {"add_pooling_layer": False}),
        )
        model = Classifier(trunk, config, classes=2, pooling=pooling)
        method = methods.resolve(name, options, "test")
        methods.attach(model, method, seed=0)
        method.fold(model)
    trained = model.trained()
    head = sum(p.numel() for k, p in trained.items() if k.startswith("head."))
    assert head == 2 * config.hidden_size + 2
    return sum(p.numel() for p in trained.values()) - head


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
    ("two layers", "dsee", {}, "mean", 2 * 2 * (2 * D * 16 + 16)),
    ("two layers", "dsee", {"rank": 2, "entries": 64, "sites": ["ffn_out"]}, "mean",
     2 * ((D + F) * 2 + 64)),
]  # fmt: skip


@pytest.mark.parametrize(("base", "name", "options", "pooling", "expected"), COUNTS)
def test_the_parameter_count_is_the_published_one(
    base: str, name: str, options: dict[str, Any], pooling: str, expected: int
) -> None:
    # The places of a sparse update are found in numbers.
    device = "cpu" if name == "dsee" else "meta"
    assert count(base, name, options, pooling, device) == expected
