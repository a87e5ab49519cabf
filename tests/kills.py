"""Kill commands at random moments and repeat them: they must reach the undisturbed end state.

One stage of a finished project is made stale, the pipeline is started, and a process is killed (as
with ``kill -9``) a random time after that stage has begun. Then the command is repeated.

    python -m tests.kills --seed 1 --kills 30 [--stage export] [--way repro]
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.conftest import BIN, ROOT, Project, small_project

STAGES = (
    "base", "ingest", "validate", "prepare", "resolve", "train", "cost", "evaluate", "select",
    "export", "compare", "register", "sync",
)  # fmt: skip

#: What is killed: the flow, ``dvc repro``, a worker of the flow, the Prefect server beside a flow.
WAYS = ("flow", "repro", "worker", "server")

#: Stages whose outputs hold no times: equal inputs give equal bytes.
DETERMINISTIC = ("base", "ingest", "validate", "prepare", "resolve", "train", "evaluate", "select")

_FLOW = (sys.executable, "-m", "pipelines.compare")
_REPRO = (str(BIN / "dvc"), "repro")
_SYNC = (str(BIN / "tunetrail"), "sync")

#: ``make repro`` in any project, with the environment of the tests.
MAKE_REPRO = ("make", "-sf", str(ROOT / "Makefile"), f"BIN={BIN}", "-o", ".venv/ready", "repro")

#: Seconds that a command has to get anywhere on a loaded machine.
_PATIENCE = 300.0


@dataclass(frozen=True)
class Kill:
    """One kill and what came of it.

    Attributes:
        stage: Stage that was stale.
        way: One of :data:`WAYS`.
        moment: Seconds from the start of the stage to the kill; None if it ended before.
        wrong: What was not as in the undisturbed project afterwards.
        said: Output of the command that was killed, and of the repeated one.
    """

    stage: str
    way: str
    moment: float | None
    wrong: tuple[str, ...]
    said: str

    def __str__(self) -> str:
        moment = "      –" if self.moment is None else f"{self.moment:7.2f}"
        return f"{self.stage:9} {self.way:7} {moment}  {'; '.join(self.wrong) or 'same end state'}"


def locked_outputs(project: Project) -> dict[str, Any]:
    """Deterministic stage → the digests of its outputs in dvc.lock."""
    return {
        name: [out["md5"] for out in entry["outs"]]
        for name, entry in _lock(project).items()
        if name.partition("@")[0] in DETERMINISTIC
    }


def kill_and_repeat(
    project: Project, stage: str, way: str, chance: random.Random, scratch: Path
) -> Kill:
    """Make one cell of a stage stale, kill while it runs, repeat the command, compare.

    Args:
        project: A finished project; it is left finished.
        stage: One of :data:`STAGES`.
        way: One of :data:`WAYS`.
        chance: Chooses cell and moment.
        scratch: A folder for the temporary files of the commands.
    """
    expected = locked_outputs(project)
    command = _FLOW if way != "repro" else _SYNC if stage == "sync" else _REPRO
    with contextlib.ExitStack() as stack:
        extra = {"TMPDIR": str(scratch), "PYTHONUNBUFFERED": "1"}
        server: subprocess.Popen[bytes] | None = None
        if way == "server":
            server, url = stack.enter_context(prefect_server(scratch))
            # One retry: how long Prefect's client tries is not what is tested.
            extra |= {"PREFECT_API_URL": url, "PREFECT_CLIENT_MAX_RETRIES": "1"}
        begun, usual = _make_stale(project, stage, way, chance)
        with (scratch / "output.txt").open("w") as output:
            running = subprocess.Popen(
                command,
                cwd=project.root,
                env=project.environment(**extra),
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        moment: float | None = usual * chance.random()
        _wait(lambda: begun(scratch / "output.txt") or running.poll() is not None)
        started = time.monotonic()
        with contextlib.suppress(subprocess.TimeoutExpired):
            running.wait(timeout=moment)
        if running.poll() is not None:
            moment = None
        elif way == "worker":
            _kill_worker(project)
        else:
            os.kill((server or running).pid, signal.SIGKILL)
        moment = None if moment is None else time.monotonic() - started
        wrong: list[str] = []
        if way in ("worker", "server"):
            code = running.wait(timeout=_PATIENCE)
            # A worker is tried again. Without its server a flow ends well, or says what to do.
            wrong += (
                [f"exit code {code}"] if code not in ({0} if way == "worker" else {0, 2}) else []
            )
            wrong += ["traceback"] if "Traceback" in (scratch / "output.txt").read_text() else []
        running.wait()
    done = project.command(*(MAKE_REPRO if way == "repro" else command), TMPDIR=str(scratch))
    if done.returncode != 0:
        wrong.append(f"repeated: {(done.stderr or done.stdout).strip().splitlines()[-1:]}")
    if locked_outputs(project) != expected:
        wrong.append("other digests in dvc.lock")
    wrong += _stale(project) + _mlflow_faults(project) + _left_behind(project, scratch)
    said = (scratch / "output.txt").read_text() + done.stdout + done.stderr
    return Kill(stage, way, moment, tuple(wrong), said)


@contextlib.contextmanager
def prefect_server(home: Path, **extra: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A Prefect server on a free loopback port, with its files in ``home``; process and API URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    environment |= {
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    server = subprocess.Popen(
        [BIN / "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)],
        env=environment | extra,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait(lambda: _answers(f"http://127.0.0.1:{port}/api/health"))
        yield server, f"http://127.0.0.1:{port}/api"
    finally:
        server.terminate()
        server.wait(timeout=_PATIENCE)


def _answers(url: str) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:
        return bool(answer.status == 200)
    return False


def _make_stale(
    project: Project, stage: str, way: str, chance: random.Random
) -> tuple[Callable[[Path], bool], float]:
    """Remove a cell's results, as if it had never run.

    Returns:
        How to see (given the output so far) that it runs, and the seconds it takes at most.
    """
    if stage == "sync":
        shutil.rmtree(project.root / ".tunetrail" / "mlflow", ignore_errors=True)
        held = project.root / ".tunetrail" / "sync.lock"
        held.unlink(missing_ok=True)
        return lambda _: held.exists(), 4.0
    lock = _lock(project)
    name = chance.choice([n for n in lock if n.partition("@")[0] == stage])
    entry = lock.pop(name)
    for out in entry["outs"]:
        path = project.root / out["path"]
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    content = yaml.safe_load((project.root / "dvc.lock").read_text())
    (project.root / "dvc.lock").write_text(yaml.safe_dump(content | {"stages": lock}))
    for cached in [p for p in (project.root / ".dvc" / "cache" / "runs").rglob("*") if p.is_file()]:
        if yaml.safe_load(cached.read_text())["cmd"] == entry["cmd"]:
            shutil.rmtree(cached.parent, ignore_errors=True)
    known = json.loads((project.root / ".tunetrail" / "durations.json").read_text())
    if way == "repro":  # a new interpreter imports what workers have already
        return lambda output: f"Running stage '{name}'" in output.read_text(), known[name] + 4.0
    log = project.root / ".tunetrail" / "logs" / f"{name}.log"
    log.unlink()
    return lambda _: log.exists(), known[name]


def _lock(project: Project) -> dict[str, Any]:
    lock: dict[str, Any] = yaml.safe_load((project.root / "dvc.lock").read_text())["stages"]
    return lock


def _wait(until: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not until():
        if time.monotonic() > deadline:
            raise TimeoutError("nothing happened")
        time.sleep(0.01)


def _kill_worker(project: Project) -> None:
    """Kill a process that writes to a log of this project, if there is one at this moment."""
    for process in processes(project):
        with contextlib.suppress(OSError):
            if "/.tunetrail/logs/" in os.readlink(process / "fd" / "1"):
                os.kill(int(process.name), signal.SIGKILL)
                return


def processes(project: Project) -> list[Path]:
    """Processes (as folders of /proc) that work in the project's folder."""
    found = []
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if process.name.isdigit() and Path(os.readlink(process / "cwd")) == project.root:
                found.append(process)
    return found


