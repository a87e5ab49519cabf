"""Adapters, prefix tuning and UniPELT against AdapterHub's library, run in its own environment.

The numbers in tests/golden were written by that library with weights that :func:`numbers` makes
on both sides: hidden states of all real tokens, and each parameter's gradient along a fixed
direction.
"""

from __future__ import annotations

import json
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tunetrail import methods
from tunetrail.modeling.classifier import Classifier, build_classifier

GOLDEN = Path(__file__).parent / "golden"

OPTIONS: dict[str, dict[str, Any]] = {
    "houlsby": {"bottleneck": 4},
    "pfeiffer": {"reduction": 4},
    "prefix_tuning": {"length": 3, "width": 8},
    "unipelt": {
        "prefix_length": 3, "prefix_width": 8, "reduction": 4, "rank": 2, "alpha": 2.0,
        "gate_over": "all",
    },
}  # fmt: skip

_BOTTLENECK = {"down.weight": "adapter_down.0.weight", "down.bias": "adapter_down.0.bias"}
_BOTTLENECK |= {"up.weight": "adapter_up.weight", "up.bias": "adapter_up.bias"}
_PREFIX = "encoder.layer.0.attention.self.prefix_tuning.pool.prefix_tunings.a.self_prefix"
_MAKER = {
    "embedding": "wte.weight", "inner.weight": "control_trans.0.weight",
    "inner.bias": "control_trans.0.bias", "outer.weight": "control_trans.2.weight",
    "outer.bias": "control_trans.2.bias",
}  # fmt: skip

#: Our name of a parameter → theirs, first match.
_NAMES = [
    (r"prefix_maker\.(.+)", lambda m: f"{_PREFIX}.{_MAKER[m[1]]}"),
    (  # Houlsby: the dropout before the residual, then the adapter
        r"(.+output)\.dropout\.1\.(.+)",
        lambda m: f"{m[1]}.adapters.a.{_BOTTLENECK[m[2]]}",
    ),
    (
        r"(.+output)\.LayerNorm\.adapter\.(.+)",
        lambda m: f"{m[1]}.adapters.a.{_BOTTLENECK[m[2]]}",
    ),
    (
        r"(.+output)\.LayerNorm\.gate\.linear\.(.+)",
        lambda m: f"{m[1]}.adapters.a.gate.{m[2]}",
    ),
    (r"(.+output)\.LayerNorm\.norm\.(.+)", lambda m: f"{m[1]}.LayerNorm.{m[2]}"),
    (
        r"(.+attention\.self)\.query\.gate\.linear\.(.+)",  # of the prefix, around LoRA
        lambda m: f"{m[1]}.prefix_tuning.prefix_gates.a.{m[2]}",
    ),
    (
        r"(.+self\.(?:query|value))(?:\.base)?\.gate\.linear\.(.+)",
        lambda m: f"{m[1]}.loras.a.gate.{m[2]}",
    ),
    (
        r"(.+self\.(?:query|value))(?:\.base)?\.([ab])",
        lambda m: f"{m[1]}.loras.a.lora_{m[2].upper()}",
    ),
    (r"(.+self\.(?:query|value))(?:\.base)+\.(weight|bias)", lambda m: f"{m[1]}.{m[2]}"),
]


def numbers(name: str, shape: tuple[int, ...], scale: float) -> np.ndarray:
    """Normal numbers that a name decides."""
    return np.random.default_rng(zlib.crc32(name.encode())).normal(size=shape) * scale


def their_name(ours: str) -> str:
    name = ours.removeprefix("trunk.")
    for pattern, theirs in _NAMES:
        if match := re.fullmatch(pattern, name):
            return theirs(match)
    return name


def model_of(method: str, golden: dict[str, Any], folder: Path) -> Classifier:
    from transformers import BertConfig, BertModel

    BertModel(BertConfig(**golden["sizes"]), add_pooling_layer=False).save_pretrained(folder)
    model = build_classifier(folder, 2, "mean", 0)
    methods.attach(model, methods.resolve(method, OPTIONS[method], "test"), 0)
    model.double().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            theirs = their_name(name)
            scale = 0.3 if parameter.ndim > 1 else 0.1
            start = 1.0 if theirs.endswith("LayerNorm.weight") else 0.0
            drawn = numbers(theirs, tuple(parameter.shape), scale)
            parameter.copy_(torch.from_numpy(start + drawn))
    return model


@pytest.mark.parametrize("method", sorted(OPTIONS))
def test_hidden_states_and_gradients_are_those_of_adapterhub(method: str, tmp_path: Path) -> None:
    golden = json.loads((GOLDEN / f"{method}.json").read_text(encoding="utf-8"))
    model = model_of(method, golden, tmp_path)
    mask = torch.tensor(golden["mask"])
    model.mask = mask
    out = model.trunk(
        input_ids=torch.tensor(golden["ids"]),
        attention_mask=mask,
        token_type_ids=torch.tensor(golden["segments"]),
    ).last_hidden_state
    real = mask.bool()
    torch.testing.assert_close(
        out[real], torch.tensor(golden["hidden"], dtype=torch.float64), rtol=0, atol=1e-10
    )
    probe = torch.from_numpy(numbers("probe", tuple(out.shape), 1.0))
    (out * probe * real[..., None]).sum().backward()
    found = {}
    for name, parameter in model.named_parameters():
        theirs = their_name(name)
        # LayerNorms train with our Houlsby adapters and not with theirs.
        if parameter.requires_grad and parameter.grad is not None and ".LayerNorm." not in theirs:
            direction = numbers(f"probe {theirs}", tuple(parameter.shape), 1.0)
            found[theirs] = float((parameter.grad * torch.from_numpy(direction)).sum())
    assert found.keys() == golden["gradients"].keys()
    for name, value in golden["gradients"].items():
        assert found[name] == pytest.approx(value, rel=1e-9, abs=1e-10), name
