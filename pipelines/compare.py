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

from pipelines.environment import configure_prefect
from pipelines.progress import Display, show_results
from pipelines.scheduler import Scheduler
from pipelines.server import connect, leave, lost, unreachable, wait_until_ready
from pipelines.workers import WorkerDied, end_all, run_command, start_server
from tunetrail import logs
from tunetrail.dag import Cell, Dag, project_root, stale_cells
from tunetrail.errors import TuneTrailError
from tunetrail.estimate import Estimator, known_durations, remember
from tunetrail.files import STATE_DIR, read_json
from tunetrail.gate.words import in_words
from tunetrail.layout import REPORT
from tunetrail.machine import from_machine, machine_errors
from tunetrail.params import Params, check_sources, read_params
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
    dag: Dag, stale: dict[str, list[str]], project: str, width: int, display: Display
) -> Outcome:
    """Run the Prefect flow over the stale cells.

    Raises:
        TuneTrailError: Prefect's API stopped answering before all was done.
    """
    # Imported here, after the environment is set, and only when there is something to run.
    import httpx
    from prefect import flow, task
    from prefect.artifacts import create_table_artifact
    from prefect.cache_policies import NO_CACHE
    from prefect.client.schemas.objects import State, TaskRun
    from prefect.futures import PrefectFuture
    from prefect.task_runners import ThreadPoolTaskRunner
    from prefect.tasks import Task

    def worth_retrying(_: Task[Any, Any], __: TaskRun, state: State[Any]) -> bool:
        return isinstance(state.result(raise_on_failure=False), WorkerDied)

    # DVC is the one cache: Prefect keeps states, not results.
    @task(
        task_run_name="{name}",
        retries=2,
        retry_delay_seconds=1,
        retry_condition_fn=worth_retrying,
        cache_policy=NO_CACHE,
        persist_result=False,
    )
    def execute(name: str, command: str) -> None:
        display.started(name)
        log = STATE_DIR / "logs" / f"{name}.log"
        _log.info("%s begins, log in %s", name, log)
        run_command(command, log, lambda *state: display.step(name, *state))

    outcome = Outcome()
    # Twice the width is handed over, so that no worker waits while a result is recorded; the task
    # runner keeps the width.
    scheduler = Scheduler(dag.cells, 2 * width)
    # Simple, because a signal's handler may put something into it at any moment.
    events: queue.SimpleQueue[tuple[Cell, PrefectFuture[None]] | int] = queue.SimpleQueue()

    stopping = False

    def stop(number: int, _: Any) -> None:
        """Take a signal between two steps, so that it cannot cut dvc.lock in half."""
        if stopping:  # and it takes too long
            display.__exit__()
            sys.stderr.write(f"{Stopped(number)} at once\n")
            os._exit(128 + number)
        events.put(number)

    def look_at(cell: Cell) -> None:
        """Start a cell, or find that there is nothing to do for it."""
        if not dag.changes(cell.name):
            pass
        elif dag.begin(cell.name):
            outcome.restored.append(cell.name)
            _log.info("%s is restored from DVC's run cache", cell.name)
        else:
            future = execute.with_options(name=cell.stage).submit(cell.name, cell.command)
            future.add_done_callback(lambda done: events.put((cell, done)))
            return
        scheduler.finish(cell.name)
        if cell.name in stale:
            display.finished(cell.name)

    def settle(cell: Cell, future: PrefectFuture[None]) -> None:
        """Record what a cell gave."""
        future.result()
        dag.record(cell.name)
        outcome.executed.append(cell.name)
        scheduler.finish(cell.name)
        display.finished(cell.name)
        _log.info("%s took %.1f s", cell.name, display.seconds[cell.name])

    @contextlib.contextmanager
    def failing(cell: Cell) -> Iterator[None]:
        """Give up a cell that fails, and what depends on it; the others go on."""
        try:
            yield
        except Exception as error:
            outcome.failed[cell.name] = str(from_machine(error) or error)
            _log.info("%s failed: %s", cell.name, error)
            display.finished(cell.name, failed=True)
            for lost in scheduler.fail(cell.name):
                outcome.blocked.append(lost)
                display.finished(lost)

    runner: Any = ThreadPoolTaskRunner(max_workers=width)

    @flow(name="compare", flow_run_name="{project}", task_runner=runner)
    def compare(project: str) -> None:
        nonlocal stopping
        with signals_to(stop, signal.SIGTERM):  # Prefect has put a handler of its own there
            while scheduler.busy:
                while (ready := scheduler.next()) is not None:
                    with failing(ready):
                        look_at(ready)
                if scheduler.busy:
                    event = events.get()
                    if isinstance(event, int):
                        stopping = True
                        end_all()
                        raise Stopped(event)
                    with failing(event[0]):
                        settle(*event)
        if outcome.failed:
            raise RunsFailed("; ".join(f"{n}: {why}" for n, why in outcome.failed.items()))
        create_table_artifact(key="comparison", table=_rows(), description=f"Scores of {project}")

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


