"""What prepare and resolve refuse before any training, and what a run's identity depends on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT
from tests.tiny import write_base
from tunetrail.errors import TuneTrailError
from tunetrail.params import Params, check_sources, read_params, task_of
from tunetrail.run import planned_runs, representatives
from tunetrail.stages.ingest import ingest
from tunetrail.stages.prepare import prepare
from tunetrail.stages.resolve import resolve
from tunetrail.stages.validate import validate

ROWS = "text,label\n" + "".join(
    f"{quality} word {number},{label}\n"
    for number in range(60)
    for quality, label in (("good", "yes"), ("bad", "no"))
)


class Case:
    """A small project: parameters, one task, a tiny base model."""

    def __init__(self, folder: Path, rows: str = ROWS, **changes: Any) -> None:
        self.folder = folder
        (folder / "data.csv").write_text(rows)
        task = {
            "source": str(folder / "data.csv"),
            "columns": {"text": "text", "label": "label"},
            "labels": ["no", "yes"],
            "metrics": ["accuracy"],
            **changes.pop("task", {}),
        }
        values = yaml.safe_load((ROOT / "params.yaml").read_text())
        values["base"]["source"] = str(folder)
        values |= {"tasks": {"own": task}, "methods": {"head": {}, "lora": {}}, "baseline": "lora"}
        self.path = folder / "params.yaml"
        self.path.write_text(yaml.safe_dump(values | changes))
        write_base(folder / "base")

    @property
    def params(self) -> Params:
        return read_params(self.path)

    def prepared(self, max_length: int = 16) -> Path:
        ingest(task_of(self.params, "own", self.path), self.folder / "canonical")
        validate(self.folder / "canonical", self.folder / "validated")
        out = self.folder / "prepared"
        base = self.folder / "base"
        prepare(self.folder / "canonical", self.folder / "validated", base, max_length, out)
        return out

    def plan(self) -> dict[tuple[str, int], str]:
        """(label, seed) → digest of the run."""
        prepared = self.prepared()
        out = self.folder / "plan"
        canonical, base = self.folder / "canonical", self.folder / "base"
        resolve(self.params, self.path, canonical, base, prepared, out)
        return {(run.method, run.seed): run.spec.digest for run in planned_runs(out)}


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    for split, rows in {"train": ROWS, "validation": ROWS.replace("word", "term")}.items():
        (tmp_path / f"{split}.csv").write_text(rows)
    (tmp_path / "test.csv").write_text("text,label\n")
    case = Case(tmp_path, task={"files": {s: f"{s}.csv" for s in ("train", "validation", "test")}})
    case.path.write_text(case.path.read_text().replace(str(tmp_path / "data.csv"), str(tmp_path)))
    with pytest.raises(TuneTrailError, match=r"task 'own': 'test[.]csv' has no rows"):
        case.prepared()


def test_an_empty_set_is_refused(tmp_path: Path) -> None:
    few = "\n".join(ROWS.splitlines()[:5]) + "\n"
    case = Case(tmp_path, few, task={"split": {"test": 0.01, "selection": 0.01}})
    with pytest.raises(TuneTrailError, match=r"task 'own': the selection set is empty\n.*add rows"):
        case.prepared()


def test_training_rows_of_one_class_are_refused(tmp_path: Path) -> None:
    for split in ("train", "validation", "test"):
        rows = ROWS.replace("word", split)
        kept = [line for line in rows.splitlines() if split != "train" or "yes" not in line]
        (tmp_path / f"{split}.csv").write_text("\n".join(kept) + "\n")
    case = Case(tmp_path, task={"files": {s: f"{s}.csv" for s in ("train", "validation", "test")}})
    case.path.write_text(case.path.read_text().replace(str(tmp_path / "data.csv"), str(tmp_path)))
    with pytest.raises(TuneTrailError, match="all 60 training rows have the label 'no'"):
        case.prepared()


def test_more_tokens_than_positions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TuneTrailError, match="max_length is 100: the model has 80 positions"):
        Case(tmp_path).prepared(max_length=100)


def test_a_rank_that_the_base_cannot_hold_is_refused_before_training(tmp_path: Path) -> None:
    case = Case(tmp_path, methods={"lora": {"rank": 33}})
    with pytest.raises(TuneTrailError, match="rank is 33, larger than the hidden size 32"):
        case.plan()


def test_two_labels_for_one_run_are_refused(tmp_path: Path) -> None:
    case = Case(tmp_path, methods={"lora": {}, "again": {"method": "lora", "rank": 8}})
    with pytest.raises(
        TuneTrailError,
        match="'again' with budget 'full' and 'lora' with budget 'full' are the same run",
    ):
        case.plan()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"methods": {"head": {}, "lora": {"rank": 4}}}, {"lora"}),
        ({"budgets": {"full": {"steps": 9}}}, {"head", "lora"}),
        ({"budgets": {"full": {"epochs": 2, "fraction": 0.5}}}, {"head", "lora"}),
        ({"budgets": {"full": {"epochs": 2, "patience": 1}}}, {"head", "lora"}),
        ({"training": {"batch_size": 8}}, {"head", "lora"}),
        ({"cost": {"steps": 3}}, set()),
        ({"export": {"tolerance": 0.1}}, set()),
        ({"project": "other"}, set()),
    ],
)
def test_what_decides_a_result_decides_the_identity_of_a_run(
    change: dict[str, Any], expected: set[str], tmp_path: Path
) -> None:
    (tmp_path / "before").mkdir()
    (tmp_path / "after").mkdir()
    before = Case(tmp_path / "before", numerics={"precision": "fp32"}).plan()
    after = Case(tmp_path / "after", numerics={"precision": "fp32"}, **change).plan()
    assert before.keys() == after.keys()
    assert {
        label for label, seed in before if before[label, seed] != after[label, seed]
    } == expected


def test_another_budget_leaves_the_runs_of_the_first_alone(tmp_path: Path) -> None:
    (tmp_path / "before").mkdir()
    (tmp_path / "after").mkdir()
    Case(tmp_path / "before").plan()
    budgets = {"full": {"epochs": 2}, "half": {"epochs": 2, "fraction": 0.5}}
    Case(tmp_path / "after", budgets=budgets).plan()
    before, after = (planned_runs(tmp_path / which / "plan") for which in ("before", "after"))
    assert {r.spec.digest for r in before} == {r.spec.digest for r in after if r.budget == "full"}
    assert {r.budget for r in after} == {"full", "half"}
    assert len({r.spec.digest for r in after}) == 2 * len(before)


def test_the_main_budget_stands_for_the_method(tmp_path: Path) -> None:
    budgets = {"half": {"epochs": 2, "fraction": 0.5}, "full": {"epochs": 2}}
    Case(tmp_path, budgets=budgets, seeds=[3, 1]).plan()
    found = representatives(tmp_path / "plan")
    assert {m: (r.budget, r.seed) for m, r in found.items()} == {
        "head": ("full", 3), "lora": ("full", 3)
    }  # fmt: skip


def test_more_shots_than_rows_of_a_class_are_refused_before_training(tmp_path: Path) -> None:
    case = Case(tmp_path, budgets={"full": {"epochs": 1, "shots": 500}})
    with pytest.raises(TuneTrailError, match=r"budgets\.full: shots is 500, but the training set"):
        case.plan()


def test_a_frozen_run_that_was_edited_is_refused(tmp_path: Path) -> None:
    case = Case(tmp_path)
    case.plan()
    run = tmp_path / "plan" / "lora" / "full" / "1.json"
    run.write_text(run.read_text().replace('"rank": 8', '"rank": 16'))
    with pytest.raises(TuneTrailError, match="was changed after it was frozen"):
        planned_runs(tmp_path / "plan")


def test_a_missing_source_is_named_with_its_key_before_any_work(tmp_path: Path) -> None:
    case = Case(tmp_path)
    check_sources(case.params, case.path)
    (tmp_path / "data.csv").unlink()
    with pytest.raises(TuneTrailError, match=r"tasks\.own\.source: source '.*' does not exist"):
        check_sources(case.params, case.path)


def test_data_docs_on_demand(tmp_path: Path) -> None:
    case = Case(tmp_path)
    ingest(task_of(case.params, "own", case.path), tmp_path / "canonical")
    validate(tmp_path / "canonical", tmp_path / "validated", tmp_path / "docs")
    page = (tmp_path / "docs" / "validation.html").read_text()
    assert "Great Expectations" in page
