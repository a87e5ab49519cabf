"""The flow of ``make run``: execute what is stale, in parallel, and bring MLflow up to date.

DVC decides what is stale and records what came out. Prefect decides order, width and retries, and
keeps the states. Workers execute the same commands as ``dvc repro``.
"""

from __future__ import annotations

if __name__ == "__main__":
    from pipelines.early import begin

    begin()

import argparse
import contextlib
import json
import logging
import os
import queue
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from rich.console import Console

from pipelines.cluster import Cluster, do, joined, worth_retrying
from pipelines.environment import configure_prefect
from pipelines.progress import Display, show_results
from pipelines.scheduler import Scheduler
from pipelines.server import connect, leave, lost, unreachable, wait_until_ready
from pipelines.workers import end_all, run_command, start_server
from tunetrail import logs
from tunetrail.dag import Cell, Dag, stale_cells
from tunetrail.errors import TuneTrailError, Unreachable, masked
from tunetrail.estimate import Estimator, known_durations, remember
from tunetrail.exchange import Done
from tunetrail.files import STATE_DIR, read_json
from tunetrail.gate.words import in_words
from tunetrail.layout import REPORT
from tunetrail.lineage.reproduction import address
from tunetrail.machine import from_machine, machine_errors
from tunetrail.params import Params, check_sources, read_params
from tunetrail.place import project_root
from tunetrail.report import text
from tunetrail.report.failures import FINISHED, clear_failures, write_failures
from tunetrail.stages.more_seeds import give_more_seeds

_COMPARISON = Path("comparison")
_RECEIPT = Path("receipt.json")

_log = logging.getLogger("pipelines.compare")

#: Signals that end a run in order.
_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass
class Outcome:
    """What a run of the flow did.

    Attributes:
        executed: Cells whose command ran and succeeded.
        restored: Cells whose outputs came back from DVC's run cache.
        failed: Cell → reason.
        blocked: Cells that could not run because one above them failed.
        damaged: Outputs whose copies in DVC's cache were damaged, and therefore not restored.
    """

    executed: list[str] = field(default_factory=list)
    restored: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    blocked: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)

    def follow(self, other: Outcome) -> None:
        """Add what was done after this."""
        for name, found in asdict(other).items():
            mine = getattr(self, name)
            mine.update(found) if isinstance(mine, dict) else mine.extend(found)


class RunsFailed(RuntimeError):
    """Some stages failed; the others are done."""


