"""The gate: every check passes, fails, tolerates and is waived when its task says so."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tunetrail.errors import TuneTrailError
from tunetrail.stages.ingest import DATA, ingest
from tunetrail.stages.validate import run_suite, suite, validate, with_facts
from tunetrail.task import TaskSpec

#: 10 rows a split, two classes in turn, texts that differ.
SPLITS = ("train", "validation", "test")


@dataclass
class Case:
    """A small dataset on its way through ingest and validate."""

    task: TaskSpec
    canonical: Path
    out: Path

    def raw(self, name: str) -> list[dict[str, Any]]:
        """What Great Expectations itself says of the check ``name``."""
        frame = with_facts(pd.read_parquet(self.canonical / DATA), self.task)
        checks = [check for check in suite(self.task) if check.name == name]
        return [outcome for _, outcome in run_suite(frame, checks, "toy", None)]

    def validate(self) -> dict[str, Any]:
        """``result.json``, whether the gate opened or not."""
        try:
            validate(self.canonical, self.out)
        except TuneTrailError as error:
            self.error = error
        else:
            self.error = None
        return json.loads((self.out / "result.json").read_text())

    def damage(self, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
        """Change canonical data by hand."""
        path = self.canonical / DATA
        change(pd.read_parquet(path)).to_parquet(path, index=False)


def rows_of(split: str) -> list[dict[str, Any]]:
    return [
        {"text": f"{split} text {i}", "pair": f"{split} pair {i}", "label": ["neg", "pos"][i % 2]}
        for i in range(10)
    ]


Edit = Callable[[dict[str, list[dict[str, Any]]]], None]


def make(tmp_path: Path, edit: Edit | None = None, **changes: Any) -> Case:
    """Ingest CSV files of clean rows after ``edit`` has spoilt some of them."""
    data = {split: rows_of(split) for split in SPLITS}
    if edit:
        edit(data)
    (tmp_path / "data").mkdir()
    for split, rows in data.items():
        pd.DataFrame(rows).to_csv(tmp_path / "data" / f"{split}.csv", index=False)
    declared = {
        "name": "toy",
        "source": tmp_path / "data",
        "columns": {"text": "text", "label": "label"},
        "labels": ["neg", "pos"],
    }
    task = TaskSpec.model_validate({**declared, **changes})
    ingest(task, tmp_path / "canonical")
    return Case(task, tmp_path / "canonical", tmp_path / "validated")


def outcomes(result: dict[str, Any]) -> dict[str, set[str]]:
    """Outcome → names of the checks that had it."""
    found: dict[str, set[str]] = {}
    for entry in result["checks"]:
        found.setdefault(entry["outcome"], set()).add(entry["check"])
    return found


def set_text(text: str, row: int = 3) -> Edit:
    return lambda data: data["train"][row].update(text=text)


def repeat(data: dict[str, list[dict[str, Any]]]) -> None:
    data["train"].append(dict(data["train"][2]))


def contradict(data: dict[str, list[dict[str, Any]]]) -> None:
    data["train"][3] = {**data["train"][2], "label": "pos"}


def leak(data: dict[str, list[dict[str, Any]]]) -> None:
    data["train"][2] = dict(data["test"][4])


#: Check → (edit, the rows it spoils, expectation that must notice).
SPOILT: dict[str, tuple[Edit, list[str], str]] = {
    "blank": (set_text(" \t "), ["train-3"], "expect_column_values_to_match_regex"),
    "length": (set_text("x" * 30_000), ["train-3"], "expect_column_value_lengths_to_be_between"),
    "encoding": (
        set_text("caf\u00c3\u00a9"),
        ["train-3"],
        "expect_column_values_to_not_match_regex",
    ),
    "duplicates": (repeat, ["train-10"], "expect_column_values_to_be_in_set"),
    "conflicts": (contradict, ["train-2", "train-3"], "expect_column_values_to_be_in_set"),
    "leakage": (leak, ["train-2"], "expect_column_values_to_be_in_set"),
}
EVERY = pytest.mark.parametrize("check", SPOILT)


def test_clean_data_passes_every_check(tmp_path: Path) -> None:
    case = make(tmp_path)
    result = case.validate()
    assert case.error is None
    assert result["passed"] is True
    assert set(outcomes(result)) == {"passed"}
    assert result["dropped"] == []
    assert result["sets"] == {"train": 10, "selection": 10, "test": 10}
    names = {check.name for check in suite(case.task)}
    assert names == {entry["check"] for entry in result["checks"]}
    raw = [outcome for name in names for outcome in case.raw(name)]
    assert len(raw) == len(result["checks"])
    assert all(outcome["success"] for outcome in raw)


@EVERY
def test_rows_beyond_the_share_stop_the_pipeline(check: str, tmp_path: Path) -> None:
    edit, rows, expectation = SPOILT[check]
    case = make(tmp_path, edit, checks={check: 0.01})
    (raw,) = case.raw(check)
    assert raw["expectation_config"]["type"] == expectation
    assert raw["success"] is False
    assert [row["id"] for row in raw["result"]["unexpected_index_list"]] == rows

    result = case.validate()
    assert result["passed"] is False
    assert outcomes(result)["failed"] == {check}
    (entry,) = [entry for entry in result["checks"] if entry["check"] == check]
    assert [row["id"] for row in entry["rows"]] == rows
    assert entry["share"] == pytest.approx(len(rows) / result["rows"])
    assert (case.out / "index.html").stat().st_size > 0
    assert case.error is not None
    for row in entry["rows"]:
        assert f"row {row['id']}: {row['text']!r}" in case.error.problem
    assert f"  {check}: " in case.error.problem
    assert "(limit 1.00%)" in case.error.problem
    assert "'waive'" in case.error.fix


@EVERY
def test_rows_within_the_share_are_tolerated(check: str, tmp_path: Path) -> None:
    edit, rows, expectation = SPOILT[check]
    case = make(tmp_path, edit, checks={check: 0.1})
    (raw,) = case.raw(check)
    assert raw["expectation_config"]["type"] == expectation
    assert raw["success"] is True
    assert [row["id"] for row in raw["result"]["unexpected_index_list"]] == rows
    result = case.validate()
    assert case.error is None
    assert result["passed"] is True
    assert outcomes(result).keys() == {"passed", "tolerated"}
    assert outcomes(result)["tolerated"] == {check}


@EVERY
def test_waived_check_fails_without_stopping_the_pipeline(check: str, tmp_path: Path) -> None:
    case = make(tmp_path, SPOILT[check][0], checks={check: 0.01}, waive={check: "known & <old>"})
    (raw,) = case.raw(check)
    assert raw["success"] is False
    result = case.validate()
    assert case.error is None
    assert result["passed"] is True
    assert outcomes(result)["waived"] == {check}
    assert result["waived"] == {check: "known & <old>"}
    assert "known &amp; &lt;old&gt;" in (case.out / "index.html").read_text()


def test_waiver_of_one_check_does_not_excuse_another(tmp_path: Path) -> None:
    case = make(tmp_path, SPOILT["blank"][0], waive={"length": "known"})
    assert outcomes(case.validate())["failed"] == {"blank"}
    assert case.error is not None


@pytest.mark.parametrize("spoilt", [1, 3, 18, 29, 41, 57])
def test_exactly_the_share_is_tolerated_and_one_more_row_is_not(
    spoilt: int, tmp_path: Path
) -> None:
    def edit(data: dict[str, list[dict[str, Any]]]) -> None:
        for split in ("validation", "test"):
            data[split] = data[split][:2]
        data["train"] = [
            {"text": f"{chr(0xFFFD) if i < spoilt else ''}{i}", "label": ["neg", "pos"][i % 2]}
            for i in range(96)
        ]

    case = make(tmp_path, edit, checks={"encoding": spoilt / 100})
    assert case.raw("encoding")[0]["success"] is True
    stricter = case.task.checks.model_copy(update={"encoding": (spoilt - 1) / 100})
    case.task = case.task.model_copy(update={"checks": stricter})
    assert case.raw("encoding")[0]["success"] is False


# The majority class ----------------------------------------------------------------------------


def lopsided(data: dict[str, list[dict[str, Any]]]) -> None:
    for row in data["train"][:6]:
        row["label"] = "neg"  # 18 of 30 rows


@pytest.mark.parametrize(
    ("limit", "waive", "outcome"),
    [(0.7, {}, "passed"), (0.55, {}, "failed"), (0.55, {"majority": "rare class"}, "waived")],
)
def test_share_of_the_largest_class_is_limited(
    limit: float, waive: dict[str, str], outcome: str, tmp_path: Path
) -> None:
    case = make(tmp_path, lopsided, checks={"majority": limit}, waive=waive)
    (raw,) = case.raw("majority")
    assert raw["expectation_config"]["type"] == "expect_column_mean_to_be_between"
    assert raw["success"] is (outcome == "passed")
    assert raw["result"]["observed_value"] == pytest.approx(0.6)
    result = case.validate()
    assert "majority" in outcomes(result)[outcome]
    assert (case.error is not None) == (outcome == "failed")
    if case.error:
        assert "no label holds more than 55% of the rows; found 0.6" in case.error.problem


# Structure: no row may fail --------------------------------------------------------------------


@pytest.mark.parametrize("column", ["id", "group", "split", "text", "text_pair", "label"])
def test_missing_column_is_noticed(column: str, tmp_path: Path) -> None:
    case = make(tmp_path)
    frame = with_facts(pd.read_parquet(case.canonical / DATA), case.task)
    for content, success in ((frame, True), (frame.drop(columns=column), False)):
        check = [c for c in suite(case.task) if c.name == f"column {column}"]
        ((_, raw),) = run_suite(content, check, "toy", None)
        assert raw["expectation_config"]["type"] == "expect_column_to_exist"
        assert raw["success"] is success


@pytest.mark.parametrize("column", ["id", "group", "split", "text", "text_pair", "label"])
def test_canonical_data_without_a_column_is_a_clear_error(column: str, tmp_path: Path) -> None:
    case = make(tmp_path)
    case.damage(lambda frame: frame.drop(columns=column))
    with pytest.raises(TuneTrailError, match=f"'{column}'"):
        validate(case.canonical, case.out)


def replace(column: str, value: Any, dtype: str | None = None) -> Callable[..., pd.DataFrame]:
    """Put ``value`` into the first row's ``column``."""

    def change(frame: pd.DataFrame) -> pd.DataFrame:
        frame = frame.astype({column: dtype}) if dtype else frame
        frame.loc[0, column] = value
        return frame

    return change


