"""Which set a row falls into: properties that hold whatever the data, and nested limits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tiny import write_base
from tunetrail.splits import SETS, assign_sets, position, text_keys
from tunetrail.stages.ingest import ingest
from tunetrail.stages.prepare import prepare
from tunetrail.stages.validate import validate
from tunetrail.task import TaskSpec


def task(**changes: Any) -> TaskSpec:
    declared = {
        "name": "toy",
        "source": "data.csv",
        "columns": {"text": "text", "label": "label"},
        "labels": ["neg", "pos"],
    }
    return TaskSpec.model_validate({**declared, **changes})


def frame(groups: list[str], splits: list[str | None]) -> pd.DataFrame:
    return pd.DataFrame(
        {"group": pd.Series(groups, dtype="str"), "split": pd.Series(splits, dtype="str")}
    )


Row = tuple[str, str | None]

#: Split names that a dataset may come with; None is a file that is not split.
GIVEN = [(None,), ("train", "validation"), ("train", "test"), ("train", "validation", "test")]


@st.composite
def grown_data(draw: st.DrawFn) -> tuple[list[Row], list[Row]]:
    """Rows, and more rows that come later; every split has a row from the start."""
    names = draw(st.sampled_from(GIVEN))
    group = st.one_of(st.integers(0, 12).map(str), st.text(max_size=4))
    row = st.tuples(group, st.sampled_from(names))
    first = [(draw(group), name) for name in names]
    return first + draw(st.lists(row, max_size=25)), draw(st.lists(row, max_size=25))


shares = st.floats(0.05, 0.9)


@settings(deadline=None)
@given(data=grown_data(), test=shares, selection=shares)
def test_new_rows_never_move_old_rows(
    data: tuple[list[Row], list[Row]], test: float, selection: float
) -> None:
    old, new = data
    judged = task(split={"test": test, "selection": selection})
    before = assign_sets(frame(*map(list, zip(*old, strict=True))), judged)
    after = assign_sets(frame(*map(list, zip(*old + new, strict=True))), judged)
    assert set(after) <= set(SETS)
    assert after[: len(old)].tolist() == before.tolist()
    # New rows in front of the old ones change nothing either.
    shuffled = assign_sets(frame(*map(list, zip(*new + old, strict=True))), judged)
    assert shuffled[len(new) :].tolist() == before.tolist()


@settings(deadline=None)
@given(data=grown_data(), test=shares, selection=shares)
def test_rows_of_one_group_are_never_drawn_into_two_sets(
    data: tuple[list[Row], list[Row]], test: float, selection: float
) -> None:
    rows = data[0] + data[1]
    table = frame(*map(list, zip(*rows, strict=True)))
    table["set"] = assign_sets(table, task(split={"test": test, "selection": selection}))
    drawn = table[table["split"].isna() | (table["split"] == "train")]
    assert (drawn.groupby("group")["set"].nunique() == 1).all()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            ("train", "validation", "test"),
            {"train": {"train"}, "validation": {"selection"}, "test": {"test"}},
        ),
        (("train", "test"), {"train": {"train", "selection"}, "test": {"test"}}),
        (("train", "validation"), {"train": {"train", "selection"}, "validation": {"test"}}),
        (("train",), {"train": set(SETS)}),
        ((None,), {None: set(SETS)}),
    ],
    ids=["all three", "no validation", "no test", "train only", "not split"],
)
def test_given_splits_are_kept_and_missing_ones_drawn(
    given: tuple[str | None, ...], expected: dict[str | None, set[str]]
) -> None:
    names = [name for name in given for _ in range(300)]
    sets = assign_sets(frame([f"group {i}" for i in range(len(names))], names), task())
    found = {name: {s for s, n in zip(sets, names, strict=True) if n == name} for name in given}
    assert found == expected


def test_shares_are_of_groups_and_selection_is_of_what_is_not_test() -> None:
    groups = [str(i) for i in range(4000)]
    judged = task(split={"test": 0.4, "selection": 0.5})
    shares = assign_sets(frame(groups, [None] * 4000), judged).value_counts(normalize=True)
    expected = {"test": 0.4, "selection": 0.3, "train": 0.3}
    assert shares.to_dict() == pytest.approx(expected, abs=0.03)  # 4 standard errors


@given(key=st.text(), salt=st.text(max_size=8))
def test_position_is_a_pure_number_below_one(key: str, salt: str) -> None:
    assert 0 <= position(key, salt) < 1
    assert position(key, salt) == position(key, salt)


def test_position_is_the_same_on_every_machine() -> None:
    # sha256("split\x1fgroup"), first 8 bytes over 2**64. A change here moves everybody's rows.
    assert position("group", "split") == pytest.approx(0.6417291819710731, abs=1e-15)
    assert position("group", "order") != position("group", "split")


def test_equal_texts_have_equal_keys_whatever_their_blanks() -> None:
    table = pd.DataFrame(
        {
            "text": ["a  b", " a b\n", "ab", "a b", "a", None],
            "text_pair": [None, None, None, "c", "b c", None],
        }
    )
    keys = text_keys(table).tolist()
    assert keys[0] == keys[1]
    assert len(set(keys)) == 5


# Limits ----------------------------------------------------------------------------------------


class Prepared:
    """Data that went through ingest and validate once, to be prepared under any limits."""

    def __init__(self, root: Path) -> None:
        self.root = root
        rows = [f"text {i},{'neg' if i % 3 else 'pos'}" for i in range(150)]
        (root / "data.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
        self.base = write_base(root / "base")
        self.count = 0

    def ids(self, **limits: int) -> dict[str, list[str]]:
        """Ids of each set, in the order in which they were written."""
        self.count += 1
        here = self.root / str(self.count)
        ingest(task(source=self.root / "data.csv", limits=limits), here / "canonical")
        validate(here / "canonical", here / "validated")
        out = here / "prepared"
        prepare(here / "canonical", here / "validated", self.base, 16, out)
        files = {"train": "fit", "selection": "fit", "test": "test"}
        return {
            name: pd.read_parquet(out / folder / f"{name}.parquet")["id"].tolist()
            for name, folder in files.items()
        }


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return Prepared(tmp_path_factory.mktemp("limits"))


def test_a_smaller_limit_keeps_the_first_rows_of_a_larger_one(prepared: Prepared) -> None:
    everything = prepared.ids()
    large = prepared.ids(train=40, selection=8, test=12)
    small = prepared.ids(train=10, selection=3, test=5)
    assert sorted(int(i) for ids in everything.values() for i in ids) == list(range(150))
    assert {name: len(ids) for name, ids in large.items()} == {
        "train": 40,
        "selection": 8,
        "test": 12,
    }
    for name in SETS:
        assert large[name] == everything[name][: len(large[name])]
        assert small[name] == large[name][: len(small[name])]
    # The order is drawn: the rows kept are not the first of the file.
    assert small["train"] != sorted(everything["train"], key=int)[:10]


def test_a_limit_beyond_the_data_keeps_everything(prepared: Prepared) -> None:
    assert prepared.ids(train=10_000) == prepared.ids()
