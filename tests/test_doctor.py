"""tunetrail doctor: what is broken is named, with what to do; what is fine is not."""

from __future__ import annotations

import json
import logging
import os
import re
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from filelock import FileLock

from tests.conftest import ROOT, Project, new_project
from tunetrail import logs
from tunetrail.doctor import folders, in_words, installation, project, servers
from tunetrail.doctor.finding import Finding, ok, problem, warning
from tunetrail.errors import TuneTrailError, masked


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A checkout in which nothing has run. Not to be changed."""
    return new_project(tmp_path_factory.mktemp("fresh") / "project")


@pytest.fixture
def place(fresh: Project, tmp_path: Path) -> Project:
    """A copy of it, free to be changed."""
    return fresh.copy(tmp_path / "project")


def examined(project: Project, **environment: str) -> tuple[int, dict[str, list[dict[str, str]]]]:
    """Exit code and findings of the doctor, as a program of its own."""
    done = project.command(sys.executable, "-m", "tunetrail.doctor", "--json", **environment)
    assert done.stderr == ""
    return done.returncode, json.loads(done.stdout)["checks"]


def found(checks: dict[str, list[dict[str, str]]], section: str, text: str) -> dict[str, str]:
    """The one finding of a section that contains ``text``."""
    (finding,) = [f for f in checks[section] if text in f["what"]]
    return finding


def test_a_fresh_checkout_has_no_problems_and_is_examined_in_five_seconds(
    fresh: Project,
) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    code, checks = examined(fresh)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    problems = [f for found in checks.values() for f in found if f["outcome"] == "problem"]
    assert problems == []
    assert code == 0
    # Of this process and its probe: other work may share the machine.
    assert after.ru_utime - before.ru_utime < 5
    assert list(checks) == [
        "installation", "hardware", "servers", "disk", "permissions", "project",
    ]  # fmt: skip
    assert found(checks, "project", "params.yaml is valid")["outcome"] == "ok"
    assert "bf16" in found(checks, "hardware", "numerics.precision: auto")["what"]


def test_outside_a_project_its_checks_are_left_out(fresh: Project, tmp_path: Path) -> None:
    outside = subprocess.run(
        [sys.executable, "-m", "tunetrail.doctor", "--json"],
        cwd=tmp_path,
        env=fresh.environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    checks = json.loads(outside.stdout)["checks"]
    assert found(checks, "project", "belongs to no project")["outcome"] == "ok"
    assert not [f for f in checks["disk"] if "the project" in f["what"]]


def test_the_command_and_the_module_say_the_same(fresh: Project) -> None:
    command = fresh.command("tunetrail", "doctor")
    module = fresh.command(sys.executable, "-m", "tunetrail.doctor")
    assert command.returncode == module.returncode == 0
    assert command.stdout.splitlines()[0] == module.stdout.splitlines()[0] == "installation"
    assert max(map(len, command.stdout.splitlines())) <= 80
    assert "\x1b" not in command.stdout


# Installation ------------------------------------------------------------------------------------


def distribution(folder: Path, name: str, version: str) -> None:
    """What pip leaves of an installed distribution."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