TYPES = "expect_column_values_to_be_in_type_list"


@pytest.mark.parametrize(
    ("change", "check", "expectation"),
    [
        (replace("label", 0.5, "float64"), "types", TYPES),
        (lambda f: f.assign(text=range(len(f))), "types", TYPES),
        (replace("id", "train-1"), "unique ids", "expect_column_values_to_be_unique"),
        (replace("label", 2), "labels", "expect_column_values_to_be_in_set"),
        (replace("label", -1), "labels", "expect_column_values_to_be_in_set"),
        (replace("label", pd.NA), "nulls in label", "expect_column_values_to_not_be_null"),
        (replace("text", None), "nulls in text", "expect_column_values_to_not_be_null"),
        (
            lambda f: f.assign(label=0).astype({"label": "Int64"}),
            "classes",
            "expect_column_unique_value_count_to_be_between",
        ),
    ],
    ids=[
        "label is a fraction",
        "texts are numbers",
        "id twice",
        "label too large",
        "label negative",
        "label missing",
        "text missing",
        "one class",
    ],
)
def test_structural_fault_stops_the_pipeline(
    change: Callable[[pd.DataFrame], pd.DataFrame], check: str, expectation: str, tmp_path: Path
) -> None:
    case = make(tmp_path)
    assert all(raw["success"] for raw in case.raw(check))
    case.damage(change)
    failed = [raw for raw in case.raw(check) if not raw["success"]]
    assert [raw["expectation_config"]["type"] for raw in failed] == [expectation]
    result = case.validate()
    assert check in outcomes(result)["failed"]
    assert case.error is not None
    assert f"  {check}: " in case.error.problem


