"""The flow of retraining, by its command: new data, the gates, and what is kept."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipelines.keep import commit
from tests.gated import gated_project, registered, rows
from tunetrail.errors import TuneTrailError


def git(root: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    done = subprocess.run(
        ["git", *identity, *arguments], cwd=root, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-q", "-b", "main")
    (tmp_path / "params.yaml").write_text("one\n")
    (tmp_path / "data.csv").write_text("rows\n")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "start")
    return tmp_path


def test_a_commit_leaves_what_is_checked_out_and_staged_alone(repository: Path) -> None:
    (repository / "params.yaml").write_text("two\n")
    (repository / "dvc.lock").write_text("lock\n")
    (repository / "data.csv.dvc").write_text("pointer\n")
    (repository / "mine.txt").write_text("staged by somebody\n")
    git(repository, "add", "mine.txt")
    before = git(repository, "status", "--porcelain")
    paths = [Path("dvc.lock"), Path("data.csv.dvc"), Path("params.yaml")]
    made = commit(repository, "retrained", paths, "first", without=[Path("data.csv")])
    assert git(repository, "status", "--porcelain") == before
    assert git(repository, "rev-parse", "retrained") == made
    listed = git(repository, "ls-tree", "--name-only", "retrained").split()
    assert listed == ["data.csv.dvc", "dvc.lock", "params.yaml"]
    assert git(repository, "show", "retrained:params.yaml") == "two"
    assert commit(repository, "retrained", paths, "again", without=[Path("data.csv")]) is None

    # What comes later on main comes along, and nothing of the branch is lost.
    git(repository, "commit", "-qm", "mine")
    (repository / "dvc.lock").write_text("lock 2\n")
    second = commit(repository, "retrained", paths, "second", without=[Path("data.csv")])
    parents = git(repository, "rev-parse", f"{second}^@").split()
    assert parents == [made, git(repository, "rev-parse", "main")]
    assert "mine.txt" in git(repository, "ls-tree", "--name-only", "retrained")


def test_the_branch_that_is_checked_out_is_refused(repository: Path) -> None:
    with pytest.raises(TuneTrailError, match=r"'main', the branch that is checked out"):
        commit(repository, "main", [Path("params.yaml")], "no")


def test_a_folder_that_is_no_repository_is_refused(repository: Path) -> None:
    (repository / "inside").mkdir()
    with pytest.raises(TuneTrailError, match="is not the top of a git repository"):
        commit(repository / "inside", "retrained", [], "no")


@pytest.mark.pipeline
def test_new_rows_are_trained_on_and_bad_ones_stop_it(tmp_path: Path) -> None:
    project = gated_project(tmp_path / "project")
    told = tmp_path / "told.jsonl"
    tell = f"import sys; open({str(told)!r}, 'a').write(sys.stdin.read() + chr(10))"
    project.change(retrain={"branch": "retrained", "notify": [sys.executable, "-c", tell]})
    incoming = project.root / "data" / "incoming" / "own"
    incoming.mkdir(parents=True)

    def retrain(code: int = 0) -> dict[str, Any]:
        done = project.command(sys.executable, "-m", "pipelines.retrain", "--json")
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return json.loads(done.stdout)

    first = retrain()
    assert "train@own-head-few-1" in first["executed"]
    assert registered(project)["aliases"] == {"champion": 1}
    assert git(project.root, "rev-parse", "retrained") == first["commit"]

    nothing = retrain()
    assert (nothing["executed"], nothing["commit"]) == ([], None)
    assert len(told.read_text().splitlines()) == 1

    (incoming / "monday.csv").write_text("\n".join(["sentence,class", *rows(range(60, 90))]) + "\n")
    more = retrain()
    assert more["accepted"] == ["own 2"]
    assert "train@own-head-few-1" in more["executed"]
    (decision,) = more["decisions"]
    # The gate's rows are those of the first day.
    assert decision["rows"] == len(project.json("data/gate/own.json")["generations"]["1"])
    assert git(project.root, "show", f"{first['commit']}:data/gate/own.json")
    state = registered(project)
    assert state["aliases"] == {"champion" if decision["passed"] else "challenger": 2} | (
        {} if decision["passed"] else {"champion": 1}
    )
    committed = git(project.root, "ls-tree", "-r", "--name-only", "retrained").split()
    assert {"data/own.csv.dvc", "data/versions/own/0002.json", "dvc.lock"} <= set(committed)
    assert "data/own.csv" not in committed

    (incoming / "tuesday.csv").write_text("sentence,class\n" + '"same text",good\n' * 400)
    before = (project.root / "data" / "own.csv").read_bytes()
    # As a flow leaves it that is killed before it could say so.
    assert project.command("tunetrail", "intake", "own").returncode == 1
    refused = retrain(1)
    assert list(refused["rejected"]) == ["own 3"]
    assert any("duplicates" in reason for reason in refused["rejected"]["own 3"])
    assert refused["executed"] == []
    assert registered(project)["aliases"] == state["aliases"]
    assert (project.root / "data" / "own.csv").read_bytes() == before

    (incoming / "wednesday.csv").write_text("text,class\nno such column,good\n")
    unreadable = retrain(1)
    assert "sentence" in str(unreadable["rejected"])
    (incoming / "wednesday.csv").unlink()
    assert retrain()["executed"] == []
    reports = [json.loads(line) for line in told.read_text().splitlines()]
    assert [bool(report["failing"]) for report in reports] == [False, False, True, True]
    assert "The champion stays as it is" in reports[2]["text"]
