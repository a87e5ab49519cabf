"""Secrets planted wherever a command may see one, and the search for them in what it leaves."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterable
from pathlib import Path

import psutil

#: What each command finds in its environment. No value is part of anything else.
ENVIRONMENT = {
    name: f"planted-{number}-{name.lower().replace('_', '')}"
    for number, name in enumerate(
        ("HF_TOKEN", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN",
         "PREFECT_API_KEY", "TUNETRAIL_SERVE_TOKEN", "NOTIFY_PASSWORD")
    )
}  # fmt: skip

#: The administrator of the services, and whoever may use the remote and the database.
PASSWORD, REMOTE, DATABASE = "planted-admin-pw", "planted-remote-pw", "planted-database-pw"

SECRETS = (*ENVIRONMENT.values(), PASSWORD, REMOTE, DATABASE)


def found_in(where: str, content: bytes | str) -> list[str]:
    """Which secrets are in there, with the place."""
    raw = content.encode() if isinstance(content, str) else content
    return [f"{where}: {secret}" for secret in SECRETS if secret.encode() in raw]


def found_below(folder: Path, allowed: Iterable[str]) -> list[str]:
    """Which secrets are in files below ``folder``; weights and the ``allowed`` files are left out.

    What git has is searched as git shows it: on disk it is compressed.
    """
    skipped = {folder / name for name in allowed}
    found = []
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # a database's journal comes and goes
            if path.is_symlink() or not path.is_file() or path in skipped:
                continue
            if path.suffix not in (".onnx", ".safetensors"):
                found += found_in(str(path.relative_to(folder)), path.read_bytes())
    objects = ["git", "cat-file", "--batch-all-objects", "--batch"]
    in_git = subprocess.run(objects, cwd=folder, check=True, capture_output=True).stdout
    assert in_git
    return found + found_in("git", in_git)


def family(process: int) -> list[psutil.Process]:
    """A process and all below it."""
    first = psutil.Process(process)
    return [first, *first.children(recursive=True)]


def command_lines(processes: Iterable[psutil.Process]) -> str:
    """Their command lines, as anybody on the machine can read them."""
    shown = []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            shown.append(" ".join(process.cmdline()))
    return "\n".join(shown)


def listening(processes: Iterable[psutil.Process]) -> set[tuple[str, int]]:
    """Addresses and ports that they listen on."""
    found = set()
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            for socket in process.net_connections(kind="inet"):
                if socket.status == psutil.CONN_LISTEN:
                    found.add((socket.laddr.ip, socket.laddr.port))
    return found