def _stale(project: Project) -> list[str]:
    done = project.command("dvc", "status", "--json")
    stale = json.loads(done.stdout) if done.returncode == 0 else {"dvc status": done.stderr}
    return [f"stale: {', '.join(stale)}"] if stale else []


def _mlflow_faults(project: Project) -> list[str]:
    """What MLflow's database holds twice, half, or too little of."""
    receipt = project.json("receipt.json")
    with contextlib.closing(
        sqlite3.connect(project.root / ".tunetrail" / "mlflow" / "mlflow.db")
    ) as database:
        runs = database.execute(
            "SELECT runs.run_uuid, status, key, value FROM runs JOIN tags USING (run_uuid) "
            "WHERE lifecycle_stage = 'active'"
        ).fetchall()
        versions = database.execute(
            "SELECT name, version, value FROM model_version_tags WHERE key = 'tunetrail.run'"
        ).fetchall()
        aliases = dict(database.execute("SELECT name, version FROM registered_model_aliases"))
        models = database.execute(
            "SELECT COUNT(*) FROM logged_models WHERE lifecycle_stage = 'active'"
        ).fetchone()[0]
        lineages = database.execute(
            "SELECT name, value FROM model_version_tags WHERE key = 'tunetrail.lineage_sha256'"
        ).fetchall()
    winners = sorted((model["name"], model["run"]) for model in receipt["models"])
    faults = _run_faults(receipt, runs)
    stored = sorted(
        (
            model["name"],
            _sha256(project.root / "runs" / "lineage" / model["task"] / "lineage.json"),
        )
        for model in receipt["models"]
    )
    if sorted(lineages) != stored:
        faults.append(f"MLflow has lineages {lineages}")
    if sorted((name, run) for name, _, run in versions) != winners:
        faults.append(f"MLflow has versions {versions}")
    if {(name, version) for name, version, _ in versions} != set(aliases.items()):
        faults.append(f"MLflow has aliases {aliases}")
    if models != len(winners):
        faults.append(f"MLflow has {models} logged models")
    return faults


