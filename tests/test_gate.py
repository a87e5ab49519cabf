"""The gate between champion and challenger: its rows, its bound, its limits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from tunetrail.errors import TuneTrailError
from tunetrail.gate.decision import Served, decide
from tunetrail.gate.policy import Gate
from tunetrail.gate.rows import GateSet, gate_set
from tunetrail.gate.words import in_words
from tunetrail.stages.ingest import ingest
from tunetrail.stages.validate import validate
from tunetrail.task import TaskSpec
from tunetrail.verdicts.shipped import lower_bound

# The bound ------------------------------------------------------------------------------------


def with_one_more_each_way(cells: np.ndarray) -> np.ndarray:
    step = np.abs(cells).max()
    return np.concatenate([cells, [cells.mean() + step, cells.mean() - step]])


def test_the_bound_is_the_t_bound_of_rows_with_one_more_each_way() -> None:
    chance = np.random.default_rng(3)
    one, other = chance.random((2, 400)) < 0.8
    cells = one.astype(float) - other
    found = lower_bound(one.astype(float), other.astype(float), np.arange(400), 0.02)
    more = with_one_more_each_way(cells)
    # Its mean square error with n - 1; the mean stays that of the rows that are there.
    error = np.sqrt(np.square(more - cells.mean()).sum() * 400 / 399) / 400
    assert found.mean == pytest.approx(cells.mean())
    assert found.low == pytest.approx(cells.mean() - stats.t.ppf(0.95, 399) * error)
    plain = stats.ttest_1samp(cells, 0, alternative="greater").confidence_interval(0.95)
    assert plain.low - 0.01 < found.low < plain.low


def test_repeated_rows_of_a_group_add_nothing() -> None:
    chance = np.random.default_rng(4)
    one, other = (chance.random((2, 300)) < 0.7).astype(float)
    once = lower_bound(one, other, np.arange(300), 0.02)
    thrice = lower_bound(*(np.repeat(a, 3) for a in (one, other, np.arange(300))), 0.02)
    assert thrice.groups == once.groups == 300
    assert thrice.low == pytest.approx(once.low)
    assert lower_bound(one.repeat(3), other.repeat(3), np.arange(900), 0.02).low > thrice.low + 0.01


def test_few_rows_without_a_disagreement_prove_nothing() -> None:
    same = np.ones(40)
    found = lower_bound(same, same, np.arange(40), 0.02)
    assert found.low < -0.02
    assert found.rows_needed is not None
    enough = np.ones(found.rows_needed)
    assert lower_bound(enough, enough, np.arange(len(enough)), 0.02).low >= -0.02


@pytest.mark.parametrize("rows", [100, 300, 1000])
@pytest.mark.parametrize("disagree", [0.03, 0.1, 0.3])
def test_a_model_that_is_worse_by_the_margin_passes_in_one_of_twenty(
    rows: int, disagree: float
) -> None:
    margin, times = 0.02, 1500
    chance = np.random.default_rng(rows)
    lost, won = (disagree + margin) / 2, (disagree - margin) / 2
    passed = 0
    for _ in range(times):
        draw = chance.random(rows)
        cells = np.where(draw < lost, -1.0, np.where(draw < lost + won, 1.0, 0.0))
        low = lower_bound(1 + cells, np.ones(rows), np.arange(rows), margin).low
        passed += low > -margin
    # Three standard errors above 5 %.
    assert passed / times <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / times)


def test_shapes_and_one_group_are_refused() -> None:
    with pytest.raises(ValueError, match="not one design"):
        lower_bound(np.ones(3), np.ones(2), np.arange(3), 0.1)
    with pytest.raises(ValueError, match="no spread"):
        lower_bound(np.ones(3), np.ones(3), np.zeros(3), 0.1)


# The decision ---------------------------------------------------------------------------------


def task(**changes: Any) -> TaskSpec:
    declared = {
        "name": "toy",
        "source": "data.csv",
        "columns": {"text": "text", "label": "label"},
        "labels": ["neg", "pos"],
        "split": {"gate": 0.3},
    }
    return TaskSpec.model_validate({**declared, **changes})


def rows(count: int) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "group": [f"g{i}" for i in range(count)],
            "text": ["x" * (1 + i) for i in range(count)],
            "text_pair": pd.Series([None] * count, dtype="str"),
            "label": np.arange(count) % 2,
        }
    )


def served(version: str, wrong: np.ndarray, frame: pd.DataFrame, **costs: Any) -> Served:
    labels = frame["label"].to_numpy()
    costs = {"latency_ms": 5.0, "size_bytes": 1000} | costs
    return Served(version, np.where(wrong, 1 - labels, labels), **costs)


def decided(old: np.ndarray, new: np.ndarray, policy: Gate | None = None, **costs: Any) -> Any:
    frame = rows(len(old))
    return decide(
        frame,
        task(),
        served("1", old, frame),
        served("2", new, frame, **costs),
        policy or Gate(),
    )


def test_a_better_model_passes_and_a_worse_one_is_refused_with_the_reason() -> None:
    index = np.arange(1000)
    good, bad = index % 20 == 0, index % 5 == 0  # 95 % and 80 % are right
    better = decided(bad, good)
    assert better["passed"]
    assert better["reasons"] == []
    assert better["scores"]["challenger"]["accuracy"] == pytest.approx(0.95)
    assert better["disagreements"] == 150
    worse = decided(good, bad)
    assert not worse["passed"]
    assert worse["difference"] == pytest.approx(-0.15)
    assert "it is worse by more than the margin as it stands" in worse["reasons"][0]
    assert in_words(worse | {"model": "m", "notes": []}).startswith(
        "m: version 1 stays champion, version 2 is its challenger (accuracy 0.800 against 0.950, a "
        "difference of at least -0.169 on 1000 rows): not shown to be as good within the margin of "
        "0.02: accuracy differs by -0.150 and may be as low as -0.169; it is worse by more than"
    )


def test_too_few_rows_leave_it_a_challenger_and_say_how_many_would_do() -> None:
    index, policy = np.arange(200), Gate(slices={})
    # Equally good, and often not of one mind.
    found = decided(index % 10 == 0, index % 10 == 1, policy)
    assert not found["passed"]
    assert found["difference"] == 0
    needed = int(found["reasons"][0].split("about ")[1].split(" rows")[0].replace(",", ""))
    index = np.arange(-(-needed // 10) * 10)
    assert decided(index % 10 == 0, index % 10 == 1, policy)["passed"]
    index = np.arange(needed * 9 // 100 * 10)
    assert not decided(index % 10 == 0, index % 10 == 1, policy)["passed"]


def test_a_slice_that_drops_refuses_a_model_that_is_better_on_the_whole() -> None:
    index = np.arange(3000)
    long = index >= 2000
    old = ~long & (index % 3 == 0)  # wrong on a third of the shorter two thirds
    new = long & (index % 7 == 0)  # wrong on a seventh of the long ones
    found = decided(old, new)
    assert found["difference"] > 0.1
    assert found["reasons"] == [
        "accuracy falls by 0.143 where length is long (1000 rows); 0.1 is the most"
    ]
    by_name = {(s["by"], s["slice"]): s for s in found["slices"]}
    assert by_name["length", "long"]["passed"] is False
    assert by_name["label", "pos"]["rows"] == 1500
    few = decided(old, new, Gate(slice_rows=1001))
    assert few["passed"]  # shown, not judged
    assert {s["passed"] for s in few["slices"] if s["by"] == "length"} == {None}


def test_slices_by_class_are_judged_by_its_accuracy() -> None:
    index = np.arange(2000)
    pos = index % 2 == 1
    found = decided((index % 8 == 0) & ~pos, (index % 10 == 1) & pos, Gate(slices={"label": 0.1}))
    assert found["reasons"] == [
        "accuracy falls by 0.200 where label is pos (1000 rows); 0.1 is the most"
    ]


def test_a_model_that_is_slower_or_larger_than_allowed_is_refused() -> None:
    right = np.zeros(1000, dtype=bool)
    found = decided(right, right, latency_ms=8.0, size_bytes=2000)
    assert found["reasons"] == [
        "latency is 1.60 times the champion's; 1.5 times is the most",
        "size is 2.00 times the champion's; 1.5 times is the most",
    ]
    assert decided(right, right, Gate(latency=None, size=None), latency_ms=8.0, size_bytes=2000)[
        "passed"
    ]


def test_rows_of_a_domain_are_a_slice() -> None:
    frame = rows(1200).assign(domain=["shop", "mail", "mail"] * 400)
    mail = (frame["domain"] == "mail").to_numpy()
    wrong = mail & (np.arange(1200) % 4 == 0)
    found = decide(
        frame,
        task(),
        served("1", ~mail, frame),
        served("2", wrong, frame),
        Gate(slices={"domain": 0.05}),
    )
    dropped = {s["slice"]: s["passed"] for s in found["slices"]}
    assert dropped == {"mail": False, "shop": True}


# The rows -------------------------------------------------------------------------------------


def data(folder: Path, count: int, first: int = 0, **changes: Any) -> Path:
    rows = range(first, count)
    lines = [f"text number {i} of many,{'neg' if i % 3 else 'pos'}" for i in rows]
    (folder / "data.csv").write_text("text,label\n" + "\n".join(lines) + "\n")
    ingest(task(source=folder / "data.csv", **changes), folder / "canonical")
    return folder / "canonical"


def held(folder: Path, canonical: Path, generation: int = 1) -> GateSet:
    found = gate_set(canonical, folder / "gate.json", generation)
    assert found is not None
    return found


def test_frozen_rows_stay_and_later_ones_are_the_reserve(tmp_path: Path) -> None:
    first = held(tmp_path, data(tmp_path, 200))
    assert 40 < len(first.rows) < 80
    more = held(tmp_path, data(tmp_path, 600))
    assert set(more.rows["text"]) == set(first.rows["text"])
    assert (more.digest, more.gone) == (first.digest, 0)
    assert 80 < more.reserve < 160
    second = held(tmp_path, data(tmp_path, 600), 2)
    assert not set(second.rows["text"]) & set(first.rows["text"])
    assert (len(second.rows), second.reserve) == (more.reserve, 0)
    fewer = held(tmp_path, data(tmp_path, 600, first=400), 2)  # row numbers are others now
    assert set(fewer.rows["text"]) < set(second.rows["text"])
    assert fewer.gone == len(second.rows) - len(fewer.rows) > 20
    assert fewer.digest == second.digest


def test_no_set_has_a_row_of_the_gate_nor_of_its_reserve(tmp_path: Path) -> None:
    from tests.tiny import write_base
    from tunetrail.stages.prepare import prepare

    base = write_base(tmp_path / "base")
    held(tmp_path, data(tmp_path, 150))
    canonical = data(tmp_path, 300)
    gate = held(tmp_path, canonical)
    validate(canonical, tmp_path / "validated")
    prepare(canonical, tmp_path / "validated", base, 16, tmp_path / "prepared")
    used: set[str] = set()
    for name in ("fit/train", "fit/selection", "test/test"):
        used |= set(pd.read_parquet(tmp_path / "prepared" / f"{name}.parquet")["id"])
    assert gate.reserve > 0
    assert len(used) + len(gate.rows) + gate.reserve == 300
    assert not used & set(gate.rows["id"])


@pytest.mark.parametrize(
    ("generation", "problem", "fix"),
    [
        (3, "gate.generation is 3; the last one of task 'toy' is 1", "set it to 1 to keep"),
        (2, "a new generation of the gate would have 0 rows; 30 are the least", "until more data"),
    ],
)
def test_a_generation_needs_the_one_before_it_and_new_rows(
    tmp_path: Path, generation: int, problem: str, fix: str
) -> None:
    canonical = data(tmp_path, 200)
    held(tmp_path, canonical)
    before = (tmp_path / "gate.json").read_bytes()
    with pytest.raises(TuneTrailError, match=problem) as error:
        held(tmp_path, canonical, generation)
    assert fix in error.value.fix
    assert (tmp_path / "gate.json").read_bytes() == before


def test_a_task_without_a_share_has_no_set_and_may_take_one_later(tmp_path: Path) -> None:
    assert gate_set(data(tmp_path, 50, split={}), tmp_path / "gate.json", 1) is None
    assert not (tmp_path / "gate.json").exists()
    assert len(held(tmp_path, data(tmp_path, 200)).rows) > 30
