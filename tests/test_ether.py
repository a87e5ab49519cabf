"""ETHER and ETHER+ against their authors' code, and against the matrices of the paper."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.authors import attached_to_family, close, golden, put, tensor
from tests.tiny import HIDDEN, logits_of, make_rows, make_spec, move, run_model
from tunetrail import methods
from tunetrail.errors import TuneTrailError
from tunetrail.modeling.classifier import Classifier
from tunetrail.modeling.reflections import ReflectedLinear, Reflection

GOLDEN = golden("ether")
ROWS = make_rows(6, seed=2)


def layer_of(case: dict[str, Any]) -> ReflectedLinear:
    weight = tensor(GOLDEN["weight"])
    linear = nn.Linear(weight.shape[1], weight.shape[0]).double()
    put(linear, {"weight": GOLDEN["weight"], "bias": GOLDEN["bias"]})
    relaxed = any(name.endswith(".v") for name in case["weights"])
    sides = {
        side: Reflection(width, case["blocks"], relaxed=relaxed)
        if f"{side}.u" in case["weights"]
        else None
        for side, width in (("inputs", linear.in_features), ("outputs", linear.out_features))
    }
    layer = ReflectedLinear(linear, **sides).double()
    put(layer, case["weights"])
    return layer


@pytest.mark.parametrize("name", sorted(GOLDEN["cases"]))
def test_outputs_gradients_and_merged_weights_are_those_of_the_authors(name: str) -> None:
    case = GOLDEN["cases"][name]
    layer = layer_of(case)
    out = layer(tensor(GOLDEN["inputs"]))
    close(out, case["outputs"])
    (out * tensor(GOLDEN["direction"])).sum().backward()
    assert case["gradients"].keys() == case["weights"].keys()
    for parameter, gradient in case["gradients"].items():
        assert tensor(gradient).abs().max() > 1e-3
        close(layer.get_parameter(parameter).grad, gradient)
    close(layer.merged().weight, case["merged"])


def matrix(reflection: Reflection) -> np.ndarray:
    """H by its definition, block by block."""
    size = len(reflection.u)
    whole = np.zeros((size, size))
    step = size // reflection.blocks
    for block in (slice(i, i + step) for i in range(0, size, step)):
        u = reflection.u.detach().numpy()[block]
        u = u / np.linalg.norm(u)
        whole[block, block] = np.eye(step)
        if reflection.v is None:
            whole[block, block] -= 2 * np.outer(u, u)
        else:
            v = reflection.v.detach().numpy()[block]
            v = v / np.linalg.norm(v)
            whole[block, block] += np.outer(v, v) - np.outer(u, u)
    return whole


@pytest.mark.parametrize("relaxed", [False, True])
@pytest.mark.parametrize(("inputs", "outputs"), [(1, None), (3, None), (None, 4), (2, 2), (6, 2)])
def test_a_layer_computes_with_block_diagonal_matrices(
    inputs: int | None, outputs: int | None, relaxed: bool
) -> None:
    torch.manual_seed(3)
    linear = nn.Linear(12, 8).double()
    weight, bias = linear.weight.detach().numpy().copy(), linear.bias.detach().numpy()
    sides = [
        None if blocks is None else Reflection(width, blocks, relaxed=relaxed)
        for blocks, width in ((inputs, 12), (outputs, 8))
    ]
    layer = ReflectedLinear(linear, *sides).double()
    for parameter in (p for side in sides if side is not None for p in side.parameters()):
        nn.init.normal_(parameter)
    before, after = (
        np.eye(width) if side is None else matrix(side)
        for side, width in zip(sides, (12, 8), strict=True)
    )
    x = torch.randn(2, 5, 12, dtype=torch.float64)
    expected = x.numpy() @ (after @ weight @ before).T + bias
    np.testing.assert_allclose(layer(x).detach().numpy(), expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(layer.merged()(x).detach().numpy(), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("blocks", [1, 4])
def test_only_the_direction_of_a_vector_counts(blocks: int) -> None:
    reflection = Reflection(8, blocks, relaxed=False).double()
    x = torch.randn(3, 8, dtype=torch.float64)
    change = reflection.change(x)
    with torch.no_grad():
        reflection.u.mul_(-50)
    torch.testing.assert_close(reflection.change(x), change)
    # A reflection keeps lengths and is always as far from the identity.
    torch.testing.assert_close((x + change).norm(dim=-1), x.norm(dim=-1))
    assert np.linalg.norm(matrix(reflection) - np.eye(8)) == pytest.approx(2 * blocks**0.5)


@pytest.mark.parametrize("blocks", [1, 4])
@pytest.mark.parametrize("sides", ["one", "two"])
def test_vectors_start_as_published(sides: str, blocks: int, base: Path) -> None:
    options = {"sides": sides, "blocks": blocks}
    for name in ("ether", "ether_plus"):
        trained = run_model(make_spec(name, options), base).trained()
        starts = {k: p for k, p in trained.items() if k.endswith(".u")}
        # Per layer: one vector for each side of six matrices.
        assert len(starts) == 2 * 6 * (1 if sides == "one" else 2)
        for key, u in starts.items():
            assert u.ndim == 1
            bound = (blocks / len(u)) ** 0.5
            assert 0.8 * bound < float(u.detach().abs().max()) <= bound
            v = trained.get(key.removesuffix("u") + "v")
            assert (v is None) == (name == "ether")
            assert v is None or torch.equal(v, -u)


@pytest.mark.parametrize("sides", ["one", "two"])
@pytest.mark.parametrize("blocks", [1, 2, 16])
@pytest.mark.parametrize("name", ["ether", "ether_plus"])
def test_every_choice_merges(name: str, sides: str, blocks: int, base: Path) -> None:
    spec = make_spec(name, {"sides": sides, "blocks": blocks, "sites": ["key", "ffn_in"]})
    model = run_model(spec, base)
    move(model, scale=0.3)
    before = logits_of(model, ROWS)
    methods.resolve(name, spec.method.options, "test").merge(model)
    assert not any(isinstance(m, ReflectedLinear) for m in model.modules())
    torch.testing.assert_close(logits_of(model, ROWS), before, rtol=0, atol=1e-5)


def test_ether_plus_starts_at_the_base_model_with_any_blocks(base: Path) -> None:
    bare = run_model(make_spec("head"), base)
    for blocks in (1, 4, 32):
        model = run_model(make_spec("ether_plus", {"blocks": blocks}), base)
        assert torch.equal(logits_of(model, ROWS), logits_of(bare, ROWS))


@pytest.mark.parametrize("name", ["ether", "ether_plus"])
@pytest.mark.parametrize("family", ["deberta-v2", "gpt2", "llama", "modernbert"])
def test_other_architectures_carry_it_and_merge(name: str, family: str) -> None:
    model = attached_to_family(name, family)
    move(model, scale=0.3)
    before = logits_of(model, ROWS)
    methods.resolve(name, {}, "test").merge(model)
    torch.testing.assert_close(logits_of(model, ROWS), before, rtol=0, atol=2e-5)


BASE = {"hidden_size": 768, "ffn_size": 3072}


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("ether", {"blocks": 5}, r"ETHER: blocks is 5, which does not divide 768 and 3072"),
        ("ether", {"blocks": 1024, "sites": ["query"]}, r"does not divide 768, the width"),
        ("ether_plus", {"blocks": 1024}, r"ETHER\+: blocks is 1024, .* divide 768 and 3072"),
        ("ether_plus", {"blocks": 1024, "sites": ["ffn_out"]}, r"divide 768 and 3072"),
    ],
)
def test_blocks_that_do_not_divide_a_side_are_refused(
    name: str, options: dict[str, Any], text: str
) -> None:
    method = methods.resolve(name, options, "test")
    with pytest.raises(TuneTrailError, match=text) as caught:
        method.check(BASE, 128)
    assert "give one of 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 768" in (
        caught.value.fix
    )


def test_blocks_need_to_divide_only_what_is_reflected() -> None:
    methods.resolve("ether", {"blocks": 1024, "sites": ["ffn_out"]}, "test").check(BASE, 128)
    methods.resolve("ether_plus", {"blocks": 768}, "test").check(BASE, 128)


def test_a_width_that_only_the_model_knows_is_refused_as_well() -> None:
    with pytest.raises(TuneTrailError, match="blocks is 3, which does not divide 8"):
        Reflection(8, 3, relaxed=True)


def beyond_head(model: Classifier) -> int:
    return sum(p.numel() for k, p in model.trained().items() if not k.startswith("head."))


def test_the_count_does_not_depend_on_the_blocks(base: Path) -> None:
    for blocks in (1, 8):
        one = run_model(make_spec("ether", {"blocks": blocks}), base)
        assert beyond_head(one) == 2 * (5 * HIDDEN + 64)
        two = run_model(make_spec("ether_plus", {"blocks": blocks}), base)
        assert beyond_head(two) == 2 * 2 * (4 * 2 * HIDDEN + 2 * (HIDDEN + 64))
