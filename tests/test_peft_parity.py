"""(IA)³, prompt tuning and prefix tuning against the peft library: forward and gradients."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import (
    IA3Config,
    PrefixTuningConfig,
    PromptTuningConfig,
    TaskType,
    get_peft_model,
)

from tests.tiny import family_config, make_rows, write_tokenizer
from tunetrail import methods
from tunetrail.modeling.classifier import build_classifier

ROWS = make_rows(6, seed=5)
BATCH = ROWS.batch(np.arange(len(ROWS)))
BATCH["token_type_ids"].zero_()  # prompts and segments do not go together in peft
LENGTH = 5

#: Our name of a part of the network that makes prefixes → peft's.
MAKER = {
    "prefix_maker.embedding": "their.embedding.weight",
    "prefix_maker.inner.weight": "their.transform.0.weight",
    "prefix_maker.inner.bias": "their.transform.0.bias",
    "prefix_maker.outer.weight": "their.transform.2.weight",
    "prefix_maker.outer.bias": "their.transform.2.bias",
}


def models(family: str, name: str, options: dict[str, Any], config: Any, folder: Path) -> Any:
    """Our model with a method and transformers' with peft's, in double precision, no dropout."""
    from transformers import AutoModel

    torch.manual_seed(0)
    AutoModel.from_config(family_config(family)).save_pretrained(folder)
    write_tokenizer(folder)
    ours = build_classifier(folder, 2, "mean", 0)
    methods.attach(ours, methods.resolve(name, options, "test"), seed=1)
    trunk = AutoModel.from_pretrained(folder, attn_implementation="eager")
    theirs = get_peft_model(trunk, config)
    return ours.double().eval(), theirs.double().eval()


def mixed(hidden: torch.Tensor) -> torch.Tensor:
    """A number that depends on every real token, each in its own way."""
    weights = torch.linspace(-1, 1, hidden[0].numel(), dtype=torch.double).view_as(hidden[0])
    real = BATCH["attention_mask"].unsqueeze(-1)
    return (hidden * weights * real).sum()


def hidden_of_ours(model: Any) -> torch.Tensor:
    """Last hidden states of the text's own tokens."""
    seen: list[torch.Tensor] = []
    handle = model.trunk.register_forward_hook(
        lambda _module, _inputs, output: seen.append(output.last_hidden_state)
    )
    model(**BATCH)
    handle.remove()
    return seen[0][:, -BATCH["input_ids"].shape[1] :]


def test_factors_and_their_gradients_are_those_of_peft(tmp_path: Path) -> None:
    config = IA3Config(
        target_modules=r".*(self\.key|self\.value|layer\.\d+\.output\.dense)",
        feedforward_modules=r".*layer\.\d+\.output\.dense",
    )
    ours, theirs = models("bert", "ia3", {}, config, tmp_path)
    mine = {k.removeprefix("trunk."): p for k, p in ours.trained().items() if "head" not in k}
    other = {
        re.sub(r"^base_model\.model\.|\.ia3_l\.default$", "", k): p
        for k, p in theirs.named_parameters()
        if "ia3_l" in k
    }
    mine = {k.rpartition(".")[0]: p for k, p in mine.items()}
    assert mine.keys() == other.keys()
    assert len(mine) == 2 * 3
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in mine.items():
            parameter.copy_(1 + 0.3 * torch.randn(parameter.shape, generator=generator))
            other[name].copy_(parameter.view_as(other[name]))
    found, expected = hidden_of_ours(ours), theirs(**BATCH).last_hidden_state
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    mixed(found).backward()
    mixed(expected).backward()
    for name, parameter in mine.items():
        assert parameter.grad.abs().max() > 1e-6
        reference = other[name].grad.view_as(parameter.grad)
        torch.testing.assert_close(parameter.grad, reference, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_prompts_and_their_gradients_are_those_of_peft(family: str, tmp_path: Path) -> None:
    config = PromptTuningConfig(task_type=TaskType.FEATURE_EXTRACTION, num_virtual_tokens=LENGTH)
    ours, theirs = models(family, "prompt_tuning", {"length": LENGTH}, config, tmp_path)
    mine = ours.prompt.vectors
    other = theirs.prompt_encoder["default"].embedding.weight
    with torch.no_grad():
        other.copy_(mine)
    inputs = {"input_ids": BATCH["input_ids"], "attention_mask": BATCH["attention_mask"]}
    found = hidden_of_ours(ours)
    expected = theirs(**inputs).last_hidden_state[:, LENGTH:]
    real = BATCH["attention_mask"].bool()
    torch.testing.assert_close(found[real], expected[real], rtol=0, atol=1e-10)
    mixed(found).backward()
    mixed(expected).backward()
    assert mine.grad.abs().max() > 1e-6
    torch.testing.assert_close(mine.grad, other.grad, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("width", [0, 8])
def test_prefixes_and_their_gradients_are_those_of_peft(width: int, tmp_path: Path) -> None:
    config = PrefixTuningConfig(
        task_type=TaskType.FEATURE_EXTRACTION,
        num_virtual_tokens=LENGTH,
        prefix_projection=bool(width),
        encoder_hidden_size=width or None,
    )
    options = {"length": LENGTH, "width": width}
    ours, theirs = models("gpt2", "prefix_tuning", options, config, tmp_path)
    mine = {k: p for k, p in ours.trained().items() if "head" not in k}
    other = {f"their.{k}": p for k, p in theirs.prompt_encoder["default"].named_parameters()}
    with torch.no_grad():
        positions = theirs.base_model.wpe.weight
        # There a prefix takes positions, which the published one does not: the text's move up.
        positions[LENGTH:] = positions[:-LENGTH].clone()
        if width:
            for ours_name, theirs_name in MAKER.items():
                other[theirs_name].copy_(mine[ours_name])
        else:
            other["their.embedding.weight"].copy_(torch.cat(list(mine.values()), dim=1))
    inputs = {"input_ids": BATCH["input_ids"], "attention_mask": BATCH["attention_mask"]}
    found, expected = hidden_of_ours(ours), theirs(**inputs).last_hidden_state
    real = BATCH["attention_mask"].bool()
    torch.testing.assert_close(found[real], expected[real], rtol=0, atol=1e-10)
    mixed(found).backward()
    mixed(expected).backward()
    if width:
        pairs = [(mine[a].grad, other[b].grad) for a, b in MAKER.items()]
    else:
        gradients = torch.cat([p.grad for p in mine.values()], dim=1)
        pairs = [(gradients, other["their.embedding.weight"].grad)]
    for gradient, reference in pairs:
        assert gradient.abs().max() > 1e-6
        torch.testing.assert_close(gradient, reference, rtol=1e-10, atol=1e-10)
