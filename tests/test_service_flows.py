"""What keeps the services running, with real servers and processes that are killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from rich.console import Console

from pipelines.services import POOL, FlowRuns, Plan, Service, _answers, _keep_running
from tests.kills import prefect_server

pytestmark = pytest.mark.pipeline


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return Plan(tmp_path, "127.0.0.1", 0, 0)


def settings(plan: Plan) -> dict[str, str]:
    """What the services' Prefect server is started with."""
    return {k: v for k, v in plan.environment().items() if k.startswith("PREFECT_SERVER_")}


class Prefect:
    """A client of a server that has a deployment with a place for one flow run."""

    def __init__(self, api: str) -> None:
        self.api = api

    def ask(self, what: Any, *arguments: Any) -> Any:
        from prefect.client.orchestration import PrefectClient

        async def asked() -> Any:
            async with PrefectClient(self.api) as client:
                return await what(client, *arguments)

        return asyncio.run(asked())

    def deploy(self) -> UUID:
        """The deployment."""

        async def made(client: Any) -> UUID:
            from prefect import flow
            from prefect.client.schemas.actions import WorkPoolCreate
            from prefect.exceptions import ObjectAlreadyExists

            with contextlib.suppress(ObjectAlreadyExists):
                await client.create_work_pool(WorkPoolCreate(name=POOL, type="process"))
            retrain = await client.create_flow(flow(_nothing, name="retrain"))
            found: UUID = await client.create_deployment(
                retrain, "nightly", concurrency_limit=1, work_pool_name=POOL
            )
            return found

        return UUID(str(self.ask(made)))

    def begin(self, pid: int | None = None) -> Any:
        """A flow run that a worker has begun."""

        deployment = self.deploy()

        async def begun(client: Any) -> Any:
            from prefect.states import Pending, Running

            run = await client.create_flow_run_from_deployment(deployment)
            await client.set_flow_run_state(run.id, Pending())
            await client.set_flow_run_state(run.id, Running())
            if pid is not None:
                await client.update_flow_run(run.id, infrastructure_pid=str(pid))
            return await client.read_flow_run(run.id)

        return self.ask(begun)

    def below(self, run: Any) -> Any:
        """A flow run inside another one."""

        async def begun(client: Any) -> Any:
            from prefect import flow, task
            from prefect.states import Running

            above = await client.create_task_run(
                task(_nothing, name="run"), run.id, dynamic_key="run-0", state=Running()
            )
            return await client.create_flow_run(
                flow(_nothing, name="compare"), parent_task_run_id=above.id, state=Running()
            )

        return self.ask(begun)

    def state(self, run: Any) -> str:
        async def read(client: Any) -> str:
            return str((await client.read_flow_run(run.id)).state_name)

        return str(self.ask(read))

    def slots(self) -> int:
        async def read(client: Any) -> int:
            (limit,) = await client.read_global_concurrency_limits(limit=5, offset=0)
            return int(limit.active_slots)

        return int(self.ask(read))


def _nothing() -> None: ...


@contextlib.contextmanager
def process_of(run: Any) -> Iterator[int]:
    """A process that works on a flow run."""
    process = subprocess.Popen(
        ["sleep", "600"], env={**os.environ, "PREFECT__FLOW_RUN_ID": str(run.id)}
    )
    try:
        yield process.pid
    finally:
        process.kill()
        process.wait()


def test_flow_runs_whose_process_is_gone_go_on_and_others_are_left_alone(
    tmp_path: Path, plan: Plan
) -> None:
    with prefect_server(tmp_path, **settings(plan)) as (_, api):
        prefect, flows = Prefect(api), FlowRuns(api.removesuffix("/api"))
        run = prefect.begin(os.getpid())  # the number went to another process: this one
        inside = prefect.below(run)
        with process_of(run):
            for _ in range(2):
                flows.hand_over()
            flows.hand_over(all_of_them=True)
            assert (prefect.state(run), prefect.state(inside)) == ("Running", "Running")
        flows.hand_over()
        assert prefect.state(run) == "Running", "its worker may be about to say how it ended"
        flows.hand_over()
        assert (prefect.state(run), prefect.state(inside)) == ("Scheduled", "Crashed")
        assert prefect.slots() == 0, "the next one would wait for ever"
        again = prefect.begin()
        flows.hand_over(all_of_them=True)
        assert prefect.state(again) == "Scheduled"


def test_without_an_answer_nothing_is_handed_over_and_nothing_ends() -> None:
    flows = FlowRuns("http://127.0.0.1:9")
    flows.hand_over(all_of_them=True)
    assert flows.suspected == set()


def test_a_flow_keeps_its_place_when_the_server_is_killed(tmp_path: Path, plan: Plan) -> None:
    with prefect_server(tmp_path, **settings(plan)) as (server, api):
        run = Prefect(api).begin()
        server.kill()
    with prefect_server(tmp_path, **settings(plan)) as (_, api):
        prefect = Prefect(api)

        async def renew(client: Any) -> int:
            lease = run.state.state_details.deployment_concurrency_lease_id
            return int((await client.renew_concurrency_lease(lease, 300)).status_code)

        assert prefect.ask(renew) == 204
        assert prefect.slots() == 1


def test_the_rest_of_a_killed_server_ends_before_it_starts_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    listen = f"port={port}, bind='127.0.0.1'"
    serve = f"import http.server as h; h.test(h.SimpleHTTPRequestHandler, {listen})"
    script = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {serve!r}])"
    url = f"http://127.0.0.1:{port}"
    service = Service("server", [sys.executable, "-c", script], url)
    console, flows = Console(quiet=True), FlowRuns(url)
    service.start(dict(os.environ))
    try:
        service.wait_until_ready()
        assert service.process is not None
        os.kill(service.process.pid, signal.SIGKILL)
        service.process.wait()
        _keep_running(service, dict(os.environ), console, flows)
        deadline = time.monotonic() + 10
        while _answers(url):
            assert time.monotonic() < deadline, "a child of it has the port"
            time.sleep(0.1)
        while service.process is None:
            _keep_running(service, dict(os.environ), console, flows)
            time.sleep(0.1)
        service.wait_until_ready()
    finally:
        service.stop()
