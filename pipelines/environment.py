"""Settings of Prefect that have to be in the environment before it is imported."""

from __future__ import annotations

import os
from pathlib import Path

from tunetrail.files import STATE_DIR


def configure_prefect() -> None:
    """Quiet, without telemetry, and with a database inside the project unless configured."""
    configured = {"PREFECT_HOME", "PREFECT_API_URL", "PREFECT_PROFILE"} & os.environ.keys()
    if not configured and not (Path.home() / ".prefect" / "profiles.toml").exists():
        os.environ["PREFECT_HOME"] = str((STATE_DIR / "prefect").absolute())
    defaults = {
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        # The flow prints its own progress and errors; the console handler would repeat them. Logs
        # still reach a configured server.
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
        "PREFECT_INTERNAL_LOGGING_LEVEL": "CRITICAL",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
