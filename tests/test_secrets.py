"""Real services behind a password: who gets in, where they listen, and that no secret gets out."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests import planted
from tests.conftest import ROOT, Project
from tests.guarded import ALLOWED, Session, session
from tests.sharing import in_mlflow, project_mlflow

pytestmark = pytest.mark.pipeline


@pytest.fixture(scope="module")
def seen(small_run: Project, tmp_path_factory: pytest.TempPathFactory) -> Session:
    return session(small_run.copy(tmp_path_factory.mktemp("guarded") / "project"))


def test_only_who_has_the_password_gets_in(seen: Session) -> None:
    assert {who: status for who, status in seen.answers.items() if "admin" not in who} == {
        "nobody, Prefect": 401,
        "nobody, MLflow": 401,
        "a stranger, Prefect": 401,
        "a stranger, MLflow": 401,
    }
    assert seen.answers["admin, Prefect"] == seen.answers["admin, MLflow"] == 200
    assert seen.codes["sync, no password"] == 2
    assert "credentials (MLFLOW_TRACKING_USERNAME" in seen.said["sync, no password"]
    assert seen.served == [401, 200]


def test_everything_listens_on_loopback_alone(seen: Session) -> None:
    assert {address for address, _ in seen.listening} == {"127.0.0.1"}
    assert seen.ports <= {port for _, port in seen.listening}


def test_the_temporary_prefect_server_listens_on_loopback_alone(tmp_path: Path) -> None:
    (tmp_path / ".tunetrail").mkdir()
    program = (
        "from pipelines import environment, server\n"
        "environment.configure_prefect(), server.connect(), server.wait_until_ready()\n"
        "print('ready', flush=True), input()"
    )
    running = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=Project(ROOT).environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert running.stdout is not None
    assert running.stdout.readline() == b"ready\n"
    found = planted.listening(planted.family(running.pid))
    running.communicate(b"\n", timeout=60)
    assert {address for address, _ in found} == {"127.0.0.1"}


def test_the_work_goes_on_while_mlflow_and_the_remote_are_away(seen: Session) -> None:
    report, _ = json.JSONDecoder().raw_decode(seen.said["retrain"])  # standard output comes first
    assert seen.codes["retrain"] == 1
    assert {"compare", "register"} <= set(report["executed"])
    mlflow, remote = report["waiting"]
    assert mlflow.startswith("MLflow at 127.0.0.1:9 cannot be used: ")
    assert remote.startswith("DVC's remote did not take the results: ")
    assert not report["pushed"]
    kept = ["git", "show", f"{report['commit']}:dvc.lock"]
    assert subprocess.run(kept, cwd=seen.project.root, check=True, capture_output=True).stdout
    assert seen.codes["sync, nothing there"] == 2
    assert "MLflow at 127.0.0.1:9" in seen.said["sync, nothing there"]
    assert "DVC's remote did not take the results" in seen.said["sync, nothing there"]


def test_one_command_hands_over_what_waited(seen: Session) -> None:
    assert seen.codes["sync"] == 0, seen.said["sync"]
    there = in_mlflow(project_mlflow(seen.project))
    assert len(there["runs"]) == 4  # two runs, each below that of its method
    assert [version[0] for version in there["versions"]] == ["sentiment-own"]
    remote = seen.project.root.parent / "remote" / "files" / "md5"
    assert len([path for path in remote.rglob("*") if path.is_file()]) > 20
    assert not (seen.project.root / ".tunetrail" / "not-pushed").exists()
    assert seen.codes["explain"] == 0, seen.said["explain"]


@pytest.mark.parametrize(
    "command",
    ["services", "retrain", "sync, nothing there", "sync, no password", "sync", "explain",
     "doctor", "serve"],
)  # fmt: skip
def test_no_command_prints_a_secret(seen: Session, command: str) -> None:
    assert seen.said[command]
    assert planted.found_in(command, seen.said[command]) == []


def test_no_command_line_has_a_secret(seen: Session) -> None:
    assert "mlflow" in seen.command_lines
    assert planted.found_in("command line", seen.command_lines) == []


def test_no_file_but_the_two_that_are_for_it_has_a_secret(seen: Session) -> None:
    root = seen.project.root
    for place in (".tunetrail/logs/mlflow-server.log", ".tunetrail/logs/compare.log",
                  ".tunetrail/prefect/prefect.db", ".tunetrail/mlflow/mlflow.db",
                  "comparison/report.html", "receipt.json", "dvc.lock"):  # fmt: skip
        assert (root / place).is_file(), place
    assert planted.found_below(root, ALLOWED) == []
    for place in ALLOWED:  # the search would have found them
        assert planted.found_in(place, (root / Path(place)).read_bytes())
