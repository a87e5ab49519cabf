"""Plain LoRA and (IA)³ in peft's file format, against peft itself, both ways."""

from __future__ import annotations

import json
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import IA3Config, LoraConfig, PeftModel, get_peft_model
from torch import nn

from tests.refusals import exit_code
from tests.tiny import HIDDEN, make_rows, make_spec, move, run_model, write_base, write_family
from tunetrail import methods
from tunetrail.errors import TuneTrailError
from tunetrail.files import tree_digest
from tunetrail.layout import RUN
from tunetrail.modeling.adapter import save_adapter
from tunetrail.modeling.classifier import Classifier, build_classifier
from tunetrail.modeling.peft_format import CONFIG, WEIGHTS, read_peft, write_ia3, write_lora
from tunetrail.run import PlannedRun, write_run

ROWS = make_rows(6, seed=5)
FAMILIES = ["bert", "roberta", "distilbert", "electra", "albert", "deberta-v2", "mpnet", "llama"]
LORA = {
    "sites": ["query", "value", "attention_dense", "ffn_in", "ffn_out"],
    "rank": 3,
    "alpha": 7.0,
}
Folders = tuple[Path, Path]


@pytest.fixture
def folders(tmp_path: Path, request: pytest.FixtureRequest) -> Folders:
    """A base model of a family (by default bert), and where an adapter can go."""
    family = getattr(request, "param", "bert")
    return write_family(tmp_path / "base", family), tmp_path / "adapter"


def same(found: torch.Tensor, expected: torch.Tensor, base: Path) -> None:
    """Families with rotary positions compute those in float32, whatever the precision."""
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    rotary = config["model_type"] in ("llama", "modernbert")
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 if rotary else 1e-10)


def ours(base: Path, method: str, options: dict[str, Any], seed: int = 1) -> Classifier:
    model = build_classifier(base, 2, "mean", 0)
    methods.attach(model, methods.resolve(method, options, "test"), seed=seed)
    return model


def theirs(base: Path) -> Any:
    from transformers import AutoModel

    return AutoModel.from_pretrained(base, attn_implementation="eager")


def hidden(model: nn.Module, reference: nn.Module) -> torch.Tensor:
    """Hidden states of the real tokens, in float64."""
    batch = ROWS.batch(np.arange(len(ROWS)))
    known = signature(reference.forward).parameters
    inputs = {k: v for k, v in batch.items() if k in known}
    with torch.inference_mode():
        out: torch.Tensor = model.double().eval()(**inputs).last_hidden_state
    return out[batch["attention_mask"].bool()]


def selected(method: str, folder: Path) -> tuple[Path, Classifier]:
    """A run as the select stage leaves it, its base model in ``folder/base``, and its model."""
    base = write_base(folder / "base")
    digest = {"digest": tree_digest(base / "model")}
    spec = make_spec(method, base=make_spec().base.model_dump() | digest)
    model = run_model(spec, base)
    move(model, scale=0.3)
    (folder / "run" / "adapter").mkdir(parents=True)
    save_adapter(model, folder / "run" / "adapter", run=spec.digest, base=spec.base.digest)
    write_run(folder / "run" / RUN, PlannedRun(method, "full", spec))
    return folder / "run", model


@pytest.mark.parametrize("method", ["lora", "ia3"])
def test_the_command_writes_what_peft_loads(method: str, tmp_path: Path) -> None:
    run, model = selected(method, tmp_path)
    assert exit_code("to-peft", str(run), str(tmp_path / "base"), str(tmp_path / "out")) == 0
    plain = theirs(tmp_path / "base" / "model")
    adapted = PeftModel.from_pretrained(theirs(tmp_path / "base" / "model"), tmp_path / "out")
    same(hidden(adapted, plain), hidden(model.trunk, plain), tmp_path / "base" / "model")


