"""Run a module in this process, for as long as the process that started it lives.

``python -m pipelines.guard MODULE ARGUMENT …`` with a pipe as standard input.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading


def _end_with_parent() -> None:
    """The pipe ends with the process at its other end, however that ends."""
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    threading.Thread(target=_end_with_parent, daemon=True).start()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
