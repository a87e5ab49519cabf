"""Scheduled retraining on real servers: nobody lifts a hand after the services are started."""

from __future__ import annotations

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

from tests.conftest import ROOT, Project
from tests.gated import gated_project, rows
from tests.kills import processes

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
