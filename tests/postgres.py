"""A PostgreSQL server from Debian's package, on a free loopback port."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: PostgreSQL refuses to run as root; Debian's package makes a user for it.
_USER = "postgres"


def _demote() -> dict[str, Any]:
    """Options of subprocess that give root's rights away."""
    return {"user": _USER, "group": pwd.getpwnam(_USER).pw_gid} if os.geteuid() == 0 else {}


@dataclass
class Postgres:
    """A server.

    Attributes:
        programs: Where PostgreSQL's programs are.
        folder: Its files.
        port: Of 127.0.0.1.
        process: The postmaster, while it runs.
    """

    programs: Path
    folder: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """``user@host:port``."""
        return f"tunetrail@127.0.0.1:{self.port}"

    @property
    def running(self) -> bool:
        """Whether the postmaster runs."""
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        """Start it, again and again as a service manager does, until it takes connections."""
        place = ["-h", "127.0.0.1", "-p", str(self.port)]
        data, sockets = str(self.folder / "data"), str(self.folder)
        program = [str(self.programs / "postgres"), "-D", data, "-k", sockets, *place]
        ready = [str(self.programs / "pg_isready"), "-q", *place]
        deadline = time.monotonic() + 60
        while subprocess.run(ready, check=False).returncode != 0:
            # Processes that outlive a killed postmaster for a moment hold its memory.
            if not self.running:
                self.process = subprocess.Popen(
                    program,
                    cwd=self.folder,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    **_demote(),
                )
            assert time.monotonic() < deadline, "PostgreSQL does not start"
            time.sleep(0.1)

    def kill(self) -> None:
        """``kill -9`` of the postmaster."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def postgres_server() -> Iterator[Postgres]:
    """A server with an empty database cluster, and its end."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: int(p.parent.name))
    assert found, "run tests/services/install.sh"
    # Not below pytest's folders: those are closed to other users.
    made = subprocess.run(["mktemp", "-d"], check=True, capture_output=True, text=True, **_demote())
    folder = Path(made.stdout.strip())
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        server = Postgres(found[-1], folder, probe.getsockname()[1])
    initdb = [str(server.programs / "initdb"), "-D", str(folder / "data"), "-E", "UTF8"]
    initdb += ["-A", "trust", "-U", "tunetrail"]
    subprocess.run(initdb, check=True, cwd=folder, stdout=subprocess.DEVNULL, **_demote())
    server.start()
    try:
        yield server
    finally:
        assert server.process is not None
        server.process.send_signal(signal.SIGINT)  # without waiting for open connections
        server.process.wait(timeout=60)
        shutil.rmtree(folder)
