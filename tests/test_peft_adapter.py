"""The bridge to peft: every kind it has, against peft itself, and AdaLoRA's schedule."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import AdaLoraConfig, PeftType, get_peft_model
from peft.tuners.adalora import AdaLoraModel
from torch import nn

from tests.tiny import (
    HIDDEN,
    bare_model,
    logits_of,
    make_rows,
    make_spec,
    move,
    onnx_logits,
    run_model,
    write_base,
)
from tunetrail import methods
from tunetrail.errors import TuneTrailError
from tunetrail.methods.peft_adapter import PeftAdapter
from tunetrail.modeling.adapter import load_adapter, save_adapter
from tunetrail.modeling.classifier import Classifier
from tunetrail.modeling.peft_bridge import config_of, short_names, tuner_of
from tunetrail.stages import export
from tunetrail.training.loop import build_optimizer, fit, groups_of_batches, rate_factor

ROWS = make_rows(12, seed=3)
OWNER = {"run": "r" * 64, "base": "b" * 64}
CARD = {"hidden_size": HIDDEN, "ffn_size": 64, "layers": 2, "heads": 4}

#: Settings without which a kind does not fit so small a model.
SMALL: dict[str, dict[str, Any]] = {
    "C3A": {"block_size": 16},
    "MISS": {"r": 8},
    "ROAD": {"group_size": 16},
    "SHIRA": {"r": 4},
    "VBLORA": {"vector_length": 16, "num_vectors": 32},
    "WAVEFT": {"n_frequency": 100},
}
REFUSED = {
    "ADAPTION_PROMPT", "CARTRIDGE", "CPT", "MULTITASK_PROMPT_TUNING", "POLY", "PREFIX_TUNING",
    "PROMPT_TUNING", "P_TUNING", "SHADOW", "TRAINABLE_TOKENS", "XLORA",
}  # fmt: skip
KINDS = sorted({kind.value for kind in PeftType} - REFUSED | {"DORA"})
EVERY = pytest.mark.parametrize("kind", KINDS)

pytestmark = pytest.mark.usefixtures("in_empty_folder", "fresh_accelerate")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    changes = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return write_base(tmp_path_factory.mktemp("base"), **changes)


def options(kind: str, **settings: Any) -> dict[str, Any]:
    return {"config": {"peft_type": kind, **SMALL.get(kind, {}), **settings}}


def resolved(kind: str, **settings: Any) -> methods.Method:
    return methods.resolve("peft_adapter", options(kind, **settings), "test")


def tensors_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers; one that several layers share has one name."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


# -- every kind -----------------------------------------------------------------------------------


@EVERY
def test_a_kind_trains_is_saved_and_merged(kind: str, base: Path, tmp_path: Path) -> None:
    spec = make_spec("peft_adapter", options(kind), budget={"steps": 2})
    method = resolved(kind)
    method.check(CARD, 64)
    model, other = run_model(spec, base), run_model(spec, base)
    declared = set(model.trained())
    assert any(not name.startswith("head.") for name in declared)
    before = {name: tensor.clone() for name, tensor in tensors_of(model).items()}
    fit(model, spec, 1e-2, make_rows(16), make_rows(6, seed=1), method=method)
    after = tensors_of(model)
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert changed <= declared
    assert any(not name.startswith("head.") for name in changed)

    logits = logits_of(model, ROWS)
    save_adapter(model, tmp_path, **OWNER)
    load_adapter(other, tmp_path, **OWNER)
    torch.testing.assert_close(logits_of(other, ROWS), logits, rtol=0, atol=1e-6)
    if method.merge_obstacle() is None:
        method.merge(model)
        torch.testing.assert_close(logits_of(model, ROWS), logits, rtol=0, atol=1e-5)
        plain = bare_model(spec, base)
        plain.load_state_dict(model.state_dict())
        torch.testing.assert_close(logits_of(plain, ROWS), logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["DORA", "VERA", "OFT", "BOFT", "LOHA", "LOKR", "HRA", "LILY"])
def test_the_model_is_the_one_that_peft_makes(kind: str, base: Path) -> None:
    """With the same weights: hidden states and gradients, in float64."""
    from transformers import AutoModel

    ours = run_model(make_spec("peft_adapter", options(kind)), base)
    move(ours, scale=0.2)
    trunk = AutoModel.from_pretrained(
        base / "model", add_pooling_layer=False, attn_implementation="eager"
    )
    config = config_of(options(kind)["config"], ["query", "value"])
    theirs = get_peft_model(trunk, config)
    state = {k.removeprefix("trunk."): v for k, v in ours.state_dict().items()}
    names = {name.removeprefix("base_model.model."): p for name, p in theirs.named_parameters()}
    buffers = dict(theirs.named_buffers())
    with torch.no_grad():
        for name, parameter in names.items():
            parameter.copy_(state[name])
        for name, buffer in buffers.items():  # what peft draws and does not train
            if name.removeprefix("base_model.model.") in state:
                buffer.copy_(state[name.removeprefix("base_model.model.")])
    batch = ROWS.batch(np.arange(len(ROWS)))
    hidden = []
    for model in (ours.double().eval().trunk, theirs.double().eval()):
        out = model(**batch).last_hidden_state
        hidden.append(out[batch["attention_mask"].bool()])
        hidden[-1].square().sum().backward()
    torch.testing.assert_close(hidden[0], hidden[1], rtol=0, atol=1e-10)
    compared = 0
    for name, parameter in ours.trunk.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(parameter.grad, names[name].grad, rtol=1e-10, atol=1e-10)
            compared += 1
    assert compared >= 3


def test_kinds_that_cannot_be_merged_stay_in_the_graph(base: Path, tmp_path: Path) -> None:
    method = resolved("LILY")
    assert method.merge_obstacle() == "peft cannot merge layers that share their factors"
    model = run_model(make_spec("peft_adapter", options("LILY")), base)
    move(model)
    logits = logits_of(model, ROWS)
    export.write_onnx(model, tmp_path / "model.onnx")
    found = onnx_logits(tmp_path / "model.onnx", ROWS)
    np.testing.assert_allclose(found, logits.numpy(), rtol=0, atol=1e-4)


def test_what_trained_before_still_trains(base: Path) -> None:
    model = bare_model(make_spec(), base)
    model.trunk.requires_grad_(False)
    model.trunk.embeddings.LayerNorm.requires_grad_(True)
    resolved("LORA").attach(model)
    names = {name for name in model.trained() if not name.startswith("head.")}
    assert {n for n in names if "lora" not in n} == {
        "trunk.embeddings.LayerNorm.weight", "trunk.embeddings.LayerNorm.bias"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("given", "layers", "count"),
    [
        (options("LORA"), {"query", "value"}, 4),
        (options("LORA") | {"sites": ["attention_dense", "ffn_in"]}, {"dense"}, 4),
        (options("IA3"), {"key", "value", "dense"}, 6),
        (options("LN_TUNING"), {"LayerNorm"}, 4),
        (options("LORA", target_modules=["key"]), {"key"}, 2),
    ],
)
def test_layers_are_those_of_the_sites(
    given: dict[str, Any], layers: set[str], count: int, base: Path
) -> None:
    from peft.tuners.tuners_utils import BaseTunerLayer

    model = run_model(make_spec("peft_adapter", given), base)
    found = [n for n, m in model.trunk.named_modules() if isinstance(m, BaseTunerLayer)]
    assert {name.rpartition(".")[2] for name in found} == layers
    assert len(found) == count
    feedforward = [n for n in found if n.endswith("output.dense") and "attention" not in n]
    if given["config"]["peft_type"] == "IA3":
        assert len(feedforward) == 2
        assert all(model.module(path).is_feedforward for path in feedforward)


# -- AdaLoRA --------------------------------------------------------------------------------------

ADALORA = {"init_r": 4, "target_r": 2, "tinit": 2, "tfinal": 3, "deltaT": 2}


def test_adalora_moves_rank_as_its_documentation_says(base: Path) -> None:
    """update_and_allocate after every optimiser step and before zero_grad, written out."""
    spec = make_spec(
        "peft_adapter",
        options("ADALORA", **ADALORA),
        budget={"steps": 12},
        training={"batch_size": 4, "accumulate": 2, "clip": 0.05},
    )
    rows = make_rows(24)
    ours = run_model(spec, base)
    start = {name: tensor.clone() for name, tensor in ours.state_dict().items()}
    fit(ours, spec, 1e-2, rows, make_rows(6, seed=1), method=resolved("ADALORA", **ADALORA))

    theirs = bare_model(spec, base)
    sites = [p for site in ("query", "value") for p in theirs.sites.paths(site)]
    tuner = AdaLoraModel(
        theirs.trunk, AdaLoraConfig(total_step=12, target_modules=sites, **ADALORA), "default"
    )
    theirs.load_state_dict(start)
    optimizer = build_optimizer(theirs, 1e-2, spec.training)
    batches = groups_of_batches(rows, spec, start=0)
    for step in range(1, 13):
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * rate_factor(step, 12, spec.training)
        indices = next(batches)
        count = sum(len(index) for index in indices)
        for index in indices:
            logits = theirs(**rows.batch(index))
            labels = torch.from_numpy(rows.labels[index])
            loss = nn.functional.cross_entropy(logits, labels, reduction="sum") / count
            (loss + orthogonality(theirs) * len(index) / count).backward()
        trained = [p for p in theirs.parameters() if p.requires_grad]
        nn.utils.clip_grad_norm_(trained, spec.training.clip)
        optimizer.step()
        tuner.update_and_allocate(step)
        optimizer.zero_grad()

    reference, pruned = theirs.state_dict(), 0
    for name, tensor in ours.trained().items():
        torch.testing.assert_close(tensor, reference[name], rtol=0, atol=1e-6)
        if "lora_E" in name:
            pruned += int((tensor == 0).sum())
    assert pruned == 4 * (4 - 2), "half of the directions are taken"


def orthogonality(model: nn.Module) -> torch.Tensor:
    """peft adds this to the loss of its own forward pass (weight 0.5)."""
    total, count = torch.zeros(()), 0
    for name, p in model.named_parameters():
        if "lora_A" in name or "lora_B" in name:
            product = p @ p.T if "lora_A" in name else p.T @ p
            total = total + torch.norm(product - torch.eye(len(product)))
            count += 1
    return 0.5 * total / count


def test_predictions_between_two_steps_are_those_of_the_taken_directions(base: Path) -> None:
    """Scoring after a step comes before the next one asks for the gradients."""
    settings = {**ADALORA, "tinit": 0, "deltaT": 1, "tfinal": 1}
    spec = make_spec("peft_adapter", options("ADALORA", **settings), budget={"epochs": 4})
    model = run_model(spec, base)
    fit(model, spec, 3e-2, make_rows(24), make_rows(6, seed=1))
    values = torch.cat([p.flatten() for n, p in model.trained().items() if "lora_E" in n])
    assert bool((values != 0).all()), "without the method nothing is taken"
    model = run_model(spec, base)
    method = resolved("ADALORA", **settings)
    fit(model, spec, 3e-2, make_rows(24), make_rows(6, seed=1), method=method)
    values = torch.cat([p.flatten() for n, p in model.trained().items() if "lora_E" in n])
    assert int((values == 0).sum()) == 8, "also the last step's"


@pytest.mark.parametrize(
    ("steps", "taken"),
    [([0, 1, 2, 3, 10, 11], 8), ([5, 6, 7, 8, 9, 10, 11], 8), ([9, 10, 11], 0)],
)
def test_a_run_that_jumps_or_is_resumed_goes_on(steps: list[int], taken: int, base: Path) -> None:
    """Of 12 steps these are seen: time ran out faster, or a kill lost the memory of the others."""
    settings = {**ADALORA, "tinit": 0, "tfinal": 2}
    model = run_model(make_spec("peft_adapter", options("ADALORA", **settings)), base)
    move(model)
    method = resolved("ADALORA", **settings)
    for done in steps:
        step(model, method, done / 12)
    values = torch.cat([p.flatten() for n, p in model.trained().items() if "lora_E" in n])
    assert int((values == 0).sum()) == taken


def step(model: Classifier, method: methods.Method, share: float) -> None:
    """What the loop does, without the optimiser, and a prediction."""
    method.before_step(model, share)
    model.train()(**ROWS.batch(np.arange(len(ROWS)))).square().sum().backward()
    for parameter in model.parameters():
        parameter.grad = None
    logits_of(model, ROWS)


def test_the_gradients_that_decide_are_the_clipped_ones(base: Path) -> None:
    settings = {**ADALORA, "tinit": 0, "tfinal": 1}
    model = run_model(make_spec("peft_adapter", options("ADALORA", **settings)), base)
    move(model)
    method = resolved("ADALORA", **settings)
    method.before_step(model, 0.0)
    model.train()(**ROWS.batch(np.arange(len(ROWS)))).square().sum().backward()
    trained = model.trained()
    norm = nn.utils.clip_grad_norm_(list(trained.values()), 0.01)
    assert norm > 1
    expected = {n: (p * p.grad).abs() for n, p in trained.items() if "lora_A" in n}
    for parameter in trained.values():
        parameter.grad = None
    method.before_step(model, 1 / 12)
    importance = tuner_of(model)._held[0].rankallocator.ipt
    for name, values in expected.items():
        torch.testing.assert_close(importance[name.removeprefix("trunk.")], values)
    assert all(parameter.grad is None for parameter in trained.values())


def test_a_run_too_short_for_its_schedule_is_stopped(base: Path) -> None:
    model = run_model(make_spec("peft_adapter", options("ADALORA", **ADALORA)), base)
    method = resolved("ADALORA", **ADALORA)
    step(model, method, 0.0)
    with pytest.raises(TuneTrailError, match="tinit is 2 and tfinal 3, and the run has 4 steps"):
        step(model, method, 0.25)


def test_total_step_is_the_users_if_given(base: Path) -> None:
    model = run_model(make_spec("peft_adapter", options("ADALORA", **ADALORA, total_step=40)), base)
    config = model.trunk.peft_config["default"]
    method = resolved("ADALORA", **ADALORA, total_step=40)
    for done in range(4):
        step(model, method, done / 12)
    assert config.total_step == 40
    free = run_model(make_spec("peft_adapter", options("ADALORA", **ADALORA)), base)
    for done in range(4):
        step(free, method, done / 12)
    assert free.trunk.peft_config["default"].total_step == 12


def test_other_kinds_add_nothing_to_the_loss(base: Path) -> None:
    model = run_model(make_spec("peft_adapter"), base)
    assert tuner_of(model).penalty() is None
    assert resolved("DORA").penalty(model) is None


# -- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "text", "fix"),
    [
        ({"config": {"peft_type": "LORRA"}}, "unknown peft_type 'LORRA'", "did you mean 'LORA'"),
        ({"config": {}}, "unknown peft_type ''", "valid: ADALORA, "),
        (options("LORA", rank=4), "config of LORA: unknown key 'rank'", "'rank_pattern'"),
        (options("LORA", inference_mode=True), "unknown key 'inference_mode'", "valid: "),
        (options("LORA", r=0), "peft refuses this LORA: `?r`? ", "change that setting"),
        (options("ADALORA", init_r=4, target_r=4), "target_r is 4 and must be below", "lower"),
        (
            options("PREFIX_TUNING"),
            "PREFIX_TUNING adds tokens and cannot be put into layers",
            "use prompt_tuning, deep_prompt, fourier_prompt or prefix_tuning instead",
        ),
        (options("POLY"), "cannot be trained here: it needs the task of every row", "another"),
        (options("LORA", layers_to_transform=[0]), "layers_to_transform counts layers of", "conf"),
        (options("LORA", target_modules=["key"]) | {"sites": ["key"]}, "says already", "sites"),
        (options("LORA") | {"sites": ["key", "key"]}, "a site can be named once", "sites"),
    ],
)
def test_a_wrong_configuration_is_refused_when_it_is_read(
    given: dict[str, Any], text: str, fix: str
) -> None:
    with pytest.raises(TuneTrailError, match=text) as caught:
        methods.resolve("peft_adapter", given, "params.yaml: methods.x").check(CARD, 64)
    assert caught.value.problem.startswith("params.yaml: methods.x: ") or "refuses" in text
    assert fix in caught.value.fix


@pytest.mark.parametrize("kind", sorted(REFUSED))
def test_kinds_that_a_run_cannot_train_are_refused(kind: str) -> None:
    with pytest.raises(TuneTrailError, match=rf"config: {kind} (adds tokens|cannot be trained)"):
        methods.resolve("peft_adapter", {"config": {"peft_type": kind}}, "test")


def test_settings_that_do_not_fit_the_base_model_are_refused_before_training() -> None:
    method = methods.resolve("peft_adapter", {"config": {"peft_type": "C3A"}}, "test")
    with pytest.raises(TuneTrailError, match="peft refuses this C3A: The block size should be a"):
        method.check(CARD, 64)
    method.check(CARD | {"hidden_size": 512}, 64)


def test_without_peft_the_message_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in sys.modules if n == "peft" or n.startswith("peft.")]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(TuneTrailError, match="the library 'peft' is not installed") as caught:
        methods.resolve("peft_adapter", {"config": {"peft_type": "LORA"}}, "test")
    assert caught.value.fix == "pip install 'tunetrail[methods]'"


def test_listing_the_methods_does_not_import_peft() -> None:
    code = "import sys; import tunetrail.methods.peft_adapter; print('peft' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_every_kind_is_either_usable_or_refused() -> None:
    """A new release of peft brings new kinds: they land in one of the two lists."""
    assert {kind.value for kind in PeftType} == (set(KINDS) | REFUSED) - {"DORA"}
    assert PeftAdapter().chosen() == ("query", "value")


def test_modules_go_by_a_common_name_only_where_no_other_has_it(base: Path) -> None:
    model = bare_model(make_spec(), base)
    names = {s: short_names(model.trunk, model.sites.paths(s)) for s in model.sites.family.sites}
    assert names["query"] == ["query"]
    assert names["ffn_in"] == ["intermediate.dense"]
    assert names["ffn_out"] == model.sites.paths("ffn_out"), "attention.output.dense ends so too"
    second = short_names(model.trunk, model.sites.paths("query", [1]))
    assert second == ["1.attention.self.query"]
