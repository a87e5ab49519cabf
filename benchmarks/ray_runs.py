"""A plan on a Ray cluster: each run once, through an SSH remote, though a node is lost on the way.

    python -m benchmarks.ray_runs --folder SCRATCH --runs 24 --out benchmarks/results/ray_runs.json

Nodes are raylets of this machine, each with its own folder and its own copy of the code; they share
no file with the project. Needs Debian's openssh-server (tests/services/install.sh) and the extras
`ray` and `remote`. Everything listens on loopback.
"""

from __future__ import annotations

import argparse
import contextlib
import getpass
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.tasks import checkout
from tunetrail.files import write_json
from tunetrail.provenance import provenance

#: Before Ray is imported: nothing is sent to anybody, and everything listens on loopback only (the
#: second says so by its effect).
LOOPBACK = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}

_SSHD = """
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

_SECONDS = 1800


@contextlib.contextmanager
def ssh_server(folder: Path) -> Iterator[dict[str, str]]:
    """An SSH server of this user on a free loopback port; the options of a DVC remote on it."""
    program = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
    assert program is not None, "run tests/services/install.sh"
    folder.mkdir()
    for name in ("host", "user"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(command, check=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (folder / "config").write_text(_SSHD.format(port=port, folder=folder))
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where root's sshd separates privileges
    with (folder / "log").open("w") as log:
        server = subprocess.Popen([program, "-D", "-e", "-f", folder / "config"], stderr=log)
    deadline = time.monotonic() + 60
    while True:
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                break
        assert server.poll() is None, (folder / "log").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    try:
        yield {"port": str(port), "user": getpass.getuser(), "keyfile": str(folder / "user")}
    finally:
        server.terminate()
        server.wait(timeout=30)


@dataclass(frozen=True)
class Node:
    """A Ray node.

    Attributes:
        folder: Where it works.
        raylet: Process id.
    """

    folder: Path
    raylet: int

    def executions(self) -> list[tuple[str, str]]:
        """Cell and ``begins`` or ``ended``, in the order in which the node noted them."""
        log = self.folder / "work" / "executions.log"
        if not log.exists():
            return []
        return re.findall(r"^\S+ (\S+) (begins|ended) ", log.read_text(), re.MULTILINE)

    def kill(self) -> None:
        """``kill -9`` of the raylet and of every process that it started."""
        raylet = psutil.Process(self.raylet)
        for process in [raylet, *raylet.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


@contextlib.contextmanager
def cluster(folder: Path, count: int, source: Path) -> Iterator[tuple[str, list[Node]]]:
    """Ray on loopback: a head that executes nothing, and nodes of one CPU each.

    Args:
        folder: New; each node has a folder in it, with its own copy of the code.
        count: Nodes.
        source: A checkout.
    """
    os.environ.update(LOOPBACK)
    from ray.cluster_utils import Cluster

    # Long paths do not fit into the names of sockets.
    ray = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        nodes = []
        for number in range(count):
            place = folder / f"node{number}"
            for part in ("src", "pipelines"):
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(source / part, place / "code" / part, ignore=ignored)
            code = f"{place / 'code' / 'src'}{os.pathsep}{place / 'code'}"
            environment = {"TUNETRAIL_NODE": str(place / "work"), "PYTHONPATH": code}
            added = ray.add_node(num_cpus=1, env_vars=environment)
            raylet = added.all_processes["raylet"][0].process.pid
            nodes.append(Node(place, raylet))
        yield str(ray.address), nodes
    finally:
        ray.shutdown()


def share(root: Path, url: str, options: dict[str, str]) -> None:
    """Give a project a default DVC remote."""
    dvc = [sys.executable, "-m", "dvc", "remote"]
    commands = [["add", "--default", "shared", url]]
    commands += [["modify", "shared", key, value] for key, value in options.items()]
    for command in commands:
        subprocess.run([*dvc, *command], cwd=root, check=True, stdout=subprocess.DEVNULL)


def run_and_lose_a_node(
    root: Path, nodes: list[Node], environment: dict[str, str]
) -> dict[str, Any]:
    """Run the flow in a project, and kill the first node in the middle of a training.

    Returns:
        What the flow says that it did, and what was killed in which run.
    """
    command = [sys.executable, "-m", "pipelines.compare", "--json"]
    log = root.parent / "flow.log"
    with log.open("w") as said:
        flow = subprocess.Popen(
            command, cwd=root, env=environment, stdout=subprocess.PIPE, stderr=said, text=True
        )
    deadline = time.monotonic() + _SECONDS
    while not (noted := nodes[0].executions()) or noted[-1][1] != "begins":
        assert flow.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
    nodes[0].kill()
    out, _ = flow.communicate(timeout=_SECONDS)
    assert flow.returncode == 0, log.read_text()
    return {"flow": json.loads(out), "killed_in": noted[-1][0]}


def executions(nodes: list[Node]) -> dict[str, list[str]]:
    """Cell → what all nodes noted of it."""
    found: dict[str, list[str]] = {}
    for node in nodes:
        for cell, what in node.executions():
            found.setdefault(cell, []).append(what)
    return found


def main() -> None:
    """Run the scenario and write what came out."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True, help="new")
    parser.add_argument("--runs", type=int, default=24, help="an even number")
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    folder: Path = options.folder.resolve()
    folder.mkdir(parents=True)
    root = folder / "project"
    with (
        ssh_server(folder / "ssh") as ssh,
        cluster(folder, options.nodes, Path.cwd()) as (address, nodes),
    ):
        limits = {"train": 96, "selection": 40, "test": 60}
        checkout(
            root,
            {
                "tasks": {"movie": {"source": "data/hutto.yaml", "limits": limits}},
                "methods": {"head": {}, "lora": {}},
                "baseline": "lora",
                "seeds": list(range(1, options.runs // 2 + 1)),
                "budgets": {"few": {"steps": 4}},
                "main_budget": "few",
                "numerics": {"precision": "fp32", "threads": 1},
                "cost": {"steps": 2},
                "runner": {"kind": "ray", "address": address},
            },
        )
        (root / ".dvc" / "config.local").write_text("[core]\n    no_scm = true\n")
        share(root, f"ssh://127.0.0.1{folder / 'remote'}", ssh)
        code = f"{root / 'src'}{os.pathsep}{root}"
        environment = os.environ | LOOPBACK | {"PYTHONPATH": code}
        environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
        began = time.monotonic()
        told = run_and_lose_a_node(root, nodes, environment)
        seconds = time.monotonic() - began
        noted = executions(nodes)
        repro = subprocess.run(
            ["dvc", "repro"], cwd=root, env=environment, capture_output=True, text=True, check=True
        )
    runs = {cell: what for cell, what in noted.items() if cell.startswith("train@")}
    content = {
        "runs": len(runs),
        "nodes": options.nodes,
        "finished_once": sum(what.count("ended") == 1 for what in runs.values()),
        "begun_twice": [cell for cell, what in noted.items() if what.count("begins") > 1],
        "killed_in": told["killed_in"],
        "cells_on_nodes": len(noted),
        "executed_by_repro": repro.stdout.count("> tunetrail"),
        "seconds": round(seconds, 1),
        **provenance(),
    }
    write_json(options.out, content)
    print(json.dumps(content, indent=2))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends the cluster as well
    main()
