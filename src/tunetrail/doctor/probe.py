"""What can only be known by importing heavy packages: asked of a process that may hang or crash."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from functools import cached_property
from pathlib import Path
from typing import Any

#: Prints what it finds out, a JSON object a line.
_PROGRAM = "tunetrail.doctor.heavy"

_PATIENCE = 60.0


class Probe:
    """Starts at once, and is waited for when an answer is needed.

    Args:
        root: The project, if there is one.
    """

    def __init__(self, root: Path | None) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", _PROGRAM],
            cwd=root,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @cached_property
    def answers(self) -> dict[str, Any]:
        """Question → answer; ``error`` where the process ended before it had all."""
        try:
            out, err = self._process.communicate(timeout=_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
            return {"error": f"gave no answer within {_PATIENCE:.0f} s"}
        answers: dict[str, Any] = {}
        for line in out.splitlines():
            answers |= json.loads(line)
        code = self._process.returncode
        if code < 0:
            answers["error"] = f"the process was ended by {signal.Signals(-code).name}"
        elif code:
            answers["error"] = err.strip().splitlines()[-1] if err.strip() else f"exit code {code}"
        return answers
