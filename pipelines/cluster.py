"""The flow's stages on a Ray cluster, through Prefect's own task runner.

Every node works in a folder of its own with its own installed code (``tunetrail.exchange``). What
measures time, and what takes seconds, stays on this machine.
"""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pipelines.workers import StageCrashed, WorkerDied, run_command, start_server
from tunetrail import exchange
from tunetrail.dag import Cell, Dag
from tunetrail.errors import TrainingKilled, TuneTrailError
from tunetrail.params import Runner
from tunetrail.repository import open_repo

#: Stages that are executed on nodes, unless they measure time.
_AWAY = {"dapt", "tapt", "tune", "train", "train_more", "evaluate", "evaluate_more"}

#: How often a stage is begun again because its node was lost.
_LOST = 3

_SECONDS_TO_ANSWER = 10
_SECONDS_TO_TRY = 300

#: Port of a Ray client server and of a cluster, where an address names none.
_PORTS = {"ray": 10001, "": 6379}


def worth_retrying(_: Any, __: Any, state: Any) -> bool:
    """Whether a stage failed (a state of Prefect's) by what may be otherwise the next time."""
    failed = state.result(raise_on_failure=False)
    return isinstance(failed, WorkerDied | TrainingKilled | exchange.RemoteFailed)


def do(name: str, task: exchange.Errand, agreed: exchange.Terms) -> exchange.Done:
    """On a node: do an errand, the execution of cell ``name``.

    Raises:
        TuneTrailError: See :func:`tunetrail.exchange.perform`; it names the node.
    """
    start_server()
    with _said_by_node():
        return exchange.perform(task, agreed, exchange.node_folder(), _execute)


def _elsewhere() -> None:
    """What stands for the flow on nodes, where only its name is known."""


def _execute(command: str, folder: Path, log: Path) -> None:
    run_command(command, log, folder=folder)


def _try_out(agreed: exchange.Terms) -> TuneTrailError | None:
    """On a node: why errands cannot be done there, or None."""
    try:
        with _said_by_node():
            exchange.try_out(agreed, exchange.node_folder())
    except TuneTrailError as error:
        return error
    return None


@contextlib.contextmanager
def _said_by_node() -> Iterator[None]:
    """Let errors of a stage say on which node they were met."""
    import ray

    where = f"node {ray.util.get_node_ip_address()} ({exchange.node_folder()})"
    try:
        yield
    except TuneTrailError as error:
        raise type(error)(f"{where}: {error.problem}", error.fix) from None


class Cluster:
    """A Ray cluster that this process has joined.

    Attributes:
        width: Stages that are executed side by side.
    """

    def __init__(
        self, runner: Runner, width: int, root: Path, store: exchange.Store, agreed: exchange.Terms
    ) -> None:
        self._address = runner.address
        self._options = {
            "num_cpus": runner.cpus,
            "num_gpus": runner.gpus,
            "max_retries": _LOST,
        }
        self.width = width
        self._root, self._store, self._agreed = root, store, agreed
        self._sent: dict[str, exchange.Errand] = {}

    def task_runner(self) -> Any:
        """Prefect's runner of tasks on this cluster."""
        from prefect_ray import RayTaskRunner

        return RayTaskRunner(address=self._address)

    @contextlib.contextmanager
    def submitting(self) -> Iterator[None]:
        """Context in which a task that is submitted reserves what a stage needs."""
        from prefect import Flow
        from prefect.context import FlowRunContext
        from prefect_ray.context import remote_options

        context = FlowRunContext.get()
        assert context is not None, "outside of a flow"
        # Prefect sends the flow along; ours holds what belongs to this process.
        stand_in = Flow(fn=_elsewhere, name="compare")
        with remote_options(**self._options), context.model_copy(update={"flow": stand_in}):
            yield

    def takes(self, cell: Cell) -> bool:
        """Whether a cell is executed on a node."""
        return cell.stage in _AWAY and not cell.alone

    def send(self, dag: Dag, name: str) -> dict[str, Any]:
        """What a node needs for a cell that ``dag`` has begun, as arguments of :func:`do`.

        Raises:
            TuneTrailError: An input is damaged, or the remote does not take it.
        """
        self._sent[name] = exchange.errand(self._store, self._root, name, dag.execution(name))
        return {"name": name, "task": self._sent[name], "agreed": self._agreed}

    def result(self, future: Any) -> exchange.Done | None:
        """What a stage gave, wherever it was executed (here: None).

        Raises:
            WorkerDied: The nodes that executed it were lost, one after the other.
            StageCrashed: A node could not begin it.
            Exception: Whatever the stage raised.
        """
        import ray

        try:
            done: exchange.Done | None = future.result()
        except ray.exceptions.RayTaskError as error:
            raise StageCrashed(f"a node could not begin it: {_last_line(error)}") from None
        except ray.exceptions.RayError as error:
            raise WorkerDied(
                f"its Ray worker was lost {1 + _LOST} times, last: {_last_line(error)}\n"
                "  fix: `ray status` shows the nodes that are left; where one ran out of memory, "
                "raise runner.cpus or runner.gpus, so that fewer stages share a node"
            ) from None
        return done

    def receive(self, dag: Dag, name: str, done: exchange.Done) -> None:
        """Record what a node left in the remote.

        Raises:
            TuneTrailError: It is not there, or an input changed meanwhile.
        """
        exchange.bring(self._store, self._sent.pop(name).execution, done)
        if not dag.begin(name):
            raise TuneTrailError(
                f"{name}: an input changed while it ran on a node, so the result is not used",
                "repeat the command",
            )


