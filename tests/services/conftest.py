"""Servers from Debian's packages."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

#: PostgreSQL refuses to run as root; Debian's package makes a user for it.
_USER = "postgres"


def _demote() -> dict[str, Any]:
    """Options of subprocess that give root's rights away."""
    return {"user": _USER, "group": pwd.getpwnam(_USER).pw_gid} if os.geteuid() == 0 else {}


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """A PostgreSQL server on a free loopback port; ``user@host:port`` of it."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: int(p.parent.name))
    assert found, "run tests/services/install.sh"
    programs = found[-1]
    # Not below pytest's folders: those are closed to other users.
    made = subprocess.run(["mktemp", "-d"], check=True, capture_output=True, text=True, **_demote())
    folder = Path(made.stdout.strip())
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    data = str(folder / "data")
    initdb = [programs / "initdb", "-D", data, "-A", "trust", "-U", "tunetrail", "-E", "UTF8"]
    subprocess.run(initdb, check=True, cwd=folder, stdout=subprocess.DEVNULL, **_demote())
    server = subprocess.Popen(
        [programs / "postgres", "-D", data, "-h", "127.0.0.1", "-p", str(port), "-k", folder],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        **_demote(),
    )
    deadline = time.monotonic() + 60
    ready = [programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]
    while subprocess.run(ready, check=False).returncode != 0:
        assert server.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    yield f"tunetrail@127.0.0.1:{port}"
    server.send_signal(signal.SIGINT)  # without waiting for MLflow's open connections
    server.wait(timeout=60)
    shutil.rmtree(folder)
