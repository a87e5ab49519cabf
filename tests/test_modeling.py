"""The model under the methods: attention, dropout, loading and checking base models."""

from __future__ import annotations

import json
import math
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.tiny import (
    HIDDEN,
    VOCABULARY,
    bare_model,
    logits_of,
    make_rows,
    make_spec,
    run_model,
    tiny_config,
    write_base,
    write_family,
    write_model,
)
from tunetrail.errors import TuneTrailError
from tunetrail.modeling import sites
from tunetrail.modeling.adapter import WEIGHTS, load_adapter, save_adapter
from tunetrail.modeling.base import check_base, verified_base
from tunetrail.modeling.classifier import build_classifier
from tunetrail.modeling.dropout import Dropout, Noise, share_noise
from tunetrail.training.rows import Rows

ROWS = make_rows(10, seed=2)


# -- attention and pooling ------------------------------------------------------------------------


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("index", [[0], [3, 1], list(range(len(ROWS)))], ids=len)
def test_logits_are_those_of_transformers_eager_attention(
    pooling: str, index: list[int], base: Path
) -> None:
    from transformers import AutoModel

    spec = make_spec(base=make_spec().base.model_dump() | {"pooling": pooling})
    model = bare_model(spec, base).eval()
    reference = AutoModel.from_pretrained(base / "model", attn_implementation="eager").eval()
    batch = ROWS.batch(np.array(index))
    with torch.inference_mode():
        out = reference(**batch)
        if pooling == "cls":
            pooled = out.pooler_output
        else:
            rows = zip(out.last_hidden_state, batch["attention_mask"].sum(1), strict=True)
            pooled = torch.stack([hidden[: int(size)].mean(0) for hidden, size in rows])
        expected = pooled @ model.head.linear.weight.T + model.head.linear.bias
        torch.testing.assert_close(model(**batch), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_padding_changes_nothing(pooling: str, base: Path) -> None:
    spec = make_spec(base=make_spec().base.model_dump() | {"pooling": pooling})
    model = bare_model(spec, base).eval()
    together = logits_of(model, ROWS)
    with torch.inference_mode():
        alone = torch.cat([model(**ROWS.batch(np.array([i]))) for i in range(len(ROWS))])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-6)


def test_attention_uses_the_dropout_that_replaced_the_modules_own(base: Path) -> None:
    model = bare_model(make_spec(), base).train()
    noise = share_noise(model)
    batch = ROWS.batch(np.arange(len(ROWS)))
    kinds = {type(m) for m in model.modules() if type(m).__name__ == "Dropout"}
    assert kinds == {Dropout}
    for module in model.modules():
        if isinstance(module, Dropout):
            module.p = 0.0
    still = model(**batch)
    model.trunk.encoder.layer[0].attention.self.dropout.p = 0.5
    noise.reseed(1)
    first = model(**batch)
    noise.reseed(1)
    assert not torch.equal(first, still)
    assert torch.equal(first, model(**batch))


# -- dropout --------------------------------------------------------------------------------------


def dropout(p: float, seed: int) -> Dropout:
    noise = Noise()
    noise.reseed(seed)
    return Dropout(p, noise)


@pytest.mark.parametrize("p", [0.0, 0.1, 0.9])
def test_dropout_is_the_identity_in_eval(p: float) -> None:
    x = torch.randn(4, 5)
    assert dropout(p, 1).eval()(x) is x


