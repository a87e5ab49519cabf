"""Kill the services of scheduled retraining at random moments: the undisturbed end state comes.

Rows are dropped into a project's folder, a file at a time, while `make services` retrains on a
schedule of seconds. Beside each file there are kills (`kill -9`), each a random time after the one
before. What is killed comes back: the services by themselves, the database and the services' own
process by this script, as a service manager would. Then the project, MLflow and Prefect are
compared with the same files in a copy of the project that nothing happened to.

    python -m benchmarks.service_kills --seed 7 --kills 10 --out RESULT.json
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml
from filelock import FileLock

from tests.conftest import ROOT, Project
from tests.gated import gated_project, rows
from tests.kills import locked_outputs
from tests.postgres import Postgres, postgres_server
from tunetrail.provenance import provenance

#: What is killed: a part of the services or everything below a flow's process (`flow`), the worker
#: alone or with its flow, a process of a server, PostgreSQL's postmaster, `make services` itself.
TARGETS = (
    "worker and flow", "prefect-server", "database", "mlflow-server", "flow", "services", "worker",
)  # fmt: skip

#: Seconds between two retrainings by the schedule.
SCHEDULE = 10

#: Kills beside a file, at most.
BESIDE = 5

#: Seconds for anything to happen on a loaded machine.
PATIENCE = 1800.0

#: Beside the states of flow runs: places of the deployments' limits that are taken.
SLOTS = "slots taken"

_MODEL = "sentiment-own"

#: What `make services` says once everything runs.
_READY = "Ctrl-C stops them"

#: The marker by which Prefect's worker tells a process which flow run it is.
_FLOW = "PREFECT__FLOW_RUN_ID"

#: Lets a process that asks the servers find out at once that one is away.
IMPATIENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "PREFECT_CLIENT_MAX_RETRIES": "0",
    "DO_NOT_TRACK": "1",
}

Say = Callable[[str], None]


@dataclass
class Kill:
    """One kill.

    Attributes:
        target: One of :data:`TARGETS`.
        moment: Seconds since the drop of a file, or the kill before.
        killed: Processes, as the ends of their command lines, without folders.
        during: Whether a flow was running.
    """

    target: str
    moment: float
    killed: list[str]
    during: bool


@dataclass
class Services:
    """`make services` in a project, on ports that stay.

    Attributes:
        project: The project.
        log: Its output.
        database: PostgreSQL; None: SQLite inside the project.
        ports: Of Prefect's and MLflow's server.
        process: Of `make services`, while it runs.
    """

    project: Project
    log: Path
    database: Postgres | None
    ports: tuple[int, int] = field(default_factory=lambda: (_free_port(), _free_port()))
    process: subprocess.Popen[bytes] | None = None

    @property
    def logs(self) -> Path:
        """Where the services log to."""
        return self.project.root / ".tunetrail" / "logs"

    @property
    def prefect(self) -> str:
        """API of Prefect's server."""
        return f"http://127.0.0.1:{self.ports[0]}/api"

    @property
    def mlflow(self) -> str:
        """Address of MLflow's server."""
        return f"http://127.0.0.1:{self.ports[1]}"

    def start(self) -> None:
        """Start them; again where they end, as a service manager does: a port may be in use yet."""
        said = self.log.read_text().count(_READY) if self.log.exists() else 0

        def ready() -> bool:
            if self.process is None or self.process.poll() is not None:
                time.sleep(1)
                self._start()
            return self.log.read_text().count(_READY) > said

        wait(ready, "the services are ready", self.logs)

    def _start(self) -> None:
        extra = {"PYTHONUNBUFFERED": "1"}
        if self.database is not None:
            extra["TUNETRAIL_DATABASE"] = f"postgresql://{self.database.address}"
        command = [sys.executable, "-m", "pipelines.services"]
        command += ["--prefect-port", str(self.ports[0]), "--mlflow-port", str(self.ports[1])]
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                command,
                cwd=self.project.root,
                env=self.project.environment(**extra),
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def stop(self) -> None:
        """Ask them to stop, and wait."""
        if self.process is None:
            return
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=120)

    def part(self, name: str) -> psutil.Process | None:
        """The process that was started for a service, if it runs."""
        assert self.process is not None
        words = {"worker": ("worker", "start"), "prefect-server": ("server", "start")}
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self.process.pid).children():
                line = _command(child)
                wanted = words.get(name, ("mlflow", "server"))
                if all(any(part.endswith(word) for part in line) for word in wanted):
                    return child
        return None

    def flows(self) -> list[psutil.Process]:
        """Processes of flow runs, whoever their parents are now."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                environment = process.environ()
                if environment.get("PREFECT_API_URL") == self.prefect and _FLOW in environment:
                    found.append(process)
        return found

    def kill(self, target: str, chance: random.Random) -> list[str]:
        """Kill with ``kill -9``; what was killed."""
        if target == "database":
            assert self.database is not None
            self.database.kill()
            return ["postgres"]
        if target == "services":
            assert self.process is not None
            self.process.kill()
            self.process.wait()
            return ["pipelines.services"]
        chosen: list[psutil.Process] = []
        if target in ("worker", "worker and flow"):
            chosen += [process for process in [self.part("worker")] if process]
        if target in ("flow", "worker and flow"):
            chosen += self.flows()
        if target.endswith("-server") and (server := self.part(target)) is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                chosen = [chance.choice([server, *server.children(recursive=True)])]
        killed = []
        for process in chosen:
            with contextlib.suppress(psutil.NoSuchProcess):
                line = " ".join(Path(part).name for part in _command(process))[-60:]
                process.kill()
                killed.append(line)
        return killed

    def restore(self, chance: random.Random) -> None:
        """Start again what does not start by itself, a moment later."""
        assert self.process is not None
        if self.database is not None and not self.database.running:
            time.sleep(3 * chance.random())
            self.database.start()
        if self.process.poll() is not None:
            time.sleep(3 * chance.random())
            self.start()


def _command(process: psutil.Process) -> list[str]:
    with contextlib.suppress(psutil.Error):
        return list(process.cmdline())
    return []


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def prepared(root: Path) -> Project:
    """A project, with a gate that asks for nothing that a loaded machine decides."""
    project = gated_project(root)
    project.change(retrain={"branch": "retrained"}, gate={"margin": 0.05, "latency": 1000.0})
    content = yaml.safe_load((ROOT / "prefect.yaml").read_text())
    content["deployments"][0]["schedules"] = [{"interval": SCHEDULE}]
    (root / "prefect.yaml").write_text(yaml.safe_dump(content))
    return project


def drop(project: Project, number: int) -> None:
    """A file of 200 new rows, in one step."""
    folder = project.root / "data" / "incoming" / "own"
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["sentence,class", *rows(range(50 + 10 * number, 60 + 10 * number))]
    name = f"day-{number}.csv"
    (folder / f"{name}.tmp").write_text("\n".join(lines) + "\n")
    os.replace(folder / f"{name}.tmp", folder / name)


def finished(project: Project, tracking: str, number: int) -> bool:
    """Whether the version of a file was trained, judged and kept."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    with contextlib.suppress(MlflowException):
        client = MlflowClient(tracking)
        aliases = client.get_registered_model(_MODEL).aliases
        judged = str(number) in {str(v) for v in aliases.values()}
        return judged and not _waiting(project) and _kept(project)
    return False