class Stopped(RuntimeError):
    """A signal ended the run.

    Args:
        number: The signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number


@contextlib.contextmanager
def signals_to(handler: Callable[[int, Any], None], *numbers: int) -> Iterator[None]:
    """Have signals handled in the block, except those that this process was told to ignore."""
    before = {n: signal.getsignal(n) for n in numbers if signal.getsignal(n) != signal.SIG_IGN}
    for number in before:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _stop(number: int, _: Any) -> None:
    raise Stopped(number)


def run_stale(
    dag: Dag,
    stale: dict[str, list[str]],
    project: str,
    width: int,
    display: Display,
    whole: bool,
    cluster: Cluster | None = None,
) -> Outcome:
    """Run the Prefect flow over the stale cells; one that is whole shows the comparison.

    Args:
        dag: The graph.
        stale: What is to be looked at (see :func:`tunetrail.dag.stale_cells`).
        project: Name of the comparison.
        width: Stages side by side on this machine.
        display: Where progress is shown.
        whole: Whether it is the comparison, which is shown, and not a champion alone.
        cluster: Where trainings are executed; None: here.

    Raises:
        TuneTrailError: Prefect's API stopped answering before all was done.
    """
    # Imported here, after the environment is set, and only when there is something to run.
    import httpx
    from prefect import flow, task
    from prefect.artifacts import create_table_artifact
    from prefect.cache_policies import NO_CACHE
    from prefect.futures import PrefectFuture
    from prefect.task_runners import ThreadPoolTaskRunner

    # DVC is the one cache: Prefect keeps states, not results.
    settings: dict[str, Any] = {
        "task_run_name": "{name}",
        "retries": 2,
        "retry_delay_seconds": 1,
        "retry_condition_fn": worth_retrying,
        "cache_policy": NO_CACHE,
        "persist_result": False,
    }

    @task(**settings)
    def execute(name: str, command: str) -> None:
        display.started(name)
        log = STATE_DIR / "logs" / f"{name}.log"
        _log.info("%s begins, log in %s", name, log)
        run_command(command, log, lambda *state: display.step(name, *state))

    execute_away = task(**settings)(do)

    outcome = Outcome()
    # Twice the width is handed over, so that no worker waits while a result is recorded; the task
    # runner keeps the width.
    scheduler = Scheduler(dag.cells, 2 * (width if cluster is None else cluster.width))
    # Simple, because a signal's handler may put something into it at any moment.
    events: queue.SimpleQueue[tuple[Cell, PrefectFuture[Any]] | int] = queue.SimpleQueue()

    stopping = False

    def stop(number: int, _: Any) -> None:
        """Take a signal between two steps, so that it cannot cut dvc.lock in half."""
        if stopping:  # and it takes too long
            display.__exit__()
            sys.stderr.write(f"{Stopped(number)} at once\n")
            os._exit(128 + number)
        events.put(number)

    here: Any = ThreadPoolTaskRunner(max_workers=width)

    def hand_out(cell: Cell) -> PrefectFuture[Any]:
        """Have a cell executed, here or on the cluster."""
        if cluster is None or not cluster.takes(cell):
            arguments = {"name": cell.name, "command": cell.command}
            future: PrefectFuture[Any] = here.submit(
                execute.with_options(name=cell.stage), arguments
            )
            return future
        with cluster.submitting():
            away = execute_away.with_options(name=cell.stage)
            future = away.submit(**cluster.send(dag, cell.name))
        display.started(cell.name)
        _log.info("%s is handed to the cluster", cell.name)
        return future

    def look_at(cell: Cell) -> None:
        """Start a cell, or find that there is nothing to do for it."""
        if not dag.changes(cell.name):
            pass
        elif dag.begin(cell.name):
            outcome.restored.append(cell.name)
            _log.info("%s is restored from DVC's run cache", cell.name)
        else:
            future = hand_out(cell)
            future.add_done_callback(lambda done: events.put((cell, done)))
            return
        scheduler.finish(cell.name)
        if cell.name in stale:
            display.finished(cell.name)

    def settle(cell: Cell, future: PrefectFuture[Any]) -> None:
        """Record what a cell gave."""
        done: Done | None = future.result() if cluster is None else cluster.result(future)
        if cluster is None or done is None:
            dag.record(cell.name)
        else:
            cluster.receive(dag, cell.name, done)
        again = done is not None and not done.executed  # somebody else's, from the remote
        (outcome.restored if again else outcome.executed).append(cell.name)
        scheduler.finish(cell.name)
        display.finished(cell.name)
        _log.info("%s took %.1f s", cell.name, display.seconds[cell.name])

    @contextlib.contextmanager
    def failing(cell: Cell) -> Iterator[None]:
        """Give up a cell that fails, and what depends on it; the others go on."""
        try:
            yield
        except Exception as error:
            outcome.failed[cell.name] = masked(str(from_machine(error) or error))
            _log.info("%s failed: %s", cell.name, error)
            display.finished(cell.name, failed=True)
            for lost in scheduler.fail(cell.name):
                outcome.blocked.append(lost)
                display.finished(lost)

    def happened() -> tuple[Cell, PrefectFuture[None]] | int:
        """Wait for what happens next; what was recorded is written meanwhile."""
        while True:
            try:
                return events.get(timeout=dag.due())
            except queue.Empty:
                with contextlib.suppress(OSError):  # a full disk: it is tried again, to the end
                    dag.write()

    runner: Any = here if cluster is None else cluster.task_runner()

    @flow(name="compare", flow_run_name="{project}", task_runner=runner)
    def compare(project: str) -> None:
        nonlocal stopping
        # Prefect has put a handler of its own there.
        with here, signals_to(stop, signal.SIGTERM):
            while scheduler.busy:
                while (ready := scheduler.next()) is not None:
                    with failing(ready):
                        look_at(ready)
                if scheduler.busy:
                    event = happened()
                    if isinstance(event, int):
                        stopping = True
                        end_all()
                        raise Stopped(event)
                    with failing(event[0]):
                        settle(*event)
        if outcome.failed:
            raise RunsFailed("; ".join(f"{n}: {why}" for n, why in outcome.failed.items()))
        if whole:
            scores = f"Scores of {project}"
            create_table_artifact(key="comparison", table=_rows(), description=scores)

    wait_until_ready()
    try:
        with (
            contextlib.suppress(RunsFailed),  # Prefect has the state; the outcome has the reasons
            signals_to(stop, *_STOPPING),
        ):
            compare(project)
    except httpx.HTTPError as error:
        what = lost(error)
        if scheduler.busy:
            raise unreachable(what) from None
        display.note(
            f"Prefect's API {what}. Its record of this flow is incomplete; the results do not "
            "depend on it."
        )
    outcome.damaged = dag.discarded
    return outcome


def _rows() -> list[dict[str, Any]]:
    """The comparison as a table of a row a task and method."""
    tasks = read_json(_COMPARISON / "comparison.json")["tasks"]
    return [
        {
            "task": task,
            "method": method["title"],
            "metric": content["primary"],
            **method["summary"][content["primary"]],
            **_verdict(content["verdicts"].get(label)),
            "chosen on selection": "yes" if label == content["winner"]["method"] else "",
        }
        for task, content in tasks.items()
        for label, method in content["methods"].items()
    ]


def _verdict(record: dict[str, Any] | None) -> dict[str, Any]:
    if record is None:
        return {"difference": "", "verdict": ""}
    return {"difference": text.difference(record), "verdict": text.outcome(record)}


def main() -> int:
    """Command line of the flow; returns the exit code (1: something failed, 2: bad input)."""
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.compare",
        description="Execute what is stale of the comparison in params.yaml, and show the result.",
        epilog="example: python -m pipelines.compare --workers 4",
    )
    parser.add_argument(
        "--workers", type=int, default=0, help="stages side by side (default: cores / threads)"
    )
    parser.add_argument(
        "--json", action="store_true", help="print what was done as JSON on standard output"
    )
    parser.add_argument(
        "-v",
        "--verbose",
        action="count",
        default=int(os.environ.get(logs.VERBOSE) or 0),
        help="log what is done to standard error and to .tunetrail/logs; -vv: libraries, too",
    )
    options = parser.parse_args()
    logs.configure(options.verbose)
    plain: dict[str, Any] = {"soft_wrap": True, "highlight": False, "markup": False}
    console, errors = Console(stderr=options.json, **plain), Console(stderr=True, **plain)
    return guarded(lambda: _run(options.workers, options.json, console), errors)


def guarded(run: Callable[[], int], errors: Console) -> int:
    """Exit code of a command that signals and bad input may end, in order and without traceback."""
    try:
        with machine_errors(), signals_to(_stop, *_STOPPING):
            return run()
    except TuneTrailError as error:
        errors.print(f"error: {error}", style="red")
        return 2
    except Stopped as stopped:
        for number in _STOPPING:  # what is left to do ends by itself
            signal.signal(number, signal.SIG_IGN)
        errors.print(f"{stopped}; what is done is kept, repeat the command to go on")
        return 128 + stopped.number


def quiet_output(as_json: bool) -> contextlib.AbstractContextManager[Any]:
    """Keep standard output for what a program is to read: Ray writes there what it notices."""
    return contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext()


def _run(workers: int, as_json: bool, console: Console) -> int:
    with quiet_output(as_json):
        result = run_project(workers, console)
    if as_json:
        sys.stdout.write(json.dumps(result, indent=2) + "\n")
    return 1 if result["failed"] or result["refused"] or "waiting" in result else 0


def run_project(workers: int, console: Console) -> dict[str, Any]:
    """Execute what is stale in the project here, bring MLflow up to date and show the result.

    Args:
        workers: Stages side by side; 0: as many as the cores allow.
        console: Where everything is shown.

    Returns:
        What was done (:class:`Outcome`) and, if nothing failed, what MLflow has now; ``waiting``
        says why it has nothing of it yet, where it cannot be reached.

    Raises:
        TuneTrailError: Bad input, or another run is under way.
        Stopped: A signal ended it.
    """
    started = time.monotonic()
    root = project_root(Path.cwd())
    os.chdir(root)
    path = Path("params.yaml")
    params = read_params(path)
    check_sources(params, path)
    with _alone(root):
        outcome = _execute(params, workers, console)
        while not outcome.failed and (added := give_more_seeds(path, _COMPARISON)):
            pairs = text.plural(len(added), "run")
            console.print(f"Some verdicts are open: {pairs} with further seeds")
            outcome.follow(_execute(read_params(path), workers, console))
        result = _outcome(outcome, params, console)
        if outcome.failed:
            _compare_finished(outcome, params, console)
        else:
            result |= _finish(console, params)
    return _timed(result, started, console)


def run_champion(folder: Path, workers: int, console: Console) -> dict[str, Any]:
    """Execute what is stale in the folder of a champion, and bring MLflow up to date.

    Args:
        folder: What :func:`tunetrail.init.champion.write_champion` wrote in the project here.
        workers: As of :func:`run_project`.
        console: Where everything is shown.

    Returns:
        As :func:`run_project`; stages have the names that DVC knows them by in the project.

    Raises:
        TuneTrailError: Bad input, or another run is under way.
        Stopped: A signal ended it.
    """
    started = time.monotonic()
    root = project_root(Path.cwd())
    with _alone(root):
        with contextlib.chdir(folder):
            params = read_params(Path("params.yaml"))
            STATE_DIR.mkdir(exist_ok=True)
            outcome = _execute(params, workers, console, whole=False)
            result = _outcome(outcome, params, console)
        if not outcome.failed:
            result |= _sync(folder / _RECEIPT)
            _show_decisions(result, console)
    place = folder.relative_to(root)
    result["executed"] = [address(place, name) for name in outcome.executed]
    result["failed"] = {address(place, name): why for name, why in outcome.failed.items()}
    return _timed(result, started, console)


@contextlib.contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Let no other run begin in the project meanwhile.

    Raises:
        TuneTrailError: One is under way.
    """
    STATE_DIR.mkdir(exist_ok=True)
    configure_prefect()
    try:
        with FileLock(STATE_DIR / "run.lock", timeout=0):
            yield
    except Timeout:
        raise TuneTrailError(
            f"another run is under way in '{root}'", "wait for it, or stop it"
        ) from None


