"""Deep and Fourier prompts against the authors' code (tests/golden)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny import (
    HIDDEN,
    LAYERS,
    bare_model,
    logits_of,
    make_rows,
    make_spec,
    move,
    run_model,
    write_base,
)
from tunetrail import methods
from tunetrail.errors import TuneTrailError
from tunetrail.modeling.adapter import load_adapter, save_adapter
from tunetrail.modeling.classifier import Classifier

GOLDEN = Path(__file__).parent / "golden"
ROWS = make_rows(6, seed=5)
OWNER = {"run": "r" * 64, "base": "b" * 64}
#: The encoder of the golden tensors.
SIZES = {
    "vocab_size": 12, "hidden_size": 8, "num_hidden_layers": 3, "num_attention_heads": 2,
    "intermediate_size": 16, "max_position_embeddings": 20, "initializer_range": 0.02,
}  # fmt: skip


def golden(name: str) -> Any:
    return json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))


def wave(scale: float, step: float, start: float, shape: Any) -> torch.Tensor:
    """scale · cos(start + step · i), in float64."""
    count = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
    return (scale * torch.cos(start + step * count)).view(shape)


def golden_model(name: str, options: dict[str, object], folder: Path) -> Classifier:
    """Our model with the weights that the golden file names."""
    model = run_model(make_spec(name, options), write_base(folder, **SIZES)).double().eval()
    parameters = {k: p for k, p in model.trunk.named_parameters() if "prompt" not in k}
    with torch.no_grad():
        for index, (_, p) in enumerate(sorted(parameters.items())):
            p.copy_(wave(0.4, 0.9, 1.7 * index - torch.pi / 2, p.shape))  # a sine
        for own, step in ((model.prompt, 0.3), (model.layer_prompts, 1.1)):
            (vectors,) = own.parameters()
            vectors.copy_(wave(0.5, step, 0.0, vectors.shape))
    return model


def hidden_and_gradient(model: Classifier, inputs: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Hidden states of the text, and the gradient of the layers' prompts."""
    seen = []
    model.trunk.register_forward_hook(lambda _m, _a, out: seen.append(out.last_hidden_state))
    ids = torch.tensor(inputs["ids"])
    model(ids, torch.ones_like(ids), torch.zeros_like(ids))
    text = seen[0][:, inputs["length"] :]
    (text * wave(1.0, 0.7, 0.0, text.shape)).sum().backward()
    (vectors,) = model.layer_prompts.parameters()
    return text, vectors.grad


def same(found: torch.Tensor, expected: Any) -> None:
    reference = torch.tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(found.detach(), reference, rtol=0, atol=1e-10)


def test_deep_prompts_are_those_of_the_authors(tmp_path: Path) -> None:
    expected = golden("deep_prompt")
    model = golden_model("deep_prompt", {"length": expected["inputs"]["length"]}, tmp_path)
    hidden, gradient = hidden_and_gradient(model, expected["inputs"])
    same(hidden, expected["outputs"]["hidden"])
    same(gradient, expected["outputs"]["gradient"])


@pytest.mark.parametrize("over", ["both", "tokens", "features"])
def test_fourier_prompts_are_those_of_the_authors(over: str, tmp_path: Path) -> None:
    expected = golden("fourier_prompt")
    options = {"length": expected["inputs"]["length"], "over": over, "share": 0.5}
    model = golden_model("fourier_prompt", options, tmp_path)
    hidden, gradient = hidden_and_gradient(model, expected["inputs"])
    same(hidden, expected["outputs"][over]["hidden"])
    same(gradient, expected["outputs"][over]["gradient"])


def test_the_transform_is_the_sum_that_defines_it(base: Path) -> None:
    model = run_model(make_spec("fourier_prompt", {"length": 4, "share": 0.8}), base).double()
    (raw,) = model.prompt.parameters()
    seen = model.prompt.vectors
    tokens, features = 3, HIDDEN  # 0.8 of 4, rounded down
    k, m = torch.arange(tokens).double(), torch.arange(features).double()
    for i, j in ((0, 0), (1, 5), (2, 31)):
        angle = 2 * torch.pi * (i * k[:, None] / tokens + j * m[None] / features)
        expected = (raw[:tokens] * torch.cos(angle)).sum()
        torch.testing.assert_close(seen[i, j], expected, rtol=0, atol=1e-10)
    assert torch.equal(seen[tokens:], raw[tokens:])