def _run_faults(receipt: dict[str, Any], rows: list[tuple[str, str, str, str]]) -> list[str]:
    """Runs that are there twice, half or not at all, or not below that of their task and method."""
    tags: dict[str, dict[str, str]] = {}
    status: dict[str, str] = {}
    for run, state, key, value in rows:
        tags.setdefault(run, {})[key] = value
        status[run] = state
    groups = {run: found for run, found in tags.items() if found.get("stage") == "comparison"}
    there = sorted((found["task"], found["method"]) for found in groups.values())
    wanted = sorted((group["task"], group["label"]) for group in receipt["groups"])
    faults = [] if there == wanted else [f"MLflow has groups {there}"]
    runs = {run: found for run, found in tags.items() if run not in groups}
    trained = sorted(found["tunetrail.run"] for found in runs.values())
    if trained != sorted(entry["run"] for entry in receipt["runs"]):
        faults.append(f"MLflow has runs {trained}")
    if set(status.values()) != {"FINISHED"}:
        faults.append(f"MLflow has runs with the states {status}")
    for run, found in runs.items():
        parent = groups.get(found.get("mlflow.parentRunId", ""))
        if parent is None or any(parent[key] != found[key] for key in ("task", "method")):
            faults.append(f"MLflow has run {run} below {parent}")
    return faults


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _left_behind(project: Project, scratch: Path) -> list[str]:
    """Processes and temporary files that should be gone (locks would stop the repeated command)."""
    deadline = time.monotonic() + 10  # a server may take a moment to stop
    while (left := processes(project)) and time.monotonic() < deadline:
        time.sleep(0.1)
    wrong = [f"left: process {(p / 'cmdline').read_bytes()[:80]!r}" for p in left]
    root = project.root
    files = [*root.rglob(".*.tmp"), *root.glob(".tunetrail/tmp/*"), *scratch.glob("tunetrail*")]
    files += root.glob(".tunetrail/checkpoints/*")
    wrong += [f"left: {path}" for path in files]
    return wrong


def series(
    project: Project, kills: list[tuple[str, str]], seed: int, scratch: Path
) -> Iterator[Kill]:
    """Kill one after the other. A project that is not as it was is replaced by a fresh copy."""
    chance = random.Random(seed)
    current = project.copy(scratch / "project")
    current.command(*_FLOW)  # what differs with the place is brought up to date
    for number, (stage, way) in enumerate(kills):
        outcome = kill_and_repeat(current, stage, way, chance, scratch)
        yield outcome
        if outcome.wrong:
            current = project.copy(scratch / f"project-{number}")
            current.command(*_FLOW)


def main() -> int:
    """Command line; the exit code is 1 when a kill had consequences."""
    parser = argparse.ArgumentParser(prog="python -m tests.kills", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--stage", choices=STAGES, action="append", help="only this (repeatable)")
    parser.add_argument("--way", choices=WAYS, action="append", help="only this (repeatable)")
    options = parser.parse_args()
    kinds = [
        (stage, way)
        for way in options.way or WAYS
        for stage in options.stage or STAGES
        if (stage, way) != ("sync", "worker")  # no worker does it
    ]
    kills = [kinds[i % len(kinds)] for i in range(options.kills)]
    failed = 0
    with tempfile.TemporaryDirectory(prefix="kills-") as folder:
        scratch = Path(folder)
        project = small_project(scratch / "finished")
        print("stage     killed   moment  outcome")
        for outcome in series(project, kills, options.seed, scratch):
            print(outcome, flush=True)
            if outcome.wrong:
                failed += 1
                print(textwrap.indent(outcome.said, "    "), file=sys.stderr, flush=True)
    print(f"{len(kills)} kills, {failed} with consequences")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
