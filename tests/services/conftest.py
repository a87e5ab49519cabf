"""Servers from Debian's packages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.ray_runs import ssh_server
from tests.postgres import postgres_server


@pytest.fixture
def ssh(tmp_path: Path) -> Iterator[dict[str, str]]:
    """An SSH server on a free loopback port; the options of a DVC remote on it."""
    with ssh_server(tmp_path / "ssh") as options:
        yield options


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """A PostgreSQL server on a free loopback port; ``user@host:port`` of it."""
    with postgres_server() as server:
        yield server.address