@pytest.mark.parametrize(
    ("name", "version", "what", "fix"),
    [
        ("fastapi", "0.160.0", "fastapi 0.160.0 with prefect 3.8", "'fastapi<0.151'"),
        ("sqlalchemy", "2.1.3", "scheduled flows never start", "'sqlalchemy<2.1'"),
        ("prefect", "3.9.1", "it was never run with TuneTrail", "'prefect<3.9'"),
        ("adapters", "1.3.0", "adapters 1.3.0 with transformers 5", "pip uninstall adapters"),
        ("optimum-onnx", "0.1.0", "optimum-onnx 0.1.0 with transformers 5", "pip uninstall"),
        ("rliable", "1.2.0", "rliable 1.2.0 with pandas 3", "pip uninstall rliable"),
    ],
)
def test_versions_known_to_clash_are_problems(
    name: str, version: str, what: str, fix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distribution(tmp_path, name, version)
    monkeypatch.syspath_prepend(tmp_path)
    (finding,) = [f for f in installation.check() if what in f.what]
    assert finding.outcome == "problem"
    assert fix in finding.fix


def test_a_version_outside_the_declared_range_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distribution(tmp_path, "pyarrow", "3.0.0")
    monkeypatch.syspath_prepend(tmp_path)
    (finding,) = [f for f in installation.check() if "pyarrow 3.0.0 is installed" in f.what]
    assert finding.outcome == "problem"
    assert "TuneTrail needs >=20" in finding.what
    assert "requirements.lock" in finding.fix


def test_without_any_package_it_still_says_what_is_missing(fresh: Project) -> None:
    bare = [sys.executable, "-S", "-m", "tunetrail.doctor"]  # no site-packages
    # The process that looks at torch must be as bare as this one.
    done = fresh.command(*bare, "--json", PYTHONHOME=sys.base_prefix)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    checks = json.loads(done.stdout)["checks"]
    missing = found(checks, "installation", "required packages are not installed")
    assert {"torch", "dvc", "prefect"} <= set(re.split(r"\W+", missing["what"]))
    assert found(checks, "hardware", "cores")["outcome"] == "ok"


def test_without_typer_every_command_points_to_the_doctor(fresh: Project) -> None:
    script = "import sys; from tunetrail.cli import main; sys.exit(main(['plan']))"
    done = fresh.command(sys.executable, "-S", "-c", script)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "error: the package 'typer' is not installed",
        "  fix: `tunetrail doctor` says what is missing and how to install it",
    ]


