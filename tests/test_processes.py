"""One run in several processes: the same as in one, whatever the method; and how it ends."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file

from tests import together as work
from tests.conftest import ROOT
from tests.test_pretraining import FP32, objective, write_text
from tests.tiny import make_rows, make_spec, write_base, write_rows
from tunetrail import methods
from tunetrail.errors import TrainingDiverged, TrainingKilled, TuneTrailError
from tunetrail.files import STATE_DIR, read_json, tree_digest
from tunetrail.layout import PRETRAIN
from tunetrail.run import Numerics, PlannedRun, RunSpec, write_run
from tunetrail.stages.cost import cost
from tunetrail.stages.pretrain import pretrain
from tunetrail.stages.train import train, trained
from tunetrail.training.processes import Team, check_devices, together

TWO = {"precision": "fp32", "threads": 1, "processes": 2}

pytestmark = pytest.mark.usefixtures("in_empty_folder", "fresh_accelerate")


@pytest.fixture(scope="module")
def still_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model without dropout."""
    changes = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return write_base(tmp_path_factory.mktemp("still"), **changes)


def still(name: str, **changes: Any) -> RunSpec:
    """A run of a few steps in which nothing is left to chance."""
    dropouts = [f for f in methods.method_class(name).model_fields if "dropout" in f]
    changes = {"budget": {"steps": 5}, "training": {"accumulate": 2}} | changes
    return make_spec(name, dict.fromkeys(dropouts, 0.0), **changes)


# -- the same as one process ----------------------------------------------------------------------


def test_every_method_learns_in_two_processes_what_it_learns_in_one(
    still_base: Path, tmp_path: Path
) -> None:
    """Sums of gradients differ in their order alone: logits by rounding, a few steps long."""
    alone = {name: still(name) for name in methods.names()}
    shared = {name: still(name, numerics=TWO) for name in alone}
    fsdp = TWO | {"sharding": "fsdp"}
    shardable = [n for n in alone if methods.resolve(n, {}, "test").shard_obstacle() is None]
    shared |= {f"{name} sharded": still(name, numerics=fsdp) for name in shardable}
    assert len(shardable) >= len(alone) - 1

    one = work.train_every(alone, still_base, tmp_path / "one")
    arguments = {"specs": shared, "base": still_base, "out": tmp_path / "two"}
    two = together(Numerics(**TWO), work.train_every, arguments, {})

    expected = load_file(tmp_path / "one.0")
    first, second = (load_file(tmp_path / f"two.{rank}") for rank in (0, 1))
    assert {k for k in first if not torch.equal(first[k], second[k])} == set()
    wrong = {}
    for key, found in first.items():
        name, _, what = key.partition("/")
        difference = (found - expected[f"{name.removesuffix(' sharded')}/{what}"]).abs().max()
        if not difference < (5e-3 if _without_effect(key) else 1e-4):
            wrong[key] = float(difference)
    assert wrong == {}
    for name, history in two.items():
        reference = one[name.removesuffix(" sharded")]
        assert history["steps"] == reference["steps"]
        losses, others = ([loss for _, loss in h["loss"]] for h in (history, reference))
        assert losses == pytest.approx(others, abs=1e-5), name
        assert [s for s, _ in history["selection"]] == [s for s, _ in reference["selection"]]
        for (_, seen), (_, wanted) in zip(
            history.get("observed", []), reference.get("observed", []), strict=True
        ):
            assert seen == pytest.approx(wanted, abs=1e-4), name


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 8])
@pytest.mark.parametrize("count", [2, 3])
def test_processes_share_every_row_of_a_batch(rows: int, count: int) -> None:
    weights = [0.0] * rows
    for rank in range(count):
        own, sharing = _member(rank, count).share(rows)
        part = range(rows)[own]
        assert len(part) > 0, "a process without rows would keep the others waiting"
        for row in part:
            weights[row] += 1 / sharing
    assert weights == pytest.approx([1.0] * rows)


def _member(rank: int, count: int) -> Team:
    return Team(SimpleNamespace(num_processes=count, process_index=rank))


def _without_effect(key: str) -> bool:
    """Parameters that change no output: Adam makes whole steps of their gradients' rounding.

    A bias of keys moves all scores of a query alike; of what Fourier prompts transform the real
    part is kept.
    """
    return key.endswith("self.key.bias") or "prompt.parametrizations.vectors" in key


def test_pretraining_in_two_processes_gives_what_one_gives(
    still_base: Path, tmp_path: Path
) -> None:
    text = write_text(tmp_path / "train.parquet")
    asked = objective(training={"batch_size": 8, "accumulate": 2})
    one, two = {}, {}
    for numerics, found in ((FP32, one), (Numerics(**TWO), two)):
        out = tmp_path / str(numerics.processes)
        pretrain(asked, numerics, text, still_base, out)
        found |= read_json(out / PRETRAIN)
    for part in ("steps", "tokens", "texts", "head"):
        assert two[part] == one[part]
    for phase in ("head", "all"):
        losses, others = ([loss for _, loss in found["loss"][phase]] for found in (two, one))
        assert losses == pytest.approx(others, abs=1e-4)
    (_, before), *_, (_, after) = two["held_out"]
    assert [loss for _, loss in two["held_out"]] == pytest.approx(
        [loss for _, loss in one["held_out"]], abs=1e-4
    )
    assert after < before - 0.05


