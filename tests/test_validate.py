"""The gate: every check passes, fails, tolerates and is waived when its task says so."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.conftest import SHARED_DATA
from tests.tiny import write_base
from tunetrail.errors import TuneTrailError
from tunetrail.near_duplicates import plain, similarity
from tunetrail.stages.ingest import DATA, ingest
from tunetrail.stages.prepare import prepare
from tunetrail.stages.validate import run_suite, suite, validate, with_facts
from tunetrail.task import Checks, TaskSpec

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


#: 15 words, of which one can change.
SENTENCE = (
    "the ferry left our harbour before sunrise and carried forty crates of oranges to islands"
)


def nearly_leak(data: dict[str, list[dict[str, Any]]]) -> None:
    data["test"][4]["text"] = SENTENCE
    data["train"][2]["text"] = f"{SENTENCE.replace('forty', 'fifty').upper()}!"


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
    "near_leakage": (nearly_leak, ["train-2"], "expect_column_values_to_be_in_set"),
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


# Near-duplicates -------------------------------------------------------------------------------


OTHER = "a retired teacher lends her maps of imaginary islands to children"


def changed(word: str) -> str:
    """The sentence with another word in the middle."""
    return SENTENCE.replace("sunrise", word)


def nearly_spread(data: dict[str, list[dict[str, Any]]]) -> None:
    """Near-duplicates in every set, a repetition in train, and an exact leak."""
    data["train"][0]["text"] = changed("dawn")
    data["train"][1]["text"] = changed("noon")
    data["validation"][6]["text"] = OTHER.upper()
    data["test"][7]["text"] = OTHER
    data["test"][8]["text"] = SENTENCE
    data["train"][3]["text"] = f"{data['validation'][3]['text']}!"
    data["train"][9]["text"] = data["test"][9]["text"]


def test_rows_nearly_in_a_later_set_are_dropped_and_counted(tmp_path: Path) -> None:
    case = make(tmp_path, nearly_spread, checks={"near_leakage": 0.14, "leakage": 0.1})
    result = case.validate()
    assert case.error is None
    assert outcomes(result)["tolerated"] == {"leakage", "near_leakage"}
    expected = ["train-0", "train-1", "train-3", "train-9", "validation-6"]
    assert sorted(result["dropped"]) == expected
    assert result["dropped_by_check"] == {"leakage": 1, "near_leakage": 4}
    page = (case.out / "index.html").read_text()
    assert "Dropped as leaking: 5 (1 equal, 4 nearly equal)." in page
    assert f"similar (0.81) to row test-8: {SENTENCE}" in page


def test_too_many_near_duplicates_are_shown_with_what_they_resemble(tmp_path: Path) -> None:
    case = make(tmp_path, nearly_spread, checks={"near_leakage": 0.13, "leakage": 0.1})
    result = case.validate()
    assert outcomes(result)["failed"] == {"near_leakage"}
    assert case.error is not None
    assert case.error.problem == (
        "task 'toy': the data failed 1 of 21 checks\n"
        "  near_leakage: no text is 0.8 or more similar to one in a later set; "
        "4 rows, 13.33% (limit 13.00%)\n"
        f"    row train-0: {changed('dawn')!r}\n"
        f"      similar (0.81) to row test-8: {SENTENCE!r}\n"
        f"    row train-1: {changed('noon')!r}\n"
        f"      similar (0.81) to row test-8: {SENTENCE!r}\n"
        "    row train-3: 'validation text 3!'\n"
        "      similar (1.00) to row validation-3: 'validation text 3'\n"
        f"    row validation-6: {OTHER.upper()!r}\n"
        f"      similar (1.00) to row test-7: {OTHER!r}"
    )
    assert "raise the share in the task's 'checks'" in case.error.fix


def test_waived_near_duplicates_are_dropped_all_the_same(tmp_path: Path) -> None:
    waive = {"near_leakage": "one press release in several papers"}
    case = make(tmp_path, nearly_leak, checks={"near_leakage": 0.0}, waive=waive)
    result = case.validate()
    assert case.error is None
    assert outcomes(result)["waived"] == {"near_leakage"}
    assert result["dropped"] == ["train-2"]
    page = (case.out / "index.html").read_text()
    assert "Waived: near_leakage — one press release in several papers" in page


def test_similarity_from_which_texts_are_nearly_the_same_is_declared(tmp_path: Path) -> None:
    for threshold, dropped in ((0.82, []), (0.8, ["train-2"])):
        folder = tmp_path / str(threshold)
        folder.mkdir()
        checks = {"near_duplicate": threshold, "near_leakage": 0.1}
        assert make(folder, nearly_leak, checks=checks).validate()["dropped"] == dropped


@pytest.mark.parametrize("value", [0.49, 1.01])
def test_similarity_out_of_range_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="near_duplicate"):
        Checks(near_duplicate=value)


def test_similarity_is_no_check_to_waive(tmp_path: Path) -> None:
    with pytest.raises(TuneTrailError, match="unknown check 'near_duplicate'"):
        make(tmp_path, waive={"near_duplicate": "no"})


def test_near_duplicates_within_a_set_stay(tmp_path: Path) -> None:
    def repeat_nearly(data: dict[str, list[dict[str, Any]]]) -> None:
        data["train"][0]["text"], data["train"][1]["text"] = changed("dawn"), changed("noon")

    assert set(outcomes(make(tmp_path, repeat_nearly).validate())) == {"passed"}


def test_pair_of_near_duplicates_is_no_leak(tmp_path: Path) -> None:
    def paraphrase(data: dict[str, list[dict[str, Any]]]) -> None:
        data["train"][0].update(text=changed("dawn"), pair=changed("noon"))
        data["test"][0].update(text=f"{SENTENCE} indeed", pair="something else altogether")

    case = make(tmp_path, paraphrase, columns=PAIR)
    assert set(outcomes(case.validate())) == {"passed"}


def test_pair_leaks_where_both_texts_do(tmp_path: Path) -> None:
    def spread(data: dict[str, list[dict[str, Any]]]) -> None:
        data["train"][0].update(text=changed("dawn"), pair="Did it leave?")
        data["test"][5].update(text=changed("noon"), pair="did it leave")

    case = make(tmp_path, spread, columns=PAIR, checks={"near_leakage": 0.0})
    case.validate()
    assert case.error is not None
    assert (
        f"    row train-0: {changed('dawn') + ' / Did it leave?'!r}\n"
        f"      similar (0.81) to row test-5: {changed('noon') + ' / did it leave'!r}"
    ) in case.error.problem


def test_order_of_rows_changes_nothing(tmp_path: Path) -> None:
    def spread(data: dict[str, list[dict[str, Any]]]) -> None:
        nearly_spread(data)
        data["test"][2]["text"] = f"{SENTENCE}!"  # as similar as the other one

    case = make(tmp_path, spread, checks={"near_leakage": 0.2, "leakage": 0.1})
    first = case.validate()
    case.damage(lambda frame: frame.sample(frac=1, random_state=1))
    second = case.validate()
    assert sorted(first["dropped"]) == sorted(second["dropped"])
    shown = [
        sorted(
            (entry for check in result["checks"] for entry in check["rows"]), key=lambda r: r["id"]
        )
        for result in (first, second)
    ]
    assert shown[0] == shown[1]
    assert {entry["near"]["id"] for entry in shown[0] if "near" in entry} == {
        "test-2", "test-7", "validation-3",
    }  # fmt: skip


def test_dropped_rows_are_not_prepared(tmp_path: Path) -> None:
    case = make(tmp_path, nearly_spread, checks={"near_leakage": 0.2, "leakage": 0.1})
    dropped = set(case.validate()["dropped"])
    base = write_base(tmp_path / "base")
    prepare(case.canonical, case.out, base, 32, tmp_path / "prepared")
    ids = {
        name: set(pd.read_parquet(tmp_path / "prepared" / folder / f"{name}.parquet")["id"])
        for name, folder in (("train", "fit"), ("selection", "fit"), ("test", "test"))
    }
    assert ids["train"] == {f"train-{i}" for i in range(10)} - dropped
    assert ids["selection"] == {f"validation-{i}" for i in range(10)} - dropped
    assert ids["test"] == {f"test-{i}" for i in range(10)}
    assert [len(rows) for rows in ids.values()] == [6, 9, 10]


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="benchmark data is not on this machine")
def test_paraphrases_within_pairs_are_not_counted(tmp_path: Path) -> None:
    task = TaskSpec.model_validate(
        {
            "name": "mrpc",
            "source": SHARED_DATA / "glue" / "mrpc",
            "columns": {"text": "sentence1", "text_pair": "sentence2", "label": "label"},
            "labels": ["different", "paraphrase"],
        }
    )
    ingest(task, tmp_path / "canonical")
    validate(tmp_path / "canonical", tmp_path / "validated")
    result = json.loads((tmp_path / "validated" / "result.json").read_text())
    rows = pd.read_parquet(tmp_path / "canonical" / DATA)
    alike = [
        similarity((plain(a),), (plain(b),)) >= 0.8
        for a, b in zip(rows["text"], rows["text_pair"], strict=True)
    ]
    assert sum(alike) > 60
    assert 20 < result["dropped_by_check"]["near_leakage"] < 60


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
