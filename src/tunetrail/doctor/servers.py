"""Servers that are configured: do they answer?"""

from __future__ import annotations

import base64
import os
import re
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from tunetrail.doctor.finding import Finding, ok, problem, warning
from tunetrail.errors import masked

#: Seconds that a server is given.
PATIENCE = 3.0


def check() -> Iterator[Finding]:
    """MLflow and Prefect, where the environment names a server."""
    configured = {
        "MLFLOW_TRACKING_URI": os.environ.get("MLFLOW_TRACKING_URI"),
        "PREFECT_API_URL": os.environ.get("PREFECT_API_URL"),
    }
    if not any(configured.values()):
        yield ok("none configured: MLflow and Prefect use databases inside the project")
        return
    with ThreadPoolExecutor(len(configured)) as pool:
        for found in pool.map(_server, configured, configured.values()):
            if found is not None:
                yield found


def _server(variable: str, url: str | None) -> Finding | None:
    if not url:
        return None
    shown, scheme = masked(url), urlsplit(url).scheme
    if scheme in {"http", "https"}:
        return _answer(variable, url.rstrip("/") + "/health", shown)
    if scheme.startswith("sqlite"):
        return _database_file(variable, url, shown)
    if scheme.partition("+")[0] in {"postgresql", "mysql", "mssql"}:
        return _port(variable, url, shown)
    if variable == "MLFLOW_TRACKING_URI" and scheme in {"", "file"}:
        return problem(
            f"{variable}={shown} is a folder, which MLflow 3 refuses",
            "give a database (sqlite:////absolute/path.db) or a server, or unset it",
        )
    return warning(f"{variable}={shown}: servers of this kind are not tried", "try it yourself")


def _answer(variable: str, url: str, shown: str) -> Finding:
    """Whether an HTTP server answers in time. Whatever it says, it is there."""
    started = time.monotonic()
    try:
        _in_time(lambda: _open(url))
    except urllib.error.HTTPError as error:
        if error.code in {401, 403}:
            return problem(
                f"{variable}={shown} answers {error.code}: it wants other credentials",
                "correct the user, password or token",
            )
        if error.code == 404:
            return warning(
                f"{variable}={shown} answers, but not as this kind of server does (404)",
                "check the path in the URL (Prefect's ends in /api)",
            )
        return problem(f"{variable}={shown} answers {error.code}", "look at the server's log")
    except (OSError, ValueError) as error:
        return _unreachable(variable, shown, error)
    return ok(f"{variable}={shown} answers ({time.monotonic() - started:.1f} s)")


def _port(variable: str, url: str, shown: str) -> Finding:
    """Whether somebody listens at a database's address."""
    parts = urlsplit(url)
    ports = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
    try:
        port = parts.port or ports[parts.scheme.partition("+")[0]]
        address = (parts.hostname or "localhost", port)
        _in_time(lambda: socket.create_connection(address, timeout=PATIENCE).close())
    except (OSError, ValueError) as error:
        return _unreachable(variable, shown, error)
    return ok(f"{variable}={shown}: the database is reachable (not logged in)")


def _database_file(variable: str, url: str, shown: str) -> Finding:
    path = Path(re.sub(r"^[^:]+:///", "", url).partition("?")[0])
    folder = path.parent
    if folder.is_dir() and os.access(path if path.exists() else folder, os.W_OK):
        return ok(f"{variable}={shown}")
    return problem(
        f"{variable}={shown}: '{path}' cannot be written", "make its folder, or correct the URL"
    )


def _unreachable(variable: str, shown: str, error: Exception) -> Finding:
    reason = f"no answer in {PATIENCE:.0f} s" if isinstance(error, TimeoutError) else error
    if isinstance(error, urllib.error.URLError):
        reason = masked(str(error.reason))
    return problem(
        f"{variable}={shown} cannot be reached: {reason}",
        f"start the server, correct the URL, or unset {variable} to use files in the project",
    )


def _in_time(call: Callable[[], object]) -> None:
    """Run a call for at most :data:`PATIENCE` seconds (looking a name up has no limit itself)."""
    failed: list[Exception] = []

    def run() -> None:
        try:
            call()
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    if thread.is_alive():
        raise TimeoutError
    if failed:
        raise failed[0]


def _open(url: str, method: str = "GET") -> None:
    """Ask an HTTP server; a user and password in the URL are sent as such."""
    parts = urlsplit(url)
    credentials, _, address = parts.netloc.rpartition("@")
    request = urllib.request.Request(urlunsplit(parts._replace(netloc=address)), method=method)
    if credentials:
        encoded = base64.b64encode(unquote(credentials).encode()).decode()
        request.add_header("Authorization", f"Basic {encoded}")
    urllib.request.urlopen(request, timeout=PATIENCE).close()


def check_network() -> Iterator[Finding]:
    """The package index that pip is configured with, and the model hub."""
    from tunetrail.sources.package import index_urls

    for url in index_urls():
        yield _site("package index", url, "check the network, and `pip config list`")
    from huggingface_hub.constants import ENDPOINT

    yield _site(
        "model hub", ENDPOINT, "only needed for sources of that kind; HF_ENDPOINT names a mirror"
    )


def _site(what: str, url: str, fix: str) -> Finding:
    shown, parts = masked(url), urlsplit(url)
    if parts.scheme == "file":
        there = Path(unquote(parts.path)).exists()
        return ok(f"{what} {shown} is there") if there else warning(f"{what} {shown} is gone", fix)
    try:
        _in_time(lambda: _open(url, "HEAD"))
    except urllib.error.HTTPError as error:
        if error.code not in {401, 403}:
            return ok(f"{what} {shown} answers ({error.code})")
        return warning(f"{what} {shown} answers {error.code}", "check the credentials")
    except (OSError, ValueError) as error:
        return warning(f"{what} {shown} cannot be reached: {masked(str(error))}", fix)
    return ok(f"{what} {shown} answers")
