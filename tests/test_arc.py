"""ARC against its authors' code, and its merge."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.authors import attached, attached_to_family, close, golden, put, tensor
from tests.tiny import HIDDEN, logits_of, make_rows, make_spec, move, run_model
from tunetrail import methods
from tunetrail.errors import TuneTrailError
from tunetrail.modeling.classifier import Classifier

GOLDEN = golden("arc")
ROWS = make_rows(6, seed=2)


def golden_model() -> Classifier:
    """Hidden size 6, FFN 10, 2 layers, rank 3."""
    model = attached(
        "arc",
        {"rank": 3},
        hidden_size=6,
        num_attention_heads=2,
        num_hidden_layers=2,
        intermediate_size=10,
    )
    put(model, {f"arc_{name}": values for name, values in GOLDEN["weights"].items()})
    for site, numbers in GOLDEN["linears"].items():
        for path in model.sites.paths(site):
            put(model.module(path).base, numbers)
    return model


def outputs_of(model: Classifier) -> dict[str, torch.Tensor]:
    x = tensor(GOLDEN["inputs"])
    return {
        f"{layer} {site}": model.module(path)(x)
        for site in GOLDEN["linears"]
        for layer, path in enumerate(model.sites.paths(site))
    }


def test_outputs_and_gradients_are_those_of_the_authors() -> None:
    model = golden_model()
    outputs = outputs_of(model)
    assert outputs.keys() == GOLDEN["outputs"].keys()
    for name, out in outputs.items():
        close(out, GOLDEN["outputs"][name])
    total = sum((out * tensor(GOLDEN["directions"][name])).sum() for name, out in outputs.items())
    total.backward()
    own = {k for k in model.trained() if k.startswith("arc_")}
    assert own == {f"arc_{name}" for name in GOLDEN["gradients"]}
    for name, gradient in GOLDEN["gradients"].items():
        close(model.get_parameter(f"arc_{name}").grad, gradient)


def test_merged_projections_compute_what_the_authors_code_computes() -> None:
    model = golden_model()
    methods.resolve("arc", {"rank": 3}, "test").merge(model)
    for name, out in outputs_of(model).items():
        close(out, GOLDEN["outputs"][name])


def test_the_residual_does_not_pass_an_adapter(base: Path) -> None:
    """With the readers of an adapter silenced, the adapter changes nothing."""
    model = run_model(make_spec("arc", {"positions": ["ffn"]}), base)
    with torch.no_grad():
        for path in model.sites.paths("ffn_in"):
            model.module(path).base.weight.zero_()
    before = logits_of(model, ROWS)
    move(model, scale=0.5)
    model.head.load_state_dict(run_model(make_spec("arc"), base).head.state_dict())
    assert torch.equal(logits_of(model, ROWS), before)


def test_scales_start_as_in_the_authors_code(base: Path) -> None:
    trained = run_model(make_spec("arc", {"rank": 32}), base).trained()
    for position in ("attention", "ffn"):
        projection = trained[f"arc_{position}.projection"].detach()
        bound = (6 / (HIDDEN + 32)) ** 0.5
        assert 0.9 * bound < float(projection.abs().max()) <= bound
        for layer in range(2):
            assert not trained[f"arc_{position}.biases.{layer}"].any()
            scale = trained[f"arc_{position}.scales.{layer}"].detach()
            bound = (6 / 33) ** 0.5 if position == "ffn" else 0.0
            assert 0.8 * bound <= float(scale.abs().max()) <= bound


def test_before_attention_alone_it_starts_at_the_base_model(base: Path) -> None:
    model = run_model(make_spec("arc", {"positions": ["attention"]}), base)
    assert torch.equal(logits_of(model, ROWS), logits_of(run_model(make_spec("head"), base), ROWS))


@pytest.mark.parametrize("positions", [["attention"], ["ffn"], ["ffn", "attention"]])
def test_every_choice_merges(positions: list[str], base: Path) -> None:
    spec = make_spec("arc", {"positions": positions, "rank": 7})
    model = run_model(spec, base)
    move(model, scale=0.3)
    before = logits_of(model, ROWS)
    methods.resolve("arc", spec.method.options, "test").merge(model)
    assert [k for k in model.state_dict() if "arc" in k or ".base." in k] == []
    torch.testing.assert_close(logits_of(model, ROWS), before, rtol=0, atol=2e-5)


@pytest.mark.parametrize("family", ["deberta-v2", "distilbert", "gpt2", "llama", "modernbert"])
def test_other_architectures_carry_it_and_merge(family: str) -> None:
    """Where a projection has no bias, merging gives it one."""
    model = attached_to_family("arc", family)
    move(model, scale=0.1)
    before = logits_of(model, ROWS)
    methods.resolve("arc", {}, "test").merge(model)
    torch.testing.assert_close(logits_of(model, ROWS), before, rtol=0, atol=1e-4)


def test_a_rank_beyond_the_hidden_size_is_refused() -> None:
    with pytest.raises(TuneTrailError, match="arc: rank is 33, larger than the hidden size 32"):
        methods.resolve("arc", {"rank": 33}, "test").check({"hidden_size": 32}, 128)
    methods.resolve("arc", {"rank": 32}, "test").check({"hidden_size": 32}, 128)


@pytest.mark.parametrize("positions", [[], ["ffn", "ffn"], ["head"]])
def test_bad_positions_are_refused(positions: list[Any]) -> None:
    with pytest.raises(TuneTrailError, match="'positions"):
        methods.resolve("arc", {"positions": positions}, "test")
