"""DSEE against its authors' code; the places of its sparse part; pruning, saved and loaded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from tests.authors import attached, attached_to_family, close, golden, put, tensor
from tests.tiny import (
    HIDDEN,
    bare_model,
    logits_of,
    make_rows,
    make_spec,
    move,
    run_model,
)
from tunetrail import methods
from tunetrail.errors import TuneTrailError
from tunetrail.methods import Method
from tunetrail.modeling.adapter import load_adapter, save_adapter
from tunetrail.modeling.classifier import Classifier
from tunetrail.modeling.sparse import SparseUpdate, outstanding, zero_smallest
from tunetrail.run import RunSpec
from tunetrail.training.loop import fit

GOLDEN = golden("dsee")
ROWS = make_rows(6, seed=2)
OWNER = {"run": "r" * 64, "base": "b" * 64}
PROJECTIONS = ("query", "key", "value", "attention_dense", "ffn_in", "ffn_out")

pytestmark = pytest.mark.usefixtures("in_empty_folder", "fresh_accelerate")


def method_of(spec: RunSpec) -> Method:
    return methods.resolve(spec.method.name, spec.method.options, "test")


# -- updates --------------------------------------------------------------------------------------


def test_attention_and_gradients_are_those_of_the_authors() -> None:
    """The places are given: their decomposition cannot be repeated (see modeling/sparse.py)."""
    model = attached(
        "dsee",
        {"rank": 2, "alpha": GOLDEN["alpha"], "entries": 5},
        hidden_size=8,
        num_attention_heads=2,
        num_hidden_layers=1,
        intermediate_size=8,
    )
    layers = {s: model.module(model.sites.paths(s)[0]) for s in ("query", "key", "value")}
    for site, layer in layers.items():
        linear = layer if site == "key" else layer.base
        put(linear, {k: GOLDEN["weights"][f"{site}.{k}"] for k in ("weight", "bias")})
        if site != "key":
            layer.s = SparseUpdate(torch.tensor(GOLDEN["places"][site]), 8).double()
            put(layer, {k: GOLDEN["weights"][f"{site}.{k}"] for k in ("a", "b")})
            layer.s.values().data.copy_(tensor(GOLDEN["weights"][f"{site}.s"]))
    attention = model.module(model.sites.paths("attention")[0])
    out, _ = attention(tensor(GOLDEN["inputs"]))
    close(out, GOLDEN["outputs"])
    (out * tensor(GOLDEN["direction"])).sum().backward()
    for site in ("query", "value"):
        layer = layers[site]
        close(layer.a.grad, GOLDEN["gradients"][f"{site}.a"])
        close(layer.b.grad, GOLDEN["gradients"][f"{site}.b"])
        close(layer.s.values().grad, GOLDEN["gradients"][f"{site}.s"])


def test_it_starts_as_in_the_authors_code(base: Path) -> None:
    trained = run_model(make_spec("dsee", {"rank": 32}), base).trained()
    own = {k: p.detach() for k, p in trained.items() if not k.startswith("head.")}
    assert len(own) == 2 * 2 * 3
    a = torch.cat([p.flatten() for k, p in own.items() if k.endswith(".a")])
    assert float(a.std()) == pytest.approx(0.02, rel=0.05)
    assert all(not p.any() for k, p in own.items() if not k.endswith(".a"))
    # Only vectors escape weight decay, which would shrink S.
    assert {p.ndim for k, p in own.items() if ".s." in k} == {1}


@pytest.mark.parametrize("sites", [["query"], list(PROJECTIONS)])
def test_every_choice_merges(sites: list[str], base: Path) -> None:
    spec = make_spec("dsee", {"sites": sites, "alpha": 4.0, "entries": 40})
    model = run_model(spec, base)
    move(model, scale=0.3)
    before = logits_of(model, ROWS)
    method_of(spec).merge(model)
    torch.testing.assert_close(logits_of(model, ROWS), before, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", ["deberta-v2", "gpt2", "llama", "modernbert"])
def test_other_architectures_carry_it_and_merge(family: str) -> None:
    model = attached_to_family("dsee", family)
    move(model, scale=0.3)
    before = logits_of(model, ROWS)
    methods.resolve("dsee", {}, "test").merge(model)
    torch.testing.assert_close(logits_of(model, ROWS), before, rtol=0, atol=2e-5)


# -- where the sparse part is ---------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_entries_that_stand_out_of_a_low_rank_matrix_are_found(seed: int) -> None:
    generator = np.random.default_rng(seed)
    matrix = generator.normal(size=(120, 65)) @ generator.normal(size=(65, 100)) * 0.3
    places = generator.choice(matrix.size, 10, replace=False)
    matrix.flat[places] += generator.choice([-2.0, 2.0], 10)
    tensor = torch.from_numpy(matrix).float()
    found = outstanding(tensor, 10).tolist()
    assert found == sorted(set(found))
    assert len(set(found) & set(places)) >= 9
    largest = tensor.abs().flatten().topk(10).indices.tolist()
    assert len(set(largest) & set(places)) <= 1, "magnitude alone would find them"


def test_places_do_not_depend_on_threads_or_last_digits() -> None:
    matrix = torch.randn(384, 384, generator=torch.Generator().manual_seed(1)) * 0.05
    threads = torch.get_num_threads()
    try:
        found = []
        for count in (1, 2):
            torch.set_num_threads(count)
            found.append(outstanding(matrix, 64))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*found)
    noise = torch.randn(384, 384, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    assert torch.equal(outstanding(matrix.double() * (1 + 1e-12 * noise), 64), found[0])


def test_places_follow_from_the_base_model_and_not_from_the_seed(base: Path) -> None:
    one, two = (run_model(make_spec("dsee", seed=seed), base) for seed in (1, 2))
    assert one.trained().keys() == two.trained().keys()
    for path in one.sites.paths("query"):
        assert torch.equal(one.module(path).s.rows, two.module(path).s.rows)
        assert torch.equal(one.module(path).s.columns, two.module(path).s.columns)


def test_values_are_never_put_at_other_places(base: Path, tmp_path: Path) -> None:
    spec = make_spec("dsee")
    save_adapter(run_model(spec, base), tmp_path, **OWNER)
    other = bare_model(spec, base)
    with torch.no_grad():
        other.module(other.sites.paths("value")[1]).weight[3, 5] += 10.0
    methods.attach(other, method_of(spec), 0)
    with pytest.raises(TuneTrailError, match=r"disagree about 'trunk\..*value\.s\.at_"):
        load_adapter(other, tmp_path, **OWNER)


# -- pruning --------------------------------------------------------------------------------------


def base_weights(model: Classifier) -> list[torch.Tensor]:
    modules = [model.module(path) for site in PROJECTIONS for path in model.sites.paths(site)]
    return [getattr(module, "base", module).weight.detach().clone() for module in modules]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_what_is_pruned_is_what_torch_prunes(share: float, base: Path) -> None:
    """The authors prune with torch's global_unstructured and L1Unstructured."""
    ours = base_weights(bare_model(make_spec(), base))
    linears = []
    for weight in ours:
        linears.append(nn.Linear(weight.shape[1], weight.shape[0]))
        linears[-1].weight.data.copy_(weight)
    prune.global_unstructured([(m, "weight") for m in linears], prune.L1Unstructured, amount=share)
    zero_smallest(ours, share)
    for mine, theirs in zip(ours, linears, strict=True):
        assert torch.equal(mine, theirs.weight)
    zeros = sum(int((w == 0).sum()) for w in ours) / sum(w.numel() for w in ours)
    assert zeros == pytest.approx(share, abs=1e-4)


