"""Unions: every pair of methods either works together or is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.tiny import (
    HIDDEN,
    bare_model,
    logits_of,
    make_rows,
    make_spec,
    move,
    onnx_logits,
    run_model,
)
from tunetrail import methods
from tunetrail.code import code_digest
from tunetrail.errors import TuneTrailError
from tunetrail.modeling.adapter import load_adapter, save_adapter
from tunetrail.modeling.classifier import Classifier
from tunetrail.stages import export
from tunetrail.training.loop import fit

ROWS = make_rows(8, seed=3)
NAMES = [name for name in methods.names() if name != "union"]
OWNER = {"run": "r" * 64, "base": "b" * 64}
CARD = {"hidden_size": HIDDEN, "layers": 2, "heads": 4, "ffn_size": 64, "max_positions": 80}
CARD |= {"architecture": "bert", "prefixes": True}

pytestmark = pytest.mark.usefixtures("in_empty_folder", "fresh_accelerate")


def parts(*given: str | dict[str, Any]) -> dict[str, Any]:
    """The options of a union of methods with these names, or these options."""
    return {"parts": [{"method": p} if isinstance(p, str) else p for p in given]}


def union(*given: str | dict[str, Any]) -> methods.Method:
    return methods.resolve("union", parts(*given), "test")


def model_of(base: Path, *given: str | dict[str, Any]) -> Classifier:
    return run_model(make_spec("union", parts(*given)), base)


#: What a method needs to fit the tiny model.
SMALLER: dict[str, dict[str, Any]] = {"arc": {"rank": 4}}


# -- every pair -----------------------------------------------------------------------------------


def refusal(*given: dict[str, Any]) -> str | None:
    """Why they cannot be united on this base model; None if they can."""
    try:
        union(*given).check(CARD, 64)
    except TuneTrailError as error:
        return error.problem
    return None


@pytest.mark.parametrize("first", NAMES)
def test_a_pair_works_together_or_is_refused(first: str, base: Path, tmp_path: Path) -> None:
    """In either order: gradients for all, fold, and merge or a named obstacle."""
    united = []
    for second in (name for name in NAMES if name != first):
        pair = [{"method": name, **SMALLER.get(name, {})} for name in (first, second)]
        reason = refusal(*pair)
        if reason is not None:
            assert f"'{first}' and '{second}' cannot share" in reason
            continue
        united.append(second)
        method, model = union(*pair), model_of(base, *pair)
        move(model)
        model.eval()(**ROWS.batch(np.arange(len(ROWS)))).square().sum().backward()
        assert [k for k, p in model.trained().items() if p.grad is None] == [], second
        logits = logits_of(model, ROWS)
        method.fold(model)
        if first < second:
            other = model_of(base, *pair)
            method.fold(other)
            save_adapter(model, tmp_path, **OWNER)
            load_adapter(other, tmp_path, **OWNER)
            torch.testing.assert_close(logits_of(other, ROWS), logits, rtol=0, atol=1e-5)
        obstacle = method.merge_obstacle()
        method.merge(model)
        torch.testing.assert_close(logits_of(model, ROWS), logits, rtol=0, atol=1e-5)
        if obstacle is None:
            names = bare_model(make_spec(), base).state_dict().keys()
            assert model.state_dict().keys() == names, second
        else:
            assert obstacle.partition(":")[0] in (first, second)
    assert "head" in united or first == "head"


@pytest.mark.parametrize(
    ("first", "second", "place"),
    [
        ("lora", "ia3", "value"),
        ("prompt_tuning", "deep_prompt", "prompt"),
        ("prefix_tuning", "unipelt", "attention"),
        ("pfeiffer", "unipelt", "ffn_output"),
        ("bitfit", "hiwi", "biases"),
        ("pafi", "lora", "query"),
        ("ether", "lorta", "query"),
        ("arc", "dyt", "ffn_in"),
        ("dsee", "lora", "query"),
        ("dyt", "houlsby", "ffn_output"),
        ("peft_adapter", "lora", "query"),
    ],
)
def test_pairs_that_meet_are_refused(first: str, second: str, place: str) -> None:
    with pytest.raises(TuneTrailError) as caught:
        union(first, second)
    assert f"'{first}' and '{second}' cannot share '{place}': " in caught.value.problem
    assert f"take '{second}' out of the union, or give the two diff" in caught.value.fix


def test_on_other_sites_they_do_not_meet(base: Path, tmp_path: Path) -> None:
    given = ({"method": "lora", "sites": ["query", "ffn_in"], "rank": 3}, "ia3")
    method, model = union(*given), model_of(base, *given)
    move(model)
    logits = logits_of(model, ROWS)
    method.merge(model)
    torch.testing.assert_close(logits_of(model, ROWS), logits, rtol=0, atol=1e-5)
    export.write_onnx(model, tmp_path / "model.onnx")
    found = onnx_logits(tmp_path / "model.onnx", ROWS)
    np.testing.assert_allclose(found, logits.numpy(), rtol=0, atol=1e-4)


def test_two_sites_that_are_one_module_of_an_architecture_are_one_place() -> None:
    method = union("houlsby", {"method": "lora", "sites": ["attention_dense"]})
    method.check(CARD, 64)
    with pytest.raises(TuneTrailError, match="'houlsby' and 'lora' cannot share 'attention_dense'"):
        method.check(CARD | {"architecture": "llama"}, 64)


# -- what a union is ------------------------------------------------------------------------------


def test_the_union_of_its_parts_without_gates_is_unipelt(base: Path) -> None:
    lora = {"method": "lora", "rank": 4}
    ours = model_of(base, lora, {"method": "prefix_tuning", "width": 16}, "pfeiffer")
    options = {"gated": False, "rank": 4, "prefix_width": 16}
    theirs = run_model(make_spec("unipelt", options), base)
    assert ours.trained().keys() == theirs.trained().keys()
    move(ours)
    theirs.load_state_dict(ours.state_dict())
    assert torch.equal(logits_of(ours, ROWS), logits_of(theirs, ROWS))


def test_an_obstacle_names_its_part(base: Path) -> None:
    method = union("lora", "prompt_tuning", "houlsby")
    assert method.merge_obstacle() == "prompt_tuning: tokens are added, not weights"
    model = model_of(base, "lora", "prompt_tuning", "houlsby")
    before = set(model.state_dict())
    method.merge(model)
    assert set(model.state_dict()) == before, "nothing is merged by halves"


def test_hooks_reach_every_part(base: Path) -> None:
    adalora = {"peft_type": "ADALORA", "init_r": 4, "target_r": 2, "tfinal": 1}
    given = ("dyt", {"method": "peft_adapter", "config": adalora})
    spec = make_spec("union", parts(*given), budget={"epochs": 6})
    model, method = run_model(spec, base), union(*given)
    own = [
        methods.resolve("dyt", {}, "t"),
        methods.resolve("peft_adapter", {"config": adalora}, "t"),
    ]
    model.train()(**ROWS.batch(np.arange(len(ROWS))))
    terms = [part.penalty(model) for part in own]
    torch.testing.assert_close(method.penalty(model), sum(terms))
    assert min(float(term.detach()) for term in terms) > 0
    history = fit(model, spec, 1e-2, make_rows(24), make_rows(6, seed=1), method=method)
    assert len(history["observed"]) == 6
    assert set(history["observed"][0][1]) == set(own[0].observe(model))
    energies = torch.cat([p.flatten() for n, p in model.trained().items() if "lora_E" in n])
    assert int((energies == 0).sum()) == 8
    assert union("lora", "bitfit").penalty(model) is None


def test_every_option_of_every_part_is_spelled_out() -> None:
    dumped = union({"method": "lora", "rank": 3}, "prompt_tuning").model_dump(mode="json")
    lora = methods.resolve("lora", {"rank": 3}, "t").model_dump(mode="json")
    del lora["learning_rate"]
    assert dumped["parts"][0] == {"method": "lora", **lora}
    assert dumped["parts"][1] == {
        "method": "prompt_tuning",
        "length": 10,
        "init": "uniform",
    }
    again = methods.resolve("union", dumped, "run")
    assert again.model_dump(mode="json") == dumped


def test_the_code_of_the_parts_is_part_of_the_run() -> None:
    digests = {
        names: union(*names).model_dump()["code"]
        for names in (("lora", "bitfit"), ("lora", "head"), ("head", "bitfit"))
    }
    assert len(set(digests.values())) == 3
    expected = code_digest("tunetrail.methods.lora", "tunetrail.methods.bitfit")
    assert digests["lora", "bitfit"] == expected
    frozen = {**parts("lora", "bitfit"), "code": "of another checkout"}
    assert methods.resolve("union", frozen, "run").model_dump()["code"] == "of another checkout"


@pytest.mark.parametrize(
    ("given", "text", "fix"),
    [
        ({"parts": [{"method": "lora"}]}, "at least 2 items", "change 'parts'"),
        (parts("lora", "lroa"), "parts.1: unknown method 'lroa'", "did you mean 'lora'?"),
        (parts({"method": "lora", "rang": 4}, "head"), "parts.0: unknown key 'rang'", "'rank'"),
        (parts({"rank": 4}, "head"), "parts.0: 'method' is None, not a name", "give a method's"),
        (
            parts({"method": "lora", "learning_rate": 0.1}, "head"),
            "parts.0: 'lora' has a learning_rate, but a union trains with one",
            "give the union's learning_rate instead",
        ),
        ({"part": []}, "unknown key 'part'", "did you mean 'parts'?"),
    ],
)
def test_bad_parts_are_refused(given: dict[str, Any], text: str, fix: str) -> None:
    with pytest.raises(TuneTrailError, match=text) as caught:
        methods.resolve("union", given, "params.yaml: methods.both")
    assert caught.value.problem.startswith("params.yaml: methods.both: ")
    assert fix in caught.value.fix


def test_a_part_that_does_not_fit_the_base_model_is_refused() -> None:
    with pytest.raises(TuneTrailError, match="prompt_tuning: length is 17"):
        union("lora", {"method": "prompt_tuning", "length": 17}).check(CARD, 64)
