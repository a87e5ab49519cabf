"""A plan on a Ray cluster whose nodes share no file with the project, through an SSH remote."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from benchmarks.ray_runs import (
    LOOPBACK,
    Node,
    cluster,
    executions,
    run_and_lose_a_node,
    share,
)
from tests.conftest import ROOT, Project, new_project

pytestmark = pytest.mark.services

pytest.importorskip("prefect_ray", reason="the extra `ray` is not installed")


@pytest.fixture(scope="module")
def ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, list[Node]]]:
    """Address and nodes of a cluster on loopback; a test may kill the first."""
    with cluster(tmp_path_factory.mktemp("ray"), 2, ROOT) as found:
        yield found


@pytest.fixture
def project(tmp_path: Path, ssh: dict[str, str], ray: tuple[str, list[Node]]) -> Project:
    """One small task, two methods, three seeds; an SSH remote; nothing is executed yet."""
    project = new_project(tmp_path / "project")
    project.change(
        tasks={"own": project.params["tasks"]["own"]},
        seeds=[1, 2, 3],
        runner={"kind": "ray", "address": ray[0]},
    )
    share(project.root, f"ssh://127.0.0.1{tmp_path / 'remote'}", ssh)
    return project


def test_a_node_with_other_code_is_refused_before_any_work(
    project: Project, ray: tuple[str, list[Node]]
) -> None:
    changed = ray[1][1].folder / "code" / "src" / "tunetrail" / "metrics" / "f1.py"
    whole = changed.read_text()
    changed.write_text(whole + "# other\n")
    done = project.command(sys.executable, "-m", "pipelines.compare", **LOOPBACK)
    changed.write_text(whole)
    assert done.returncode == 2, done.stderr
    assert "other code of TuneTrail than where the run was started" in done.stderr
    assert str(ray[1][1].folder / "work") in done.stderr, "it does not say which node"
    assert not (project.root / "models").exists()


def test_ctrl_c_ends_what_nodes_execute(project: Project, ray: tuple[str, list[Node]]) -> None:
    nodes = ray[1]
    project.change(budgets={"few": {"steps": 4000}})
    command = [sys.executable, "-m", "pipelines.compare"]
    flow = subprocess.Popen(
        command, cwd=project.root, env=project.environment(**LOOPBACK), stderr=subprocess.PIPE
    )
    while not all(node.executions() for node in nodes):
        assert flow.poll() is None
        time.sleep(0.1)
    flow.send_signal(signal.SIGINT)
    _, said = flow.communicate(timeout=120)
    assert flow.returncode == 130, said
    deadline = time.monotonic() + 60
    while any(_at_work(node) for node in nodes):
        assert time.monotonic() < deadline, "a node goes on"
        time.sleep(0.2)
    for node in nodes:
        (node.folder / "work" / "executions.log").unlink()


def _at_work(node: Node) -> bool:
    """Whether a process works in one of the node's rooms."""
    rooms = node.folder / "work" / "rooms"
    for process in psutil.Process(node.raylet).children(recursive=True):
        try:
            if Path(process.cwd()).is_relative_to(rooms):
                return True
        except psutil.Error:
            continue
    return False


def test_six_runs_are_executed_once_though_a_node_is_lost(
    project: Project, ray: tuple[str, list[Node]]
) -> None:
    _, nodes = ray
    told = run_and_lose_a_node(project.root, nodes, project.environment(**LOOPBACK))
    assert told["flow"]["failed"] == {}
    noted = executions(nodes)
    runs = [name for name in noted if name.startswith("train@")]
    assert len(runs) == 6
    assert {what.count("ended") for what in noted.values()} == {1}
    assert [name for name, what in noted.items() if what.count("begins") > 1] == [told["killed_in"]]
    done = project.command("dvc", "repro")
    assert done.returncode == 0, done.stderr
    assert "> tunetrail" not in done.stdout, "a command was executed"
    project.change(runner={"kind": "local"})
    assert project.run()["executed"] == []
