"""A project to run the shipped commands in: a copy of this checkout with a small plan."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from filelock import FileLock

ROOT = Path(__file__).resolve().parent.parent
SHARED_DATA = Path(os.environ.get("TUNETRAIL_SHARED_DATA", ROOT.parent / "shared" / "data"))
BIN = Path(sys.executable).parent

#: What a checkout consists of; everything else is made by the commands.
_TREE = (
    "src", "pipelines", "data/hutto.yaml", "data/minilm.yaml", "dvc.yaml", "params.yaml",
    ".dvc/config", ".dvcignore", ".gitignore", "pyproject.toml",
)  # fmt: skip

#: Variables that would lead the commands out of the project.
_FOREIGN = ("MLFLOW_", "PREFECT_", "DVC_", "TUNETRAIL_CHECKPOINT")


@dataclass(frozen=True)
class Project:
    """A project folder and the commands to run in it."""

    root: Path

    @property
    def params(self) -> dict[str, Any]:
        found: dict[str, Any] = yaml.safe_load((self.root / "params.yaml").read_text())
        return found

    def change(self, **values: Any) -> None:
        """Replace top-level keys of params.yaml."""
        (self.root / "params.yaml").write_text(yaml.safe_dump(self.params | values))

    def environment(self, **extra: str) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(_FOREIGN)}
        path = f"{BIN}{os.pathsep}{kept['PATH']}"
        code = f"{self.root / 'src'}{os.pathsep}{self.root}"
        return kept | {"PATH": path, "PYTHONPATH": code, "COLUMNS": "80"} | extra

    def command(self, *arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            arguments,
            cwd=self.root,
            env=self.environment(**extra),
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )

    def run(self, **extra: str) -> dict[str, Any]:
        """`make run` without the set-up; what it did, as it reports it itself.

        States go to a server that this process's tests share: a temporary one of its own takes
        longer to start than a few steps of training.
        """
        extra = {"PREFECT_API_URL": prefect_api()} | extra
        done = self.command(sys.executable, "-m", "pipelines.compare", "--json", **extra)
        assert done.returncode == 0, done.stdout + done.stderr
        told: dict[str, Any] = json.loads(done.stdout)
        return told

    def json(self, path: str) -> Any:
        return json.loads((self.root / path).read_text())

    def copy(self, target: Path) -> Project:
        """Its own files; weights, which nothing writes in place, are linked: 1.5 GB each time."""
        shutil.copytree(self.root, target, symlinks=True, copy_function=_link_weights)
        return Project(target)


def _link_weights(source: str, target: str) -> None:
    path = Path(source)
    if path.suffix in (".onnx", ".safetensors") or ".dvc/cache/files" in path.as_posix():
        os.link(source, target, follow_symlinks=False)
    else:
        shutil.copy2(source, target, follow_symlinks=False)


@cache
def prefect_api() -> str:
    """API of a Prefect server that lives as long as this process (it ends with its input)."""
    home = tempfile.TemporaryDirectory(prefix="prefect-")
    atexit.register(home.cleanup)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(_FOREIGN)} | {
        "PREFECT_HOME": home.name,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}",
    }
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = subprocess.Popen(
            [sys.executable, "-m", "pipelines.server", str(listener.fileno())],
            env=environment,
            stdin=subprocess.PIPE,
            pass_fds=[listener.fileno()],
        )
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/api"
    atexit.register(server.wait)
    assert server.stdin is not None
    atexit.register(server.stdin.close)
    with urllib.request.urlopen(f"{url}/health", timeout=600) as answer:
        assert answer.status == 200
    return url


def small_params() -> dict[str, Any]:
    """One built-in task and one CSV, 200 rows at most; a few steps each."""
    limits = {"train": 96, "selection": 40, "test": 60}
    params: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())
    return params | {
        "tasks": {
            "movie": {"source": "data/hutto.yaml", "limits": limits},
            "own": {
                "source": "data/own.csv",
                "columns": {"text": "sentence", "label": "class"},
                "labels": ["bad", "good"],
                "metrics": ["f1", "accuracy"],
            },
        },
        "methods": {"head": {}, "lora": {}},
        "baseline": "lora",
        "seeds": [1, 2],
        "budgets": {"few": {"steps": 4}},
        "main_budget": "few",
        "numerics": {"precision": "fp32", "threads": 1},
        "cost": {"steps": 2},
    }


def new_project(root: Path) -> Project:
    """A fresh checkout with :func:`small_params`."""
    for name in _TREE:
        source, target = ROOT / name, root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(source, target)
    words = ["plot", "cast", "music", "camera", "ending", "pace", "script", "humour", "hero", "set"]
    rows = [
        f'"{quality} {word} in film number {number}",{label}'
        for number in range(9)
        for word in words
        for quality, label in (("a wonderful", "good"), ("an awful", "bad"))
    ]
    (root / "data" / "own.csv").write_text("sentence,class\n" + "\n".join(rows) + "\n")
    project = Project(root)
    project.change(**small_params())
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "start"]):
        identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
        subprocess.run(["git", *identity, *command], cwd=root, check=True)
    return project


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--full-matrix",
        action="store_true",
        help="every method on every architecture, not two on each; 30 kills of intake, not five",
    )


def pytest_configure() -> None:
    """Let Ctrl-C reach what tests start; where a shell began the tests with `&` it is ignored."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def small_project(root: Path) -> Project:
    """One CSV task, two methods, one seed, a few steps: finished by the flow."""
    project = new_project(root)
    project.change(tasks={"own": project.params["tasks"]["own"]}, seeds=[1])
    project.run()
    return project


def _once(
    factory: pytest.TempPathFactory, name: str, make: Callable[[Path], dict[str, Any]]
) -> tuple[Project, dict[str, Any]]:
    """A finished project that all workers of pytest-xdist share; the first one makes it.

    Others may copy it at any moment, so no command may run in it.
    """
    shared = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    outcome = shared / f"{name}.json"
    with FileLock(shared / f"{name}.lock"):
        if not outcome.exists():
            shutil.rmtree(shared / name, ignore_errors=True)  # of a worker that failed to make it
            outcome.write_text(json.dumps(make(shared / name / "project")))
    return Project(shared / name / "project"), json.loads(outcome.read_text())


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A small finished project. Not to be changed."""

    def make(root: Path) -> dict[str, Any]:
        small_project(root)
        return {}

    return _once(tmp_path_factory, "small", make)[0]


@pytest.fixture(scope="session")
def first_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, dict[str, Any]]:
    """A project in which the flow has run once, and what that did. Not to be changed."""
    return _once(tmp_path_factory, "first", lambda root: new_project(root).run())


@pytest.fixture
def project(first_run: tuple[Project, dict[str, Any]], tmp_path: Path) -> Project:
    """A copy of the finished project, free to be changed."""
    return first_run[0].copy(tmp_path / "project")


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random BERT as the base stage leaves one."""
    from tests.tiny import write_base

    return write_base(tmp_path_factory.mktemp("base"))


@pytest.fixture
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative paths lead to a folder of the test's own."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def fresh_accelerate() -> Iterator[None]:
    """Accelerate remembers the first precision of a process."""
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