def _run(workers: int, as_json: bool, console: Console) -> int:
    result = run_project(workers, console)
    if as_json:
        sys.stdout.write(json.dumps(result, indent=2) + "\n")
    return 1 if result["failed"] or result["refused"] else 0


def run_project(workers: int, console: Console) -> dict[str, Any]:
    """Execute what is stale in the project here, bring MLflow up to date and show the result.

    Args:
        workers: Stages side by side; 0: as many as the cores allow.
        console: Where everything is shown.

    Returns:
        What was done (:class:`Outcome`) and, if nothing failed, what MLflow has now.

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
    width = workers or max(1, (os.cpu_count() or 1) // params.numerics.threads)
    timed = [budget.minutes for budget in params.budgets.values()]
    timed += [how.budget.minutes for how in params.pretraining.objectives().values()]
    if any(minutes is not None for minutes in timed):
        width = 1  # a neighbour would take its share of the minutes
    STATE_DIR.mkdir(exist_ok=True)
    configure_prefect()
    try:
        with FileLock(STATE_DIR / "run.lock", timeout=0):
            outcome = _execute(root, params, width, console)
            while not outcome.failed and (added := give_more_seeds(path, _COMPARISON)):
                pairs = text.plural(len(added), "run")
                console.print(f"Some verdicts are open: {pairs} with further seeds")
                outcome.follow(_execute(root, read_params(path), width, console))
            result: dict[str, Any] = asdict(outcome)
            for damaged in outcome.damaged:
                console.print(f"The copy of {damaged} in DVC's cache was damaged: made again.")
            if outcome.failed:
                _show_failures(outcome, console)
                page = write_failures(STATE_DIR, params.project, outcome.failed, outcome.blocked)
                console.print(f"Failures    {page.absolute()}")
                _compare_finished(outcome, params, console)
            else:
                clear_failures(STATE_DIR)
                result |= _finish(console, params)
    except Timeout:
        raise TuneTrailError(
            f"another run is under way in '{root}'", "wait for it, or stop it"
        ) from None
    result["seconds"] = round(time.monotonic() - started, 1)
    console.print(f"{len(outcome.executed)} stages executed in {result['seconds']:.0f} s")
    return result


def _execute(root: Path, params: Params, width: int, console: Console) -> Outcome:
    dag = Dag(root)
    with dag.claimed():
        return _execute_stale(dag, root, params, width, console)


def _execute_stale(dag: Dag, root: Path, params: Params, width: int, console: Console) -> Outcome:
    stale = stale_cells(dag)
    if not stale:
        console.print("Everything is up to date.")
        return Outcome()
    runs = sum(dag.cells[name].trains for name in stale)
    console.print(
        f"{len(stale)} of {len(dag.cells)} stages are stale, {runs} of them runs; "
        f"{width} side by side"
    )
    connect()
    start_server()
    estimator = Estimator(known_durations(root, params))
    with Display(console, [dag.cells[name] for name in stale], estimator, width) as display:
        try:
            return run_stale(dag, stale, params.project, width, display)
        finally:
            with contextlib.suppress(OSError):  # a full disk: it is only for the time left
                remember(root, display.seconds)


def _finish(console: Console, params: Params) -> dict[str, Any]:
    """Bring MLflow up to date and say where everything is."""
    from tunetrail.tracking.connection import tracking_uri
    from tunetrail.tracking.sync import bring_up_to_date

    done = bring_up_to_date(_RECEIPT)
    show_results(console, read_json(_COMPARISON / "comparison.json"))
    programs = Path(sys.executable).parent
    if programs.is_relative_to(Path.cwd()):
        programs = programs.relative_to(Path.cwd())
    mlflow, server = (shlex.quote(str(programs / name)) for name in ("mlflow", "prefect"))
    home = os.environ.get("PREFECT_HOME")
    prefect = f"PREFECT_HOME={shlex.quote(home)} " if home else ""
    registered = done["versions_created"] + done["versions_present"]
    mlflow_has = (
        f"MLflow      experiment '{params.project}': {done['runs_created']} runs added, "
        f"{done['runs_present']} were there, {registered} registered models"
    )
    console.print(
        f"Report      {(_COMPARISON / 'report.html').absolute()}\n"
        f"Table       {(_COMPARISON / 'table.md').absolute()}\n"
        f"{text.wrapped(mlflow_has, console.width, ' ' * 12)}\n"
        f"  open it   {mlflow} ui --backend-store-uri {shlex.quote(tracking_uri())}\n"
        f"Prefect     {prefect}{server} server start"
    )
    for refused in done["refused"]:
        why = f"NOT registered: {refused['name']}: {refused['reason']}"
        console.print(text.wrapped(why, console.width, "  "), style="red")
    for decision in done["decisions"]:
        console.print(text.wrapped(f"Gate        {in_words(decision)}", console.width, " " * 12))
    return done


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
