"""What every fine-tuning method must keep; a new method file is picked up as it is."""

from __future__ import annotations

import ast
import inspect
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

import tunetrail
from tests.tiny import (
    HIDDEN,
    MAX_LENGTH,
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
from tunetrail.layout import MODEL
from tunetrail.methods import Method
from tunetrail.modeling import sites
from tunetrail.modeling.adapter import CARD, WEIGHTS, load_adapter, save_adapter
from tunetrail.modeling.classifier import Classifier
from tunetrail.run import RunSpec
from tunetrail.stages import export
from tunetrail.training import numerics
from tunetrail.training.loop import fit

NAMES = methods.names()
EVERY = pytest.mark.parametrize("name", NAMES)
SOURCES = Path(tunetrail.__file__).parent
ROWS = make_rows(12, seed=3)
TINY = {"hidden_size": HIDDEN, "layers": 2, "heads": 4, "ffn_size": 64, "max_positions": 80}
TINY |= {"architecture": "tiny", "prefixes": True}
OWNER = {"run": "r" * 64, "base": "b" * 64}

pytestmark = pytest.mark.usefixtures("in_empty_folder", "fresh_accelerate")


def method_of(spec: RunSpec) -> Method:
    return methods.resolve(spec.method.name, spec.method.options, "test")


def beyond_head(model: Classifier) -> dict[str, torch.Tensor]:
    return {k: v for k, v in model.trained().items() if not k.startswith("head.")}


def copy_of(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def moved_model(spec: RunSpec, base: Path) -> Classifier:
    model = run_model(spec, base)
    move(model)
    return model


def test_the_first_six_methods_are_found() -> None:
    assert {"bitfit", "full", "head", "houlsby", "lora", "pfeiffer"} <= set(NAMES)


# -- what trains ----------------------------------------------------------------------------------


@EVERY
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_training_changes_what_is_declared_and_nothing_else(
    name: str, precision: str, accumulate: int, base: Path
) -> None:
    spec = make_spec(
        name,
        numerics={"precision": precision, "threads": 1},
        training={"batch_size": 4, "accumulate": accumulate},
        budget={"steps": 4},
    )
    model = run_model(spec, base)
    declared = set(model.trained())
    before = copy_of(model.state_dict())

    history = fit(model, spec, 1e-2, make_rows(24), make_rows(6, seed=1))

    after = model.state_dict()
    assert after.keys() == before.keys()
    changed = {k for k in after if not torch.equal(after[k], before[k])}
    assert changed <= declared
    assert {"head.linear.weight", "head.linear.bias"} <= changed
    if declared - {"head.linear.weight", "head.linear.bias"}:
        assert any(not k.startswith("head.") for k in changed)
    assert all(tensor.isfinite().all() for tensor in after.values())
    assert all(tensor.dtype == before[k].dtype for k, tensor in after.items())
    assert [step for step, _ in history["loss"]] == [1, 2, 3, 4]


@EVERY
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_trained_model_computes_what_its_saved_adapter_computes(
    name: str, precision: str, base: Path, tmp_path: Path
) -> None:
    """Whatever training wrapped around the model (autocast, dropout) is gone afterwards."""
    numerics = {"precision": precision, "threads": 1}
    spec = make_spec(name, numerics=numerics, budget={"steps": 3})
    model = run_model(spec, base)
    fit(model, spec, 1e-2, make_rows(24), make_rows(6, seed=1))
    save_adapter(model, tmp_path, **OWNER)
    fresh_model = run_model(spec, base)
    load_adapter(fresh_model, tmp_path, **OWNER)
    logits = logits_of(model, ROWS)
    assert logits.dtype == torch.float32
    assert torch.equal(logits, logits_of(fresh_model, ROWS))


@EVERY
def test_every_declared_parameter_gets_a_gradient(name: str, base: Path) -> None:
    model = moved_model(make_spec(name), base).eval()
    logits = model(**ROWS.batch(np.arange(len(ROWS))))
    torch.nn.functional.cross_entropy(logits, torch.from_numpy(ROWS.labels)).backward()
    assert [k for k, p in model.trained().items() if p.grad is None] == []
    assert [
        k for k, p in model.named_parameters() if not p.requires_grad and p.grad is not None
    ] == []


@EVERY
def test_gradients_are_the_same_with_checkpointed_activations(
    name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Layers are computed twice then, so nothing may depend on being called once."""
    quiet = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    folder = write_base(tmp_path_factory.mktemp("quiet"), **quiet)
    gradients = []
    for checkpointed in (False, True):
        model = moved_model(make_spec(name), folder).train()
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        if checkpointed:
            model.trunk.gradient_checkpointing_enable({"use_reentrant": False})
        calls: list[object] = []
        model.module(model.sites.paths("key")[0]).register_forward_hook(
            lambda *_, seen=calls: seen.append(1)
        )
        torch.manual_seed(3)
        logits = model(**ROWS.batch(np.arange(len(ROWS))))
        torch.nn.functional.cross_entropy(logits, torch.from_numpy(ROWS.labels)).backward()
        gradients.append({k: p.grad for k, p in model.trained().items()})
        assert len(calls) == 1 + checkpointed
    plain, recomputed = gradients
    for key, gradient in plain.items():
        torch.testing.assert_close(recomputed[key], gradient, rtol=1e-4, atol=1e-6)


@EVERY
def test_a_method_is_not_inert(name: str, base: Path) -> None:
    model = run_model(make_spec(name), base)
    own = beyond_head(model)
    if not own:
        assert name == "head", "a method that trains the head alone is the head method"
        return
    before = logits_of(model, ROWS)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(7)
        for parameter in own.values():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.05)
    assert (logits_of(model, ROWS) - before).abs().max() > 1e-3


@EVERY
def test_training_lowers_the_loss(name: str, base: Path) -> None:
    spec = make_spec(name, budget={"epochs": 8}, training={"schedule": "constant"})
    history = fit(run_model(spec, base), spec, 1e-2, make_rows(48), make_rows(6, seed=1))
    losses = [loss for _, loss in history["loss"]]
    assert np.mean(losses[-6:]) < np.mean(losses[:6])


# -- where training starts ------------------------------------------------------------------------


@EVERY
def test_the_start_is_the_base_model_if_the_method_says_so(name: str, base: Path) -> None:
    spec = make_spec(name)
    model = run_model(spec, base)
    bare = bare_model(spec, base)
    bare.head.load_state_dict(model.head.state_dict())
    ours, theirs = logits_of(model, ROWS), logits_of(bare, ROWS)
    assert ours.isfinite().all()
    if method_of(spec).starts_at_base:
        assert torch.equal(ours, theirs)
    else:
        assert not torch.equal(ours, theirs), "starts_at_base may be True"


@EVERY
def test_the_base_weights_are_untouched_by_attaching(name: str, base: Path) -> None:
    spec = make_spec(name)
    bare = Counter(_bits(v) for v in bare_model(spec, base).trunk.state_dict().values())
    attached = Counter(_bits(v) for v in run_model(spec, base).trunk.state_dict().values())
    assert bare <= attached


def _bits(tensor: torch.Tensor) -> bytes:
    return tensor.detach().contiguous().numpy().tobytes()


@EVERY
def test_the_seed_decides_the_new_parameters(name: str, base: Path) -> None:
    one, again, two = (run_model(make_spec(name, seed=seed), base) for seed in (1, 1, 2))
    assert one.trained().keys() == again.trained().keys()
    assert all(torch.equal(a, again.state_dict()[k]) for k, a in one.state_dict().items())
    new = set(one.state_dict()) - set(bare_model(make_spec(name), base).state_dict())
    new = {k for k in new if k in one.trained()}
    drawn = {k for k in new if one.trained()[k].unique().numel() > 1}  # not constant
    if drawn:
        assert any(not torch.equal(one.trained()[k], two.trained()[k]) for k in drawn)


@EVERY
def test_attaching_ignores_the_random_numbers_drawn_before_it(name: str, base: Path) -> None:
    models = []
    for draws in (0, 5):
        model = bare_model(make_spec(name), base)
        torch.rand(draws)
        methods.attach(model, method_of(make_spec(name)), seed=11)
        models.append(model.state_dict())
    assert all(torch.equal(v, models[1][k]) for k, v in models[0].items())


@pytest.mark.parametrize("seed", [1, 2])
def test_the_head_starts_the_same_for_every_method(seed: int, base: Path) -> None:
    heads = [run_model(make_spec(name, seed=seed), base).head.linear.weight for name in NAMES]
    assert all(torch.equal(head, heads[0]) for head in heads)
    other = run_model(make_spec(NAMES[0], seed=seed + 10), base).head.linear.weight
    assert not torch.equal(other, heads[0])


# -- adapter files --------------------------------------------------------------------------------


@EVERY
def test_an_adapter_file_brings_the_model_back(name: str, base: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    spec = make_spec(name)
    model = moved_model(spec, base)
    save_adapter(model, tmp_path, **OWNER)
    other = run_model(spec, base)
    assert not torch.equal(logits_of(model, ROWS), logits_of(other, ROWS))
    load_adapter(other, tmp_path, **OWNER)
    assert torch.equal(logits_of(model, ROWS), logits_of(other, ROWS))

    tensors = load_file(tmp_path / WEIGHTS)
    trained = model.trained()
    assert tensors.keys() == trained.keys()
    assert all(torch.equal(tensor, trained[k]) for k, tensor in tensors.items())
    count = sum(parameter.numel() for parameter in trained.values())
    assert f'"trained_parameters": {count}' in (tmp_path / CARD).read_text(encoding="utf-8")
    assert sorted(p.name for p in tmp_path.iterdir()) == [CARD, WEIGHTS]


@EVERY
def test_what_folding_keeps_is_enough(name: str, base: Path, tmp_path: Path) -> None:
    """As the stages do: fold, save, and load into a fresh model that was folded as well."""
    spec = make_spec(name)
    model, other = moved_model(spec, base), run_model(spec, base)
    before = logits_of(model, ROWS)
    method_of(spec).fold(model)
    save_adapter(model, tmp_path, **OWNER)
    method_of(spec).fold(other)
    load_adapter(other, tmp_path, **OWNER)
    assert torch.equal(logits_of(model, ROWS), logits_of(other, ROWS))
    assert torch.allclose(before, logits_of(other, ROWS), rtol=0, atol=1e-5)


@EVERY
@pytest.mark.parametrize("what", ["base", "run"])
def test_an_adapter_of_something_else_is_refused(
    name: str, what: str, base: Path, tmp_path: Path
) -> None:
    model = run_model(make_spec(name), base)
    save_adapter(model, tmp_path, **OWNER)
    before = copy_of(model.state_dict())
    with pytest.raises(TuneTrailError, match=f"adapter of another {what}") as caught:
        load_adapter(model, tmp_path, **{**OWNER, what: "0" * 64})
    assert "0" * 64 in str(caught.value)
    assert OWNER[what] in str(caught.value)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_an_adapter_of_another_method_is_refused(base: Path, tmp_path: Path) -> None:
    save_adapter(run_model(make_spec("lora"), base), tmp_path, **OWNER)
    with pytest.raises(TuneTrailError, match="adapter and model disagree about 'trunk"):
        load_adapter(run_model(make_spec("bitfit"), base), tmp_path, **OWNER)


@pytest.fixture(scope="module")
def in_a_fresh_process(base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """Method → largest logit difference of its saved adapter in a process that only loads it."""
    folder = tmp_path_factory.mktemp("saved")
    numerics.apply(make_spec().numerics)
    for name in NAMES:
        spec = make_spec(name)
        model = moved_model(spec, base)
        method_of(spec).fold(model)
        (folder / name).mkdir()
        save_adapter(model, folder / name, **OWNER)
        (folder / name / "spec.json").write_text(spec.model_dump_json())
        np.save(folder / name / "logits.npy", logits_of(model, ROWS).numpy())
    done = subprocess.run(
        [sys.executable, "-c", _LOAD, str(base), str(folder)],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    differences: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return differences


_LOAD = """
import json, sys
from pathlib import Path
import numpy as np
from tests.tiny import logits_of, make_rows, run_model
from tests.test_methods import OWNER
from tunetrail import methods
from tunetrail.modeling.adapter import load_adapter
from tunetrail.run import RunSpec
from tunetrail.training import numerics

base, folder, rows, found = Path(sys.argv[1]), Path(sys.argv[2]), make_rows(12, seed=3), {}
for saved in folder.iterdir():
    spec = RunSpec.model_validate_json((saved / "spec.json").read_text())
    numerics.apply(spec.numerics)
    model = run_model(spec, base)
    methods.resolve(spec.method.name, spec.method.options, "test").fold(model)
    load_adapter(model, saved, **OWNER)
    expected = np.load(saved / "logits.npy")
    found[saved.name] = float(np.abs(logits_of(model, rows).numpy() - expected).max())
print(json.dumps(found))
"""


@EVERY
def test_an_adapter_works_in_a_fresh_process(
    name: str, in_a_fresh_process: dict[str, float]
) -> None:
    assert in_a_fresh_process[name] == 0


# -- merging and export ---------------------------------------------------------------------------


@EVERY
def test_merging_keeps_the_logits(name: str, base: Path) -> None:
    spec = make_spec(name)
    method = method_of(spec)
    model = moved_model(spec, base)
    before = logits_of(model, ROWS)
    method.fold(model)
    assert torch.allclose(before, logits_of(model, ROWS), rtol=0, atol=1e-5)
    method.merge(model)
    assert torch.allclose(before, logits_of(model, ROWS), rtol=0, atol=1e-5)
    bare = bare_model(spec, base)
    if method.not_mergeable is None:
        assert _kinds(model) == _kinds(bare)
        assert model.state_dict().keys() == bare.state_dict().keys()
        restored = bare_model(spec, base)
        restored.load_state_dict(model.state_dict())
        assert torch.allclose(before, logits_of(restored, ROWS), rtol=0, atol=1e-5)
    else:
        assert method.not_mergeable.strip()
        assert _kinds(model) != _kinds(bare), "nothing is added: not_mergeable should be None"


def _kinds(model: Classifier) -> Counter[str]:
    return Counter(type(module).__name__ for module in model.modules())


@EVERY
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_the_onnx_file_computes_the_same(
    name: str, pooling: str, base: Path, tmp_path: Path
) -> None:
    base_spec = make_spec().base.model_dump() | {"pooling": pooling}
    spec = make_spec(name, base=base_spec)
    model = moved_model(spec, base)
    batches = [
        ROWS.batch(np.array(index)) for index in ([0], [4, 2], [1, 3, 5], list(range(len(ROWS))))
    ]
    batches += export.sweep_inputs(spec, ROWS)
    with torch.inference_mode():
        expected = [model.eval()(**batch).numpy() for batch in batches]
    method_of(spec).fold(model)
    method_of(spec).merge(model)
    export.write_onnx(model, tmp_path / MODEL)
    session = export.open_session(tmp_path / MODEL, threads=1)
    assert len({tuple(batch["input_ids"].shape) for batch in batches}) >= 8
    for batch, logits in zip(batches, expected, strict=True):
        np.testing.assert_allclose(export.ask(session, batch), logits, rtol=0, atol=1e-4)
    np.testing.assert_allclose(onnx_logits(tmp_path / MODEL, ROWS), expected[3], rtol=0, atol=1e-4)


# -- what adapters compute ------------------------------------------------------------------------


def captured(model: Classifier, path: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Hidden states, residual and output of one sublayer's output module."""
    seen: list[torch.Tensor] = []
    handle = model.module(path).register_forward_hook(
        lambda _module, inputs, output: seen.extend([*inputs, output])
    )
    logits_of(model, ROWS)
    handle.remove()
    hidden, residual, output = seen
    return hidden, residual, output


def weights_of(model: Classifier, prefix: str) -> dict[str, torch.Tensor]:
    state = model.trunk.state_dict()
    return {k.removeprefix(f"{prefix}."): v for k, v in state.items() if k.startswith(prefix)}


def linear(x: torch.Tensor, weights: dict[str, torch.Tensor], name: str) -> torch.Tensor:
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def norm(x: torch.Tensor, weights: dict[str, torch.Tensor], name: str) -> torch.Tensor:
    centred = x - x.mean(-1, keepdim=True)
    scaled = centred / (centred.pow(2).mean(-1, keepdim=True) + 1e-12).sqrt()
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("sublayer", ["attention.output", "output"])
def test_houlsby_adapts_both_sublayers_before_the_residual(
    layer: int, sublayer: str, base: Path
) -> None:
    model = run_model(make_spec("houlsby", {"bottleneck": 6}), base)
    move(model, scale=0.3)
    path = f"encoder.layer.{layer}.{sublayer}"
    hidden, residual, output = captured(model, path)
    w = weights_of(model, path)
    x = linear(hidden, w, "dense")
    inner = linear(x, w, "dropout.1.down")
    gelu = 0.5 * inner * (1 + torch.erf(inner / 2**0.5))
    expected = norm(x + linear(gelu, w, "dropout.1.up") + residual, w, "LayerNorm")
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("layer", [0, 1])
def test_pfeiffer_adapts_between_two_passes_of_the_norm(layer: int, base: Path) -> None:
    model = run_model(make_spec("pfeiffer", {"reduction": 4}), base)
    move(model, scale=0.3)
    path = f"encoder.layer.{layer}.output"
    hidden, residual, output = captured(model, path)
    w = weights_of(model, path)
    z = linear(hidden, w, "dense") + residual
    normed = norm(z, w, "LayerNorm.norm")
    inner = linear(normed, w, "LayerNorm.adapter.down").clamp(min=0)
    changed = z + linear(inner, w, "LayerNorm.adapter.up")
    torch.testing.assert_close(output, norm(changed, w, "LayerNorm.norm"), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "std", "largest"), [("houlsby", 0.88e-3, 2e-3), ("pfeiffer", 0.02, 0.1)]
)
def test_adapters_start_as_published(name: str, std: float, largest: float, base: Path) -> None:
    """A normal distribution cut at two deviations has 0.88 of its deviation."""
    options = {"bottleneck": 64} if name == "houlsby" else {"reduction": 1}
    trained = run_model(make_spec(name, options), base).trained()
    matrices = [p for k, p in trained.items() if k.endswith(("down.weight", "up.weight"))]
    biases = [p for k, p in trained.items() if k.endswith(("down.bias", "up.bias"))]
    values = torch.cat([p.detach().flatten() for p in matrices])
    assert float(values.std()) == pytest.approx(std, rel=0.05)
    assert float(values.abs().max()) <= largest
    assert len(biases) == len(matrices) == (8 if name == "houlsby" else 4)
    assert all(not p.any() for p in biases)


# -- options --------------------------------------------------------------------------------------


def test_lora_merges_any_choice_of_sites(base: Path) -> None:
    every = ["query", "key", "value", "attention_dense", "ffn_in", "ffn_out"]
    spec = make_spec("lora", {"sites": every, "rank": 3, "alpha": 5.0})
    model = moved_model(spec, base)
    before = logits_of(model, ROWS)
    assert sum("encoder" in k for k in model.trained()) == len(every) * 2 * 2
    method_of(spec).merge(model)
    assert torch.allclose(before, logits_of(model, ROWS), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("lora", {"rank": HIDDEN + 1}, "rank is 33, larger than the hidden size 32"),
        ("pfeiffer", {"reduction": HIDDEN + 1}, "no bottleneck is left"),
        ("prompt_tuning", {"length": 17}, "length is 17, and with base.max_length 64"),
        ("unipelt_prompt", {"prompt_length": 17}, "more than the model's 80 positions"),
        ("unipelt", {"rank": HIDDEN + 1}, "rank is 33, larger than the hidden size 32"),
    ],
)
def test_options_that_do_not_fit_the_model_are_refused(
    name: str, options: dict[str, int], text: str
) -> None:
    with pytest.raises(TuneTrailError, match=text):
        method_of(make_spec(name, options)).check(TINY, MAX_LENGTH)
    smaller = {key: value - 1 for key, value in options.items()}
    method_of(make_spec(name, smaller)).check(TINY, MAX_LENGTH)


@EVERY
def test_the_default_options_fit_a_usual_model(name: str) -> None:
    usual = {"hidden_size": 768, "layers": 12, "heads": 12, "ffn_size": 3072}
    usual |= {"architecture": "encoder", "max_positions": 512, "prefixes": True}
    method_of(make_spec(name)).check(usual, 128)


def test_layers_and_architectures_that_cannot_carry_a_method_are_refused() -> None:
    with pytest.raises(TuneTrailError, match="layer 2 is not one of the model's 2 layers"):
        method_of(make_spec("unipelt", {"layers": [0, 2]})).check(TINY, MAX_LENGTH)
    for name in ("prefix_tuning", "unipelt"):
        with pytest.raises(TuneTrailError, match="attention of 'tiny' takes no prefix"):
            method_of(make_spec(name)).check(TINY | {"prefixes": False}, MAX_LENGTH)


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("lroa", {}, "unknown method 'lroa'(.|\n)*did you mean 'lora'"),
        ("lora", {"rang": 4}, "unknown key 'rang'(.|\n)*did you mean 'rank'"),
        ("lora", {"rank": 0}, "'rank' is 0"),
        ("lora", {"sites": []}, "sites"),
        ("lora", {"sites": ["head"]}, "sites"),
        ("lora", {"sites": ["query", "query"]}, "sites"),
        ("head", {"learning_rate": 0}, "'learning_rate' is 0"),
        ("houlsby", {"bottleneck": 0}, "'bottleneck' is 0"),
        ("unipelt", {"parts": []}, "'parts' is .*at least 1 item"),
        ("unipelt_prompt", {"parts": [], "gated": True}, "'parts' is .*at least 1 item"),
        ("prompt_tuning", {"length": 0}, "'length' is 0"),
        ("ether", {"blocks": 0}, "'blocks' is 0"),
    ],
)
def test_bad_options_are_refused(name: str, options: dict[str, object], text: str) -> None:
    with pytest.raises(TuneTrailError, match=text):
        methods.resolve(name, options, "params.yaml")