def _waiting(project: Project) -> bool:
    """Whether files lie in the drop folder."""
    return any((project.root / "data" / "incoming" / "own").glob("*.csv"))


def _kept(project: Project) -> bool:
    """Whether the branch has what the folder has."""
    shown = subprocess.run(
        ["git", "show", "retrained:dvc.lock"], cwd=project.root, capture_output=True, check=False
    )
    return shown.stdout == (project.root / "dvc.lock").read_bytes()


def wait(until: Callable[[], Any], what: str, logs: Path | None = None) -> Any:
    """Wait until something is true.

    Raises:
        TimeoutError: It does not become true, with the ends of the logs.
    """
    deadline = time.monotonic() + PATIENCE
    while not (found := until()):
        if time.monotonic() > deadline:
            files = sorted(logs.glob("*er.log")) if logs else []
            said = [f"== {path.name}\n{path.read_text()[-4000:]}" for path in files]
            raise TimeoutError("\n".join([f"not in {PATIENCE:.0f} s: {what}", *said]))
        time.sleep(0.5)
    return found


def state(project: Project, tracking: str) -> dict[str, Any]:
    """What may not differ: data versions, results, MLflow's runs and versions, without times."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking)
    experiment = client.get_experiment_by_name("sentiment").experiment_id
    runs = client.search_runs([experiment], max_results=1000)
    names = {run.info.run_id: run.info.run_name for run in runs}
    versions = {int(v.version): v for v in client.search_model_versions(f"name='{_MODEL}'")}
    # The other two are digests of files with latencies in them.
    timed = ("largest_", "gate.file", "tunetrail.lineage", "tunetrail.model_card")
    return {
        "data": {
            path.name: {k: v for k, v in json.loads(path.read_text()).items() if k != "created"}
            for path in sorted((project.root / "data" / "versions" / "own").glob("*.json"))
        },
        "incoming": sorted(
            path.relative_to(project.root).as_posix()
            for path in (project.root / "data" / "incoming").rglob("*")
            if path.is_file()
        ),
        "gate": project.json("data/gate/own.json"),
        "dvc.lock": locked_outputs(project),
        "receipt": {k: v for k, v in project.json("receipt.json").items() if k != "comparison"},
        "kept": _kept(project),
        "runs": sorted(
            (
                (
                    run.info.run_name,
                    run.info.status,
                    run.data.tags["tunetrail.run"],
                    run.data.tags.get("tunetrail.content"),
                    names.get(run.data.tags.get("mlflow.parentRunId", "")),
                    {k: v for k, v in run.data.metrics.items() if not k.startswith("cost/")},
                )
                for run in runs
            ),
            key=repr,
        ),
        "models": len(client.search_logged_models([experiment])),
        "versions": {
            number: (
                {k: v for k, v in version.tags.items() if not k.startswith(timed)},
                names.get(version.run_id),
                bool(version.description),
                _lineage(client, version),
            )
            for number, version in versions.items()
        },
        # Numbers of a file's store are other types than those of a server.
        "aliases": {k: str(v) for k, v in client.get_registered_model(_MODEL).aliases.items()},
    }


def _lineage(client: Any, version: Any) -> dict[str, Any]:
    """The lineage that is stored with a version, without what was measured."""
    from mlflow.artifacts import load_dict

    model = client.get_logged_model(version.source.removeprefix("models:/"))
    found: dict[str, Any] = load_dict(f"{model.artifact_location}/lineage.json")
    del found["certificate"]["latency"]
    for link in found["links"]:
        if link["path"].endswith("certificate.json"):
            del link["sha256"]
    return found


def differences(expected: Any, found: Any, place: str = "") -> list[str]:
    """Where two states differ, in words."""
    if isinstance(expected, dict) and isinstance(found, dict):
        return [
            line
            for key in sorted({*expected, *found}, key=str)
            for line in differences(expected.get(key), found.get(key), f"{place}/{key}")
        ]
    rows = isinstance(expected, list | tuple) and isinstance(found, list | tuple)
    if rows and len(expected) == len(found):
        return [
            line
            for number, pair in enumerate(zip(expected, found, strict=True))
            for line in differences(*pair, f"{place}/{number}")
        ]
    return [] if expected == found else [f"{place}: {expected!r} became {found!r}"]


def counted(api: str) -> dict[str, int] | None:
    """How many flow runs are in each state but Scheduled, and slots taken; None: no answer."""
    import httpx
    from prefect.client.orchestration import PrefectClient

    async def read() -> dict[str, int]:
        counts: dict[str, int] = {}
        async with PrefectClient(api) as client:
            offset = 0
            while page := await client.read_flow_runs(offset=offset, limit=200):
                offset += len(page)
                for run in page:
                    if run.state is not None and not run.state.is_scheduled():
                        name = str(run.state.name)
                        counts[name] = counts.get(name, 0) + 1
            limits = await client.read_global_concurrency_limits(limit=50, offset=0)
            counts[SLOTS] = sum(limit.active_slots for limit in limits)
        return counts

    with contextlib.suppress(httpx.HTTPError):
        return asyncio.run(read())
    return None


def first_version(services: Services, calm: Path) -> float:
    """Wait for the first version; the seconds it took.

    Args:
        services: Running, with a project that has not run yet.
        calm: Where a copy of the project goes, once it is finished.
    """
    begun = time.monotonic()
    project = services.project
    wait(lambda: finished(project, services.mlflow, 1), "the first version is kept", services.logs)
    took = time.monotonic() - begun
    with FileLock(project.root / ".tunetrail" / "retrain.lock"):
        project.copy(calm)
    return took


def kill_series(
    services: Services, plan: list[list[str]], usual: float, chance: random.Random, say: Say
) -> Iterator[Kill]:
    """Drop a file, kill what the plan has for it, wait until its version is kept; and the next.

    Args:
        services: Running, with a finished project.
        plan: Targets of each file.
        usual: Seconds that a retraining takes: the longest time between two kills.
        chance: Chooses moments and processes.
        say: Called with what is done.
    """
    for number, targets in enumerate(plan, 2):
        drop(services.project, number)
        begun = time.monotonic()
        for target in targets:
            moment = usual * chance.random()
            time.sleep(moment)
            during = bool(services.flows())
            killed = services.kill(target, chance)
            services.restore(chance)
            say(f"version {number}: {target} after {moment:.0f} s, {len(killed)} processes")
            yield Kill(target, round(moment, 1), killed, during)
        wait(
            functools.partial(finished, services.project, services.mlflow, number),
            f"version {number} is trained and kept",
            services.logs,
        )
        say(f"version {number} was kept {time.monotonic() - begun:.0f} s after the file came")


def end_state(services: Services) -> tuple[dict[str, Any], dict[str, int]]:
    """State after the schedule has fired again and everything is still; flow runs by state."""
    before = wait(lambda: counted(services.prefect), "Prefect answers", services.logs)

    def fired() -> bool:
        counts = counted(services.prefect) or {}
        return bool(counts.get("Completed", 0) > before.get("Completed", 0) + 1)

    wait(fired, "the schedule fires, and its flows complete", services.logs)
    pause(services.prefect)

    def still() -> dict[str, int] | None:
        counts = counted(services.prefect)
        busy = counts and any(counts.get(name) for name in ("Running", "Pending", SLOTS))
        return None if busy else counts

    counts = wait(still, "no flow is under way, and none is left", services.logs)
    return state(services.project, services.mlflow), counts


def undisturbed(project: Project, files: int, prefect: str) -> dict[str, Any]:
    """The state after the same files, retrained one after the other by hand, with its own MLflow.

    Args:
        project: The copy of the finished project.
        files: How many files were dropped.
        prefect: A server for the states of its flows.
    """
    for number in range(1, 2 + files):
        if number > 1:
            drop(project, number)
        subprocess.run(
            [sys.executable, "-m", "pipelines.retrain"],
            cwd=project.root,
            env=project.environment(PREFECT_API_URL=prefect),
            stdout=subprocess.DEVNULL,
            check=True,
        )
    return state(project, f"sqlite:///{project.root / '.tunetrail' / 'mlflow' / 'mlflow.db'}")


def pause(api: str) -> None:
    """Let no schedule fire any more."""
    from prefect.client.orchestration import PrefectClient

    async def paused() -> None:
        async with PrefectClient(api) as client:
            for deployment in await client.read_deployments():
                await client.pause_deployment(deployment.id)

    asyncio.run(paused())


def main() -> int:
    """Command line; the exit code is 1 when a kill had consequences."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--target", choices=TARGETS, action="append", help="only this (repeatable)")
    parser.add_argument("--sqlite", action="store_true", help="instead of PostgreSQL")
    parser.add_argument("--out", type=Path, help="write the result here as JSON")
    options = parser.parse_args()
    os.environ |= IMPATIENT
    begun = time.monotonic()

    def say(line: str) -> None:
        print(f"{time.monotonic() - begun:6.0f} s  {line}", flush=True)

    targets = [t for t in options.target or TARGETS if not (options.sqlite and t == "database")]
    kills = [targets[i % len(targets)] for i in range(options.kills)]
    plan = [kills[i : i + BESIDE] for i in range(0, len(kills), BESIDE)]
    folder = Path(tempfile.mkdtemp(prefix="service-kills-"))
    say(f"in {folder}")
    with contextlib.ExitStack() as stack:
        database = None if options.sqlite else stack.enter_context(postgres_server())
        services = Services(prepared(folder / "disturbed"), folder / "services.txt", database)
        stack.callback(services.stop)
        services.start()
        say("the services are ready")
        usual = first_version(services, folder / "calm")
        say("the first version is kept")
        outcomes = list(kill_series(services, plan, usual, random.Random(options.seed), say))
        found, flows = end_state(services)
        say(f"flow runs: {flows}")
        expected = undisturbed(Project(folder / "calm"), len(plan), services.prefect)
    wrong = differences(expected, found)
    for line in wrong:
        say(f"differs: {line}")
    hit = sum(kill.during for kill in outcomes)
    say(f"{len(outcomes)} kills, {hit} in a flow, {len(wrong)} differences")
    result = {
        "seed": options.seed,
        "database": "SQLite" if options.sqlite else "PostgreSQL",
        "first_version_seconds": round(usual, 1),
        "kills": [asdict(kill) for kill in outcomes],
        "in_a_flow": hit,
        "versions": len(found["versions"]),
        "runs": len(found["runs"]),
        "flow_runs": flows,
        "differences": wrong,
        **provenance(),
    }
    if options.out:
        options.out.write_text(json.dumps(result, indent=2) + "\n")
    if not wrong:
        shutil.rmtree(folder)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