def _outcome(outcome: Outcome, params: Params, console: Console) -> dict[str, Any]:
    """What was done, for JSON; failures are shown and written down."""
    for damaged in outcome.damaged:
        console.print(f"The copy of {damaged} in DVC's cache was damaged: made again.")
    if outcome.failed:
        _show_failures(outcome, console)
        page = write_failures(STATE_DIR, params.project, outcome.failed, outcome.blocked)
        console.print(f"Failures    {page.absolute()}")
    else:
        clear_failures(STATE_DIR)
    return asdict(outcome)


def _timed(result: dict[str, Any], started: float, console: Console) -> dict[str, Any]:
    seconds = round(time.monotonic() - started, 1)
    console.print(f"{len(result['executed'])} stages executed in {seconds:.0f} s")
    return result | {"seconds": seconds}


def _execute(params: Params, workers: int, console: Console, whole: bool = True) -> Outcome:
    """Execute what is stale of the graph in the folder here."""
    width = workers or params.numerics.width
    timed = [budget.minutes for budget in params.budgets.values()]
    timed += [how.budget.minutes for how in params.pretraining.objectives().values()]
    if any(minutes is not None for minutes in timed):
        width = 1  # a neighbour would take its share of the minutes
    root = Path.cwd()
    dag = Dag(root)
    with dag.claimed():
        stale = stale_cells(dag)
        if not stale:
            console.print("Everything is up to date.")
            return Outcome()
        # A champion alone is a few runs, and its folder holds links that nodes do not have.
        if params.runner.kind == "local" or not whole:
            return _execute_stale(dag, stale, params, width, console, whole)
        with joined(params.runner, root) as cluster:
            return _execute_stale(dag, stale, params, width, console, whole, cluster)


