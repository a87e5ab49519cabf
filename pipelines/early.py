"""What a program of the pipeline does before it imports for seconds."""

from __future__ import annotations

import signal
import sys
import tempfile

from tunetrail.machine import from_machine


def begin() -> None:
    """Let Ctrl-C end the imports without a traceback, and stop if they cannot succeed."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        tempfile.gettempdir()  # importing torch asks for it
    except FileNotFoundError as error:
        sys.stderr.write(f"error: {from_machine(error) or error}\n")
        sys.exit(2)
