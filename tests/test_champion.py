"""The part of a project that trains a champion's method again."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.retrain import Report, _champions
from tests.conftest import new_project
from tunetrail.dag import Dag
from tunetrail.errors import TuneTrailError
from tunetrail.files import write_json
from tunetrail.init.champion import check_champion, link_champions, write_champion
from tunetrail.lineage.chain import Link
from tunetrail.lineage.reproduction import commands
from tunetrail.lineage.trace import in_project
from tunetrail.params import Params, read_params
from tunetrail.place import project_root

PARAMS = Path("params.yaml")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    made = new_project(tmp_path / "project")
    monkeypatch.chdir(made.root)
    return made


def read(project: Any, **changed: Any) -> Params:
    project.change(**changed)
    return read_params(PARAMS)


def written(params: Params, task: str, label: str) -> dict[str, Any]:
    check_champion(params, PARAMS, task, label)
    folder = write_champion(params, PARAMS, task, label)
    found: dict[str, Any] = yaml.safe_load((folder / "params.yaml").read_text())
    read_params(folder / "params.yaml")  # valid by itself
    return found


def test_a_champion_has_a_graph_of_its_own_and_the_project_has_not_its(project: Any) -> None:
    before = list(Dag(project.root).cells)
    found = written(read(project), "own", "lora")
    assert (list(found["tasks"]), found["methods"], found["baseline"]) == (
        ["own"],
        {"lora": {}},
        "",
    )
    assert list(Dag(project.root).cells) == before
    folder = project.root / "champions" / "own"
    with_dvc_from_there = Dag(folder).cells
    assert {name.rpartition(":")[2] for name in with_dvc_from_there} == {
        "base", "ingest@own", "validate@own", "prepare@own", "resolve@own",
        "train@own-lora-few-1", "train@own-lora-few-2", "evaluate@own-lora-few-1",
        "evaluate@own-lora-few-2", "cost@own-lora", "select@own", "export@own-lora",
        "compare", "register",
    }  # fmt: skip
    commands_of_both = {cell.command for cell in Dag(project.root).cells.values()}
    shared = [c.command for n, c in with_dvc_from_there.items() if "train@" in n or "base" in n]
    assert set(shared) <= commands_of_both
    assert project_root(folder) == project.root


def test_without_the_registry_the_last_known_methods_are_trained(
    project: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    params = read(project)
    written(params, "own", "lora")
    compared = {"tasks": {task: {"winner": {"method": "head"}} for task in ("movie", "own")}}
    write_json(project.root / "comparison" / "comparison.json", compared)
    report = Report(params.project)
    assert _champions(params, report) == {"movie": "head", "own": "lora"}
    (note,) = report.notes
    assert note.startswith("MLflow at http://127.0.0.1:9 cannot be used")


def test_only_what_the_method_needs_is_kept(project: Any) -> None:
    params = read(
        project,
        budgets={"few": {"steps": 4}, "half": {"steps": 4, "fraction": 0.5}, "one": {"steps": 1}},
        methods={"head": {}, "lora": {"start": "tapt"}},
        pretraining={
            "task": {"base": {"budget": {"steps": 2}}, "films": {"budget": {"steps": 2}}},
            "domain": {"films": {"text": "data/films.txt", "budget": {"steps": 2}}},
        },
        tuning={"trials": {"half": 3, "one": 2}, "search": {"head": {}, "lora": {"rank": [4, 8]}}},
        more_seeds={"most": 5},
        gate={"margin": 0.05},
    )
    found = written(params, "own", "lora")
    assert found["budgets"] == {"few": {"steps": 4}, "half": {"steps": 4, "fraction": 0.5}}
    assert found["tuning"] == {"trials": {"half": 3}, "search": {"lora": {"rank": [4, 8]}}}
    assert found["pretraining"] == {"task": {"base": {"budget": {"steps": 2}}}}
    assert found["gate"] == {"margin": 0.05}
    assert "more_seeds" not in found
    found = written(params, "own", "head")
    assert "pretraining" not in found


def test_links_are_relative_and_made_again_in_a_clone(project: Any) -> None:
    written(read(project), "own", "head")
    folder = project.root / "champions" / "own"
    links = [folder / name for name in ("src/tunetrail", "data/minilm.yaml", "data/own.csv")]
    assert [os.readlink(link) for link in links] == [
        "../../../src/tunetrail",
        "../../../data/minilm.yaml",
        "../../../data/own.csv",
    ]
    assert link_champions(project.root) == []
    links[2].unlink()
    assert link_champions(project.root) == [links[2]]
    assert links[2].read_bytes() == (project.root / "data" / "own.csv").read_bytes()
    ignored = (folder / ".gitignore").read_text()
    assert "/data/own.csv\n" in ignored
    assert "/runs/\n" in ignored


@pytest.mark.parametrize(
    ("label", "changed", "problem", "fix"),
    [
        (
            "ia3",
            {},
            "the champion of task 'own' was made by the method 'ia3', which is not under 'methods'",
            "put it back, or train the whole comparison with retrain.methods: all",
        ),
        (
            "head",
            {"methods": {"head": {"start": "films"}, "lora": {}}},
            "'head', starts from 'films', whose text is cleaned of what all tasks hold out",
            "train the whole comparison with retrain.methods: all",
        ),
        (
            "head",
            {"base": {"source": "../minilm.yaml"}},
            "base.source: '../minilm.yaml' lies outside of the project's folder",
            "name it by its absolute path, put it into the folder, or train the whole comparison",
        ),
    ],
)
def test_what_cannot_be_trained_alone_is_refused(
    label: str, changed: dict[str, Any], problem: str, fix: str, project: Any
) -> None:
    films = {"films": {"text": "data/films.txt", "budget": {"steps": 2}}}
    params = read(project, pretraining={"domain": films}, **changed)
    with pytest.raises(TuneTrailError) as refused:
        check_champion(params, PARAMS, "own", label)
    assert problem in refused.value.problem
    assert refused.value.fix.startswith(fix)


def test_the_chain_of_a_champion_is_named_from_the_project() -> None:
    place = Path("champions/own")
    made = Link("training", "runs/train/own/x", "0", "train@own-lora-few-1")
    assert in_project(made, place) == Link(
        "training",
        "champions/own/runs/train/own/x",
        "0",
        "champions/own/dvc.yaml:train@own-lora-few-1",
    )
    source = Link("source data", "data/own.csv", "0", "")
    assert in_project(source, place) == source
    assert in_project(made, Path()) == made
    typed = [
        c["command"] for c in commands("own", "lora", {"git_commit": None}, {"lock": None}, place)
    ]
    assert typed == [
        "tunetrail mend",
        "dvc pull",
        "dvc repro champions/own/dvc.yaml:export@own-lora",
        "dvc repro champions/own/dvc.yaml:register",
        "tunetrail sync champions/own/receipt.json",
    ]