def test_a_torch_that_cannot_be_loaded_is_a_finding(fresh: Project, tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('libcudart.so.13: cannot open')\n")
    path = f"{tmp_path}{os.pathsep}{fresh.environment()['PYTHONPATH']}"
    code, checks = examined(fresh, PYTHONPATH=path)
    finding = found(checks, "hardware", "torch cannot be imported")
    assert code == 1
    assert "libcudart.so.13: cannot open" in finding["what"]


def test_a_torch_that_crashes_is_a_finding(fresh: Project, tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGILL)\n")
    path = f"{tmp_path}{os.pathsep}{fresh.environment()['PYTHONPATH']}"
    _, checks = examined(fresh, PYTHONPATH=path)
    assert found(checks, "hardware", "torch cannot be imported: the process was ended by SIGILL")


# Servers -----------------------------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[tuple[str, dict[str, Any]]]:
    """An HTTP server on a free loopback port: its URL, and what it answers and was sent."""
    state: dict[str, Any] = {"status": 200, "authorization": None}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state["path"] = self.path
            state["authorization"] = self.headers.get("Authorization")
            self.send_response(state["status"])
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    http = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    yield f"127.0.0.1:{http.server_port}", state
    http.shutdown()
    http.server_close()
    thread.join()


@pytest.fixture
def configured(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("MLFLOW_TRACKING_URI", "PREFECT_API_URL", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_without_configured_servers_nothing_is_tried(configured: pytest.MonkeyPatch) -> None:
    (finding,) = servers.check()
    assert finding.outcome == "ok"
    assert "databases inside the project" in finding.what


def test_a_server_that_answers_is_fine_and_gets_its_credentials(
    server: tuple[str, dict[str, Any]], configured: pytest.MonkeyPatch
) -> None:
    address, state = server
    configured.setenv("PREFECT_API_URL", f"http://me:s3cret@{address}/api")
    (finding,) = servers.check()
    assert finding.outcome == "ok"
    assert f"http://me:***@{address}/api answers" in finding.what
    assert state["path"] == "/api/health"
    assert state["authorization"] == "Basic bWU6czNjcmV0"


@pytest.mark.parametrize(
    ("status", "outcome", "text"),
    [(401, "problem", "wants other credentials"), (404, "warning", "not as this kind of server"),
     (500, "problem", "answers 500")],
)  # fmt: skip
def test_a_server_that_answers_something_else(
    status: int,
    outcome: str,
    text: str,
    server: tuple[str, dict[str, Any]],
    configured: pytest.MonkeyPatch,
) -> None:
    address, state = server
    state["status"] = status
    configured.setenv("MLFLOW_TRACKING_URI", f"http://{address}")
    (finding,) = servers.check()
    assert finding.outcome == outcome
    assert text in finding.what


@pytest.mark.parametrize("url", ["http://{}/api?token=s3cret", "postgresql://me:s3cret@{}/db"])
def test_a_server_that_is_not_there_is_named_without_its_secret(
    url: str, configured: pytest.MonkeyPatch
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    configured.setenv("MLFLOW_TRACKING_URI", url.format(address))
    (finding,) = servers.check()
    assert finding.outcome == "problem"
    assert f"{address}" in finding.what
    assert "cannot be reached: [Errno 111] Connection refused" in finding.what
    assert "s3cret" not in finding.what + finding.fix


def test_a_server_that_never_answers_costs_three_seconds(configured: pytest.MonkeyPatch) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        for name in ("MLFLOW_TRACKING_URI", "PREFECT_API_URL"):
            configured.setenv(name, f"http://127.0.0.1:{silent.getsockname()[1]}")
        started = time.monotonic()
        outcomes = [(f.outcome, "no answer in 3 s" in f.what) for f in servers.check()]
        assert time.monotonic() - started < 4
    assert outcomes == [("problem", True), ("problem", True)]


@pytest.mark.parametrize(
    ("uri", "outcome", "text"),
    [
        ("sqlite:///{}/mlflow.db", "ok", "sqlite:///"),
        ("sqlite:///{}/missing/mlflow.db", "problem", "cannot be written"),
        ("{}/mlruns", "problem", "is a folder, which MLflow 3 refuses"),
        ("databricks://profile", "warning", "servers of this kind are not tried"),
    ],
)
def test_other_kinds_of_tracking_servers(
    uri: str, outcome: str, text: str, configured: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    configured.setenv("MLFLOW_TRACKING_URI", uri.format(tmp_path))
    (finding,) = servers.check()
    assert (finding.outcome, text in finding.what) == (outcome, True)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://host/path", "https://host/path"),
        ("https://me:pw@host/x", "https://me:***@host/x"),
        ("https://t0ken@host/x", "https://***@host/x"),
        ("https://me:p@ss@host/x", "https://me:***@host/x"),  # not encoded, as people write it
        ("postgresql://me:p%40w@host/db?password=x&a=b", "postgresql://me:***@host/db?password=***&a=***"),
        ("no way to ssh://me:pw@host/x: refused", "no way to ssh://me:***@host/x: refused"),
        ("models:/sentiment-own@champion", "models:/sentiment-own@champion"),
    ],
)  # fmt: skip
def test_secrets_in_urls_are_masked(url: str, shown: str) -> None:
    assert masked(url) == shown


def test_urls_in_errors_and_log_lines_are_masked(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(logs.VERBOSE, "0")  # which the logs are about to set
    url = "https://me:s3cret@host/x?sig=s3cret"
    error = TuneTrailError(f"{url} does not answer", f"try {url}")
    logs.configure(2)
    try:
        logging.getLogger("somebody.elses").warning("asking %s", url)
    finally:
        logs.configure(0)
    shown = "https://me:***@host/x?sig=***"
    assert str(error) == f"{shown} does not answer\n  fix: try {shown}"
    assert f"somebody.elses: asking {shown}\n" in capsys.readouterr().err


# Disk, permissions, project ----------------------------------------------------------------------


def test_a_plan_larger_than_the_disk_is_a_warning(place: Project) -> None:
    many = {f"m{number}": {} for number in range(300)}
    place.change(tasks=many, methods=many, seeds=list(range(300)))
    findings = list(folders.check_space(place.root))
    assert findings[0].outcome == "warning"
    assert "27000000 runs and 90000 exports of a model of 0.1 GB" in findings[0].what
    assert findings[0].fix == "free some space"


def test_a_cache_folder_that_cannot_be_written_is_a_problem(fresh: Project) -> None:
    code, checks = examined(fresh, TUNETRAIL_CACHE="/proc/tunetrail")  # not even by root
    finding = found(checks, "permissions", "the cache folder /proc/tunetrail cannot be written")
    assert code == 1
    assert "TUNETRAIL_CACHE" in finding["fix"]


def test_wrong_parameters_are_reported_as_the_commands_would(place: Project) -> None:
    place.change(methods={"lra": {}}, baseline="")
    code, checks = examined(place)
    finding = found(checks, "project", "unknown method 'lra'")
    assert code == 1
    assert "did you mean 'lora'?" in finding["fix"]


def stated(place: Project) -> dict[str, Finding]:
    """What is found of a project, by its text (without asking torch)."""
    findings = project.state(place.root)
    return {finding.what: finding for finding in findings}


def test_a_run_under_way_is_told_from_a_lock_file_that_a_killed_one_left(place: Project) -> None:
    lock = place.root / ".tunetrail" / "run.lock"
    lock.parent.mkdir()
    with FileLock(lock):
        assert stated(place)["a run is under way here"].outcome == "warning"
    assert lock.exists()
    assert stated(place)["no other run is under way"].outcome == "ok"


def test_what_killed_stages_left_is_listed(place: Project) -> None:
    (place.root / "runs" / "train" / ".1.abc").mkdir(parents=True)
    (place.root / ".tunetrail" / "checkpoints" / "0123").mkdir(parents=True)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    rwlock = place.root / ".dvc" / "tmp" / "rwlock"
    rwlock.parent.mkdir()
    entry = {"pid": gone.pid, "cmd": "dvc repro"}
    rwlock.write_text(json.dumps({"write": {"models": entry}, "read": {}}))
    findings = stated(place)
    half = findings["1 half-written folders of killed stages: runs/train/.1.abc"]
    assert half.outcome == "warning"
    assert "1 interrupted runs go on from their checkpoints next time" in findings
    assert f"DVC's lock file .dvc/tmp/rwlock names processes that are gone: {gone.pid}" in findings


def test_a_project_without_dvc_or_git(place: Project) -> None:
    subprocess.run(["rm", "-rf", ".git", ".dvc"], cwd=place.root, check=True)
    findings = stated(place)
    assert findings["DVC is not initialised: there is no .dvc"].outcome == "problem"
    assert findings["no git repository: results name no commit"].outcome == "warning"


def test_a_link_to_code_that_is_gone_and_a_pipeline_of_another_version(place: Project) -> None:
    (place.root / "src").rename(place.root.parent / "moved")
    package = place.root.parent / "moved" / "tunetrail"
    path = f"{package.parent}{os.pathsep}{place.root}"
    link = place.root / "src" / "tunetrail"
    link.parent.mkdir()
    link.symlink_to("/nowhere")
    _, checks = examined(place, PYTHONPATH=path)
    assert found(checks, "project", "points to a TuneTrail that is gone")["outcome"] == "warning"

    link.unlink()
    link.symlink_to(package)
    pipeline = yaml.safe_load((place.root / "dvc.yaml").read_text())
    pipeline["stages"]["export"]["cmd"] += " --old"
    (place.root / "dvc.yaml").write_text(yaml.safe_dump(pipeline))
    code, checks = examined(place, PYTHONPATH=path)
    finding = found(checks, "project", "is not the pipeline of the installed TuneTrail: export")
    assert code == 1
    assert "--update" in finding["fix"]


# In words ----------------------------------------------------------------------------------------


def test_the_text_fits_80_columns_and_is_coloured_only_when_asked() -> None:
    findings = {
        "disk": [ok("fine"), warning("w " * 60, "do " * 60), problem("bad", "mend it")],
        "servers": [problem("worse", "")],
    }
    plain = in_words(findings, colour=False)
    assert max(map(len, plain.splitlines())) <= 80
    assert plain.splitlines()[-1] == "2 problems, 1 warning"
    assert "\x1b" not in plain
    coloured = in_words(findings, colour=True)
    assert "\x1b[31mproblem" in coloured
    assert re.sub(r"\x1b\[\d+m", "", coloured) == plain


def test_doctor_knows_the_checkouts_declared_packages() -> None:
    from tunetrail.doctor.installation import _declared

    declared, where = _declared()
    assert where == "pyproject.toml"
    assert "fastapi<0.151" in declared
    assert (ROOT / "pyproject.toml").is_file()
