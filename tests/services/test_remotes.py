"""Results over SSH: nothing runs again on the other side."""

from __future__ import annotations

import getpass
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Project
from tests.sharing import clone, in_mlflow, project_mlflow, publish

pytestmark = pytest.mark.services


@pytest.fixture
def project(small_run: Project, tmp_path: Path) -> Project:
    return small_run.copy(tmp_path / "project")


_CONFIG = """
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host
AuthorizedKeysFile {folder}/user.pub
PidFile {folder}/pid
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
Subsystem sftp internal-sftp
"""


@pytest.fixture
def ssh(tmp_path: Path) -> Iterator[dict[str, str]]:
    """An SSH server of this user on a free loopback port; the options of a DVC remote on it."""
    program = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
    assert program is not None, "run tests/services/install.sh"
    folder = tmp_path / "ssh"
    folder.mkdir()
    for name in ("host", "user"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(command, check=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (folder / "config").write_text(_CONFIG.format(port=port, folder=folder))
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where root's sshd separates privileges
    server = subprocess.Popen(
        [program, "-D", "-e", "-f", folder / "config"],
        stderr=(folder / "log").open("w"),
    )
    deadline = time.monotonic() + 60
    while True:
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                break
        assert server.poll() is None, (folder / "log").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    yield {"port": str(port), "user": getpass.getuser(), "keyfile": str(folder / "user")}
    server.terminate()
    server.wait(timeout=30)


def test_results_travel_over_ssh(project: Project, ssh: dict[str, str], tmp_path: Path) -> None:
    publish(project, f"ssh://127.0.0.1{tmp_path / 'remote'}", **ssh)
    assert any((tmp_path / "remote").rglob("*"))

    pulled = clone(project, tmp_path / "pulled")
    done = pulled.command("dvc", "pull")
    assert done.returncode == 0, done.stderr
    sync = pulled.command("tunetrail", "sync", "--json")
    assert sync.returncode == 0, sync.stderr
    assert in_mlflow(project_mlflow(pulled)) == in_mlflow(project_mlflow(project))
    again = pulled.run()
    assert again["executed"] == again["restored"] == []
    assert again["runs_created"] == again["versions_created"] == 0

    reproduced = clone(project, tmp_path / "reproduced")
    done = reproduced.command("dvc", "repro", "--pull")
    assert done.returncode == 0, done.stderr
    assert "> tunetrail" not in done.stdout, "a command was executed"
    sync = reproduced.command("tunetrail", "sync", "--json")
    assert json.loads(sync.stdout)["versions_created"] == 1
