"""A Ray runner that cannot work is refused before any work; what nodes do is in tests/services."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from pipelines.cluster import joined
from tests.test_exchange import write_project
from tunetrail.errors import TuneTrailError
from tunetrail.exchange import RemoteFailed
from tunetrail.params import Runner

pytest.importorskip("prefect_ray", reason="the extra `ray` is not installed")


def refused(root: Path, address: str) -> TuneTrailError:
    with pytest.raises(TuneTrailError) as caught, joined(Runner(kind="ray", address=address), root):
        pytest.fail("a cluster was joined")
    return caught.value


@pytest.fixture
def unused() -> str:
    """An address of this machine at which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


@pytest.mark.parametrize("kind", ["", "ray://"])
def test_an_address_without_a_cluster_is_named(kind: str, unused: str, tmp_path: Path) -> None:
    root = write_project(tmp_path / "project", tmp_path / "remote")
    error = refused(root, kind + unused)
    assert f"no Ray cluster answers at runner.address '{kind}{unused}'" in error.problem
    assert "ray start --head" in error.fix


def test_the_remote_is_asked_before_the_cluster(unused: str, tmp_path: Path) -> None:
    root = write_project(tmp_path / "project", None)
    assert "no default remote of DVC" in refused(root, unused).problem
    root = write_project(tmp_path / "other", tmp_path / "remote")
    config = root / ".dvc" / "config"
    config.write_text(config.read_text().replace(str(tmp_path / "remote"), f"ssh://{unused}/store"))
    error = refused(root, unused)
    assert isinstance(error, RemoteFailed)
    assert f"'shared' (ssh://{unused}/store) does not answer" in error.problem
