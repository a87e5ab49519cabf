"""The training loop: order, resumption, accumulation, learning rates, failures."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.tiny import (
    make_rows,
    make_spec,
    run_model,
    write_base,
    write_rows,
)
from tunetrail.errors import TrainingDiverged, TuneTrailError
from tunetrail.files import STATE_DIR, tree_digest
from tunetrail.layout import HISTORY
from tunetrail.modeling.adapter import WEIGHTS
from tunetrail.run import PlannedRun, RunSpec, Training, write_run
from tunetrail.stages.train import train
from tunetrail.training.loop import (
    TrainStep,
    count_steps,
    fit,
    groups_of_batches,
    rate_factor,
    silent,
)
from tunetrail.training.numerics import derived_seed
from tunetrail.training.rows import Rows, read_rows, sorted_batches, training_batches

ROWS = make_rows(37, seed=4)
SELECTION = make_rows(9, seed=5)

pytestmark = pytest.mark.usefixtures("in_empty_folder", "fresh_accelerate")


@pytest.fixture(scope="module")
def still_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model without dropout."""
    changes = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return write_base(tmp_path_factory.mktemp("still"), **changes)


# -- batches --------------------------------------------------------------------------------------


def epoch(seed: int, rows: int = 500, batch_size: int = 8) -> tuple[np.ndarray, list[np.ndarray]]:
    lengths = np.random.default_rng(rows).integers(3, 60, size=rows)
    return lengths, training_batches(lengths, batch_size, np.random.default_rng(seed))


