"""Log lines for people: none by default, one an event with ``-v``, libraries' too with ``-vv``.

They go to standard error, which in a worker is its log file. URLs in them lose their secrets.
"""

from __future__ import annotations

import logging
import os
import sys

from tunetrail.errors import masked

#: Carries the number of ``-v`` to workers, and to the commands that ``dvc repro`` starts.
VERBOSE = "TUNETRAIL_VERBOSE"

_FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
_OURS = ("tunetrail", "pipelines")


class StandardError(logging.Handler):
    """Writes to what standard error is at the time: a live display puts itself in its place."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line (and the traceback, if the record has one)."""
        sys.stderr.write(masked(self.format(record)) + "\n")


def _quiet_library(record: logging.LogRecord) -> bool:
    """Libraries that set a level of their own still keep to that of the root.

    Prefect logs every failure of a stage with a traceback; the flow tells it itself, in words.
    """
    level = logging.getLogger().level
    library = record.name.partition(".")[0]
    told = library == "prefect" and level > logging.INFO
    return library in _OURS or record.levelno >= (logging.CRITICAL if told else level)


def configure(verbosity: int) -> None:
    """Set up the log lines of this process.

    Args:
        verbosity: How many ``-v`` were given.
    """
    if verbosity:
        os.environ[VERBOSE] = str(verbosity)
    root = logging.getLogger()
    for old in [handler for handler in root.handlers if isinstance(handler, StandardError)]:
        root.removeHandler(old)
    handler = StandardError()
    handler.setFormatter(logging.Formatter(_FORMAT, datefmt="%Y-%m-%d %H:%M:%S"))
    handler.addFilter(_quiet_library)
    root.addHandler(handler)
    root.setLevel(logging.INFO if verbosity > 1 else logging.WARNING)
    ours = (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbosity, 2)]
    for name in _OURS:
        logging.getLogger(name).setLevel(ours)
