"""BitFit's subset of biases."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertModel

from tests.authors import attached_to_family
from tests.tiny import make_rows, make_spec, run_model
from tunetrail import methods
from tunetrail.errors import TuneTrailError
from tunetrail.modeling.classifier import Classifier
from tunetrail.training.loop import fit

GOLDEN = Path(__file__).parent / "golden"
SUBSET = {"biases": "query_and_ffn"}

pytestmark = pytest.mark.usefixtures("in_empty_folder")


@pytest.mark.parametrize("biases", ["all", "query_and_ffn"])
def test_what_trains_is_what_trains_in_the_authors_code(biases: str) -> None:
    golden = json.loads((GOLDEN / "bitfit.json").read_text(encoding="utf-8"))
    config = BertConfig(**golden["sizes"])
    model = Classifier(BertModel(config), config, classes=2, pooling="cls")
    methods.attach(model, methods.resolve("bitfit", {"biases": biases}, "test"), seed=0)
    ours = {re.sub("^trunk", "bert", k) for k in model.trained() if not k.startswith("head.")}
    theirs = {k for k in golden["trained"][biases] if not k.startswith("classifier.")}
    if biases != "all":
        theirs.remove("bert.pooler.dense.bias")  # the known difference
    assert ours == theirs


def test_the_subset_trains_biases_of_queries_and_the_first_ffn_projection(base: Path) -> None:
    spec = make_spec("bitfit", SUBSET, budget={"steps": 3})
    model = run_model(spec, base)
    before = {k: p.detach().clone() for k, p in model.state_dict().items()}
    fit(model, spec, 1e-2, make_rows(24), make_rows(6, seed=1))
    changed = {k for k, p in model.state_dict().items() if not torch.equal(p, before[k])}
    expected = {
        f"trunk.encoder.layer.{layer}.{part}.bias"
        for layer in (0, 1)
        for part in ("attention.self.query", "intermediate.dense")
    }
    assert changed == expected | {"head.linear.weight", "head.linear.bias"}
    assert set(model.trained()) == changed


def test_all_is_the_default_and_holds_the_subset(base: Path) -> None:
    every = set(run_model(make_spec("bitfit"), base).trained())
    subset = set(run_model(make_spec("bitfit", SUBSET), base).trained())
    assert subset < every
    assert sum("LayerNorm.bias" in name for name in every) == 2 * 2 + 1


def test_the_first_projection_of_other_architectures() -> None:
    model = attached_to_family("bitfit", "gpt2")  # its attention has a buffer named bias
    assert all(k.endswith(".bias") for k in model.trained() if not k.startswith("head."))


@pytest.mark.parametrize(
    ("biases", "way_out"),
    [("all", "use another method"), ("query_and_ffn", "use another method, or biases: all")],
)
def test_a_base_model_without_biases_is_refused(biases: str, way_out: str) -> None:
    with pytest.raises(TuneTrailError, match=f"no biases to train .biases: {biases}") as caught:
        attached_to_family("bitfit", "llama", {"biases": biases})
    assert caught.value.fix == way_out


def test_an_unknown_subset_is_refused() -> None:
    with pytest.raises(TuneTrailError, match="'biases' is 'query'"):
        methods.resolve("bitfit", {"biases": "query"}, "test")
