"""Results over SSH: nothing runs again on the other side."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import Project
from tests.sharing import clone, in_mlflow, project_mlflow, publish

pytestmark = pytest.mark.services


@pytest.fixture
def project(small_run: Project, tmp_path: Path) -> Project:
    return small_run.copy(tmp_path / "project")


def test_results_travel_over_ssh(project: Project, ssh: dict[str, str], tmp_path: Path) -> None:
    publish(project, f"ssh://127.0.0.1{tmp_path / 'remote'}", **ssh)
    assert any((tmp_path / "remote").rglob("*"))

    pulled = clone(project, tmp_path / "pulled")
    done = pulled.command("dvc", "pull")
    assert done.returncode == 0, done.stderr
    sync = pulled.command("tunetrail", "sync", "--json")
    assert sync.returncode == 0, sync.stderr
    assert in_mlflow(project_mlflow(pulled)) == in_mlflow(project_mlflow(project))
    again = pulled.run()
    assert again["executed"] == again["restored"] == []
    assert again["runs_created"] == again["versions_created"] == 0

    reproduced = clone(project, tmp_path / "reproduced")
    done = reproduced.command("dvc", "repro", "--pull")
    assert done.returncode == 0, done.stderr
    assert "> tunetrail" not in done.stdout, "a command was executed"
    sync = reproduced.command("tunetrail", "sync", "--json")
    assert json.loads(sync.stdout)["versions_created"] == 1