def _execute_stale(
    dag: Dag,
    stale: dict[str, list[str]],
    params: Params,
    width: int,
    console: Console,
    whole: bool,
    cluster: Cluster | None = None,
) -> Outcome:
    root = Path.cwd()
    runs = sum(dag.cells[name].trains for name in stale)
    console.print(
        f"{len(stale)} of {len(dag.cells)} stages are stale, {runs} of them runs; "
        + (f"{width} side by side" if cluster is None else f"{cluster.width} at a time on nodes")
    )
    connect()
    start_server()
    estimator = Estimator(known_durations(root, params))
    shown = width if cluster is None else cluster.width
    with Display(console, [dag.cells[name] for name in stale], estimator, shown) as display:
        try:
            return run_stale(dag, stale, params.project, width, display, whole, cluster)
        finally:
            with contextlib.suppress(OSError):  # a full disk: it is only for the time left
                remember(root, display.seconds)


def _finish(console: Console, params: Params) -> dict[str, Any]:
    """Bring MLflow up to date and say where everything is."""
    done = _sync(_RECEIPT)
    show_results(console, read_json(_COMPARISON / "comparison.json"))
    programs = Path(sys.executable).parent
    if programs.is_relative_to(Path.cwd()):
        programs = programs.relative_to(Path.cwd())
    server = shlex.quote(str(programs / "prefect"))
    home = os.environ.get("PREFECT_HOME")
    prefect = f"PREFECT_HOME={shlex.quote(home)} " if home else ""
    console.print(
        f"Report      {(_COMPARISON / 'report.html').absolute()}\n"
        f"Table       {(_COMPARISON / 'table.md').absolute()}"
    )
    if "waiting" not in done:
        registered = done["versions_created"] + done["versions_present"]
        mlflow_has = (
            f"MLflow      experiment '{params.project}': {done['runs_created']} runs added, "
            f"{done['runs_present']} were there, {registered} registered models"
        )
        console.print(
            f"{text.wrapped(mlflow_has, console.width, ' ' * 12)}\n"
            f"  open it   {_tracking_page(programs)}"
        )
    console.print(f"Prefect     {prefect}{server} server start")
    _show_decisions(done, console)
    return done


