"""LoRTA against its authors' code, and against the formula of the paper."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.authors import attached, attached_to_family, close, golden, put, tensor
from tests.tiny import logits_of, make_rows, make_spec, move, run_model
from tunetrail import methods
from tunetrail.errors import TuneTrailError
from tunetrail.methods.lorta import MATRICES
from tunetrail.modeling.classifier import Classifier

GOLDEN = golden("lorta")
FACTORS = ("a", "b", "heads", "matrices", "layers")
ROWS = make_rows(6, seed=2)


def model_of(heads: str) -> Classifier:
    """Hidden size 6, 2 heads, 2 layers, rank 3; every matrix has the same weight and bias."""
    options = {"rank": 3, "alpha": GOLDEN["alpha"], "heads": heads}
    model = attached(
        "lorta",
        options,
        hidden_size=6,
        num_attention_heads=2,
        num_hidden_layers=2,
        intermediate_size=6,
    )
    put(model.lorta, {name: GOLDEN["weights"][name] for name in FACTORS})
    for site in MATRICES:
        for path in model.sites.paths(site):
            put(model.module(path).base, {k: GOLDEN["weights"][k] for k in ("weight", "bias")})
    return model


def outputs_of(model: Classifier) -> dict[str, torch.Tensor]:
    """``LAYER SITE`` → what that matrix makes of the golden inputs."""
    x = tensor(GOLDEN["inputs"])
    return {
        f"{layer} {site}": model.module(path)(x)
        for site in MATRICES
        for layer, path in enumerate(model.sites.paths(site))
    }


def test_outputs_and_gradients_are_those_of_the_authors() -> None:
    model = model_of("inputs")
    outputs = outputs_of(model)
    assert outputs.keys() == GOLDEN["outputs"].keys()
    for name, out in outputs.items():
        close(out, GOLDEN["outputs"][name])
    total = sum((out * tensor(GOLDEN["directions"][name])).sum() for name, out in outputs.items())
    total.backward()
    for name in FACTORS:
        close(model.lorta.get_parameter(name).grad, GOLDEN["gradients"][name])


@pytest.mark.parametrize("heads", ["outputs", "inputs"])
def test_updates_are_those_of_the_formula(heads: str) -> None:
    """ΔW of layer l, matrix m and head h is A·diag(C_h∘C_m∘C_l)·B, written as one sum."""
    model = model_of(heads)
    factors = {name: np.array(GOLDEN["weights"][name]) for name in FACTORS}
    every = np.einsum("ir,rj,hr,mr,lr->lmihj", *(factors[name] for name in FACTORS))
    x = np.array(GOLDEN["inputs"])
    weight, bias = (np.array(GOLDEN["weights"][k]) for k in ("weight", "bias"))
    for name, out in outputs_of(model).items():
        layer, site = name.split()
        update = every[int(layer), MATRICES.index(site)].reshape(6, 6)  # (whole, heads · part)
        if heads == "inputs" or site == "attention_dense":
            update = update.T
        expected = x @ weight.T + bias + GOLDEN["alpha"] / 3 * x @ update
        np.testing.assert_allclose(out.detach().numpy(), expected, rtol=0, atol=1e-12)


def test_after_attention_both_layouts_are_one() -> None:
    """What the authors' code computes there is what the formula says."""
    for name, out in outputs_of(model_of("outputs")).items():
        same = np.allclose(out.detach(), np.array(GOLDEN["outputs"][name]), rtol=0, atol=1e-10)
        assert same == name.endswith("attention_dense")


def test_factors_start_as_in_the_authors_code(base: Path) -> None:
    trained = run_model(make_spec("lorta", {"rank": 32}), base).trained()
    assert not trained["lorta.b"].any()
    # Kaiming uniform of rows of width rank: with a = √5 for A, with a = 0 for the others.
    bounds = {"a": 32**-0.5} | dict.fromkeys(("heads", "matrices", "layers"), (6 / 32) ** 0.5)
    for name, bound in bounds.items():
        values = trained[f"lorta.{name}"].detach()
        assert 0.85 * bound < float(values.abs().max()) <= bound
        assert float(values.std()) == pytest.approx(bound / 3**0.5, rel=0.15)


@pytest.mark.parametrize("heads", ["outputs", "inputs"])
def test_both_layouts_merge(heads: str, base: Path) -> None:
    spec = make_spec("lorta", {"heads": heads, "rank": 3})
    model = run_model(spec, base)
    move(model, scale=0.5)
    before = logits_of(model, ROWS)
    methods.resolve("lorta", spec.method.options, "test").merge(model)
    assert [k for k in model.state_dict() if "lorta" in k or ".base." in k] == []
    torch.testing.assert_close(logits_of(model, ROWS), before, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", ["albert", "deberta-v2", "distilbert", "gpt2", "modernbert"])
def test_other_architectures_carry_it_and_merge(family: str) -> None:
    model = attached_to_family("lorta", family)
    move(model, scale=0.5)
    before = logits_of(model, ROWS)
    methods.resolve("lorta", {}, "test").merge(model)
    torch.testing.assert_close(logits_of(model, ROWS), before, rtol=0, atol=2e-5)


def test_fewer_key_heads_are_refused() -> None:
    text = r"lorta: 'key' has 32 inputs and 16 outputs: one tensor needs 32 of both"
    with pytest.raises(TuneTrailError, match=text):
        attached_to_family("lorta", "llama")


@pytest.mark.parametrize("options", [{"rank": 0}, {"alpha": 0}, {"heads": "both"}])
def test_bad_options_are_refused(options: dict[str, Any]) -> None:
    (key,) = options
    with pytest.raises(TuneTrailError, match=f"'{key}' is"):
        methods.resolve("lorta", options, "test")
