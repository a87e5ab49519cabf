"""The process that serves: socket, signals, loading, and following an alias."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

import uvicorn
from pydantic import Field

from tunetrail.errors import TuneTrailError
from tunetrail.serving.app import Service, build_app
from tunetrail.serving.contract import Limits
from tunetrail.serving.models import Model, open_models, open_version
from tunetrail.settings import Settings
from tunetrail.tracking import registry

_log = logging.getLogger(__name__)

#: Holds the token that requests must carry.
TOKEN = "TUNETRAIL_SERVE_TOKEN"


class Serving(Settings):
    """How a model is served.

    Attributes:
        model: ``models:/NAME@ALIAS``, ``models:/NAME/VERSION``, a folder of the export stage, or
            one of models that share a base.
        host: Address to listen at.
        port: 0 for any that is free.
        max_batch: Rows that the model is given at once; 1 switches batching off.
        max_wait_ms: Milliseconds that a request waits for others while the model is free.
        queue: Rows that may wait; beyond it requests are refused with 503.
        limits: Of a request.
        threads: That compute an operator (0: one a core).
        follow: Seconds between two looks at the alias; None to stay with the version.
        linger: Seconds between a signal to stop and the closed port.
    """

    model: str
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    max_batch: int = Field(default=32, ge=1)
    max_wait_ms: float = Field(default=2.0, ge=0)
    queue: int = Field(default=1024, ge=1)
    limits: Limits = Limits()
    threads: int = Field(default=0, ge=0)
    follow: float | None = Field(default=None, gt=0)
    linger: float = Field(default=0.0, ge=0)


def token_of_environment() -> str:
    """The token that requests must carry; empty for none.

    Raises:
        TuneTrailError: It could not be sent in a header, or is blank.
    """
    token = os.environ.get(TOKEN)
    if token is None:
        return ""
    if not token or not all("!" <= character <= "~" for character in token):
        raise TuneTrailError(
            f"{TOKEN} is {'empty' if not token else 'not printable ASCII without blanks'}",
            "set it to a long random text (`openssl rand -hex 32`), or unset it",
        )
    return token


def warnings(settings: Serving, token: str) -> list[str]:
    """What whoever starts the server should know."""
    if _only_here(settings.host):
        return []
    if token:
        return [
            f"texts and the token reach {settings.host} unencrypted: put a proxy with TLS before it"
        ]
    return [
        f"whoever reaches {settings.host} can use the model, and texts travel unencrypted: there "
        f"is no authentication. Set {TOKEN}, or keep to 127.0.0.1 behind a proxy"
    ]


def serve(settings: Serving, ready: Callable[[str, Sequence[Model]], None]) -> None:
    """Serve until a signal comes; then answer what was accepted.

    Args:
        settings: What, where and how.
        ready: Called with URL and models once requests are answered.

    Raises:
        TuneTrailError: The settings contradict each other, the port is taken, or the model is
            refused.
    """
    if settings.queue < settings.limits.rows:
        raise TuneTrailError(
            f"--queue is {settings.queue}: a request may have {settings.limits.rows} rows, which "
            "would never find room",
            f"raise --queue to {settings.limits.rows} or more, or lower --max-rows",
        )
    if settings.follow is not None and not registry.follows(settings.model):
        raise TuneTrailError(
            f"--follow needs an alias that can move; '{settings.model}' stays what it is",
            "name models:/NAME@champion, or leave --follow out",
        )
    service = Service(
        settings.limits,
        settings.max_batch,
        settings.max_wait_ms / 1000 if settings.max_batch > 1 else 0.0,
        settings.queue,
        token_of_environment(),
    )
    listening = _listening(settings.host, settings.port)
    with listening:
        asyncio.run(_run(settings, service, listening, ready))


async def _run(
    settings: Serving,
    service: Service,
    listening: socket.socket,
    ready: Callable[[str, Sequence[Model]], None],
) -> None:
    server = _Server(service, settings.linger)
    loop = asyncio.get_running_loop()
    first: asyncio.Future[Sequence[Model]] = loop.create_future()
    host, port = listening.getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def taken(done: asyncio.Future[Sequence[Model]]) -> None:
        if done.exception() is not None:
            server.should_exit = True
            return
        service.take(done.result())
        ready(url, done.result())

    first.add_done_callback(taken)
    # A daemon: neither a slow download nor a silent MLflow may hold up the end.
    threading.Thread(
        target=_load, args=(settings, service, loop, first), name="models", daemon=True
    ).start()
    await server.serve([listening])
    if server.force_exit:
        raise KeyboardInterrupt
    if first.done():
        first.result()


def _load(
    settings: Serving,
    service: Service,
    loop: asyncio.AbstractEventLoop,
    first: asyncio.Future[Sequence[Model]],
) -> None:
    """Open the models; if one is to follow its alias, then every version that this moves to."""
    try:
        models = open_models(settings.model, settings.threads, settings.max_batch)
    except Exception as error:
        _tell(loop, first.set_exception, error)
        return
    _tell(loop, first.set_result, models)
    model, told = models[0], ""  # what can be followed is one
    while settings.follow is not None:
        time.sleep(settings.follow)
        try:
            version = registry.find(settings.model)
            if version.number == model.version and version.onnx_sha256 == model.sha256:
                told = ""
                continue
            before = model.shown
            model = open_version(version, settings.threads, settings.max_batch)
        except Exception as error:  # whatever it is, the model that is here answers on
            service.metrics.loads.labels("refused").inc()
            if told != str(error):
                told = str(error)
                _log.error("%s answers on; the alias cannot be followed: %s", model.shown, told)
            continue
        told = ""
        _tell(loop, service.take, [model])
        _log.warning("%s answers now, after %s", model.shown, before)


def _tell(loop: asyncio.AbstractEventLoop, call: Callable[[Any], None], value: object) -> None:
    """Call in the loop's thread, unless the server has ended meanwhile."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(call, value)


class _Server(uvicorn.Server):
    """A server for which the first signal is an orderly end, with exit code 0."""

    def __init__(self, service: Service, linger: float) -> None:
        super().__init__(
            uvicorn.Config(
                build_app(service),
                http="h11",
                ws="none",
                loop="asyncio",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
            )
        )
        self._service, self._linger = service, linger
        self._until: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin the end; a second Ctrl-C does not wait for it."""
        if self._until is not None and sig == signal.SIGINT:
            self.force_exit = self.should_exit = True
            return
        self._service.draining = True
        self._until = time.monotonic() + self._linger

    async def on_tick(self, counter: int) -> bool:
        """Whether it is over."""
        if self._until is not None and time.monotonic() >= self._until:
            self.should_exit = True
        return await super().on_tick(counter)


def _listening(host: str, port: int) -> socket.socket:
    """A bound socket.

    Raises:
        TuneTrailError: The address cannot be used.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.create_server((host, port), family=family, backlog=2048)
        # Connections have it from here. asyncio would not set it, and an answer's second packet
        # would wait 40 ms for the client's word on the first.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listening
    except OSError as error:
        unknown = isinstance(error, socket.gaierror)
        reason = error.strerror if unknown else os.strerror(error.errno or 0)
        raise TuneTrailError(
            f"cannot listen at {host} port {port}: {reason}",
            "choose another --port (0 takes a free one), or an address of this machine as --host",
        ) from None


def _only_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
