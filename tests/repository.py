"""git and make as people and workflows call them, in folders of the tests."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.conftest import BIN, ROOT

#: ``make`` of this checkout in any folder, with the environment of the tests and without set-up.
MAKE = ("make", "-sf", str(ROOT / "Makefile"), f"BIN={BIN}", "-o", ".venv/ready")


def git(folder: Path, *arguments: str) -> str:
    """What a git command prints, called by nobody in particular."""
    identity = ("-c", "user.name=test", "-c", "user.email=test@example.org")
    command = ["git", *identity, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout
