"""Built-in tasks: each declaration, and those whose data is there on that data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from tests.conftest import ROOT, SHARED_DATA
from tests.tiny import make_rows, make_spec, write_base, write_rows
from tunetrail import metrics
from tunetrail.errors import TuneTrailError
from tunetrail.files import read_json, tree_digest
from tunetrail.kinds import kind_of
from tunetrail.layout import CARD, METRICS, PREDICTIONS, RESULT, RUN
from tunetrail.run import PlannedRun, write_run
from tunetrail.sources import read_source
from tunetrail.stages.evaluate import evaluate
from tunetrail.stages.ingest import ingest
from tunetrail.stages.train import train
from tunetrail.stages.validate import validate
from tunetrail.task import built_in_tasks, load_task

pytestmark = pytest.mark.usefixtures("fresh_accelerate")

#: Task → its first metric. GLUE as on its leaderboard, the domain sets as in arXiv 2004.10964.
GLUE = {
    "cola": "matthews", "sst2": "accuracy", "mrpc": "f1", "qqp": "f1", "stsb": "spearman",
    "mnli": "accuracy", "mnli_mismatched": "accuracy", "qnli": "accuracy", "rte": "accuracy",
    "wnli": "accuracy",
}  # fmt: skip
#: Domain set → its domain and its first metric.
DOMAINS = {
    "chemprot": ("biomedicine", "f1_micro"),
    "rct": ("biomedicine", "f1_micro"),
    "acl_arc": ("computer science", "f1_macro"),
    "scierc": ("computer science", "f1_macro"),
    "hyperpartisan": ("news", "f1_macro"),
    "agnews": ("news", "f1_macro"),
    "helpfulness": ("reviews", "f1_macro"),
    "imdb": ("reviews", "f1_macro"),
}

#: Task → folder of its data, rows of each set, rows of train and selection that leak.
LOCAL: dict[str, tuple[str, tuple[int, int, int], int]] = {
    "mrpc": ("glue/mrpc", (3668, 408, 1725), 37),
    "cola": ("glue/cola", (7675, 876, 1043), 154),
    "stsb": ("glue/stsb", (5183, 566, 1500), 9),
    "sst2": ("glue/sst2", (6180, 740, 872), 1),
    "chemprot": ("domain/chemprot", (4169, 2427, 3469), 7),
    "acl_arc": ("domain/acl_arc", (1688, 114, 139), 176),
    "scicite": ("domain/scicite", (7320, 916, 1861), 90),
    "agnews": ("domain/agnews", (5600, 1000, 1000), 13),
    "squad": ("squad", (7149, 789, 1190), 0),
}


def test_the_benchmarks_of_the_papers_are_built_in() -> None:
    assert GLUE.keys() | DOMAINS.keys() | LOCAL.keys() <= built_in_tasks().keys()


@pytest.mark.parametrize("name", built_in_tasks())
def test_a_declaration_needs_nothing_but_its_data(name: str) -> None:
    task = load_task(name, {"source": "data.csv"}, "test")
    assert task.title
    assert task.domain
    kind = kind_of(task)
    for metric in task.metrics:
        metrics.find(metric).check(kind.predicts, len(task.labels), "test")
    expected = {**GLUE, **{n: metric for n, (_, metric) in DOMAINS.items()}}
    assert task.primary_metric == expected.get(name, task.primary_metric)
    if name in DOMAINS:
        assert task.domain == DOMAINS[name][0]


def test_glue_is_named_on_the_hub() -> None:
    pointers = {path.stem: path for path in (ROOT / "data" / "glue").glob("*.yaml")}
    assert pointers.keys() == GLUE.keys() - {"mnli_mismatched"}
    for name, path in pointers.items():
        content = yaml.safe_load(path.read_text())
        assert (content["repo"], content["config"]) == ("nyu-mll/glue", name)
        assert read_source(path).kind == "hub"
    # MNLI's second development set is the test set of a task of its own.
    assert yaml.safe_load(pointers["mnli"].read_text())["splits"] == {
        "validation": "validation_matched",
        "test": "validation_mismatched",
    }
    assert read_source(ROOT / "data" / "squad.yaml").kind == "hub"


@pytest.mark.parametrize("name", sorted(GLUE.keys() - {"mrpc"}))
def test_where_test_labels_are_hidden_validation_is_the_test_set(name: str, tmp_path: Path) -> None:
    task = load_task(name, {"source": str(tmp_path)}, "test")
    numbers = np.arange(90)
    for split in ("train", "validation", "test"):
        frame = pd.DataFrame({"label": numbers % 2})
        for column in filter(None, (task.columns.text, task.columns.text_pair)):
            frame[column] = [f"{split} {column} {number}" for number in numbers]
        if split == "test" and name != "mnli_mismatched":
            frame["label"] = -1
        frame.to_csv(tmp_path / f"{split}.csv", index=False)
    ingest(task, tmp_path / "canonical")
    canonical = pd.read_parquet(tmp_path / "canonical" / "data.parquet")
    held_out = canonical[canonical["split"] == "test"]
    wanted = "test" if name == "mnli_mismatched" else "validation"
    assert held_out["text"].str.startswith(wanted).all()
    assert canonical["split"].value_counts().to_dict() == {"train": 90, "test": 90}


def test_files_without_an_ending_are_found_by_name(tmp_path: Path) -> None:
    task = load_task("cola", {"source": str(tmp_path)}, "test")
    (tmp_path / "train.parquet").touch()
    with pytest.raises(TuneTrailError, match=r"files\.test .validation. is not in the source"):
        ingest(task, tmp_path / "canonical")


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="benchmark data is not on this machine")
@pytest.mark.parametrize("name", LOCAL)
def test_real_data_passes_the_gate(name: str, tmp_path: Path) -> None:
    folder, sets, leaking = LOCAL[name]
    ingest(load_task(name, {"source": str(SHARED_DATA / folder)}, "test"), tmp_path / "canonical")
    validate(tmp_path / "canonical", tmp_path / "validated")
    gate = read_json(tmp_path / "validated" / RESULT)
    assert gate["sets"] == dict(zip(("train", "selection", "test"), sets, strict=True))
    assert len(gate["dropped"]) == leaking
    rare = {"selection": ["AGONIST-INHIBITOR"], "test": ["SUBSTRATE_PRODUCT-OF"]}
    assert gate["classes_missing"] == (rare if name == "chemprot" else {})
    assert sum(read_json(tmp_path / "canonical" / CARD)["labels"].values()) in (0, sum(sets))


def test_classes_may_be_missing_from_any_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five classes are declared: the first is not in train, the last in no set, … ."""
    monkeypatch.chdir(tmp_path)
    base = write_base(tmp_path / "base")
    for seed, (name, absent) in enumerate({"train": 0, "selection": 1, "test": 2}.items()):
        rows = make_rows(60, seed)
        folder = tmp_path / ("test" if name == "test" else "fit")
        write_rows(rows.take(np.flatnonzero(rows.labels != absent)), folder / f"{name}.parquet")
    spec = make_spec(
        base=make_spec().base.model_dump() | {"digest": tree_digest(base / "model")},
        data=make_spec().data.model_dump()
        | {"labels": ["a", "b", "c", "d", "e"], "metrics": ["f1_macro", "f1_micro", "accuracy"]}
        | {"fit": tree_digest(tmp_path / "fit"), "test": tree_digest(tmp_path / "test")},
    )
    write_run(tmp_path / RUN, PlannedRun("head", "full", spec))
    train(tmp_path / RUN, base, tmp_path / "fit", tmp_path / "adapter")
    evaluate(tmp_path / RUN, base, tmp_path / "adapter", tmp_path / "test", tmp_path / "scores")
    found = pd.read_parquet(tmp_path / "scores" / PREDICTIONS)
    assert set(found["label"]) == {0, 1}
    assert found["scores"].map(len).eq(5).all()
    scores = read_json(tmp_path / "scores" / METRICS)
    assert scores["f1_micro"] == pytest.approx(scores["accuracy"])
    assert scores["f1_macro"] <= 1
