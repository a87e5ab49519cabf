"""The flow of retraining, by its command: new data, the gates, and what is kept."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipelines.keep import commit
from pipelines.retrain import Report
from tests.conftest import prefect_api
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


def decision(passed: bool) -> dict[str, Any]:
    """What the gate says of version 4 against version 3."""
    return {
        "task": "own",
        "model": "tickets-own",
        "champion": "3",
        "challenger": "4",
        "metric": "accuracy",
        "scores": {"champion": {"accuracy": 0.8}, "challenger": {"accuracy": 0.8125}},
        "low": -0.0071,
        "margin": 0.02,
        "rows": 1200,
        "passed": passed,
        "reasons": [] if passed else ["size is 2.00 times the champion's; 1.5 times is the most"],
        "notes": [],
    }


def test_a_report_tells_a_person_the_outcome_first() -> None:
    report = Report(
        "tickets",
        accepted=["own 5"],
        champions={"own": "lora"},
        executed=["champions/own/dvc.yaml:train@own-lora-full-1"],
        decisions=[decision(passed=True)],
        commit="1a2b3c",
    )
    assert report.headline == "tickets: new champion of own."
    assert (
        report.markdown()
        == """# tickets

New champion of own.

| task |   metric |         champion |       challenger |  difference at least |  outcome |
| :--- | -------: | ---------------: | ---------------: | -------------------: | -------: |
| own  | accuracy | version 3: 0.800 | version 4: 0.812 | -0.007 (margin 0.02) | promoted |

tickets-own: version 4 replaces version 3 as champion: accuracy 0.812 against 0.800, a difference \
of at least -0.007 on 1200 rows (the margin is 0.02).

- Taken in: data version own 5
- Trained again: the champion's method alone (lora on own). comparison/report.html is of older \
data; `make run`, or `--methods all`, brings it up to date
- 1 stage executed
- Committed as 1a2b3c
"""
    )


def test_a_report_that_refuses_or_fails_says_that_the_champion_stays() -> None:
    refused = Report("tickets", accepted=["own 5"], decisions=[decision(passed=False)])
    assert refused.headline == "tickets: the champion of own stays."
    assert "size is 2.00 times the champion's" in refused.markdown()
    failed = Report("tickets", failed={"train@own-lora-full-1": "no room on the disk"})
    assert failed.headline == (
        "tickets: 1 stage failed: train@own-lora-full-1. The champion stays as it is."
    )
    assert "- **Failed**: train@own-lora-full-1: no room on the disk" in failed.markdown()
    assert Report("tickets").markdown() == "# tickets\n\nNothing is new.\n"


@pytest.mark.pipeline
def test_new_rows_are_trained_on_and_bad_ones_stop_it(tmp_path: Path) -> None:
    project = gated_project(tmp_path / "project")
    told = tmp_path / "told.jsonl"
    tell = f"import sys; open({str(told)!r}, 'a').write(sys.stdin.read() + chr(10))"
    retraining = {"branch": "retrained", "notify": [sys.executable, "-c", tell]}
    project.change(methods={"head": {}, "bitfit": {}}, retrain=retraining)
    incoming = project.root / "data" / "incoming" / "own"
    incoming.mkdir(parents=True)

    def retrain(*options: str, code: int = 0) -> dict[str, Any]:
        command = [sys.executable, "-m", "pipelines.retrain", "--json", *options]
        done = project.command(*command, PREFECT_API_URL=prefect_api())
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return json.loads(done.stdout)

    def comparison() -> list[bytes]:
        files = ("comparison/comparison.json", "comparison/report.html", "receipt.json", "dvc.lock")
        return [(project.root / file).read_bytes() for file in files]

    first = retrain()
    assert {"train@own-head-few-1", "train@own-bitfit-few-1"} <= set(first["executed"])
    assert "had no champion of own: the whole comparison was trained" in first["notes"][0]
    state = registered(project)
    assert state["aliases"] == {"champion": 1}
    method = state["tags"][1]["method"]
    (other,) = {"head", "bitfit"} - {method}
    assert git(project.root, "rev-parse", "retrained") == first["commit"]

    nothing = retrain()
    assert (nothing["executed"], nothing["commit"]) == ([], None)
    assert len(told.read_text().splitlines()) == 1

    (incoming / "monday.csv").write_text("\n".join(["sentence,class", *rows(range(60, 90))]) + "\n")
    compared = comparison()
    more = retrain()
    assert more["accepted"] == ["own 2"]
    # The champion's method alone, in a graph of its own; the whole comparison stays as it is.
    assert more["champions"] == {"own": method}
    assert f"champions/own/dvc.yaml:train@own-{method}-few-1" in more["executed"]
    assert not [name for name in more["executed"] if other in name]
    assert comparison() == compared
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
    assert [name for name in committed if name.startswith("champions/")] == [
        f"champions/own/{name}" for name in (".gitignore", "dvc.lock", "dvc.yaml", "params.yaml")
    ]
    # Nothing is left to do by plain DVC, and the chain behind the new version is whole.
    status = project.command("dvc", "status", "--json", "champions/own/dvc.yaml")
    assert json.loads(status.stdout) == {}, status.stderr
    chain = project.command("tunetrail", "explain", "models:/sentiment-own/2", "--check", "--json")
    assert json.loads(chain.stdout)["intact"], chain.stdout + chain.stderr
    # What is older than the data decides nothing any more.
    older = project.command("tunetrail", "sync", "--json")
    assert json.loads(older.stdout)["decisions"] == []
    assert registered(project)["aliases"] == state["aliases"]
    # A whole comparison takes the champion's runs from the cache.
    whole = retrain("--methods", "all")
    assert f"train@own-{other}-few-1" in whole["executed"]
    assert not [name for name in whole["executed"] if f"-{method}-few" in name]
    assert retrain()["executed"] == []
    state = registered(project)

    (incoming / "tuesday.csv").write_text("sentence,class\n" + '"same text",good\n' * 400)
    before = (project.root / "data" / "own.csv").read_bytes()
    # As a flow leaves it that is killed before it could say so.
    assert project.command("tunetrail", "intake", "own").returncode == 1
    refused = retrain(code=1)
    assert list(refused["rejected"]) == ["own 3"]
    assert any("duplicates" in reason for reason in refused["rejected"]["own 3"])
    assert refused["executed"] == []
    assert git(project.root, "show", f"{refused['commit']}:data/versions/own/0003.json")
    assert registered(project)["aliases"] == state["aliases"]
    assert (project.root / "data" / "own.csv").read_bytes() == before

    (incoming / "wednesday.csv").write_text("text,class\nno such column,good\n")
    unreadable = retrain(code=1)
    assert "sentence" in str(unreadable["rejected"])
    (incoming / "wednesday.csv").unlink()
    assert retrain()["executed"] == []
    reports = [json.loads(line) for line in told.read_text().splitlines()]
    assert [bool(report["failing"]) for report in reports] == [False] * 3 + [True, True]
    assert reports[3]["headline"].endswith("The champion stays as it is.")
    assert (project.root / ".tunetrail" / "retrain.md").read_text() == (
        "# sentiment\n\nNothing is new.\n"
    )
