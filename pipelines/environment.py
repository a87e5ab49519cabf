"""Settings of Prefect that have to be in the environment before it is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

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
        # A loaded machine may take longer than the default to start the temporary server.
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


def guard_server() -> None:
    """Let Prefect's temporary server live through Ctrl-C, and no longer than this process.

    A terminal sends Ctrl-C to it as well, and a flow without its server cannot end in order; and
    nobody would stop the server of a flow that was killed.
    """
    from prefect.server.api.server import SubprocessASGIServer

    SubprocessASGIServer._run_uvicorn_command = _guarded_server  # type: ignore


def _guarded_server(server: Any) -> subprocess.Popen[bytes]:
    """What Prefect's method of this name does, under :mod:`pipelines.guard`."""
    from prefect.settings import get_current_settings

    arguments = ["--factory", "prefect.server.api.server:create_app", "--host", "127.0.0.1"]
    arguments += ["--port", str(server.port), "--log-level", "error", "--lifespan", "on"]
    settings = get_current_settings().to_environment_variables(exclude_unset=True)
    ephemeral = {"PREFECT_UI_ENABLED": "0"}
    ephemeral |= {"PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "pipelines.guard", "uvicorn", *arguments],
        env={**os.environ, **ephemeral, **settings},
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