def test_other_methods_have_no_form_in_peft(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, _ = selected("bitfit", tmp_path)
    assert exit_code("to-peft", str(run), str(tmp_path / "base"), str(tmp_path / "out")) == 2
    shown = capsys.readouterr().err
    assert f"{run} is a run of 'bitfit', which has no form in peft's format here" in shown
    assert "fix: choose a run of ia3 or lora" in shown


@pytest.mark.parametrize("folders", FAMILIES, indirect=True)
@pytest.mark.parametrize(("method", "options"), [("lora", LORA), ("ia3", {})])
def test_peft_finds_the_same_hidden_states(
    folders: Folders, method: str, options: dict[str, Any]
) -> None:
    base, out = folders
    model = ours(base, method, options)
    move(model, scale=0.3)
    if method == "lora":
        write_lora(model, out, alpha=options["alpha"], dropout=0.1, base="somewhere/base")
    else:
        write_ia3(model, out)
    assert sorted(path.name for path in out.iterdir()) == [CONFIG, WEIGHTS]
    plain = theirs(base)
    reference = hidden(plain, plain)
    adapted = PeftModel.from_pretrained(theirs(base), out)
    found = hidden(model.trunk, plain)
    same(hidden(adapted, plain), found, base)
    assert (found - reference).abs().max() > 0.01, "the adapter changes nothing"


@pytest.mark.parametrize("folders", FAMILIES, indirect=True)
@pytest.mark.parametrize("kind", ["lora", "rank-stabilised lora", "ia3"])
def test_an_adapter_that_peft_wrote_gives_the_same_hidden_states(
    folders: Folders, kind: str
) -> None:
    base, out = folders
    sites = build_classifier(base, 2, "mean", 0).sites
    torch.manual_seed(3)
    if kind == "ia3":
        inputs = sites.paths("ffn_out")
        targets = [path for site in ("key", "value") for path in sites.paths(site)] + inputs
        config: Any = IA3Config(target_modules=targets, feedforward_modules=inputs)
    else:
        targets = [path for site in ("key", "ffn_out") for path in sites.paths(site)]
        stabilised = kind.startswith("rank")
        config = LoraConfig(r=4, lora_alpha=6, target_modules=targets, use_rslora=stabilised)
    adapted = get_peft_model(theirs(base), config)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter), alpha=0.3)
    adapted.save_pretrained(out)

    adapter = read_peft(out, sites)
    model = ours(base, adapter.method, adapter.options)
    adapter.put(model)
    plain = theirs(base)
    expected = hidden(adapted, plain)
    same(hidden(model.trunk, plain), expected, base)
    assert (expected - hidden(plain, plain)).abs().max() > 0.01
    if kind != "ia3":
        assert adapter.options["sites"] == ["key", "ffn_out"]
        assert adapter.options["alpha"] == (12.0 if kind.startswith("rank") else 6.0)


@pytest.mark.parametrize(("method", "options"), [("lora", LORA), ("ia3", {})])
def test_what_was_written_is_read_back(
    folders: Folders, method: str, options: dict[str, Any]
) -> None:
    base, out = folders
    model = ours(base, method, options)
    move(model)
    if method == "lora":
        write_lora(model, out, alpha=options["alpha"])
    else:
        write_ia3(model, out)
    adapter = read_peft(out, model.sites)
    assert adapter.method == method
    for name, value in options.items():
        assert adapter.options[name] == value
    again = ours(base, adapter.method, adapter.options, seed=2)
    adapter.put(again)
    for name, tensor in model.trunk.state_dict().items():
        assert torch.equal(tensor, again.trunk.state_dict()[name])


def test_the_configuration_says_what_peft_needs(folders: Folders) -> None:
    base, out = folders
    model = ours(base, "lora", {})
    write_lora(model, out, alpha=16.0, dropout=0.25, base="some/base")
    config = json.loads((out / CONFIG).read_text(encoding="utf-8"))
    assert config == {
        "peft_type": "LORA", "r": 8, "lora_alpha": 16, "lora_dropout": 0.25, "bias": "none",
        "target_modules": [p for i in (0, 1) for s in ("query", "value")
                           for p in model.sites.paths(s, [i])],
        "base_model_name_or_path": "some/base", "task_type": None, "inference_mode": True,
    }  # fmt: skip


# -- refusals -------------------------------------------------------------------------------------


