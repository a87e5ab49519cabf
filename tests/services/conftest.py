"""Servers from Debian's packages."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.postgres import postgres_server


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """A PostgreSQL server on a free loopback port; ``user@host:port`` of it."""
    with postgres_server() as server:
        yield server.address