def _sync(receipt: Path) -> dict[str, Any]:
    """Bring MLflow up to date; where it cannot be reached the results wait, and ``waiting`` says
    why."""
    from tunetrail.tracking.sync import bring_up_to_date

    try:
        return bring_up_to_date(receipt)
    except Unreachable as error:
        return {"waiting": str(error), "refused": read_json(receipt)["refused"], "decisions": []}


def _show_decisions(done: dict[str, Any], console: Console) -> None:
    """What was not registered, what the gate decided, and what waits."""
    for refused in done["refused"]:
        why = f"NOT registered: {refused['name']}: {refused['reason']}"
        console.print(text.wrapped(why, console.width, "  "), style="red")
    for decision in done["decisions"]:
        console.print(text.wrapped(f"Gate        {in_words(decision)}", console.width, " " * 12))
    if "waiting" in done:
        console.print(f"The results wait here: {done['waiting']}", style="red")


def _tracking_page(programs: Path) -> str:
    """How to look at MLflow: the address of a server, or the command that shows a database."""
    from tunetrail.tracking.connection import tracking_uri

    uri = masked(tracking_uri())
    if uri.startswith("http"):
        return uri
    mlflow = shlex.quote(str(programs / "mlflow"))
    return f"{mlflow} ui --backend-store-uri {shlex.quote(uri)}"


def _compare_finished(outcome: Outcome, params: Params, console: Console) -> None:
    """Compare what is finished, where something else failed."""
    from tunetrail.stages.compare import compare_finished

    if "compare" in outcome.failed:
        return
    plan, data, runs, base = map(Path, ("plan", "data", "runs", "models/base"))
    out = STATE_DIR / FINISHED
    with contextlib.suppress(OSError):  # a full disk, which is among the reasons shown
        if compare_finished(params, outcome.failed, outcome.blocked, plan, data, runs, base, out):
            console.print(f"Finished    {(out / REPORT).absolute()}")


def _show_failures(outcome: Outcome, console: Console) -> None:
    console.print(
        f"{len(outcome.failed)} stages failed; the others are done and kept:", style="red"
    )
    alike: dict[str, list[str]] = {}
    for name, reason in outcome.failed.items():
        alike.setdefault(reason, []).append(name)
    for reason, names in alike.items():
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        failed = f"  {', '.join(names[:3])}{more}: {reason}"
        console.print(text.wrapped(failed, console.width, "    "))
    waiting = (
        f"{len(outcome.blocked)} stages below them wait. Repeat the command when the reason is "
        "gone; only what is missing will run."
    )
    console.print(text.wrapped(waiting, console.width))


if __name__ == "__main__":
    leave(main())