# Pairs, leaks and absent classes ---------------------------------------------------------------


PAIR = {"text": "text", "text_pair": "pair", "label": "label"}


def test_second_text_of_a_pair_is_checked_as_well(tmp_path: Path) -> None:
    case = make(tmp_path, lambda data: data["test"][0].update(pair="  "), columns=PAIR)
    first, second = case.raw("blank")
    assert (first["success"], second["success"]) == (True, False)
    assert second["expectation_config"]["kwargs"]["column"] == "text_pair"
    assert outcomes(case.validate())["failed"] == {"blank"}


def test_pairs_that_share_one_text_are_not_repeated_or_leaking(tmp_path: Path) -> None:
    def share(data: dict[str, list[dict[str, Any]]]) -> None:
        for rows in data.values():
            for row in rows:
                row["text"] = "the same question"

    assert set(outcomes(make(tmp_path, share, columns=PAIR).validate())) == {"passed"}


def test_leaking_rows_are_listed_as_dropped_and_later_sets_keep_theirs(tmp_path: Path) -> None:
    def spread(data: dict[str, list[dict[str, Any]]]) -> None:
        data["train"][1]["text"] = data["test"][1]["text"]
        data["train"][5]["text"] = f"  {data['validation'][5]['text']} "  # blanks hide nothing
        data["validation"][7]["text"] = data["test"][7]["text"]

    case = make(tmp_path, spread, checks={"leakage": 0.1})
    result = case.validate()
    assert sorted(result["dropped"]) == ["train-1", "train-5", "validation-7"]
    assert outcomes(result)["tolerated"] == {"leakage"}


