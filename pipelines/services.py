"""Prefect's server and worker and MLflow's server, on loopback, until they are told to stop.

A service that ends by itself is started again. A flow run whose process is gone with its worker is
handed to the next worker: the project knows what is done, so it goes on where it was.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
from rich.console import Console

from pipelines.compare import guarded
from pipelines.login import PASSWORD, USER, Login, login
from tunetrail.errors import TuneTrailError, unknown
from tunetrail.files import STATE_DIR
from tunetrail.place import PIPELINE, project_root

POOL = "tunetrail"

#: Seconds that a service has to answer, and to stop.
_TO_START, _TO_STOP = 300.0, 20.0

#: Longest pause before a service that keeps ending is started again, in seconds, and how long it
#: has to run for its earlier ends to be forgotten.
_LONGEST_PAUSE, _LONG = 30.0, 300.0

#: Seconds between two looks at flow runs whose process is gone while their worker runs.
_LOOK = 15.0

#: Seconds that this waits for an answer: meanwhile nothing else is kept running.
_PATIENCE = 20.0

#: By what a worker tells a process which flow run it is.
_FLOW_RUN = "PREFECT__FLOW_RUN_ID"

_DEPLOYMENTS = Path("prefect.yaml")

#: Values of ``--auth``.
_AUTH = ("none", "basic")


@dataclass
class Service:
    """A program that is kept running.

    Attributes:
        name: As it is shown, and its log is called.
        command: Program and arguments.
        url: What answers once it is ready; None: nothing does.
        process: While it runs.
        failures: How often it ended by itself.
        started: When it was started last (``time.monotonic``).
        again: When it is started again.
    """

    name: str
    command: list[str]
    url: str | None = None
    process: subprocess.Popen[bytes] | None = None
    failures: int = 0
    started: float = 0.0
    again: float = 0.0

    def start(self, environment: dict[str, str]) -> None:
        """Start it, with its output in ``.tunetrail/logs``."""
        self.started = time.monotonic()
        log = STATE_DIR / "logs" / f"{self.name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                self.command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C is for us: we stop them in order
                preexec_fn=_end_with_parent,
            )

    def wait_until_ready(self) -> None:
        """Wait until it answers.

        Raises:
            TuneTrailError: It ended, or does not answer in time.
        """
        deadline = time.monotonic() + _TO_START
        while self.url is not None and not _answers(self.url):
            ended = self.process is not None and self.process.poll() is not None
            if ended or time.monotonic() > deadline:
                raise TuneTrailError(
                    f"{self.name} {'ended' if ended else 'does not answer'}",
                    f"see {STATE_DIR / 'logs' / self.name}.log",
                )
            time.sleep(0.1)

    def stop(self) -> None:
        """Ask it to stop, and end it and its children if it does not."""
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(_TO_STOP)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.process = None


@dataclass
class Plan:
    """What is started, and where.

    Attributes:
        root: The project.
        host: Address that the servers listen on.
        prefect_port: Of Prefect's server.
        mlflow_port: Of MLflow's server.
        database: ``postgresql://user@host:port``, or empty for SQLite in the project.
        login: Who may use the servers; None: whoever reaches them.
    """

    root: Path
    host: str
    prefect_port: int
    mlflow_port: int
    database: str = ""
    login: Login | None = None
    services: list[Service] = field(default_factory=list)

    def database_of(self, server: str, scheme: str = "postgresql") -> str:
        """The database of ``prefect`` or ``mlflow``; empty without a PostgreSQL."""
        if not self.database:
            return ""
        found = urlsplit(self.database)._replace(scheme=scheme, path=f"/tunetrail_{server}")
        return found.geturl()

    @property
    def prefect_url(self) -> str:
        """Where Prefect's server is."""
        return f"http://{self.host}:{self.prefect_port}"

    @property
    def mlflow_url(self) -> str:
        """Where MLflow's server is."""
        return f"http://{self.host}:{self.mlflow_port}"

    def environment(self) -> dict[str, str]:
        """Of all services, and of the flows that the worker starts."""
        values = {
            "PREFECT_HOME": str((self.root / STATE_DIR / "prefect").absolute()),
            "PREFECT_API_URL": f"{self.prefect_url}/api",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            "MLFLOW_TRACKING_URI": self.mlflow_url,
            "MLFLOW_DISABLE_TELEMETRY": "true",
            # Eight further processes, for jobs that nothing here asks for.
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            # In memory, a restarted server would know of none, and end the flows that hold them.
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": (
                "prefect.server.concurrency.lease_storage.filesystem"
            ),
            # What the server says while its database is away.
            "PREFECT_CLIENT_RETRY_EXTRA_CODES": "500",
        }
        if self.database:
            states = self.database_of("prefect", "postgresql+asyncpg")
            values["PREFECT_API_DATABASE_CONNECTION_URL"] = states
        return {**os.environ, **values, **(self.login.environment() if self.login else {})}

    def servers(self) -> tuple[Service, Service]:
        """Prefect's and MLflow's."""
        programs = Path(sys.executable).parent
        store = self.root / STATE_DIR / "mlflow"
        backend = self.database_of("mlflow") or f"sqlite:///{store.absolute() / 'mlflow.db'}"
        prefect = [programs / "prefect", "server", "start", "--host", self.host]
        mlflow = [programs / "mlflow", "server", "--host", self.host, "--workers", "1"]
        mlflow += ["--default-artifact-root", (store / "artifacts").absolute().as_uri()]
        mlflow += ["--port", self.mlflow_port]
        mlflow += ["--app-name", "basic-auth"] if self.login else []
        os.environ["MLFLOW_BACKEND_STORE_URI"] = backend  # it may have a password: not an argument
        return (
            Service(
                "prefect-server",
                [str(part) for part in (*prefect, "--port", self.prefect_port)],
                f"{self.prefect_url}/api/health",
            ),
            Service("mlflow-server", [str(part) for part in mlflow], f"{self.mlflow_url}/health"),
        )