@pytest.mark.parametrize("p", [0.01, 0.1, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_dropout_keeps_the_share_it_promises(p: float, seed: int) -> None:
    count = 400_001  # not a multiple of four
    kept = int((dropout(p, seed)(torch.ones(count)) != 0).sum())
    sigma = math.sqrt(count * p * (1 - p))
    # Probabilities come in steps of 1/65536.
    assert abs(kept - count * (1 - p)) < 5 * sigma + count / 65536


@pytest.mark.parametrize("p", [0.1, 0.5, 0.75])
def test_dropout_scales_what_it_keeps(p: float) -> None:
    x = torch.randn(50, 41) + 10
    y = dropout(p, 3)(x)
    kept = y != 0
    assert kept.any()
    assert not kept.all()
    torch.testing.assert_close(y[kept], x[kept] / (1 - p))


@pytest.mark.parametrize("lag", [1, 2, 3, 4, 5, 8])
def test_dropout_draws_neighbours_independently(lag: int) -> None:
    kept = (dropout(0.3, 5)(torch.ones(200_000)) != 0).double()
    a, b = kept[:-lag] - 0.7, kept[lag:] - 0.7
    correlation = float((a * b).mean()) / 0.21
    assert abs(correlation) < 5 / math.sqrt(200_000)


def test_the_seed_decides_the_mask() -> None:
    x = torch.ones(3, 7, 11)
    assert torch.equal(dropout(0.4, 1)(x), dropout(0.4, 1)(x))
    assert not torch.equal(dropout(0.4, 1)(x), dropout(0.4, 2)(x))
    layer = dropout(0.4, 1)
    assert not torch.equal(layer(x), layer(x)), "two draws of one step differ"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_gradients_stop_exactly_where_values_were_dropped(dtype: torch.dtype) -> None:
    x = (torch.rand(64, 33) + 1).to(dtype).requires_grad_(True)
    y = dropout(0.3, 4)(x)
    assert y.dtype == dtype
    y.sum().backward()
    assert torch.equal(x.grad == 0, y == 0)
    assert 0 < int((y == 0).sum()) < y.numel()
    torch.testing.assert_close(x.grad[y != 0], torch.full_like(x.grad[y != 0], 1 / 0.7))


@pytest.mark.parametrize("name", ["head", "houlsby", "lora"])
def test_every_dropout_of_a_model_shares_one_source(name: str, base: Path) -> None:
    options = {"dropout": 0.25} if name == "lora" else {}
    model = run_model(make_spec(name, options), base)
    before = [m.p for m in model.modules() if isinstance(m, nn.Dropout)]
    noise = share_noise(model)
    shared = [m for m in model.modules() if isinstance(m, Dropout)]
    assert [m.p for m in shared] == before
    assert not any(isinstance(m, nn.Dropout) for m in model.modules())
    assert all(m._noise is noise for m in shared)
    assert sum(m.p == 0.25 for m in shared) == (4 if name == "lora" else 0)


# -- base models ----------------------------------------------------------------------------------


def without(folder: Path, name: str) -> Path:
    (folder / name).unlink()
    return folder


def pickled(folder: Path) -> Path:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    return folder


def of_architecture(folder: Path, name: str) -> Path:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {"model_type": name}))
    return folder


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda f: without(f, "config.json"), r"no config\.json in "),
        (lambda f: without(f, "model.safetensors"), r"no \.safetensors weights in "),
        (pickled, r"pytorch_model\.bin is a pickle and is never loaded"),
        (lambda f: without(f, "tokenizer.json"), r"no tokenizer\.json in "),
        (lambda f: of_architecture(f, "t5"), "architecture 't5' has no declared sites"),
    ],
)
def test_an_unusable_base_model_is_refused(spoil: Any, text: str, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    assert check_base(folder).hidden_size == HIDDEN
    spoil(folder)
    with pytest.raises(TuneTrailError, match=text) as caught:
        check_base(folder)
    assert ("is a pickle" in caught.value.problem) == (spoil is pickled)
    assert caught.value.fix


def test_a_pickle_is_not_read_by_the_loader_either(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="safetensors"):
        build_classifier(pickled(write_model(tmp_path / "model")), 2, "mean", 0)


@pytest.mark.parametrize("content", ["{", "[]", '{"model_type": "bert"}'])
def test_a_malformed_configuration_is_refused_with_text(content: str, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    (folder / "config.json").write_text(content)
    with pytest.raises(TuneTrailError, match="config"):
        check_base(folder)


def test_changed_weights_are_not_the_runs_weights(tmp_path: Path) -> None:
    folder = write_base(tmp_path / "base")
    digest = json.loads((folder / "card.json").read_text(encoding="utf-8"))["digest"]
    assert verified_base(folder, digest) == folder / "model"
    (folder / "model" / "config.json").write_text("{}")
    with pytest.raises(TuneTrailError, match="is not the base model of this run"):
        verified_base(folder, digest)


def test_a_pooler_that_the_weights_lack_is_never_made_up(tmp_path: Path) -> None:
    """A pooler of random numbers would differ between training and evaluation."""
    from transformers import BertModel

    torch.manual_seed(0)
    BertModel(tiny_config(), add_pooling_layer=False).save_pretrained(tmp_path)
    assert build_classifier(tmp_path, 2, "mean", 0).trunk.pooler is None
    with pytest.raises(TuneTrailError, match="pooler"):
        build_classifier(tmp_path, 2, "cls", 0)


@pytest.mark.parametrize("family", sorted(sites.FAMILIES))
def test_every_declared_family_computes_what_transformers_computes(
    family: str, tmp_path: Path
) -> None:
    """Projections are taken apart and attention is our own: the vectors stay the same."""
    from transformers import AutoModel

    write_family(tmp_path, family)
    check_base(tmp_path)
    model = build_classifier(tmp_path, 2, "mean", 0).eval()
    batch = ROWS.batch(np.arange(len(ROWS)))
    theirs = AutoModel.from_pretrained(tmp_path, attn_implementation="eager").eval()
    segments = "token_type_ids" in signature(theirs.forward).parameters and family != "gpt2"
    inputs = {k: v for k, v in batch.items() if k != "token_type_ids" or segments}
    with torch.inference_mode():
        expected = theirs(**inputs).last_hidden_state
        found = model.trunk(**inputs).last_hidden_state
    real = batch["attention_mask"].bool()
    torch.testing.assert_close(found[real], expected[real], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", sorted(sites.FAMILIES))
@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_a_text_alone_and_in_a_batch_is_the_same(family: str, pooling: str, tmp_path: Path) -> None:
    model = build_classifier(write_family(tmp_path, family), 2, pooling, 0)
    logits = logits_of(model, ROWS)
    assert logits.shape == (len(ROWS), 2)
    alone = [logits_of(model, _row(i)) for i in range(len(ROWS))]
    torch.testing.assert_close(logits, torch.cat(alone), rtol=0, atol=3e-6)
    for site in model.sites.family.sites:
        found = [model.module(path) for path in model.sites.paths(site)]
        assert len(found) == 2
        linear = site in ("query", "key", "value", "attention_dense", "ffn_in", "ffn_out")
        assert all(isinstance(m, torch.nn.Linear) for m in found) or not linear


def test_segments_are_no_tokens_of_gpt2(tmp_path: Path) -> None:
    """It has no embeddings of segments, and would add those of tokens 0 and 1 to every token."""
    model = build_classifier(write_family(tmp_path, "gpt2"), 2, "last", 0).eval()
    batch = ROWS.batch(np.arange(len(ROWS)))
    others = {**batch, "token_type_ids": 1 - batch["token_type_ids"]}
    with torch.inference_mode():
        assert torch.equal(model(**batch), model(**others))


def _row(index: int) -> Rows:
    return Rows(
        [ROWS.ids[index]], ROWS.labels[[index]], [ROWS.tokens[index]], [ROWS.segments[index]]
    )


def test_an_adapter_of_other_shapes_is_refused(base: Path, tmp_path: Path) -> None:
    """Copying must not stretch a smaller tensor over a larger one."""
    owner = {"run": "r", "base": "b"}
    save_adapter(run_model(make_spec("lora", {"rank": 1}), base), tmp_path, **owner)
    assert (tmp_path / WEIGHTS).is_file()
    with pytest.raises(TuneTrailError, match="train this run again"):
        load_adapter(run_model(make_spec("lora", {"rank": 8}), base), tmp_path, **owner)


def test_an_adapter_for_another_number_of_labels_is_refused(base: Path, tmp_path: Path) -> None:
    owner = {"run": "r", "base": "b"}
    save_adapter(build_classifier(base / "model", 2, "mean", 0), tmp_path, **owner)
    with pytest.raises(TuneTrailError) as caught:
        load_adapter(build_classifier(base / "model", 3, "mean", 0), tmp_path, **owner)
    assert "head.linear" in caught.value.problem
    assert "train this run again" in caught.value.fix


def test_the_tokenizer_of_the_tiny_model_reads_text(base: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base / "model")
    encoded = tokenizer("Ab", "c", return_token_type_ids=True)
    pieces = [VOCABULARY[i] for i in encoded["input_ids"]]
    assert pieces == ["[CLS]", "a", "##b", "[SEP]", "c", "[SEP]"]
    assert encoded["token_type_ids"] == [0, 0, 0, 0, 1, 1]