def test_only_a_trunk_with_that_method_alone_is_written(folders: Folders) -> None:
    base, out = folders
    parts = {"parts": [{"method": "lora"}, {"method": "bitfit"}]}
    with pytest.raises(TuneTrailError, match="trains as well, and has no place among LoRA updates"):
        write_lora(ours(base, "union", parts), out, alpha=16.0)
    with pytest.raises(TuneTrailError, match=r"the model has no \(IA\)³ factors"):
        write_ia3(ours(base, "head", {}), out)
    assert not out.exists()


@pytest.mark.parametrize("folders", ["gpt2", "modernbert"], indirect=True)
def test_parts_of_a_fused_layer_have_no_name_in_peft(folders: Folders) -> None:
    base, out = folders
    with pytest.raises(TuneTrailError, match="part of one fused layer in transformers"):
        write_lora(ours(base, "lora", {}), out, alpha=16.0)
    model = ours(base, "lora", {"sites": ["ffn_in"]})
    move(model, scale=0.3)
    write_lora(model, out, alpha=16.0)
    plain = theirs(base)
    adapted = hidden(PeftModel.from_pretrained(theirs(base), out), plain)
    same(adapted, hidden(model.trunk, plain), base)


def saved(base: Path, out: Path, config: Any) -> Classifier:
    torch.manual_seed(3)
    get_peft_model(theirs(base), config).save_pretrained(out)
    return build_classifier(base, 2, "mean", 0)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"use_dora": True}, "use_dora is True, so this is not plain LoRA"),
        ({"alpha_pattern": {"query": 3}}, "alpha_pattern is .*, so this is not plain LoRA"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights is 'pissa', so this is not plain"),
        ({"bias": "all"}, r"it holds '.*\.bias', which the plain method has not"),
        ({"modules_to_save": ["pooler"]}, "it holds '.*pooler.*', which the plain method has not"),
        ({"target_modules": ["pooler.dense"]}, "'pooler.dense' is no site of a base model 'bert'"),
        (
            {"target_modules": ["encoder.layer.1.attention.self.query"]},
            "of 2 layers only 1 have an adapter at 'query'",
        ),
    ],
)
def test_adapters_beyond_plain_lora_are_refused(
    settings: dict[str, Any], text: str, folders: Folders
) -> None:
    base, out = folders
    model = saved(base, out, LoraConfig(**{"target_modules": ["query", "value"], **settings}))
    with pytest.raises(TuneTrailError, match=text) as caught:
        read_peft(out, model.sites)
    assert caught.value.problem.startswith(str(out))


@pytest.mark.parametrize(
    ("config", "text"),
    [
        (
            IA3Config(target_modules=["query", "value"], feedforward_modules=[]),
            "the factors are at query, value, not at key, value and ffn_out",
        ),
        (
            IA3Config(target_modules=r".*(key|value|\d+\.output\.dense)", feedforward_modules=[]),
            "multiplies outputs",
        ),
    ],
)
def test_other_factors_than_those_of_the_method_are_refused(
    config: Any, text: str, folders: Folders
) -> None:
    base, out = folders
    model = saved(base, out, config)
    with pytest.raises(TuneTrailError, match=text):
        read_peft(out, model.sites)


def test_other_kinds_are_refused(folders: Folders) -> None:
    from peft import VeraConfig

    base, out = folders
    model = saved(base, out, VeraConfig(target_modules=["query"]))
    with pytest.raises(TuneTrailError, match="peft_type is 'VERA', and only plain LORA and IA3"):
        read_peft(out, model.sites)


def test_a_model_that_does_not_fit_is_refused(folders: Folders) -> None:
    base, out = folders
    write_lora(ours(base, "lora", {"rank": 4}), out, alpha=16.0)
    adapter = read_peft(out, build_classifier(base, 2, "mean", 0).sites)
    with pytest.raises(TuneTrailError, match=r"is in the adapter alone"):
        adapter.put(ours(base, "head", {}))
    with pytest.raises(TuneTrailError, match=rf"is \(4, {HIDDEN}\) in the adapter and \(5, "):
        adapter.put(ours(base, "lora", {"rank": 5}))
