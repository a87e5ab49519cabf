"""MLflow and Prefect on PostgreSQL."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Project
from tests.kills import prefect_server
from tests.sharing import in_mlflow, project_mlflow

pytestmark = pytest.mark.services


@pytest.fixture
def project(small_run: Project, tmp_path: Path) -> Project:
    return small_run.copy(tmp_path / "project")


def _database(server: str, name: str) -> str:
    """Create a database; ``user@host:port/name``."""
    import psycopg2

    connection = psycopg2.connect(f"postgresql://{server}/postgres")
    connection.autocommit = True
    connection.cursor().execute(f"CREATE DATABASE {name}")
    connection.close()
    return f"{server}/{name}"


def test_mlflow_on_postgresql_has_everything_once(project: Project, postgres: str) -> None:
    uri = f"postgresql://{_database(postgres, 'mlflow')}"
    created = []
    for _ in range(2):
        done = project.command("tunetrail", "sync", "--json", MLFLOW_TRACKING_URI=uri)
        assert done.returncode == 0, done.stderr
        counts = json.loads(done.stdout)
        created.append((counts["runs_created"], counts["versions_created"]))
    assert created == [(2, 1), (0, 0)]
    assert in_mlflow(uri) == in_mlflow(project_mlflow(project))


def test_a_postgresql_that_is_away_is_named_without_its_password(project: Project) -> None:
    uri = "postgresql://tunetrail:secret@127.0.0.1:9/mlflow"
    done = project.command("tunetrail", "sync", MLFLOW_TRACKING_URI=uri)
    assert done.returncode == 2, done.stderr[-2000:]
    assert "MLflow at 127.0.0.1:9/mlflow cannot be used" in done.stderr
    assert "results are safe on disk" in done.stderr
    assert "secret" not in done.stdout + done.stderr


def test_a_flow_on_a_prefect_server_on_postgresql_shows_its_states(
    project: Project, postgres: str, tmp_path: Path
) -> None:
    url = f"postgresql+asyncpg://{_database(postgres, 'prefect')}"
    project.change(methods={"head": {}, "lora": {"rank": 2}})
    with prefect_server(tmp_path, PREFECT_API_DATABASE_CONNECTION_URL=url) as (_, api):
        outcome = project.run(PREFECT_API_URL=api)

        async def read() -> tuple[Any, Any]:
            from prefect.client.orchestration import PrefectClient

            async with PrefectClient(api) as client:
                return await client.read_flow_runs(), await client.read_task_runs()

        flows, tasks = asyncio.run(read())
    assert [flow.state_name for flow in flows] == ["Completed"]
    assert sorted(task.name for task in tasks) == sorted(outcome["executed"])
    assert {task.state_name for task in tasks} == {"Completed"}
    assert not list((tmp_path / "prefect").glob("*.db")), "it kept its states elsewhere"

    import psycopg2

    connection = psycopg2.connect(url.replace("+asyncpg", ""))
    with connection.cursor() as cursor:
        cursor.execute("SELECT COUNT(*) FROM task_run")
        assert cursor.fetchone() == (len(tasks),)
    connection.close()
    done = project.command(sys.executable, "-m", "pipelines.compare", "--json")
    assert json.loads(done.stdout)["executed"] == []