def test_repetition_counts_within_a_set_only(tmp_path: Path) -> None:
    case = make(tmp_path, leak, checks={"duplicates": 0.0, "leakage": 0.1})
    assert outcomes(case.validate())["tolerated"] == {"leakage"}


def test_class_without_a_row_in_a_set_is_reported(tmp_path: Path) -> None:
    def only_negative(data: dict[str, list[dict[str, Any]]]) -> None:
        for row in data["test"]:
            row["label"] = "neg"

    assert make(tmp_path, only_negative).validate()["classes_missing"] == {"test": ["pos"]}


def test_every_failed_check_is_in_one_error(tmp_path: Path) -> None:
    def spoil(data: dict[str, list[dict[str, Any]]]) -> None:
        set_text("", row=0)(data)
        set_text("\ufffd", row=1)(data)

    case = make(tmp_path, spoil)
    case.validate()
    assert case.error is not None
    assert "the data failed 3 of " in case.error.problem  # an empty text is too short as well
    for check in ("blank", "length", "encoding"):
        assert f"  {check}: " in case.error.problem


def test_at_most_five_rows_of_a_check_are_shown(tmp_path: Path) -> None:
    def spoil(data: dict[str, list[dict[str, Any]]]) -> None:
        for row in data["train"]:
            row["text"] = f"\ufffd {row['text']}"

    case = make(tmp_path, spoil)
    (entry,) = [e for e in case.validate()["checks"] if e["check"] == "encoding"]
    assert (entry["count"], len(entry["rows"])) == (10, 5)
    assert case.error is not None
    assert case.error.problem.count("row train-") == 5


def test_great_expectations_own_page_is_written_on_request(tmp_path: Path) -> None:
    case = make(tmp_path)
    validate(case.canonical, case.out, tmp_path / "pages")
    page = (tmp_path / "pages" / "validation.html").read_text()
    assert "Great Expectations" in page or "great_expectations" in page