def test_only_what_the_transform_gives_is_kept(base: Path, tmp_path: Path) -> None:
    spec = make_spec("fourier_prompt", {"length": 4})
    method = methods.resolve("fourier_prompt", spec.method.options, "test")
    model, fresh = run_model(spec, base), run_model(spec, base)
    move(model)
    before = logits_of(model, ROWS)
    own = {k for k in model.trained() if not k.startswith("head.")}
    places = ("prompt", "layer_prompts")
    assert own == {f"{place}.parametrizations.vectors.original" for place in places}
    for each in (model, fresh):
        method.fold(each)
        own = {k for k in each.trained() if not k.startswith("head.")}
        assert own == {"prompt.vectors", "layer_prompts.vectors"}
    save_adapter(model, tmp_path, **OWNER)
    load_adapter(fresh, tmp_path, **OWNER)
    torch.testing.assert_close(logits_of(fresh, ROWS), before, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "options", "count"),
    [
        ("deep_prompt", {"length": 6}, LAYERS * 6 * HIDDEN),
        ("deep_prompt", {"length": 6, "depth": "shallow"}, 6 * HIDDEN),
        ("fourier_prompt", {"length": 6}, LAYERS * 6 * HIDDEN),
    ],
)
def test_the_parameters_are_counted_by_the_formula(
    name: str, options: dict[str, object], count: int, base: Path
) -> None:
    trained = run_model(make_spec(name, options), base).trained()
    assert sum(p.numel() for k, p in trained.items() if not k.startswith("head.")) == count


def test_the_start_is_uniform_within_the_authors_bound(base: Path) -> None:
    model = run_model(make_spec("deep_prompt", {"length": 16}), base)
    bound = (6 / (HIDDEN + HIDDEN)) ** 0.5
    for vectors in (model.prompt.vectors, model.layer_prompts.vectors):
        assert 0.97 * bound < float(vectors.detach().abs().max()) <= bound
        assert float(vectors.detach().std()) == pytest.approx(bound / 3**0.5, rel=0.07)


def test_without_depth_only_the_first_layer_has_its_own(base: Path) -> None:
    deep = run_model(make_spec("deep_prompt", {"length": 3}), base)
    shallow = run_model(make_spec("deep_prompt", {"length": 3, "depth": "shallow"}), base)
    assert not hasattr(shallow, "layer_prompts")
    with torch.no_grad():
        shallow.prompt.vectors.copy_(deep.prompt.vectors)
    assert not torch.allclose(logits_of(deep, ROWS), logits_of(shallow, ROWS), atol=1e-3)
    bare = bare_model(make_spec(), base)
    bare.head.load_state_dict(deep.head.state_dict())
    assert not torch.allclose(logits_of(bare, ROWS), logits_of(shallow, ROWS), atol=1e-3)


def test_a_model_of_one_layer_has_no_layer_to_renew_them_in(tmp_path: Path) -> None:
    model = run_model(make_spec("deep_prompt"), write_base(tmp_path, num_hidden_layers=1))
    assert not hasattr(model, "layer_prompts")


@pytest.mark.parametrize("name", ["deep_prompt", "fourier_prompt"])
def test_prompts_that_leave_no_room_for_the_text_are_refused(name: str) -> None:
    method = methods.resolve(name, {"length": 17}, "test")
    with pytest.raises(TuneTrailError, match=f"{name}: length is 17, and with base.max_length 64"):
        method.check({"max_positions": 80}, 64)


# -- prompts that start as tokens -----------------------------------------------------------------


@pytest.mark.parametrize(("name", "option"), [("prompt_tuning", ""), ("unipelt_prompt", "prompt_")])
def test_a_prompt_can_start_as_tokens_of_the_vocabulary(name: str, option: str, base: Path) -> None:
    options = {f"{option}init": "vocabulary", f"{option}length": 5}
    drawn = []
    for seed in (1, 1, 2):
        model = run_model(make_spec(name, options, seed=seed), base)
        vectors, tokens = model.prompt.vectors, model.module_of_tokens().weight
        same = (vectors[:, None] == tokens[None]).all(dim=-1)
        assert same.any(dim=1).all()
        drawn.append(same.float().argmax(dim=1).tolist())
        assert not tokens.requires_grad
    assert drawn[0] == drawn[1] != drawn[2]