def serve(plan: Plan, console: Console) -> None:
    """Start everything, say where it is, and keep it running until a signal ends it.

    Raises:
        TuneTrailError: A port is taken, or a service does not start.
    """
    from tunetrail.tracking.sync import create_store

    if plan.host not in ("127.0.0.1", "localhost", "::1"):
        console.print(
            f"warning: the password reaches {plan.host} unencrypted. Put a proxy with TLS before "
            "the servers."
            if plan.login
            else f"warning: {plan.host} can be reached from outside, and neither server asks who "
            "is there. Start them with --auth basic, or use 127.0.0.1.",
            style="yellow",
        )
    for port in (plan.prefect_port, plan.mlflow_port):
        _check_free(plan.host, port)
    if plan.database:
        _create_databases(plan.database)
    else:
        create_store(plan.root)
    servers = plan.servers()
    environment = plan.environment()
    programs = Path(sys.executable).parent
    name = f"{socket.gethostname()}-{secrets.token_hex(3)}"
    worker = [programs / "prefect", "worker", "start", "--pool", POOL, "--name", name]
    running: list[Service] = []
    try:
        for service in servers:
            service.start(environment)
            running.append(service)
        for service in servers:
            service.wait_until_ready()
        if plan.login is not None:
            plan.login.check(plan.mlflow_url)
        _deploy(plan, environment)
        running.append(Service("prefect-worker", [str(part) for part in worker]))
        flows = FlowRuns(plan.prefect_url, plan.login.pair if plan.login else None)
        flows.hand_over(all_of_them=True)
        running[-1].start(environment)
        console.print(
            f"Prefect     {plan.prefect_url}\nMLflow      {plan.mlflow_url}\n"
            + f"Login       {USER}, password in {PASSWORD}\n" * (plan.login is not None)
            + f"Logs        {STATE_DIR / 'logs'}\nCtrl-C stops them."
        )
        while True:
            time.sleep(0.5)
            for service in running:
                _keep_running(service, environment, console, flows)
            flows.look()
    finally:
        for service in reversed(running):
            service.stop()


