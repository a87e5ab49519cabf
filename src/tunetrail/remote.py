"""DVC's default remote: handing results over, and remembering what it did not take."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tunetrail.errors import Unreachable
from tunetrail.files import STATE_DIR

#: Says that the remote has not taken the results as they are.
_WAITING = STATE_DIR / "not-pushed"


def push(root: Path) -> None:
    """Send data, results and the run cache to DVC's default remote.

    Raises:
        Unreachable: There is none, or it does not take them; :func:`waits` until it has.
    """
    waiting = root / _WAITING
    waiting.parent.mkdir(exist_ok=True)
    waiting.touch()
    command = [sys.executable, "-m", "dvc", "push", "--run-cache"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
        raise Unreachable(
            "DVC's remote did not take the results: "
            + (said[-1].removeprefix("ERROR: ") if said else f"exit code {done.returncode}"),
            "nothing is lost: correct the remote (`dvc remote list`), then `tunetrail sync`",
        )
    waiting.unlink()


def waits(root: Path) -> bool:
    """Whether the remote has not taken what a retraining gave."""
    return (root / _WAITING).exists()
