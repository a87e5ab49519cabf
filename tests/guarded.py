"""The services of a small project behind a password, with secrets planted around them, used."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests import planted
from tests.conftest import Project
from tests.served import free_port

#: Files that hold a secret by design; git ignores both.
ALLOWED = (".dvc/config.local", ".tunetrail/services/password")

#: Seconds for anything to happen on a loaded machine.
_PATIENCE = 400.0

_MODEL = "models:/sentiment-own@champion"


@dataclass
class Session:
    """What was seen.

    Attributes:
        project: Afterwards, with the services stopped.
        said: Command → what it printed on both streams.
        codes: Command → exit code.
        answers: Who asked which server → status.
        listening: Addresses and ports of the services, and of ``tunetrail serve``.
        ports: Those that they were told to use.
        command_lines: Of all processes.
        served: Status of requests to ``tunetrail serve``, without the token and with it.
    """

    project: Project
    said: dict[str, str] = field(default_factory=dict)
    codes: dict[str, int] = field(default_factory=dict)
    answers: dict[str, int] = field(default_factory=dict)
    listening: set[tuple[str, int]] = field(default_factory=set)
    ports: set[int] = field(default_factory=set)
    command_lines: str = ""
    served: list[int] = field(default_factory=list)

    def run(self, name: str, *command: str, **environment: str) -> None:
        """Run a command with everything planted."""
        done = self.project.command(*command, **(planted.ENVIRONMENT | environment))
        self.said[name] = done.stdout + done.stderr
        self.codes[name] = done.returncode


def session(project: Project, by_worker: bool = False, **extra: str) -> Session:
    """Start the services, use them in every way, and stop them.

    MLflow and DVC's remote are out of reach during the retraining, and there at the end.

    Args:
        project: A finished project of one's own; changed.
        by_worker: Whether a retraining is started by the services' own worker, too.
        extra: Further variables for the services.
    """
    seen = Session(project)
    remote = project.root.parent / "remote"
    _plant(project)
    with _services(seen, **extra) as (prefect, mlflow):
        secret = {
            "PREFECT_API_URL": f"{prefect}/api",
            "PREFECT_API_AUTH_STRING": f"admin:{planted.PASSWORD}",
        }
        with_user = mlflow.replace("//", f"//admin:{planted.PASSWORD}@")
        away = {"MLFLOW_TRACKING_URI": f"http://admin:{planted.PASSWORD}@127.0.0.1:9"}
        asked = {
            "Prefect": f"{prefect}/api/admin/version",
            "MLflow": f"{mlflow}/api/2.0/mlflow/experiments/search?max_results=1",
        }
        for who, password in (("nobody", ""), ("a stranger", "wrong"), ("admin", planted.PASSWORD)):
            for server, url in asked.items():
                seen.answers[f"{who}, {server}"] = _status(url, password)
        retrain = [sys.executable, "-m", "pipelines.retrain", "-vv", "--json"]
        seen.run("retrain", *retrain, **secret, **away)
        seen.run("sync, nothing there", "tunetrail", "-vv", "sync", **away)
        project.command("dvc", "remote", "add", "--local", "--default", "folder", str(remote))
        seen.run("sync, no password", "tunetrail", "sync", MLFLOW_TRACKING_URI=mlflow)
        seen.run(
            "sync", "tunetrail", "-vv", "sync", "--json",
            MLFLOW_TRACKING_URI=mlflow,
            MLFLOW_TRACKING_USERNAME="admin",
            MLFLOW_TRACKING_PASSWORD=planted.PASSWORD,
        )  # fmt: skip
        if by_worker:
            run = ["prefect", "deployment", "run", "retrain/nightly", "--watch"]
            seen.run("by the worker", *run, **secret)
        named = {"MLFLOW_TRACKING_URI": with_user}
        seen.run("explain", "tunetrail", "explain", _MODEL, "--check", **named)
        told = f"{prefect}/api".replace("//", f"//me:{planted.PASSWORD}@")
        seen.run("doctor", "tunetrail", "doctor", PREFECT_API_URL=told, **named)
        _serve(seen, **named)
    return seen


def _plant(project: Project) -> None:
    """Secrets in files; a remote that is out of reach; something to execute; an empty MLflow."""
    shutil.rmtree(project.root / ".tunetrail" / "mlflow")
    folder = project.root / ".tunetrail" / "services"
    folder.mkdir()
    password = folder / "password"
    password.write_text(planted.PASSWORD + "\n")
    password.chmod(0o600)
    url = f"ssh://me:{planted.REMOTE}@127.0.0.1:9/results"
    for command in (
        ["add", "--local", "--default", "shared", url],
        ["modify", "--local", "shared", "password", planted.REMOTE],
    ):
        assert project.command("dvc", "remote", *command).returncode == 0
    notify = "import os; print(os.environ['NOTIFY_PASSWORD']); raise SystemExit(3)"
    kept = {
        "methods": "all",
        "push": True,
        "branch": "retrained",
        "notify": [sys.executable, "-c", notify],
    }
    project.change(retrain=kept, margin=0.02)


@contextlib.contextmanager
def _services(seen: Session, **extra: str) -> Iterator[tuple[str, str]]:
    """The shipped services with a password; addresses of Prefect and MLflow."""
    prefect, mlflow = free_port(), free_port()
    seen.ports |= {prefect, mlflow}
    log = seen.project.root.parent / "services.txt"
    with log.open("w") as output:
        running = subprocess.Popen(
            [
                *(sys.executable, "-m", "pipelines.services", "--auth", "basic"),
                *("--prefect-port", str(prefect), "--mlflow-port", str(mlflow)),
            ],
            cwd=seen.project.root,
            env=seen.project.environment(PYTHONUNBUFFERED="1", **planted.ENVIRONMENT, **extra),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    deadline = time.monotonic() + _PATIENCE
    try:
        while "Ctrl-C stops them" not in log.read_text():
            assert running.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        family = planted.family(running.pid)
        seen.listening |= planted.listening(family)
        seen.command_lines += planted.command_lines(family)
        yield f"http://127.0.0.1:{prefect}", f"http://127.0.0.1:{mlflow}"
    finally:
        running.send_signal(signal.SIGTERM)
        seen.codes["services"] = running.wait(timeout=120)
        seen.said["services"] = log.read_text()


def _serve(seen: Session, **environment: str) -> None:
    """Serve the champion, ask it, and end it."""
    process = subprocess.Popen(
        ["tunetrail", "-vv", "serve", _MODEL, "--port", "0", "--json"],
        cwd=seen.project.root,
        env=seen.project.environment(**planted.ENVIRONMENT, **environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        executable=str(Path(sys.executable).parent / "tunetrail"),
    )
    assert process.stdout is not None
    said, url = "", ""
    while not url:
        line = process.stdout.readline()
        assert line, said
        said += line
        with contextlib.suppress(json.JSONDecodeError):
            url = json.loads(line)["url"]
    seen.ports.add(int(url.rpartition(":")[2]))
    seen.listening |= planted.listening(planted.family(process.pid))
    seen.command_lines += planted.command_lines(planted.family(process.pid))
    for token in ("wrong", planted.ENVIRONMENT["TUNETRAIL_SERVE_TOKEN"]):
        body = json.dumps({"rows": [{"text": "a wonderful plot"}]}).encode()
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
        seen.served.append(_answer(urllib.request.Request(f"{url}/predict", body, headers)))
    process.send_signal(signal.SIGTERM)
    rest, _ = process.communicate(timeout=60)
    seen.said["serve"], seen.codes["serve"] = said + rest, process.returncode


def _status(url: str, password: str) -> int:
    asked = urllib.request.Request(url)
    if password:
        token = base64.b64encode(f"admin:{password}".encode()).decode()
        asked.add_header("Authorization", f"Basic {token}")
    return _answer(asked)


def _answer(asked: urllib.request.Request) -> int:
    try:
        with urllib.request.urlopen(asked, timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