def test_weights_are_pruned_once_at_the_share_of_training(base: Path) -> None:
    spec = make_spec("dsee", {"prune": 0.5, "prune_at": 0.25})
    model, method = run_model(spec, base), method_of(spec)
    before = base_weights(model)
    method.before_step(model, 0.24)
    assert all(torch.equal(a, b) for a, b in zip(before, base_weights(model), strict=True))
    method.before_step(model, 0.25)
    pruned = base_weights(model)
    zero_smallest(before, 0.5)
    assert all(torch.equal(a, b) for a, b in zip(before, pruned, strict=True))
    method.before_step(model, 0.9)
    method.fold(model)
    assert all(torch.equal(a, b) for a, b in zip(pruned, base_weights(model), strict=True))


def test_without_pruning_nothing_is_pruned(base: Path) -> None:
    spec = make_spec("dsee")
    model = run_model(spec, base)
    before = base_weights(model)
    method_of(spec).before_step(model, 0.9)
    method_of(spec).fold(model)
    assert all(torch.equal(a, b) for a, b in zip(before, base_weights(model), strict=True))


@pytest.mark.parametrize("steps", [1, 6])  # a run of one step has no second half
def test_a_pruned_model_is_saved_loaded_and_merged(steps: int, base: Path, tmp_path: Path) -> None:
    """The order of the stages: train folds and saves; evaluate and export fold and load."""
    options = {"prune": 0.4, "prune_at": 0.5}
    spec = make_spec("dsee", options, budget={"steps": steps})
    model, method = run_model(spec, base), method_of(spec)
    fit(model, spec, 1e-2, make_rows(24), make_rows(6, seed=1), method=method)
    method.fold(model)
    save_adapter(model, tmp_path, **OWNER)
    trained = logits_of(model, ROWS)

    loaded = run_model(spec, base)
    assert not torch.equal(logits_of(loaded, ROWS), trained)
    method.fold(loaded)
    load_adapter(loaded, tmp_path, **OWNER)
    assert torch.equal(logits_of(loaded, ROWS), trained)
    zeros = [float((w == 0).float().mean()) for w in base_weights(loaded)]
    assert np.mean(zeros) == pytest.approx(0.4, abs=0.1)
    method.merge(loaded)
    torch.testing.assert_close(logits_of(loaded, ROWS), trained, rtol=0, atol=1e-5)


