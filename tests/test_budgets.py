"""Budgets: shares and shots of the data, steps, epochs and minutes, and patience."""

from __future__ import annotations

import time
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.tiny import CLASSES, make_rows, make_spec, run_model
from tests.tiny import write_rows as write
from tunetrail.errors import TuneTrailError
from tunetrail.run import RunSpec
from tunetrail.stages.train import training_rows
from tunetrail.training.loop import fit
from tunetrail.training.rows import Rows

pytestmark = pytest.mark.usefixtures("in_empty_folder", "fresh_accelerate")
ROWS = make_rows(60)
SELECTION = make_rows(30, seed=1)
METHODS = ("head", "lora")


def drawn(folder: Path, method: str = "head", seed: int = 1, **budget: Any) -> list[str]:
    spec = make_spec(method, seed=seed, budget={"epochs": 1, **budget})
    return training_rows(spec, folder).ids


def history_and_weights(
    spec: RunSpec, base: Path, rate: float = 5e-3, **kwargs: Any
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    model = run_model(spec, base)
    history = fit(model, spec, rate, ROWS, SELECTION, **kwargs)
    return history, {k: v.detach().clone() for k, v in model.trained().items()}


# -- share and shots ------------------------------------------------------------------------------


@pytest.mark.parametrize(("share", "rows"), [(1.0, 60), (0.5, 30), (0.1, 6), (0.201, 13)])
def test_a_share_is_rounded_up_and_keeps_the_order_of_the_rows(
    share: float, rows: int, tmp_path: Path
) -> None:
    write(ROWS, tmp_path / "train.parquet")
    found = drawn(tmp_path, fraction=share)
    assert len(found) == rows
    assert found == [name for name in ROWS.ids if name in set(found)]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_smaller_shares_and_fewer_shots_are_subsets(seed: int, tmp_path: Path) -> None:
    write(ROWS, tmp_path / "train.parquet")
    shares = [set(drawn(tmp_path, seed=seed, fraction=f)) for f in (0.1, 0.3, 0.7, 1.0)]
    assert all(a < b for a, b in pairwise(shares))
    shots = [set(drawn(tmp_path, seed=seed, shots=k)) for k in (1, 3, 8)]
    assert all(a < b for a, b in pairwise(shots))


def test_methods_share_what_a_seed_draws_and_seeds_do_not(tmp_path: Path) -> None:
    write(ROWS, tmp_path / "train.parquet")
    for budget in ({"fraction": 0.3}, {"shots": 4}):
        one, two = (drawn(tmp_path, method, **budget) for method in METHODS)
        assert one == two
        assert one != drawn(tmp_path, seed=2, **budget)


def test_shots_are_rows_of_each_class(tmp_path: Path) -> None:
    write(ROWS, tmp_path / "train.parquet")
    found = training_rows(make_spec(budget={"epochs": 1, "shots": 4}), tmp_path)
    assert np.bincount(found.labels).tolist() == [4] * CLASSES


def test_a_share_with_one_label_is_refused(tmp_path: Path) -> None:
    same = Rows(ROWS.ids, np.zeros(60, dtype=np.int64), ROWS.tokens, ROWS.segments)
    write(same, tmp_path / "train.parquet")
    with pytest.raises(TuneTrailError, match=r"the 6 training rows of fraction 0\.1 and seed 1"):
        drawn(tmp_path, fraction=0.1)


# -- patience -------------------------------------------------------------------------------------


def test_patience_keeps_the_best_epoch_and_stops(base: Path) -> None:
    """A rate that is much too high: scores go up and down, and the first best one is kept."""
    limit = {"epochs": 30, "patience": 3}
    history, weights = history_and_weights(make_spec("full", budget=limit), base, rate=3e-2)
    scores = [entry[1]["accuracy"] for entry in history["selection"]]
    best = scores.index(max(scores))
    assert history["kept"] == history["selection"][best]
    assert len(scores) - 1 - best == 3
    assert len(scores) < 30
    assert history["steps"] == history["selection"][-1][0]
    # The same run without patience passes through the weights that were kept.
    steps = {"steps": history["kept"][0]}
    constant = {"schedule": "constant", "warmup": 0.0}
    patient = make_spec("full", budget=limit, training=constant)
    history, weights = history_and_weights(patient, base, rate=3e-2)
    steps = {"steps": history["kept"][0]}
    _, reference = history_and_weights(
        make_spec("full", budget=steps, training=constant), base, rate=3e-2
    )
    assert all(torch.equal(weights[k], reference[k]) for k in reference)


def test_without_patience_the_last_state_is_kept(base: Path) -> None:
    history, _ = history_and_weights(make_spec("head", budget={"epochs": 3}), base)
    assert history["kept"] == history["selection"][-1]
    assert len(history["selection"]) == 3


class Killed(BaseException):
    """Stands for a kill: nothing in the code under test catches it."""


@pytest.mark.parametrize("stop", [5, 17, 22])
def test_patience_survives_a_kill(stop: int, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = make_spec("full", budget={"epochs": 12, "patience": 2})
    whole = history_and_weights(spec, base, rate=3e-2)
    assert whole[0]["steps"] > stop
    monkeypatch.setenv("TUNETRAIL_CHECKPOINT_SECONDS", "0")
    ticks = count()
    monkeypatch.setattr(time, "monotonic", lambda: float(next(ticks)))

    def interrupt(step: int, *_: Any) -> None:
        if step == stop:
            raise Killed

    with pytest.raises(Killed):
        history_and_weights(spec, base, rate=3e-2, progress=interrupt)
    again = history_and_weights(spec, base, rate=3e-2)
    assert again[0] == whole[0]
    assert all(torch.equal(again[1][k], whole[1][k]) for k in whole[1])


# -- minutes --------------------------------------------------------------------------------------


def test_minutes_end_the_run_and_its_schedule(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that advances a second a look: a step is one second long."""
    ticks = count()
    monkeypatch.setattr(time, "monotonic", lambda: float(next(ticks)))
    seen: list[tuple[int, int]] = []
    spec = make_spec("head", budget={"minutes": 0.5}, training={"warmup": 0.0})
    history, _ = history_and_weights(
        spec, base, progress=lambda step, steps, loss: seen.append((step, steps))
    )
    assert history["steps"] == 30
    assert seen[-1] == (30, 30)
    # The length is foretold from the pace, so that the rate falls to its end with the time.
    assert all(abs(steps - 30) <= 1 for step, steps in seen if step > 2)


def test_minutes_go_on_after_a_kill_where_they_stopped(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNETRAIL_CHECKPOINT_SECONDS", "0")
    ticks = count()
    monkeypatch.setattr(time, "monotonic", lambda: float(next(ticks)))
    spec = make_spec("head", budget={"minutes": 0.5})

    def interrupt(step: int, *_: Any) -> None:
        if step == 20:
            raise Killed

    with pytest.raises(Killed):
        history_and_weights(spec, base, progress=interrupt)
    history, _ = history_and_weights(spec, base)
    assert history["steps"] == 30