@contextlib.contextmanager
def joined(runner: Runner, root: Path) -> Iterator[Cluster]:
    """A cluster that has been tried: every node has this code and reaches DVC's remote.

    Raises:
        TuneTrailError: The package, the cluster, the remote or a node is not as it must be.
    """
    ray = _ray()
    agreed = exchange.terms(root)
    store = exchange.Store(open_repo(root))
    store.check()
    _check_answers(runner.address)
    _connect(ray, runner.address)
    try:
        nodes = [node for node in ray.nodes() if node["Alive"] and _fitting(runner, node)]
        width = runner.width or sum(_fitting(runner, node) for node in nodes)
        if not width:
            raise TuneTrailError(
                f"no node of the cluster has runner.cpus: {runner.cpus:g} and runner.gpus: "
                f"{runner.gpus:g}",
                "ask for less, or give runner.width where nodes come when they are needed",
            )
        _check_prefect(nodes)
        _try_nodes(ray, nodes, agreed)
        yield Cluster(runner, width, root, store, agreed)
    finally:
        ray.shutdown()  # ends whatever this process has on nodes


def _ray() -> Any:
    # Before the import; nothing is sent to anybody.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        import prefect_ray  # noqa: F401
        import ray
    except ModuleNotFoundError as error:
        raise TuneTrailError(
            f"runner.kind is ray, but the package {error.name} is not installed",
            "`pip install 'tunetrail[ray]'` here and on every node, or `kind: local`",
        ) from None
    return ray


def _check_answers(address: str) -> None:
    """Check that something listens: Ray itself would try for minutes."""
    if address == "auto":
        return
    parts = urlsplit(address if "//" in address else f"//{address}")
    try:
        place = (parts.hostname or "", parts.port or _PORTS[parts.scheme])
        with socket.create_connection(place, timeout=_SECONDS_TO_ANSWER):
            return
    except (OSError, ValueError) as error:
        raise _unreachable(address, error) from None


def _connect(ray: Any, address: str) -> None:
    # Ray puts the working folder before each node's own packages: an empty one, then.
    with tempfile.TemporaryDirectory() as empty, contextlib.chdir(empty):
        try:
            ray.init(
                address,
                namespace="tunetrail",
                configure_logging=False,
                log_to_driver=False,
            )
        except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
            raise _unreachable(address, error) from None


def _unreachable(address: str, error: Exception) -> TuneTrailError:
    return TuneTrailError(
        f"no Ray cluster answers at runner.address '{address}': {' '.join(str(error).split())}",
        "`ray start --head` begins one, `ray status` on it says whether it is up; from outside "
        "its nodes the address is ray://host:10001; `runner: {kind: local}` does without",
    )


def _check_prefect(nodes: list[dict[str, Any]]) -> None:
    """Check that nodes reach Prefect's API, to which they report.

    Raises:
        TuneTrailError: There are other machines, and the API is a server of this one alone.
    """
    from prefect.settings import PREFECT_API_URL

    host = urlsplit(PREFECT_API_URL.value() or "//127.0.0.1").hostname
    if host not in ("127.0.0.1", "localhost", "::1"):
        return
    addresses = {node["NodeManagerAddress"] for node in nodes}
    others = sorted(address for address in addresses if not _is_own(address))
    if others:
        raise TuneTrailError(
            f"the cluster has nodes on other machines ({', '.join(others[:3])}), which do not "
            "reach Prefect's API: it is a server of this machine alone",
            "start `prefect server start --host ADDRESS` in your own network, and set "
            "PREFECT_API_URL to http://ADDRESS:4200/api",
        )


def _is_own(address: str) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


def _try_nodes(ray: Any, nodes: list[dict[str, Any]], agreed: exchange.Terms) -> None:
    """Let every node say whether it can do errands; one that comes later says so by itself.

    Raises:
        TuneTrailError: One cannot.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    trial = ray.remote(num_cpus=0)(_try_out)
    asked = [
        trial.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote(agreed)
        for node in nodes
    ]
    try:
        found = ray.get(asked, timeout=_SECONDS_TO_TRY)
    except ray.exceptions.RayError as error:
        raise TuneTrailError(
            f"a node of the cluster cannot start TuneTrail: {_last_line(error)}",
            "`ray status` shows whether it is still there; every node needs the same version of "
            "TuneTrail, with its requirements.lock",
        ) from None
    wrong = [error for error in found if error is not None]
    if wrong:
        raise wrong[0]


def _last_line(error: BaseException) -> str:
    """Of an error with a traceback in its text: what it is about."""
    said = str(error).strip().splitlines()
    return said[-1].strip() if said else type(error).__name__


def _fitting(runner: Runner, node: dict[str, Any]) -> int:
    """Stages that a node has room for at a time."""
    has = node["Resources"]
    shares = [has.get("CPU", 0) / runner.cpus]
    if runner.gpus:
        shares.append(has.get("GPU", 0) / runner.gpus)
    return int(min(shares) + 1e-9)
