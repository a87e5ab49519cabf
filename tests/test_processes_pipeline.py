"""One run of the real base model in two processes, started as the flow starts it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pipelines.workers import run_command, start_server
from tests.conftest import Project
from tunetrail.files import read_json, tree_digest, write_json
from tunetrail.layout import CARD, HISTORY
from tunetrail.modeling.adapter import WEIGHTS
from tunetrail.run import PlannedRun, read_run, write_run

pytestmark = pytest.mark.pipeline


def still(base: Path, target: Path) -> str:
    """A copy of the base model without dropout, whose digest is returned."""
    shutil.copytree(base, target)
    config = target / "model" / "config.json"
    content = json.loads(config.read_text())
    content |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    config.unlink()  # it may be a link
    config.write_text(json.dumps(content))
    digest = tree_digest(target / "model")
    write_json(target / CARD, read_json(target / CARD) | {"digest": digest})
    return digest


def test_two_processes_train_the_real_model_as_one_does(
    small_run: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only dropout and the order of sums could differ, and there is no dropout here.

    Where each process would learn from its own half, weights are apart by a step of the optimiser,
    1e-3 and more.
    """
    root = small_run.root
    digest = still(root / "models" / "base", tmp_path / "base")
    found: dict[int, tuple[dict[str, Any], dict[str, torch.Tensor]]] = {}
    start_server()
    monkeypatch.chdir(tmp_path)
    spec = read_run(root / "plan" / "own" / "lora" / "few" / "1.json")
    for processes in (1, 2):
        changes = {
            "base": spec.base.model_copy(update={"digest": digest}),
            "budget": spec.budget.model_copy(update={"steps": 8}),
            "numerics": spec.numerics.model_copy(update={"processes": processes}),
        }
        run, out = tmp_path / f"{processes}.json", tmp_path / f"{processes}"
        write_run(run, PlannedRun("lora", "few", spec.model_copy(update=changes)))
        data = root / "data" / "prepared" / "own" / "fit"
        steps: list[int] = []
        run_command(
            f"tunetrail train {run} base {data} {out}",
            tmp_path / f"{processes}.log",
            lambda step, *_, steps=steps: steps.append(step),
        )
        assert steps[-1] == 8
        found[processes] = read_json(out / HISTORY), load_file(out / WEIGHTS)
    (one, weights), (two, others) = found[1], found[2]
    metric = spec.data.metrics[0]
    for (step, scores), (other, wanted) in zip(two["selection"], one["selection"], strict=True):
        assert (step, scores[metric]) == (other, pytest.approx(wanted[metric], abs=0.001))
    assert two["kept"][0] == one["kept"][0]
    assert [loss for _, loss in two["loss"]] == pytest.approx(
        [loss for _, loss in one["loss"]], abs=1e-4
    )
    apart = {name: float((weights[name] - others[name]).abs().max()) for name in weights}
    assert max(apart.values()) < 1e-4, apart
