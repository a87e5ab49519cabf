"""Prefect's API for a flow: the configured one, or a temporary server that ends with the flow."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import NoReturn

from tunetrail.errors import TuneTrailError

_SECONDS_TO_START = 600
_SECONDS_TO_STOP = 5

#: The temporary server. It stops when its standard input ends, which is when this process does.
_own: list[subprocess.Popen[bytes]] = []

#: Why the API was given up during the flow.
_lost: list[Exception] = []


def connect() -> None:
    """Make sure that Prefect has an API: check the configured one, or begin to start a temporary.

    Prefect would start one itself, but leave it behind when the flow is killed.

    Raises:
        TuneTrailError: The configured API does not answer.
    """
    from prefect.client.orchestration import get_client
    from prefect.context import refresh_global_settings_context
    from prefect.settings import PREFECT_API_URL

    if not PREFECT_API_URL.value():
        os.environ["PREFECT_API_URL"] = _start()
        refresh_global_settings_context()
        return
    with get_client(sync_client=True) as client:
        try:
            client.raise_for_api_version_mismatch()
        except Exception as error:  # Prefect wraps whatever it met: no route, no TLS, no Prefect
            reason = error.__cause__ or error
            raise unreachable(f"does not answer: {' '.join(str(reason).split())}") from None


def wait_until_ready() -> None:
    """Wait for the temporary server, if there is one.

    Raises:
        TuneTrailError: It did not start.
    """
    import httpx

    if not _own:
        return
    try:
        # The question waits in the socket's queue until the server has started, or is gone.
        url = os.environ["PREFECT_API_URL"]
        httpx.get(f"{url}/health", timeout=_SECONDS_TO_START).raise_for_status()
    except httpx.HTTPError as error:
        raise TuneTrailError(
            f"the temporary Prefect server did not start: {error}",
            "see the lines above; with PREFECT_API_URL a server of your own is used",
        ) from None


def lost(error: Exception) -> str:
    """Prefect's API is gone: what that means, for a person."""
    _lost.append(error)
    return f"stopped answering: {' '.join(str(error).split())}"


def leave(code: int) -> NoReturn:
    """End this process with an exit code.

    Prefect keeps it alive until all events are handed over, which takes seven seconds an event when
    nobody takes them.
    """
    if _lost:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def unreachable(what: str) -> TuneTrailError:
    """Error for an API that cannot be used."""
    from prefect.settings import PREFECT_API_URL

    without = (
        "unset PREFECT_API_URL"
        if "PREFECT_API_URL" in os.environ
        else "set PREFECT_PROFILE=ephemeral"
    )
    return TuneTrailError(
        f"Prefect's API at {(PREFECT_API_URL.value() or '').rpartition('@')[2]} {what}",
        f"what is done is kept: start the server or correct the address, or {without} to go on "
        "without it; then repeat the command",
    )


def _start() -> str:
    """Start the temporary server and return the address that its API will have."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        process = subprocess.Popen(
            [sys.executable, "-m", "pipelines.server", str(listener.fileno())],
            stdin=subprocess.PIPE,
            pass_fds=[listener.fileno()],
            start_new_session=True,  # a Ctrl-C is for the flow, which still has states to report
        )
        _own.append(process)
        return f"http://127.0.0.1:{listener.getsockname()[1]}/api"


def _end_with_flow() -> None:
    """Wait until the flow is gone, then stop."""
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_SECONDS_TO_STOP)
    os.kill(os.getpid(), signal.SIGKILL)


def _serve(listener: socket.socket) -> None:
    import uvicorn
    from prefect.server.api.server import create_app

    # Connections have it from here; without it the second packet of an answer comes 40 ms later.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    app = create_app(ephemeral=True, final=True)
    config = uvicorn.Config(app, log_level="error", lifespan="on")
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    threading.Thread(target=_end_with_flow, daemon=True).start()
    _serve(socket.socket(fileno=int(sys.argv[1])))