def test_training_goes_on_after_pruning(base: Path) -> None:
    """Weights of the update move in the second stage, zeroed weights stay zero."""
    spec = make_spec("dsee", {"prune": 0.5, "prune_at": 0.5}, budget={"steps": 10})
    model, method = run_model(spec, base), method_of(spec)
    seen: list[tuple[bool, torch.Tensor]] = []

    class Watched(type(method)):  # type: ignore[misc]
        def before_step(self, model: Classifier, share: float) -> None:
            super().before_step(model, share)
            layer = model.module(model.sites.paths("query")[0])
            seen.append((layer.pruned, layer.b.detach().clone()))

    fit(model, spec, 1e-2, make_rows(96), make_rows(6, seed=1), method=Watched(**dict(method)))
    assert [pruned for pruned, _ in seen] == [False] * 5 + [True] * 5
    assert not torch.equal(seen[5][1], seen[9][1])
    zero_smallest(expected := base_weights(run_model(spec, base)), 0.5)
    assert all(torch.equal(a, b) for a, b in zip(expected, base_weights(model), strict=True))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"rank": HIDDEN + 1}, "rank is 33, larger than the hidden size 32"),
        ({"entries": HIDDEN**2 + 1}, r"dsee: entries is 1025, more than a matrix has \(1024\)"),
    ],
)
def test_updates_larger_than_a_matrix_are_refused(options: dict[str, int], text: str) -> None:
    card = {"hidden_size": HIDDEN}
    with pytest.raises(TuneTrailError, match=text):
        methods.resolve("dsee", options, "test").check(card, 128)
    smaller = {key: value - 1 for key, value in options.items()}
    methods.resolve("dsee", smaller, "test").check(card, 128)


@pytest.mark.parametrize("options", [{"prune": 1.0}, {"prune": -0.1}, {"prune_at": 1.0}])
def test_shares_out_of_range_are_refused(options: dict[str, float]) -> None:
    (key,) = options
    with pytest.raises(TuneTrailError, match=f"'{key}' is"):
        methods.resolve("dsee", options, "test")
