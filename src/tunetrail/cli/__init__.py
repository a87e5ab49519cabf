"""The command line. Every stage is a subcommand; DVC and the flow run exactly these commands.

Nothing is imported here that may be missing, so that a broken installation is explained.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from itertools import pairwise
from typing import Any


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code (2 for bad input, without a traceback)."""
    if "DVC_STAGE" in os.environ:
        from tunetrail.allocator import keep_freed_memory

        keep_freed_memory()
        _end_with_dvc()
    given = list(sys.argv[1:] if arguments is None else arguments)
    from tunetrail.errors import TuneTrailError
    from tunetrail.machine import machine_errors

    try:
        if given[:1] == ["doctor"] and not {"--help", "-h"} & set(given):
            # What examines an installation cannot depend on it.
            from tunetrail.doctor import main as examine

            return examine(given[1:])
        with machine_errors():
            from tunetrail.cli.app import app

            app(args=given, prog_name="tunetrail")
    except TuneTrailError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except ModuleNotFoundError as error:
        sys.stderr.write(
            f"error: the package '{error.name}' is not installed\n"
            "  fix: `tunetrail doctor` says what is missing and how to install it\n"
        )
        return 2
    return 0


def execute(arguments: Sequence[str], progress: Any = None) -> None:
    """Run one command in this process, which is a worker's; errors are raised.

    Args:
        arguments: As on the command line.
        progress: Called by stages that train instead of drawing a bar (see
            ``training.schedule.Progress``).
    """
    from tunetrail.allocator import keep_freed_memory
    from tunetrail.cli.app import app
    from tunetrail.machine import machine_errors

    keep_freed_memory()
    with machine_errors():
        app(args=list(arguments), standalone_mode=False, obj=progress)


def _end_with_dvc() -> None:
    """End this process when the ``dvc repro`` that started it is gone.

    DVC leaves the command of a stage running when it is killed; the repeated one would write beside
    it.
    """
    import psutil  # DVC itself needs it

    line = _line_to_dvc()
    if not line:
        os.kill(os.getpid(), signal.SIGKILL)

    def whole() -> bool:
        try:
            return all(psutil.Process(one).ppid() == above for one, above in pairwise(line))
        except psutil.NoSuchProcess:
            return False

    def watch() -> None:
        while whole():
            time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def _line_to_dvc() -> list[int]:
    """This process, its parent and so on, up to the DVC that wrote itself down as the writer.

    A shell may stand between the two, and outlive DVC. Empty where no ancestor is that DVC: whoever
    adopts orphans is the parent then. Where DVC's notes cannot be read nothing is concluded, and
    the parent counts.
    """
    import json
    from pathlib import Path

    import psutil

    parent = os.getppid()
    try:
        notes = json.loads(Path(os.environ["DVC_ROOT"], ".dvc", "tmp", "rwlock").read_text())
        owners = {writer["pid"] for writer in notes["write"].values()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        owners = set()
    line = [os.getpid(), parent]
    if not owners:
        return line
    try:
        line += [process.pid for process in psutil.Process(parent).parents()]
    except psutil.NoSuchProcess:
        return []
    dvc = next((place for place, process in enumerate(line) if process in owners), -1)
    return line[: dvc + 1]
