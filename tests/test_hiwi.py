"""HiWi against its formula; the authors' repository holds no code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.tiny import (
    HIDDEN,
    LAYERS,
    bare_model,
    logits_of,
    make_rows,
    make_spec,
    move,
    run_model,
    write_family,
)
from tunetrail import methods
from tunetrail.errors import TuneTrailError
from tunetrail.modeling.adapter import WEIGHTS, load_adapter, save_adapter
from tunetrail.modeling.classifier import Classifier, build_classifier

ROWS = make_rows(6, seed=5)
OWNER = {"run": "r" * 64, "base": "b" * 64}
SITES = {"intermediate.dense": 64, "output.dense": HIDDEN}  # and their width


def moved(options: dict[str, object], base: Path) -> tuple[Classifier, methods.Method]:
    spec = make_spec("hiwi", options)
    model = run_model(spec, base)
    move(model, scale=0.3)
    return model, methods.resolve("hiwi", spec.method.options, "test")


@pytest.mark.parametrize("target", ["biases", "weights"])
def test_the_merged_layers_are_those_of_the_formula(target: str, base: Path) -> None:
    """p + ReLU(p·W_down)·W_up for every bias, or for every row of a weight applied as x·W."""
    model, method = moved({"target": target, "width": 3}, base)
    state = {k: v.double().numpy() for k, v in model.trunk.state_dict().items()}
    before = dict(bare_model(make_spec(), base).trunk.named_parameters())
    method.merge(model)
    kinds = {"biases": "bias", "weights": "weight"}
    for layer in range(LAYERS):
        for site in SITES:
            path = f"encoder.layer.{layer}.{site}"
            down, up = state[f"{path}.down"].T, state[f"{path}.up"].T
            for kind in ("bias", "weight"):
                p = before[f"{path}.{kind}"].detach().double().numpy().T
                expected = p + np.maximum(p @ down, 0) @ up if kinds[target] == kind else p
                found = dict(model.trunk.named_parameters())[f"{path}.{kind}"].detach().numpy().T
                np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5, err_msg=path)
                assert (np.abs(expected - p).max() > 0.01) == (kinds[target] == kind)


def test_gradients_reach_the_adapter_through_the_changed_bias(base: Path) -> None:
    """As if the adapted bias itself trained, and then by the chain rule."""
    model, _ = moved({"width": 3}, base)
    model.double().eval()
    layer = model.trunk.encoder.layer[0].intermediate.dense
    batch, labels = ROWS.batch(np.arange(len(ROWS))), torch.from_numpy(ROWS.labels)
    nn.functional.cross_entropy(model(**batch), labels).backward()
    down, up, bias = layer.down.detach(), layer.up.detach(), layer.base.bias.detach()
    inner = (down @ bias).clamp(min=0)
    result = (bias + up @ inner).requires_grad_(True)
    plain = nn.Linear(HIDDEN, 64, dtype=torch.float64)
    plain.weight, plain.bias = layer.base.weight, nn.Parameter(result.detach())
    model.replace("encoder.layer.0.intermediate.dense", plain)
    nn.functional.cross_entropy(model(**batch), labels).backward()
    upstream = plain.bias.grad
    torch.testing.assert_close(layer.up.grad, torch.outer(upstream, inner), rtol=0, atol=1e-12)
    expected = torch.outer((up.T @ upstream) * (inner > 0), bias)
    torch.testing.assert_close(layer.down.grad, expected, rtol=0, atol=1e-12)
    assert expected.abs().max() > 1e-5


def test_of_biases_only_the_result_is_saved(base: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    model, method = moved({"width": 7}, base)
    before = logits_of(model, ROWS)
    method.fold(model)
    save_adapter(model, tmp_path, **OWNER)
    saved = {k: v.numel() for k, v in load_file(tmp_path / WEIGHTS).items() if "head." not in k}
    layers = range(LAYERS)
    assert saved == {
        f"trunk.encoder.layer.{i}.{site}.bias": size for i in layers for site, size in SITES.items()
    }
    fresh = run_model(make_spec("hiwi", {"width": 7}), base)
    method.fold(fresh)
    load_adapter(fresh, tmp_path, **OWNER)
    torch.testing.assert_close(logits_of(fresh, ROWS), before, rtol=0, atol=1e-6)


def test_of_weights_the_adapter_is_saved_because_it_is_smaller(base: Path) -> None:
    model, method = moved({"target": "weights", "width": 2}, base)
    names = set(model.trained())
    method.fold(model)
    assert set(model.trained()) == names
    own = sum(p.numel() for k, p in model.trained().items() if not k.startswith("head."))
    assert own == LAYERS * 2 * 2 * sum(SITES.values())


def test_a_base_model_without_biases_is_refused(tmp_path: Path) -> None:
    model = build_classifier(write_family(tmp_path, "llama"), 2, "last", 0)
    with pytest.raises(TuneTrailError, match=r"hiwi: target is biases, and '.*' of this base") as e:
        methods.attach(model, methods.resolve("hiwi", {}, "test"), seed=1)
    assert "set the target to weights" in e.value.fix
    methods.attach(model, methods.resolve("hiwi", {"target": "weights"}, "test"), seed=1)