@pytest.mark.parametrize(
    ("rows", "batch_size"), [(1, 8), (7, 8), (8, 8), (500, 8), (501, 16), (1000, 3)]
)
def test_an_epoch_has_every_row_exactly_once(rows: int, batch_size: int) -> None:
    _, batches = epoch(1, rows, batch_size)
    assert sorted(np.concatenate(batches).tolist()) == list(range(rows))
    sizes = sorted(len(batch) for batch in batches)
    assert len(sizes) == -(-rows // batch_size)
    assert sizes[1:] == [batch_size] * (len(sizes) - 1)


def test_batches_pad_less_than_in_random_order() -> None:
    lengths, batches = epoch(1)
    order = np.random.default_rng(1).permutation(len(lengths))
    random = [order[i : i + 8] for i in range(0, len(order), 8)]

    def efficiency(groups: list[np.ndarray]) -> float:
        return lengths.sum() / sum(lengths[g].max() * len(g) for g in groups)

    assert efficiency(batches) > 0.95
    assert efficiency(random) < 0.7


def test_batches_are_not_in_order_of_length() -> None:
    lengths, batches = epoch(1)
    means = np.array([lengths[b].mean() for b in batches])
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.5


def test_the_seed_decides_the_order() -> None:
    one, again, two = (np.concatenate(epoch(seed)[1]).tolist() for seed in (1, 1, 2))
    assert one == again
    assert one != two


def test_prediction_batches_have_every_row_once_longest_first() -> None:
    lengths, _ = epoch(1)
    batches = list(sorted_batches(lengths, 64))
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    assert (np.diff(lengths[np.concatenate(batches)]) <= 0).all()


@pytest.mark.parametrize("accumulate", [1, 2, 3])
@pytest.mark.parametrize("start", [0, 1, 2, 3, 5, 9, 10, 13])
def test_starting_later_is_skipping(accumulate: int, start: int) -> None:
    spec = make_spec(training={"accumulate": accumulate})
    whole = islice(groups_of_batches(ROWS, spec, start=0), start, start + 12)
    later = islice(groups_of_batches(ROWS, spec, start=start), 12)
    assert _listed(whole) == _listed(later)


def _listed(groups: Iterator[list[np.ndarray]]) -> list[list[list[int]]]:
    return [[batch.tolist() for batch in group] for group in groups]


@pytest.mark.parametrize("accumulate", [1, 2, 3, 9])
def test_every_epoch_has_every_row_once_in_an_order_of_its_own(accumulate: int) -> None:
    spec = make_spec(training={"accumulate": accumulate}, budget={"epochs": 3})
    steps, per_epoch = count_steps(spec, len(ROWS))
    assert steps == 3 * per_epoch
    assert per_epoch == -(-5 // accumulate)
    groups = _listed(islice(groups_of_batches(ROWS, spec, start=0), steps))
    epochs = [groups[i : i + per_epoch] for i in range(0, steps, per_epoch)]
    orders = [[row for group in e for batch in group for row in batch] for e in epochs]
    assert all(sorted(order) == list(range(len(ROWS))) for order in orders)
    assert orders[0] != orders[1] != orders[2]


def test_rows_are_padded_under_the_mask() -> None:
    index = np.array([3, 0, 7])
    batch = ROWS.batch(index)
    for row, i in enumerate(index):
        size = len(ROWS.tokens[i])
        assert batch["input_ids"][row, :size].tolist() == ROWS.tokens[i].tolist()
        assert batch["token_type_ids"][row, :size].tolist() == ROWS.segments[i].tolist()
        assert batch["attention_mask"][row].tolist() == [1] * size + [0] * (
            batch["input_ids"].shape[1] - size
        )
        assert not batch["input_ids"][row, size:].any()
    assert batch["input_ids"].shape == (3, max(len(ROWS.tokens[i]) for i in index))


def test_rows_come_back_from_parquet(tmp_path: Path) -> None:
    write_rows(ROWS, tmp_path / "rows.parquet")
    back = read_rows(tmp_path / "rows.parquet")
    assert back.ids == ROWS.ids
    assert back.labels.tolist() == ROWS.labels.tolist()
    assert [t.tolist() for t in back.tokens] == [t.tolist() for t in ROWS.tokens]
    assert [s.tolist() for s in back.segments] == [s.tolist() for s in ROWS.segments]


# -- repetition and resumption --------------------------------------------------------------------


class Killed(BaseException):
    """Stands for a kill: nothing in the code under test catches it."""


@dataclass(frozen=True)
class Fatal(Rows):
    """Rows during whose nth batch the process dies."""

    last: int = 0
    seen: list[int] = field(default_factory=list)

    def batch(self, index: np.ndarray) -> dict[str, torch.Tensor]:
        if len(self.seen) >= self.last:
            raise Killed
        self.seen.append(len(index))
        return super().batch(index)


def outcome(spec: RunSpec, base: Path, rows: Rows = ROWS, **kwargs: Any) -> tuple[Any, Any]:
    """History and trained tensors of a run."""
    model = run_model(spec, base)
    history = fit(model, spec, 5e-3, rows, SELECTION, **kwargs)
    return history, {k: v.detach().clone() for k, v in model.trained().items()}


def assert_same(one: tuple[Any, Any], two: tuple[Any, Any]) -> None:
    assert json.dumps(one[0]) == json.dumps(two[0])
    assert one[1].keys() == two[1].keys()
    assert [k for k, v in one[1].items() if not torch.equal(v, two[1][k])] == []


def checkpoint_of(spec: RunSpec) -> Path:
    return STATE_DIR / "checkpoints" / spec.digest


@pytest.mark.parametrize("name", ["full", "houlsby"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_equal_runs_give_equal_bits(name: str, precision: str, base: Path) -> None:
    numerics = {"precision": precision, "threads": 1}
    spec = make_spec(name, numerics=numerics, budget={"epochs": 2})
    first = outcome(spec, base)
    torch.rand(17)  # whatever else the process did
    assert_same(first, outcome(spec, base))
    other = outcome(make_spec(name, numerics=numerics, budget={"epochs": 2}, seed=2), base)
    assert other[0]["loss"] != first[0]["loss"]


# 37 rows in batches of 8 are 5 batches an epoch, the last one smaller: 5 or 3 steps an epoch.
@pytest.mark.parametrize(
    ("name", "accumulate", "batches"),
    [
        ("lora", 1, 1),  # first step
        ("lora", 1, 3),  # within the first epoch
        ("lora", 1, 5),  # at its end
        ("lora", 1, 6),
        ("lora", 1, 14),  # before the last step
        ("full", 1, 8),
        ("houlsby", 2, 2),
        ("houlsby", 2, 3),  # between the two halves of a step
        ("houlsby", 2, 7),
        ("head", 2, 11),
        ("bitfit", 3, 9),
        ("pfeiffer", 1, 7),
    ],
)
def test_a_killed_run_ends_as_if_it_had_not_been(
    name: str, accumulate: int, batches: int, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = make_spec(
        name, {}, budget={"epochs": 3}, training={"accumulate": accumulate, "warmup": 0.2}
    )
    whole = outcome(spec, base)
    monkeypatch.setenv("TUNETRAIL_CHECKPOINT_SECONDS", "0")
    parts = Fatal(ROWS.ids, ROWS.labels, ROWS.tokens, ROWS.segments, last=batches)
    with pytest.raises(Killed):
        outcome(spec, base, parts)
    # A step ends with the group, which at the end of an epoch is shorter.
    done = _steps_in(batches, accumulate)
    assert checkpoint_of(spec).is_dir() == (done > 0)
    torch.rand(5)
    begun: list[int] = []
    assert_same(whole, outcome(spec, base, progress=lambda step, *_: begun.append(step)))
    assert begun[0] == done + 1, "it did not continue from the checkpoint"


def _steps_in(batches: int, accumulate: int) -> int:
    epochs, rest = divmod(batches, 5)
    return epochs * -(-5 // accumulate) + rest // accumulate


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("stops", [[2], [5], [3, 4, 9], list(range(2, 10))])
def test_a_run_that_is_stopped_again_and_again_ends_the_same(
    stops: list[int], precision: str, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numerics = {"precision": precision, "threads": 1}
    spec = make_spec("lora", {"dropout": 0.1}, numerics=numerics, budget={"epochs": 2})
    whole = outcome(spec, base)
    monkeypatch.setenv("TUNETRAIL_CHECKPOINT_SECONDS", "0")
    ticks = count()
    monkeypatch.setattr(time, "monotonic", lambda: float(next(ticks)))  # every step is shown

    for stop in stops:

        def interrupt(step: int, steps: int, loss: float, stop: int = stop) -> None:
            assert steps == 10
            if step == stop:
                raise Killed

        with pytest.raises(Killed):
            outcome(spec, base, progress=interrupt)
        kept = json.loads((checkpoint_of(spec) / "progress.json").read_text(encoding="utf-8"))
        assert kept["step"] == stop - 1
    assert_same(whole, outcome(spec, base))


@pytest.mark.parametrize("batches", [61, 74, 119])  # none a multiple of three
def test_a_long_run_keeps_the_losses_of_the_open_point(
    batches: int, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With over 50 steps a point of the curve is a mean that a checkpoint can cut in two."""
    spec = make_spec("head", budget={"steps": 121})
    whole = outcome(spec, base)
    assert [step for step, _ in whole[0]["loss"]] == [*range(3, 121, 3), 121]
    monkeypatch.setenv("TUNETRAIL_CHECKPOINT_SECONDS", "0")
    with pytest.raises(Killed):
        outcome(spec, base, Fatal(ROWS.ids, ROWS.labels, ROWS.tokens, ROWS.segments, last=batches))
    assert_same(whole, outcome(spec, base))


def test_a_checkpoint_of_another_run_is_not_used(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNETRAIL_CHECKPOINT_SECONDS", "0")
    one, two = (make_spec("lora", seed=seed) for seed in (1, 2))
    whole = outcome(two, base)
    with pytest.raises(Killed):
        outcome(one, base, Fatal(ROWS.ids, ROWS.labels, ROWS.tokens, ROWS.segments, last=3))
    assert_same(whole, outcome(two, base))
    assert checkpoint_of(one).is_dir()


def test_no_checkpoint_is_written_before_it_is_due(base: Path) -> None:
    spec = make_spec("head")
    with pytest.raises(Killed):
        outcome(spec, base, Fatal(ROWS.ids, ROWS.labels, ROWS.tokens, ROWS.segments, last=3))
    assert not checkpoint_of(spec).exists()


# -- the same start for every method --------------------------------------------------------------


@dataclass(frozen=True)
class Watched(Rows):
    """Rows that note which of them were asked for."""

    seen: list[list[int]] = field(default_factory=list)

    def batch(self, index: np.ndarray) -> dict[str, torch.Tensor]:
        self.seen.append(index.tolist())
        return super().batch(index)


def test_methods_of_one_seed_see_the_same_batches(base: Path) -> None:
    seen = {}
    for name, seed in (("head", 1), ("houlsby", 1), ("full", 1), ("head", 2)):
        rows = Watched(ROWS.ids, ROWS.labels, ROWS.tokens, ROWS.segments)
        outcome(make_spec(name, seed=seed, budget={"epochs": 2}), base, rows)
        seen[name, seed] = rows.seen
    assert len(seen["head", 1]) == 10
    assert seen["head", 1] == seen["houlsby", 1] == seen["full", 1]
    assert seen["head", 1] != seen["head", 2]


def test_every_step_has_a_dropout_of_its_own() -> None:
    seeds = [derived_seed(1, f"dropout {step}") for step in range(1, 2000)]
    assert len(set(seeds)) == len(seeds)
    assert derived_seed(1, "head") != derived_seed(1, "method") != derived_seed(2, "method")


# -- accumulation, optimiser, learning rate -------------------------------------------------------


def gradients_of_first_step(
    spec: RunSpec, base: Path, group: list[np.ndarray]
) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and gradients that the optimiser gets to see."""
    model = run_model(spec, base)
    step = TrainStep(model, spec, 1e-3, steps=1)
    model.train()
    seen: dict[str, torch.Tensor] = {}

    def note(*_: Any) -> None:
        seen.update({k: p.grad.clone() for k, p in model.trained().items()})

    step.optimizer.optimizer.register_step_pre_hook(note)
    return float(step(ROWS, group)), seen


@pytest.mark.parametrize("name", ["full", "lora", "houlsby", "pfeiffer"])
@pytest.mark.parametrize("cut", [8, 5, 1])
def test_accumulated_batches_give_the_gradient_of_the_whole(
    name: str, cut: int, still_base: Path
) -> None:
    spec = make_spec(name, training={"clip": 1e9})
    index = np.argsort([len(t) for t in ROWS.tokens])[::2][:16]
    loss, whole = gradients_of_first_step(spec, still_base, [index])
    half_loss, halves = gradients_of_first_step(spec, still_base, [index[:cut], index[cut:]])
    assert half_loss == pytest.approx(loss, rel=1e-5)
    assert len(whole) >= 2
    for key, gradient in whole.items():
        scale = max(float(gradient.abs().max()), 1e-4)
        torch.testing.assert_close(halves[key], gradient, rtol=0, atol=2e-5 * scale + 1e-7)


@pytest.mark.parametrize("clip", [1e-3, 0.1])
def test_gradients_are_clipped_together(clip: float, still_base: Path) -> None:
    index = np.arange(8)
    spec = make_spec("full", training={"clip": clip})
    _, clipped = gradients_of_first_step(spec, still_base, [index])
    free = make_spec("full", training={"clip": 1e9})
    _, whole = gradients_of_first_step(free, still_base, [index])
    norm = float(torch.stack([g.norm() for g in whole.values()]).norm())
    assert norm > clip
    for key, gradient in whole.items():
        torch.testing.assert_close(clipped[key], gradient * clip / norm, rtol=1e-3, atol=1e-9)


def test_vectors_are_not_decayed(base: Path) -> None:
    spec = make_spec("full", training={"weight_decay": 0.3})
    model = run_model(spec, base)
    step = TrainStep(model, spec, 1e-3, steps=1)
    decay = {
        id(p): group["weight_decay"]
        for group in step.optimizer.param_groups
        for p in group["params"]
    }
    assert decay.keys() == {id(p) for p in model.trained().values()}
    for key, parameter in model.trained().items():
        vector = key.endswith("bias") or "LayerNorm" in key
        assert decay[id(parameter)] == (0.0 if vector else 0.3), key


SCHEDULES = pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])


@SCHEDULES
@pytest.mark.parametrize("warmup", [0.0, 0.06, 0.5, 0.99])
@pytest.mark.parametrize("steps", [1, 2, 7, 100])
def test_the_rate_rises_then_falls_within_bounds(schedule: Any, warmup: float, steps: int) -> None:
    training = Training(schedule=schedule, warmup=warmup)
    factors = [rate_factor(step, steps, training) for step in range(1, steps + 1)]
    assert all(0 < factor <= 1 for factor in factors)
    assert max(factors) == pytest.approx(1)
    rising = round(warmup * steps)
    before, after = np.diff(factors[:rising]), np.diff(factors[rising:])
    assert (before > 0).all()
    assert factors[:rising] == pytest.approx([(i + 1) / max(1, rising) for i in range(rising)])
    if schedule == "constant":
        assert (after == 0).all()
    else:
        assert (after < 0).all()


def test_the_rate_at_known_points() -> None:
    at = {
        schedule: [rate_factor(s, 100, Training(schedule=schedule, warmup=0.2)) for s in range(101)]
        for schedule in ("linear", "cosine", "constant")
    }
    for factors in at.values():
        assert factors[10] == pytest.approx(0.5)
        assert factors[20] == factors[21] == pytest.approx(1)
    assert at["linear"][61] == pytest.approx(0.5)
    assert at["linear"][100] == pytest.approx(1 / 80)
    assert at["cosine"][61] == pytest.approx(0.5)
    assert at["cosine"][41] == pytest.approx(0.5 * (1 + np.cos(np.pi / 4)))
    assert at["cosine"][100] == pytest.approx(0.5 * (1 - np.cos(np.pi / 80)))
    assert at["constant"][100] == 1


@SCHEDULES
def test_the_optimiser_gets_the_rate(schedule: Any, base: Path) -> None:
    spec = make_spec("full", training={"schedule": schedule, "warmup": 0.25})
    step = TrainStep(run_model(spec, base), spec, 0.01, steps=8)
    for number in (1, 2, 3, 8):
        step.start(number)
        rate = 0.01 * rate_factor(number, 8, spec.training)
        assert step.rate(number) == rate
        assert [group["lr"] for group in step.optimizer.param_groups] == [rate, rate]


# -- history --------------------------------------------------------------------------------------


def test_the_selection_set_is_scored_after_every_epoch_and_at_the_end(base: Path) -> None:
    history, _ = outcome(make_spec("head", budget={"steps": 13}), base)
    assert history["steps"] == 13
    assert [step for step, _ in history["selection"]] == [5, 10, 13]
    assert all(set(scores) == {"accuracy", "f1_macro"} for _, scores in history["selection"])


def test_progress_ends_with_the_last_step(base: Path) -> None:
    seen: list[tuple[int, int, float]] = []
    history, _ = outcome(make_spec("head"), base, progress=lambda *a: seen.append(a))
    assert seen[0][:2] == (1, 5)
    assert seen[-1] == (5, 5, history["loss"][-1][1])


def test_the_first_loss_is_that_of_the_untrained_model(still_base: Path) -> None:
    spec = make_spec("full", training={"accumulate": 2})
    history, _ = outcome(spec, still_base)
    rows = np.concatenate(next(groups_of_batches(ROWS, spec, start=0)))
    model = run_model(spec, still_base)
    with torch.no_grad():
        logits = model(**ROWS.batch(rows))
    loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(ROWS.labels[rows]))
    assert history["loss"][0] == [1, pytest.approx(float(loss), rel=1e-5)]


# -- failures -------------------------------------------------------------------------------------


def diverging(base: Path, steps: int) -> tuple[RunSpec, pytest.ExceptionInfo[TrainingDiverged]]:
    training = {"schedule": "linear", "warmup": 0.0}
    spec = make_spec("full", budget={"steps": steps}, training=training)
    with pytest.raises(TrainingDiverged) as caught:
        fit(run_model(spec, base), spec, 1e30, ROWS, SELECTION)
    return spec, caught


def test_divergence_names_step_and_rate(base: Path) -> None:
    spec, caught = diverging(base, steps=10)
    rate = 1e30 * rate_factor(2, 10, spec.training)
    rule = f"at step 2 (learning rate {rate:.3g})"
    assert caught.value.problem in {f"the loss became nan {rule}", f"the loss became inf {rule}"}
    assert "learning_rate" in caught.value.fix
    assert isinstance(caught.value, TuneTrailError)


def test_divergence_within_a_point_of_the_curve_names_its_own_rate(base: Path) -> None:
    """In 200 steps losses are looked at every fourth step; the rate is that of the step named."""
    spec, caught = diverging(base, steps=200)
    rate = 1e30 * rate_factor(2, 200, spec.training)
    assert caught.match("at step 2 ")
    assert f"(learning rate {rate:.3g})" in caught.value.problem


def test_divergence_in_the_last_step_is_noticed(base: Path) -> None:
    diverging(base, steps=1)


def test_a_diverged_state_is_never_kept(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNETRAIL_CHECKPOINT_SECONDS", "0")
    spec, first = diverging(base, steps=200)
    kept = json.loads((checkpoint_of(spec) / "progress.json").read_text(encoding="utf-8"))
    assert kept["step"] == 1
    _, second = diverging(base, steps=200)
    assert second.value.problem == first.value.problem


# -- the stage ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Inputs:
    run: Path
    data: Path
    spec: RunSpec


@pytest.fixture
def inputs(base: Path, tmp_path: Path) -> Inputs:
    data = tmp_path / "fit"
    write_rows(ROWS, data / "train.parquet")
    write_rows(SELECTION, data / "selection.parquet")
    plain = make_spec("lora")
    spec = make_spec(
        "lora",
        base=plain.base.model_dump() | {"digest": tree_digest(base / "model")},
        data=plain.data.model_dump() | {"fit": tree_digest(data)},
    )
    write_run(tmp_path / "run.json", PlannedRun("lora", "full", spec))
    return Inputs(tmp_path / "run.json", data, spec)


def test_the_stage_writes_the_same_bytes_after_a_kill(
    inputs: Inputs, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(inputs.run, base, inputs.data, tmp_path / "one", silent)
    monkeypatch.setenv("TUNETRAIL_CHECKPOINT_SECONDS", "0")
    ticks = count()
    monkeypatch.setattr(time, "monotonic", lambda: float(next(ticks)))

    def interrupt(step: int, *_: Any) -> None:
        if step == 4:
            raise Killed

    with pytest.raises(Killed):
        train(inputs.run, base, inputs.data, tmp_path / "two", interrupt)
    assert not (tmp_path / "two").exists()
    assert checkpoint_of(inputs.spec).is_dir()
    train(inputs.run, base, inputs.data, tmp_path / "two", silent)
    assert not checkpoint_of(inputs.spec).exists()
    for name in (HISTORY, WEIGHTS, "adapter.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert tree_digest(tmp_path / "one") == tree_digest(tmp_path / "two")
    history = json.loads((tmp_path / "one" / HISTORY).read_text(encoding="utf-8"))
    assert history["run"] == inputs.spec.digest
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".two")]


def test_the_stage_refuses_other_data(inputs: Inputs, base: Path, tmp_path: Path) -> None:
    write_rows(make_rows(20), inputs.data / "train.parquet")
    with pytest.raises(TuneTrailError, match="is not the data of this run"):
        train(inputs.run, base, inputs.data, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_stage_refuses_an_edited_run(inputs: Inputs, base: Path, tmp_path: Path) -> None:
    text = inputs.run.read_text(encoding="utf-8")
    inputs.run.write_text(text.replace('"seed": 1', '"seed": 2'))
    with pytest.raises(TuneTrailError, match="was changed after it was frozen"):
        train(inputs.run, base, inputs.data, tmp_path / "out")


def test_training_imports_no_pipeline_tool() -> None:
    program = (
        "import sys, tunetrail.stages.train, tunetrail.training.loop\n"
        "from tunetrail import methods\n"
        "for name in methods.names(): methods.method_class(name)\n"
        "print(sorted({m.partition('.')[0] for m in sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    loaded = set(json.loads(done.stdout.replace("'", '"')))
    assert {"torch", "tunetrail", "accelerate"} <= loaded
    assert not loaded & {"dvc", "prefect", "mlflow", "great_expectations"}
