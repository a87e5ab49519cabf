"""A small copy of a project: what it keeps, what it cuts, and where it refuses."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT, small_params
from tests.refusals import exit_code, refusal
from tunetrail.params import read_params
from tunetrail.place import PIPELINE


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Parameters and data of a project; nothing is executed in these tests."""
    folder = tmp_path / "project"
    (folder / "data").mkdir(parents=True)
    for name in ("data/hutto.yaml", "data/minilm.yaml", "dvc.yaml"):
        shutil.copyfile(ROOT / name, folder / name)
    (folder / "data" / "own.csv").write_text("sentence,class\nfine,good\npoor,bad\n")
    (folder / "params.yaml").write_text(yaml.safe_dump(small_params()))
    monkeypatch.chdir(folder)
    return folder


def change(**values: object) -> None:
    Path("params.yaml").write_text(yaml.safe_dump(small_params() | values))


def test_a_small_plan_is_valid_and_smaller(project: Path) -> None:
    Path("data/news.txt").write_text("one\ntwo\n")
    change(
        seeds=[7, 8, 9, 10],
        budgets={"few": {"epochs": 3, "fraction": 0.5}, "minutes": {"minutes": 1}},
        tuning={"trials": {"few": 4}},
        methods={"head": {"start": "news+tapt"}, "lora": {}},
        pretraining={
            "domain": {"news": {"text": "data/news.txt", "budget": {"epochs": 9}, "mask": 0.2}},
            "task": {"news": {"budget": {"epochs": 9}}},
        },
    )
    whole = read_params(Path("params.yaml"))
    assert exit_code("small", "../small", "--steps", "5", "--train", "50", "--seeds", "2") == 0
    cut = read_params(Path("../small/params.yaml"))
    for key in ("project", "base", "methods", "baseline", "margin", "main_budget", "training"):
        assert getattr(cut, key) == getattr(whole, key)
    assert cut.seeds == (7, 8)
    assert [(k, b.steps, b.fraction) for k, b in cut.budgets.items()] == [("few", 5, 1.0)]
    assert not cut.tuning.trials
    # What was smaller stays so.
    assert cut.tasks["movie"]["limits"] == {"train": 50, "selection": 40, "test": 60}
    assert cut.tasks["own"]["limits"] == {"train": 50, "selection": 100, "test": 300}
    assert {k: v for k, v in cut.tasks["own"].items() if k != "limits"} == whole.tasks["own"]
    news, adapted = cut.pretraining.domain["news"], cut.pretraining.task["news"]
    assert (news.budget.steps, news.head_steps, news.limit, news.mask) == (5, 3, 50, 0.2)
    assert adapted.budget.steps == 5


def test_data_is_linked_and_the_pipeline_is_the_shipped_one(project: Path) -> None:
    assert exit_code("small", "../small", "--cache", "../shared") == 0
    small = project.parent / "small"
    for name in ("own.csv", "minilm.yaml", "hutto.yaml"):
        assert (small / "data" / name).resolve() == (project / "data" / name).resolve()
    assert (small / "dvc.yaml").read_bytes() == PIPELINE.read_bytes()
    config = (small / ".dvc" / "config.local").read_text()
    assert f"[cache]\n    dir = {project / '../shared'}\n" in config
    # Again: it is brought up to date, and the setting is not there twice.
    (small / "results").write_text("kept")
    change(seeds=[5])
    assert exit_code("small", "../small", "--cache", "../shared") == 0
    assert read_params(small / "params.yaml").seeds == (5,)
    assert (small / ".dvc" / "config.local").read_text() == config
    assert (small / "results").read_text() == "kept"


def test_it_refuses_to_write_over_another_project_or_to_lose_data(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    problem, fix = refusal(capsys, "small", ".")
    assert (problem, fix) == ("'.' has a project of its own", "name another folder\n")
    assert read_params(Path("params.yaml")).seeds == (1, 2)
    shutil.move("data/own.csv", "../own.csv")
    own = small_params()["tasks"]["own"] | {"source": "../own.csv"}
    change(tasks={"own": own})
    problem, fix = refusal(capsys, "small", "../small")
    assert problem == (
        "params.yaml: tasks.own.source: '../own.csv' lies outside of the project's folder"
    )
    assert fix == "name it by its absolute path, or put it into the folder\n"
    assert not Path("../small").exists()
    change(tasks={"own": own | {"source": str(project.parent / "own.csv")}})
    assert exit_code("small", "../small") == 0
