"""The HTTP service: what is asked where, and what comes back."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

from fastapi import Depends, FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tunetrail import __version__
from tunetrail.errors import unknown
from tunetrail.serving.batching import Batcher, QueueFull
from tunetrail.serving.contract import Contract, Limits, Refused
from tunetrail.serving.metrics import Metrics
from tunetrail.serving.models import Model

_log = logging.getLogger(__name__)

#: Seconds that the body of a request may take to arrive.
_BODY_SECONDS = 30

_READY_AGAIN = {"Retry-After": "1"}

#: The one model, what it is asked, and what one of several is.
_MODEL, _ONE, _EACH = "/model", "/predict", "/models/{name}/predict"


class Problem(BaseModel):
    """Why a request is not answered."""

    problem: str
    fix: str


class Status(BaseModel):
    """What the process says of itself."""

    status: str


class ServedModel(BaseModel):
    """A model that answers now."""

    name: str
    version: str | None
    run: str
    sha256: str
    adapter: str | None
    predicts: str
    labels: list[str]
    columns: list[str]
    optional_columns: list[str]
    max_length: int


class Service:
    """What the endpoints share; used by the event loop alone.

    Args:
        limits: Of a request.
        max_batch: Rows of a batch.
        max_wait: Seconds that a request waits for others.
        queue: Rows that may wait.
        token: That requests must carry; empty for none.
    """

    def __init__(
        self, limits: Limits, max_batch: int, max_wait: float, queue: int, token: str = ""
    ) -> None:
        self.limits = limits
        self.token = token
        self.metrics = Metrics()
        self.batcher = Batcher(max_batch, max_wait, queue, self.metrics.computed)
        self.metrics.waiting.set_function(lambda: self.batcher.waiting)
        self.draining = False
        self._served: dict[str, tuple[Model, Contract]] = {}

    def take(self, models: Sequence[Model]) -> None:
        """Answer from now on with these; what was accepted before is answered by its own."""
        self._served = {model.name: (model, Contract(model, self.limits)) for model in models}
        self.metrics.serves(models)

    @property
    def served(self) -> dict[str, tuple[Model, Contract]]:
        """Name → model and what it is asked.

        Raises:
            Refused: 503, nothing is loaded yet.
        """
        if not self._served:
            raise Refused(
                503, "the model is not loaded yet", "ask again after a second", _READY_AGAIN
            )
        return self._served

    def only(self) -> tuple[Model, Contract]:
        """The one model that is served.

        Raises:
            Refused: 503, it is not loaded yet; 404, there are several.
        """
        served = self.served
        if len(served) > 1:
            raise Refused(
                404,
                f"{len(served)} models are served here",
                f"POST /models/NAME/predict, with one of: {', '.join(served)}",
            )
        return next(iter(served.values()))

    def named(self, name: str) -> tuple[Model, Contract]:
        """The model of a name.

        Raises:
            Refused: 503, nothing is loaded yet; 404, no model is called so.
        """
        served = self.served
        if name not in served:
            found = unknown("model", name[:80], served)
            raise Refused(404, found.problem, found.fix)
        return served[name]


def build_app(service: Service) -> FastAPI:
    """The application; its lifespan computes what is asked."""

    @contextlib.asynccontextmanager
    async def computing(app: FastAPI) -> AsyncIterator[None]:
        task = asyncio.create_task(service.batcher.run())
        yield
        task.cancel()

    # Its pages for people load their scripts from elsewhere; the document itself is served below.
    app = FastAPI(
        title="TuneTrail",
        version=__version__,
        lifespan=computing,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        exception_handlers={
            Refused: _refused,
            HTTPException: _wrong_place,
            ClientDisconnect: _gone,
        },
    )
    app.add_middleware(_Watched, metrics=service.metrics)
    closed = _problems(401) if service.token else {}
    guarded = [Depends(_token_check(service.token))] if service.token else []

    async def predicted(request: Request, model: Model, contract: Contract) -> Response:
        rows = contract.read(await _body(request, service.limits.body_bytes))
        try:
            found = await service.batcher.predict(model, rows)
        except QueueFull as full:
            raise Refused(
                503,
                f"{full.waiting:,} rows wait for the model, and {len(rows):,} more are too many",
                "ask again after the seconds in Retry-After",
                {"Retry-After": str(full.seconds)},
            ) from None
        return JSONResponse(contract.answer(found))

    predicting: dict[str, Any] = {
        "dependencies": guarded,
        "responses": {
            200: {"content": _content("Response"), "description": "One prediction for each row."},
            **closed,
            **_problems(400, 408, 413, 415, 422, 500, 503),
        },
        "openapi_extra": {"requestBody": {"required": True, "content": _content("Request")}},
    }

    @app.post(_ONE, **predicting)
    async def predict(request: Request) -> Response:
        """Predict one row or many."""
        return await predicted(request, *service.only())

    @app.post(_EACH, **predicting)
    async def predict_by(request: Request, name: str) -> Response:
        """Predict one row or many."""
        return await predicted(request, *service.named(name))

    @app.get("/models", dependencies=guarded, responses={**closed, **_problems(503)})
    async def models() -> list[ServedModel]:
        """Which models answer."""
        return [_told(model) for model, _ in service.served.values()]

    @app.get(_MODEL, dependencies=guarded, responses={**closed, **_problems(503)})
    async def model() -> ServedModel:
        """Which model answers."""
        return _told(service.only()[0])

    @app.get("/health")
    async def health() -> Status:
        """Whether the process lives."""
        return Status(status="alive")

    @app.get("/ready", responses=_problems(503))
    async def ready() -> Status:
        """Whether requests should be sent here: the model is loaded, and the end has not begun."""
        if service.draining:
            raise Refused(
                503,
                "the server is about to stop",
                "ask another one, or this after its restart",
                _READY_AGAIN,
            )
        _ = service.served
        return Status(status="ready")

    @app.get(
        "/metrics",
        dependencies=guarded,
        response_class=Response,
        responses={
            200: {"content": {CONTENT_TYPE_LATEST: {"schema": {"type": "string"}}}},
            **closed,
        },
    )
    async def metrics() -> Response:
        """Counters, in the text format of Prometheus."""
        return Response(generate_latest(service.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    @app.get("/openapi.json", dependencies=guarded, responses={**closed, **_problems(503)})
    async def openapi() -> dict[str, Any]:
        """This document, for the models that answer now."""
        served = service.served
        document = get_openapi(
            title="TuneTrail",
            version=__version__,
            description=f"Predictions of {', '.join(m.shown for m, _ in served.values())}.",
            routes=app.routes,
        )
        paths, schemas = document["paths"], document["components"]["schemas"]
        each = paths.pop(_EACH)
        if len(served) == 1:
            schemas |= service.only()[1].schemas()
            return document
        del paths[_ONE], paths[_MODEL]
        for name, (_, contract) in served.items():
            paths[_EACH.format(name=name)] = _of(each, name)
            schemas |= {f"{name}.{key}": _of(s, name) for key, s in contract.schemas().items()}
        return document

    return app


def _told(model: Model) -> ServedModel:
    return ServedModel(
        name=model.name,
        version=model.version,
        run=model.run,
        sha256=model.sha256,
        adapter=model.adapter,
        predicts=model.predicts,
        labels=model.predictor.labels,
        columns=list(model.columns),
        optional_columns=list(model.optional),
        max_length=model.predictor.max_length,
    )


def _of(part: Any, name: str) -> Any:
    """A part of the document that speaks of any model, for the one of this name."""
    if isinstance(part, list):
        return [_of(each, name) for each in part if not _is_name(each)]
    if not isinstance(part, dict):
        return part
    found = {key: _of(value, name) for key, value in part.items()}
    place, slash, schema = str(part.get("$ref", "")).rpartition("/")
    if schema in Contract.SCHEMAS:
        found["$ref"] = f"{place}{slash}{name}.{schema}"
    if "operationId" in part:
        found["operationId"] = f"{part['operationId']}_{name}"
    return found


def _is_name(part: Any) -> bool:
    """Whether it is the parameter that says which model: the path then has its name."""
    return isinstance(part, dict) and part.get("in") == "path"


def _content(schema: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    texts = {
        400: "The body is not JSON.",
        401: "The token is missing, or another one.",
        408: "The body did not arrive in time.",
        413: "The body is too large.",
        415: "The body is not called JSON, or is compressed.",
        422: "The rows are not rows of this model, or beyond a limit.",
        500: "The model failed; the server logged where.",
        503: "The model is not loaded yet, too many rows wait, or the server is about to stop.",
    }
    return {status: {"model": Problem, "description": texts[status]} for status in statuses}


async def _body(request: Request, most: int) -> bytes:
    """The body of a request, at most so many bytes.

    Raises:
        Refused: It is larger, late, or not called JSON.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        # Also why a page in a browser cannot ask a server on its visitor's own machine.
        raise Refused(
            415, f"the content type is '{kind[:80]}'", "send Content-Type: application/json"
        )
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if coding != "identity":
        raise Refused(415, f"the content encoding is '{coding[:80]}'", "send the body as it is")
    parts, size = [], 0
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for part in request.stream():
                size += len(part)
                if size <= most:
                    parts.append(part)
                # A client that is still sending would not see the answer: read on, but not forever.
                elif size > 8 * most:
                    break
    except TimeoutError:
        raise Refused(
            408,
            f"the body did not arrive within {_BODY_SECONDS} s",
            "send it at once",
            {"Connection": "close"},
        ) from None
    if size > most:
        raise Refused(
            413,
            f"the body has more than the {most:,} bytes that are allowed",
            "send the rows in several requests, or start the server with a higher --max-body-bytes",
            {"Connection": "close"},
        )
    return b"".join(parts)


