"""The same services with PostgreSQL, whose password is one more secret."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests import planted
from tests.conftest import Project
from tests.guarded import ALLOWED, session

pytestmark = pytest.mark.services


def test_with_postgresql_no_secret_gets_out_either(
    small_run: Project, postgres: str, tmp_path: Path
) -> None:
    user, _, place = postgres.partition("@")
    database = f"postgresql://{user}:{planted.DATABASE}@{place}"
    project = small_run.copy(tmp_path / "project")
    seen = session(project, by_worker=True, TUNETRAIL_DATABASE=database)
    assert [seen.answers[f"{who}, MLflow"] for who in ("nobody", "a stranger", "admin")] == [
        401, 401, 200,
    ]  # fmt: skip
    assert seen.codes["sync"] == 0, seen.said["sync"]
    assert seen.codes["by the worker"] == 0, seen.said["by the worker"]
    assert seen.codes["explain"] == 0, seen.said["explain"]
    assert planted.found_in("printed", "".join(seen.said.values())) == []
    assert planted.found_in("command line", seen.command_lines) == []
    users = ".tunetrail/services/mlflow-auth.ini"  # says where they are
    assert planted.found_below(seen.project.root, [*ALLOWED, users]) == []
    assert (seen.project.root / users).stat().st_mode & 0o077 == 0
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1]
    host, _, port = place.partition(":")
    dump = subprocess.run(
        [programs / "pg_dumpall", "-h", host, "-p", port, "-U", user],
        check=True,
        capture_output=True,
    ).stdout
    assert b"sentiment-own" in dump
    assert planted.found_in("databases", dump) == []
