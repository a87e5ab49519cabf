"""Warm workers: a fresh process for each command, forked from a server that has imported torch.

A process of its own gives each command clean memory and random state and contains its crash; the
fork costs a tenth of a second where a new interpreter would spend five on imports.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shlex
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tunetrail.errors import TuneTrailError, masked
from tunetrail.machine import LESS_MEMORY, machine_errors

#: multiprocessing's exit code of a worker when the server that it was forked from was killed.
_SERVER_GONE = 255

_PRELOAD = ["pipelines.preload", "pipelines.workers"]

Report = Callable[[int, int, float], None]


#: Workers at work, by process id, and whether they are to end.
_at_work: set[int] = set()
_ending = threading.Event()


class WorkerDied(RuntimeError):
    """A worker ended without an answer (killed, out of memory): worth another try."""


class Ended(RuntimeError):
    """A worker was ended by :func:`end_all`: not worth another try."""


class StageCrashed(RuntimeError):
    """A stage failed in a way that nobody foresaw; the log holds the traceback."""


def start_server() -> None:
    """Start the process that workers are forked from, and let it import in the background."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOAD)
    from multiprocessing.forkserver import ensure_running

    ensure_running()


def end_all() -> None:
    """Kill every worker, and whatever it started; commands that still come are not run."""
    _ending.set()
    for process in list(_at_work):
        _kill(process)


def _kill(process: int) -> None:
    for kill in (os.kill, os.killpg):  # just started, it has no group of its own yet
        with contextlib.suppress(ProcessLookupError):
            kill(process, signal.SIGKILL)


def run_command(command: str, log: Path, report: Report | None = None) -> None:
    """Run one ``tunetrail`` command in a worker and wait for it.

    Args:
        command: The command of a stage.
        log: File for the worker's output.
        report: Called with a training's step, steps and loss.

    Raises:
        TuneTrailError: The command refused its input.
        StageCrashed: Any other error of the command.
        WorkerDied: The worker was killed.
        Ended: All workers are being ended.
    """
    if _ending.is_set():
        raise Ended(command)
    program, *arguments = shlex.split(command)
    if program != "tunetrail":
        raise TuneTrailError(f"stage command '{command}'", "stages are tunetrail subcommands")
    log.parent.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("forkserver")
    ours, theirs = context.Pipe()
    process = context.Process(
        target=_work, args=(arguments, str(log), os.getcwd(), dict(os.environ), theirs)
    )
    process.start()
    theirs.close()
    worker = process.pid or 0
    _at_work.add(worker)
    try:
        if _ending.is_set():  # it started just then
            _kill(worker)
        outcome = _listen(ours, report)
        process.join()
    except BaseException:
        # Cancelled: take the worker and whatever it started along.
        _kill(worker)
        raise
    finally:
        _at_work.discard(worker)
    if outcome is None:
        if _ending.is_set():
            raise Ended(command)
        if process.exitcode in (-signal.SIGKILL, _SERVER_GONE):
            why = "its worker was killed (SIGKILL), as the system does when memory runs out"
            raise WorkerDied(f"{why}\n  fix: {LESS_MEMORY}")
        raise WorkerDied(f"its worker ended with exit code {process.exitcode}; log: {log}")
    if outcome[0] == "refused":
        raise outcome[1]
    if outcome[0] == "crashed":
        raise StageCrashed(f"{outcome[1]}; log: {log}")


def _listen(worker: Connection, report: Report | None) -> tuple[str, Any] | None:
    """How the worker says that it ended, or None if it ends without a word."""
    outcome: tuple[str, Any] | None = None
    with contextlib.suppress(EOFError, ConnectionResetError):
        while True:
            kind, content = worker.recv()
            if kind != "progress":
                outcome = (kind, content)
            elif report is not None:
                report(*content)
    return outcome


def _die_with_parent(parent: Connection) -> None:
    """Wait until the other end is gone, then take this process group along.

    A worker that outlives a killed flow would write beside the one that repeats its work.
    """
    with contextlib.suppress(EOFError, ConnectionResetError):
        parent.recv()
    os.killpg(0, signal.SIGKILL)


def _work(
    arguments: list[str], log: str, folder: str, environment: dict[str, str], out: Connection
) -> None:
    """In the worker: run the command and send how it ended."""
    os.setsid()
    threading.Thread(target=_die_with_parent, args=(out,), daemon=True).start()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    try:
        with machine_errors():
            _write_to(log)
        from tunetrail.cli import execute

        execute(arguments, lambda *state: out.send(("progress", state)))
        out.send(("done", None))
    except TuneTrailError as error:
        out.send(("refused", error))
        _log(error)
    except BaseException as error:  # whatever it was, the caller has to hear of it
        out.send(("crashed", masked(f"{type(error).__name__}: {error}")))
        _log(error)


def _write_to(log: str) -> None:
    """Send all output of this process to a file."""
    handle = open(log, "w", buffering=1, encoding="utf-8")  # noqa: SIM115 (open to the end)
    os.dup2(handle.fileno(), 1)
    os.dup2(handle.fileno(), 2)
    sys.stdout = sys.stderr = handle


def _log(error: BaseException) -> None:
    """Put an error into the log: a person's in words, any other with where it happened."""
    with contextlib.suppress(OSError):  # the caller knows it already; the disk may be full
        if isinstance(error, TuneTrailError) and error.__cause__ is None:
            sys.stderr.write(f"error: {error}\n")
        else:
            sys.stderr.write(masked("".join(traceback.format_exception(error))))