def _token_check(token: str) -> Callable[..., Awaitable[None]]:
    bearer = HTTPBearer(auto_error=False)

    async def check(given: HTTPAuthorizationCredentials | None = Depends(bearer)) -> None:  # noqa: B008
        if given is None or not hmac.compare_digest(
            given.credentials.encode("utf-8", "surrogateescape"), token.encode()
        ):
            raise Refused(
                401,
                "the token is missing, or another one",
                "send Authorization: Bearer TOKEN, with the TUNETRAIL_SERVE_TOKEN of the server",
                {"WWW-Authenticate": "Bearer"},
            )

    return check


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    body = {"problem": error.problem, "fix": error.fix}
    return JSONResponse(body, error.status, error.headers)


async def _wrong_place(request: Request, error: Exception) -> Response:
    """Paths and methods that there are not."""
    assert isinstance(error, HTTPException)
    problem = f"{request.method} {request.url.path}: {error.detail}"
    return JSONResponse(
        {"problem": problem, "fix": "GET /openapi.json says what can be asked"},
        error.status_code,
        error.headers,
    )


async def _gone(request: Request, error: Exception) -> Response:
    """Nobody reads it."""
    return Response(status_code=400)


class _Watched:
    """Counts responses, and answers where something went wrong.

    What is logged has no text of a request: the message of an exception may hold one.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 0

        async def note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, note)
        except Exception as error:
            where = "".join(traceback.format_tb(error.__traceback__))
            _log.error("%s in a request:\n%s", type(error).__name__, where)
            if not status:
                body = {
                    "problem": f"the server failed ({type(error).__name__})",
                    "fix": "ask again; if it fails again, the server's log says where",
                }
                await JSONResponse(body, 500)(scope, receive, note)
        route = scope.get("route")
        path = "other" if route is None else route.path
        seconds = time.perf_counter() - started
        self._metrics.responses.labels(path, str(status)).inc()
        self._metrics.seconds.labels(path).observe(seconds)
        _log.info("%s %s %d %.1f ms", scope["method"], path, status, 1000 * seconds)