def _keep_running(
    service: Service, environment: dict[str, str], console: Console, flows: FlowRuns
) -> None:
    now = time.monotonic()
    if service.process is not None and service.process.poll() is not None:
        with contextlib.suppress(ProcessLookupError):  # a child of it would keep its port
            os.killpg(service.process.pid, signal.SIGKILL)
        if now - service.started > _LONG:
            service.failures = 0
        pause = min(2.0**service.failures, _LONGEST_PAUSE)
        console.print(
            f"{service.name} ended ({service.process.returncode}): again in {pause:.0f} s",
            style="yellow",
        )
        service.process, service.again = None, now + pause
        service.failures += 1
    if service.process is None and now >= service.again:
        # Without an answer the worker starts all the same: it waits for the server, and what was
        # not handed over now is seen by one of the next looks.
        if service.url is None:
            flows.hand_over(all_of_them=True)
        service.start(environment)


@dataclass
class FlowRuns:
    """Flow runs that count as begun, though their process is gone, go to the next worker.

    Attributes:
        url: Prefect's server.
        login: ``user:password`` that it asks for.
        looked: When it was last asked (``time.monotonic``).
        suspected: Runs whose process was gone at the last look: their worker may be about to say
            how they ended.
    """

    url: str
    login: str | None = None
    looked: float = field(default_factory=time.monotonic)
    suspected: set[str] = field(default_factory=set)

    def look(self) -> None:
        """Hand over runs that two looks found without a process."""
        if time.monotonic() - self.looked >= _LOOK:
            self.hand_over()

    def hand_over(self, all_of_them: bool = False) -> None:
        """Hand over runs without a process, if Prefect's server answers.

        Args:
            all_of_them: There is no worker that could be about to start or to end one.
        """
        import httpx

        self.looked = time.monotonic()
        # It is away for a moment, or its database is: another time.
        with contextlib.suppress(httpx.HTTPError, TimeoutError):
            asyncio.run(asyncio.wait_for(self._hand_over(all_of_them), _PATIENCE))

    async def _hand_over(self, all_of_them: bool) -> None:
        from prefect.client.orchestration import PrefectClient
        from prefect.client.schemas.objects import State
        from prefect.states import Crashed, Scheduled

        suspected = set()
        async with PrefectClient(f"{self.url}/api", auth_string=self.login) as client:
            begun = await _begun(client)
            at_work = _at_work() if begun else set()
            for run, top in begun:
                age = (datetime.now(UTC) - run.state.timestamp).total_seconds()
                starting = run.state.is_pending() and age < _TO_START
                if top.work_pool_name != POOL or str(top.id) in at_work:
                    continue
                if all_of_them or (str(run.id) in self.suspected and not starting):
                    state: State[Any] = (
                        Scheduled(message="its process is gone: it goes on")
                        if run is top
                        else Crashed(message="its process is gone")
                    )
                    await client.set_flow_run_state(run.id, state, force=True)
                else:
                    suspected.add(str(run.id))
        self.suspected = suspected


async def _begun(client: Any) -> list[tuple[Any, Any]]:
    """Flow runs that count as begun, each with the one that a worker started for it."""
    from prefect.client.schemas.filters import (
        FlowRunFilter,
        FlowRunFilterState,
        FlowRunFilterStateType,
    )
    from prefect.client.schemas.objects import StateType

    types = FlowRunFilterStateType(any_=[StateType.RUNNING, StateType.PENDING])
    wanted = FlowRunFilter(state=FlowRunFilterState(type=types))
    found = []
    for run in await client.read_flow_runs(flow_run_filter=wanted):
        top = run
        while top.parent_task_run_id is not None:
            task = await client.read_task_run(top.parent_task_run_id)
            top = await client.read_flow_run(task.flow_run_id)
        found.append((run, top))
    return found