# -- how it ends ----------------------------------------------------------------------------------


@pytest.fixture
def small_task(tmp_path: Path, base: Path) -> tuple[RunSpec, Path]:
    """A run with dropout, patience and gates in two processes, and its data."""
    data = tmp_path / "fit"
    write_rows(make_rows(25, seed=4), data / "train.parquet")
    write_rows(make_rows(70, seed=5), data / "selection.parquet")
    spec = make_spec("unipelt", numerics=TWO, budget={"epochs": 3, "patience": 2})
    of_base = spec.base.model_copy(update={"digest": read_json(base / "card.json")["digest"]})
    of_data = spec.data.model_copy(update={"fit": tree_digest(data)})
    return spec.model_copy(update={"base": of_base, "data": of_data}), data


def test_a_killed_process_ends_the_run_and_repeating_it_ends_as_undisturbed(
    small_task: tuple[RunSpec, Path],
    base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec, data = small_task
    run = tmp_path / "run.json"
    write_run(run, PlannedRun("unipelt", "few", spec))
    train(run, base, data, tmp_path / "whole")
    before = set(psutil.Process().children(recursive=True))  # what forks processes stays
    monkeypatch.setenv("TUNETRAIL_CHECKPOINT_SECONDS", "0")
    arguments = {"spec": spec, "weights": base / "model", "data": data}
    with pytest.raises(TrainingKilled) as error:
        together(spec.numerics, work.train_and_kill_the_second, arguments, {})
    assert error.value.problem == (
        "process 2 of the 2 of this training was killed (SIGKILL), as the system does when memory "
        "runs out; the others were ended"
    )
    assert set(psutil.Process().children(recursive=True)) == before
    steps: list[int] = []
    train(run, base, data, tmp_path / "out", lambda step, *_: steps.append(step))
    assert steps[0] > 1, "it began anew"
    assert tree_digest(tmp_path / "out") == tree_digest(tmp_path / "whole")
    assert not any(STATE_DIR.glob("checkpoints/*"))


def test_what_a_watch_raises_ends_the_processes(
    small_task: tuple[RunSpec, Path], base: Path, tmp_path: Path
) -> None:
    class Pruned(Exception): ...

    seen: list[Any] = []

    def watch(scores: list[Any]) -> None:
        seen.append(scores)
        raise Pruned

    spec, data = small_task
    with pytest.raises(Pruned):
        trained(spec, base, data, tmp_path, watch=watch)
    assert [step for step, _ in seen[0]] == [4]
    servers = psutil.Process().children()
    assert [process for server in servers for process in server.children()] == []


def test_an_error_of_a_process_is_that_of_the_run(
    small_task: tuple[RunSpec, Path], base: Path, tmp_path: Path
) -> None:
    spec, data = small_task
    options = spec.method.options | {"learning_rate": 1e30}
    method = spec.method.model_copy(update={"options": options})
    with pytest.raises(TrainingDiverged, match=r"loss became \w+ at step \d"):
        trained(spec.model_copy(update={"method": method}), base, data, tmp_path)


def test_costs_are_measured_in_all_processes(
    small_task: tuple[RunSpec, Path], base: Path, tmp_path: Path
) -> None:
    spec, data = small_task
    alone = spec.model_copy(update={"numerics": FP32})
    found = []
    for name, one in (("two", spec), ("one", alone)):
        run, out = tmp_path / f"{name}.json", tmp_path / f"{name}-cost.json"
        write_run(run, PlannedRun("unipelt", "few", one))
        cost(run, base, data, 2, out)
        found.append(read_json(out))
    two, reference = found
    assert two.keys() == reference.keys()
    same = ("trainable_parameters", "total_parameters", "artifact_bytes", "steps", "device")
    assert {key: two[key] for key in same} == {key: reference[key] for key in same}
    assert all(two[key] > 0 for key in ("samples_per_second", "train_seconds", "peak_memory_bytes"))


def test_processes_end_with_the_one_that_started_them(tmp_path: Path) -> None:
    code = (
        "from tests.together import wait_for_ever\n"
        "from tunetrail.run import Numerics\n"
        "from tunetrail.training.processes import together\n"
        "if __name__ == '__main__':\n"
        "    two = Numerics(precision='fp32', threads=1, processes=2)\n"
        "    together(two, wait_for_ever, {}, {'begun': lambda: print('begun', flush=True)})\n"
    )
    script = tmp_path / "script.py"
    script.write_text(code)
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    starter = subprocess.Popen(
        [sys.executable, script],
        env=os.environ | {"PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert starter.stdout is not None
    assert starter.stdout.readline() == "begun\n"
    children = psutil.Process(starter.pid).children(recursive=True)
    assert len(children) >= 2
    starter.kill()
    starter.wait()
    starter.stdout.close()
    _, left = psutil.wait_procs(children, timeout=30)
    for process in left:
        process.kill()
    assert left == []


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    numerics = Numerics(**TWO)
    check_devices(numerics)  # no GPU
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    check_devices(numerics)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(TuneTrailError) as error:
        check_devices(numerics)
    assert error.value.problem == (
        "numerics.processes is 2, and this machine has 1 GPU: each process needs one of its own"
    )
    assert error.value.fix.startswith("lower numerics.processes to 1 or less")
