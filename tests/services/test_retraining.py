"""Scheduled retraining on real servers: nobody lifts a hand after the services are started."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import BIN, ROOT, Project
from tests.gated import gated_project, rows
from tests.kills import processes
from tests.sharing import in_mlflow, project_mlflow

pytestmark = pytest.mark.services

#: Seconds for anything to happen on a loaded machine.
PATIENCE = 400.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def services(project: Project, log: Path, **extra: str) -> Iterator[tuple[str, str]]:
    """The shipped services in a project; addresses of Prefect and MLflow."""
    ports = free_port(), free_port()
    with log.open("w") as output:
        running = subprocess.Popen(
            [sys.executable, "-m", "pipelines.services"]
            + [
                f"--{name}-port={port}"
                for name, port in zip(("prefect", "mlflow"), ports, strict=True)
            ],
            cwd=project.root,
            env=project.environment(PYTHONUNBUFFERED="1", **extra),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            wait(lambda: "Ctrl-C stops them" in log.read_text(), running, log)
            yield f"http://127.0.0.1:{ports[0]}", f"http://127.0.0.1:{ports[1]}"
        finally:
            running.send_signal(signal.SIGTERM)
            code = running.wait(timeout=120)
    assert code == 128 + signal.SIGTERM, log.read_text()


def wait(until: Callable[[], Any], running: subprocess.Popen[bytes] | None, log: Path) -> Any:
    deadline = time.monotonic() + PATIENCE
    while not (found := until()):
        assert running is None or running.poll() is None, log.read_text()
        if time.monotonic() > deadline:
            logs = sorted(log.parent.glob("project/.tunetrail/logs/*er.log"))
            raise AssertionError("\n".join(p.read_text()[-3000:] for p in (log, *logs)))
        time.sleep(0.5)
    return found


def scheduled(project: Project, seconds: int) -> None:
    """The shipped deployments, with a schedule of seconds."""
    content = yaml.safe_load((ROOT / "prefect.yaml").read_text())
    content["deployments"][0]["schedules"] = [{"interval": seconds}]
    (project.root / "prefect.yaml").write_text(yaml.safe_dump(content))


def record(project: Project, number: int) -> dict[str, Any] | None:
    path = project.root / "data" / "versions" / "own" / f"{number:04d}.json"
    return json.loads(path.read_text()) if path.exists() else None


def drop(project: Project, name: str, lines: list[str]) -> None:
    folder = project.root / "data" / "incoming" / "own"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.tmp").write_text("\n".join(["sentence,class", *lines]) + "\n")
    os.replace(folder / f"{name}.tmp", folder / name)


async def _both_by_hand(api: str) -> list[list[Any]]:
    """States of two runs of the shipped deployment that were asked for at the same moment."""
    from prefect.client.orchestration import PrefectClient

    async with PrefectClient(api) as client:
        deployment = await client.read_deployment_by_name("retrain/nightly")
        runs = [await client.create_flow_run_from_deployment(deployment.id) for _ in range(2)]
        deadline = time.monotonic() + PATIENCE
        while not all([(await client.read_flow_run(r.id)).state.is_final() for r in runs]):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.5)
        return [list(await client.read_flow_run_states(run.id)) for run in runs]


async def _template(api: str, pool: str) -> Any:
    from prefect.client.orchestration import PrefectClient

    async with PrefectClient(api) as client:
        return (await client.read_work_pool(pool)).base_job_template


@pytest.mark.timeout(900)
def test_of_two_that_collide_one_waits_and_nothing_new_is_no_work(
    small_run: Project, tmp_path: Path
) -> None:
    project = small_run.copy(tmp_path / "project")
    kept = ("dvc.lock", "receipt.json", "comparison/comparison.json", "params.yaml")
    before = [(project.root / name).read_bytes() for name in kept]
    registry = project_mlflow(project)
    models = in_mlflow(registry)
    log = tmp_path / "services.txt"
    wait_seconds = {"PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS": "2"}
    with services(project, log, **wait_seconds) as (prefect, _):
        api = f"{prefect}/api"
        for kind in ("docker", "kubernetes"):
            template = ROOT / "pipelines" / "templates" / f"{kind}.json"
            made = project.command(
                str(BIN / "prefect"), "work-pool", "create", f"a-{kind}", "--type", kind,
                "--base-job-template", str(template), PREFECT_API_URL=api,
            )  # fmt: skip
            assert made.returncode == 0, made.stdout + made.stderr
            assert asyncio.run(_template(api, f"a-{kind}")) == json.loads(template.read_text())
        states = asyncio.run(_both_by_hand(api))
    assert [of_run[-1].name for of_run in states] == ["Completed", "Completed"]
    waited = ["AwaitingConcurrencySlot" in {state.name for state in run} for run in states]
    assert sorted(waited) == [False, True]
    times = {
        late: {state.name: state.timestamp for state in run}
        for late, run in zip(waited, states, strict=True)
    }
    assert times[False]["Completed"] <= times[True]["Running"]
    assert [(project.root / name).read_bytes() for name in kept] == before
    assert in_mlflow(registry) == models
    assert not (project.root / "data" / "versions").exists()
    assert not (project.root / "champions").exists()


@pytest.mark.timeout(1800)
def test_new_rows_lead_to_a_new_version_and_bad_rows_to_a_stop(
    postgres: str, tmp_path: Path
) -> None:
    import mlflow

    project = gated_project(tmp_path / "project")
    project.change(retrain={"branch": "retrained"})
    scheduled(project, 15)
    log = tmp_path / "services.txt"
    with services(project, log, TUNETRAIL_DATABASE=f"postgresql://{postgres}") as (_, tracking):
        client = mlflow.MlflowClient(tracking)

        def aliases() -> dict[str, str]:
            with contextlib.suppress(mlflow.exceptions.MlflowException):
                return dict(client.get_registered_model("sentiment-own").aliases)
            return {}

        wait(lambda: aliases() == {"champion": "1"}, None, log)
        drop(project, "good.csv", rows(range(60, 90)))
        wait(lambda: (record(project, 2) or {}).get("status") == "accepted", None, log)
        after = wait(lambda: (found := aliases()) != {"champion": "1"} and found, None, log)
        version = client.get_model_version("sentiment-own", "2")
        assert version.tags["gate.against"] == "1"
        promoted = version.tags["gate.outcome"] == "passed"
        assert after == ({"champion": "2"} if promoted else {"champion": "1", "challenger": "2"})
        drop(project, "bad.csv", ['"same text",good'] * 400)
        wait(lambda: (record(project, 3) or {}).get("status") == "rejected", None, log)
        time.sleep(20)  # the next schedule finds nothing new
        assert aliases() == after
        assert record(project, 4) is None
    committed = subprocess.run(
        ["git", "ls-tree", "-r", "--name-only", "retrained"],
        cwd=project.root,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "data/versions/own/0002.json" in committed
    deadline = time.monotonic() + 20
    while (left := processes(project)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert left == []