def _at_work() -> set[str]:
    """Flow runs that have a process on this machine. A worker's note of its number may be missing,
    and the number may be another process's by now."""
    found = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            found.add(process.environ().get(_FLOW_RUN, ""))
    return found


def _deploy(plan: Plan, environment: dict[str, str]) -> None:
    """Make the pool, and deploy what prefect.yaml has (the project's, or TuneTrail's own)."""
    prefect = str(Path(sys.executable).parent / "prefect")
    own = plan.root / _DEPLOYMENTS
    file = own if own.exists() else PIPELINE.parent / _DEPLOYMENTS
    commands = (
        ["work-pool", "create", POOL, "--type", "process", "--overwrite"],
        ["--no-prompt", "deploy", "--all", "--prefect-file", str(file)],
    )
    for arguments in commands:
        done = subprocess.run(
            [prefect, *arguments],
            cwd=plan.root,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            said = (done.stderr or done.stdout).strip()
            raise TuneTrailError(f"`prefect {' '.join(arguments[:3])}` failed: {said}", "see above")


def _create_databases(server: str) -> None:
    """Create both databases, where they are not there yet.

    Raises:
        TuneTrailError: PostgreSQL does not answer.
    """
    try:
        import psycopg2
    except ImportError:
        raise TuneTrailError(
            "psycopg2 is not installed", "install 'tunetrail[remote]' for PostgreSQL"
        ) from None
    try:
        connection = psycopg2.connect(urlsplit(server)._replace(path="/postgres").geturl())
    except psycopg2.OperationalError as error:
        raise TuneTrailError(
            f"PostgreSQL at {server.rpartition('@')[2]} cannot be used: {str(error).strip()}",
            "start it, or correct the address",
        ) from None
    connection.autocommit = True
    with contextlib.closing(connection), connection.cursor() as cursor:
        for name in ("tunetrail_prefect", "tunetrail_mlflow"):
            cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,))
            if cursor.fetchone() is None:
                cursor.execute(f"CREATE DATABASE {name}")


def _check_free(host: str, port: int) -> None:
    try:
        with socket.create_server((host, port)):
            pass
    except OSError as error:
        raise TuneTrailError(
            f"port {port} on {host} cannot be used: {error.strerror}",
            "stop what uses it, or name another one (--prefect-port, --mlflow-port)",
        ) from None


def _answers(url: str) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:
        return bool(answer.status == 200)
    return False


def _end_with_parent() -> None:
    """Let the kernel end a service when this process is killed (Linux; elsewhere nothing does)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


@contextlib.contextmanager
def _in(folder: Path) -> Iterator[None]:
    with contextlib.chdir(folder):
        yield


def main() -> int:
    """Command line; it ends with a signal."""
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.services",
        description="Prefect's server and worker and MLflow's server, until Ctrl-C. Deploys "
        "what prefect.yaml has.",
        epilog="example: TUNETRAIL_DATABASE=postgresql://me@127.0.0.1 python -m pipelines.services "
        "--auth basic",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--prefect-port", type=int, default=4200)
    parser.add_argument("--mlflow-port", type=int, default=5000)
    parser.add_argument(
        "--auth",
        default=os.environ.get("TUNETRAIL_AUTH") or "none",
        help="'basic': both servers ask for a password (default: TUNETRAIL_AUTH, else none)",
    )
    options = parser.parse_args()
    plain: dict[str, Any] = {"soft_wrap": True, "highlight": False, "markup": False}
    console, errors = Console(**plain), Console(stderr=True, **plain)

    def run() -> int:
        if options.auth not in _AUTH:
            raise unknown("authentication", options.auth, _AUTH, "--auth")
        root = project_root(Path.cwd())
        with _in(root):
            plan = Plan(
                root,
                options.host,
                options.prefect_port,
                options.mlflow_port,
                os.environ.get("TUNETRAIL_DATABASE", ""),
            )
            if options.auth == "basic":
                plan.login = login(plan.database_of("mlflow"))
            serve(plan, console)
        return 0

    return guarded(run, errors)


if __name__ == "__main__":
    sys.exit(main())