# -- the shape of a method file -------------------------------------------------------------------

_ARCHITECTURES = sorted({*sites.FAMILIES, "deberta", "gpt"})


@EVERY
def test_a_method_file_is_short_and_knows_no_architecture(name: str) -> None:
    source = Path(inspect.getsourcefile(methods.method_class(name))).read_text(encoding="utf-8")
    assert len(source.splitlines()) <= 100
    words = re.compile(rf"\b({'|'.join(map(re.escape, _ARCHITECTURES))})", re.IGNORECASE)
    assert words.findall(source) == []
    inner = {path for family in sites.FAMILIES.values() for path in family.sites.values()}
    inner |= {family.layers for family in sites.FAMILIES.values()}
    assert [path for path in sorted(inner) if "." in path and path in source] == []


@EVERY
def test_a_method_says_what_it_is(name: str) -> None:
    found = methods.method_class(name)
    assert found.title.strip()
    assert re.search(r"arXiv \d{4}\.\d{5}", found.paper)
    assert all(field.description for field in found.model_fields.values())
    assert (found.__doc__ or "").strip() not in ("", (Method.__doc__ or "").strip())


def test_what_a_method_is_verified_by_is_in_the_tests() -> None:
    """Golden numbers by their source; peft, which is installed, by its own module of tests."""
    tests = Path(__file__).parent
    found = dict.fromkeys(("full", "head"), "transformers")  # test_modeling.py
    found |= dict.fromkeys(("lora", "ia3", "prompt_tuning", "peft_adapter"), "peft")
    parity = (tests / "test_peft_parity.py").read_text() + (
        tests / "test_lora_parity.py"
    ).read_text()
    for name in ("lora", "ia3", "prompt_tuning", "prefix_tuning"):
        assert f'"{name}"' in parity
    for file in (tests / "golden").glob("*.json"):
        golden = json.loads(file.read_text(encoding="utf-8"))
        library = golden["source"].startswith("adapters ")
        found[file.stem] = "AdapterHub" if library else "authors' code"
        assert golden["differences"]
        assert library or re.fullmatch(r"[0-9a-f]{40}", golden["commit"])
        for case in golden.get("cases", {}):
            found[case.partition(",")[0]] = found[file.stem]
    assert {n: methods.method_class(n).verified for n in NAMES} == {n: found.get(n) for n in NAMES}


def test_no_method_is_named_outside_the_methods() -> None:
    # "head" is also a part of every model.
    names = set(NAMES) - {"head"}
    assert len(names) >= 5
    words = re.compile(rf"\b({'|'.join(sorted(names))})\b", re.IGNORECASE)
    files = [p for d in ("training", "stages", "report") for p in (SOURCES / d).rglob("*.*")]
    files = [p for p in files if p.suffix in {".py", ".j2", ".css", ".js"}]
    assert len(files) > 15
    found = {p.name: words.findall(_code(p)) for p in files}
    assert {name: hits for name, hits in found.items() if hits} == {}


def _code(path: Path) -> str:
    """The text of a file; of Python only what runs, without comments and docstrings."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        return "\n".join(re.findall(r"[\"'][\w-]+[\"']", text))
    tree = ast.parse(text)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [line for line in body if not _is_text(line)] or [ast.Pass()]
    return ast.unparse(tree)


def _is_text(line: ast.stmt) -> bool:
    return isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant)
