"""``tunetrail serve`` and ``tunetrail predict`` on tiny exported models: contract and refusals."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import ROOT
from tests.refusals import parts_of, refusal
from tests.served import (
    KINDS,
    LABELS,
    Answer,
    Exported,
    Server,
    ask,
    conforms,
    connects,
    export_tiny,
    free_port,
    register,
    serving,
    start,
)
from tunetrail.errors import TuneTrailError
from tunetrail.files import read_json, write_json
from tunetrail.layout import CERTIFICATE, MODEL, SERVING, TOKENIZER
from tunetrail.serving import server as serving_server
from tunetrail.serving.models import open_model

pytestmark = pytest.mark.usefixtures("fresh_accelerate")

#: Asks a running server; every example is a request.
asks = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(scope="session")
def exports(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Exported]:
    """The tiny export of a kind, made once."""
    made: dict[str, Exported] = {}

    def of(kind: str) -> Exported:
        if kind not in made:
            made[kind] = export_tiny(kind, base, tmp_path_factory.mktemp(kind))
        return made[kind]

    return of


@pytest.fixture(scope="session")
def classes(exports: Callable[[str], Exported]) -> Exported:
    return exports("classes")


@pytest.fixture(scope="module")
def server(classes: Exported) -> Iterator[Server]:
    """A server with small limits."""
    limits = ("--max-rows", "8", "--max-characters", "200", "--max-body-bytes", "5000")
    with serving(str(classes.folder), *limits, "--queue", "64") as running:
        yield running


# -- predictions ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_served_as_it_was_evaluated(
    kind: str, exports: Callable[[str], Exported]
) -> None:
    exported = exports(kind)
    with serving(str(exported.folder)) as server:
        together = server.post({"rows": exported.rows()})
        alone = server.post({"rows": exported.rows()[:1]})
    assert together.status == alone.status == 200, together.content
    answers = together.content["predictions"]
    assert len(answers) == len(exported.texts) > 10
    assert all(exported.agrees(place, answer) for place, answer in enumerate(answers))
    assert exported.agrees(0, alone.content["predictions"][0])
    assert together.content["model"] == str(exported.folder)
    assert together.content["version"] is None


def test_one_text_and_pairs_may_be_asked_together(exports: Callable[[str], Exported]) -> None:
    """A folder does not say whether its model was trained on pairs."""
    exported = exports("pairs")
    rows = [*exported.rows()[:3], {"text": "a b c"}]
    with serving(str(exported.folder)) as server:
        found = server.post({"rows": rows}).content["predictions"]
        assert server.get("/model").content["optional_columns"] == ["text_pair"]
    assert len(found) == 4
    assert all(exported.agrees(place, answer) for place, answer in enumerate(found[:3]))


def test_a_context_without_tokens_has_no_answer(exports: Callable[[str], Exported]) -> None:
    with serving(str(exports("answers").folder)) as server:
        answer = server.post({"rows": [{"question": "a ?", "context": "​"}]})
    assert answer.content["predictions"] == [{"answer": "", "start": 0, "score": None}]


def test_requests_that_wait_are_joined_into_one_batch(classes: Exported) -> None:
    options = ("--max-batch", "16", "--max-wait-ms", "2000")
    with serving(str(classes.folder), *options) as server, ThreadPoolExecutor(16) as pool:
        rows = classes.rows()[:16]
        answers = list(pool.map(lambda row: server.post({"rows": [row]}), rows))
        assert server.metric("tunetrail_serve_rows_total") == 16
        # The first is alone only if the others come after two seconds.
        assert server.metric("tunetrail_serve_batch_rows_count") == 1
    for place, answer in enumerate(answers):
        assert classes.agrees(place, answer.content["predictions"][0])


def test_no_part_of_an_answer_waits_for_the_client() -> None:
    with (
        serving_server._listening("127.0.0.1", 0) as listening,
        socket.create_connection(listening.getsockname()),
        listening.accept()[0] as accepted,
    ):
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_without_batching_every_request_is_a_batch(classes: Exported) -> None:
    with serving(str(classes.folder), "--max-batch", "1") as server, ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda row: server.post({"rows": [row]}), classes.rows()[:12]))
        assert server.metric("tunetrail_serve_batch_rows_count") == 12


# -- requests that are refused --------------------------------------------------------------------

TEXT = {"text": "a b 1"}


@pytest.mark.parametrize(
    ("body", "status", "problem"),
    [
        (b"", 400, "the body is not valid JSON: EOF while parsing a value"),
        (b'{"rows": [', 400, "the body is not valid JSON: EOF while parsing a list"),
        (b"\xff\xfe", 400, "the body is not valid JSON: expected value"),
        (b'{"rows": [{"text": "\\ud800"}]}', 400, "end of hex escape"),
        (b"[" * 4000, 400, "the body is not valid JSON: recursion limit exceeded"),
        (b'{"rows": NaN}', 422, "rows is NaN, not a list of rows"),
        ([], 422, "the body is [], not an object"),
        ({}, 422, "rows is missing"),
        ({"rows": []}, 422, "rows is empty: one row is the least"),
        ({"rows": {"text": "a"}}, 422, 'rows is {"text": "a"}, not a list of rows'),
        ({"rows": ["a"]}, 422, 'rows[0] is "a", not an object'),
        ({"rows": [TEXT, {}]}, 422, "rows[1].text is missing"),
        ({"rows": [{"text": 3}]}, 422, "rows[0].text is 3, not a text"),
        ({"rows": [{"text": None}]}, 422, "rows[0].text is null, not a text"),
        ({"rows": [{"text": ""}]}, 422, "rows[0].text is blank: a text needs a visible character"),
        ({"rows": [{"text": " \n\t"}]}, 422, "rows[0].text is blank"),
        ({"rows": [{"text": "a\0b"}]}, 422, "rows[0].text holds a NUL character"),
        ({"rows": [{"text": "a" * 201}]}, 422, "rows[0].text has 201 characters, more than"),
        ({"rows": [TEXT] * 9}, 422, "rows has more than the 8 rows that are allowed"),
        ({"rows": [{"txt": "a"}]}, 422, "rows[0]: unknown key 'txt'"),
        ({"rows": [TEXT], "row": 1}, 422, "the body: unknown key 'row'"),
        (b'{"rows": "' + b"a" * 5000 + b'"}', 413, "more than the 5,000 bytes that are allowed"),
    ],
)  # fmt: skip
def test_what_cannot_be_predicted_is_refused_with_the_rule(
    server: Server, body: Any, status: int, problem: str
) -> None:
    answer = server.post(body)
    assert answer.status == status, answer.content
    assert problem in answer.content["problem"]
    assert set(answer.content) == {"problem", "fix"}
    assert answer.content["fix"]
    assert server.post({"rows": [TEXT]}).status == 200


def test_refusals_show_the_way_out(server: Server) -> None:
    assert server.post({"rows": [{"txt": "a"}]}).content["fix"].startswith("did you mean 'text'?")
    fix = server.post({}).content["fix"]
    assert server.post(json.loads(fix.removeprefix("send "))).status == 200


def test_other_content_is_refused(server: Server) -> None:
    body = {"rows": [TEXT]}
    for headers in ({"Content-Type": "text/plain"}, {"Content-Encoding": "gzip"}):
        answer = server.post(body, **headers)
        assert answer.status == 415, headers
        assert answer.content["fix"]
    kind = {"Content-Type": "application/json; charset=utf-8"}
    assert server.post(body, **kind).status == 200
    assert ask(server.connection(), "GET", "/predict").status == 405
    missing = server.get("/nothing")
    assert missing.status == 404
    assert missing.content["problem"] == "GET /nothing: Not Found"


def test_a_body_that_does_not_come_is_not_waited_for_forever(
    server: Server, classes: Exported
) -> None:
    """The other requests are answered meanwhile."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as slow:
        slow.sendall(
            b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
            b"Content-Length: 100\r\n\r\n{"
        )
        assert server.post({"rows": [TEXT]}).status == 200
        assert slow.recv(1000).startswith(b"HTTP/1.1 408 ")


# -- whatever is sent, the server does not fail ---------------------------------------------------

_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["rows", "text", "text_pair", "a"]), inner, max_size=4)
    ),
    max_leaves=12,
)
_characters = st.characters(codec=None, categories=None)
_texts = st.text(_characters, max_size=60)
_rows = st.fixed_dictionaries({}, optional={"text": _texts | _json, "text_pair": _texts | _json})


@asks
@given(rows=st.lists(_rows, max_size=10))
def test_rows_of_anything_never_fail(server: Server, rows: list[Any]) -> None:
    answer = server.post(json.dumps({"rows": rows}).encode())
    assert answer.status in (200, 400, 413, 422), answer.content
    if answer.status == 200:
        assert len(answer.content["predictions"]) == len(rows)


@asks
@given(body=st.binary(max_size=400) | _json.map(lambda value: json.dumps(value).encode()))
def test_bodies_of_anything_never_fail(server: Server, body: bytes) -> None:
    answer = server.post(body)
    assert answer.status in (200, 400, 413, 422), answer.content


@asks
@given(text=st.text(min_size=1, max_size=200))
def test_a_text_is_predicted_or_refused_by_the_rule_alone(server: Server, text: str) -> None:
    fits = bool(text.strip("\t\n\x0b\f\r ")) and "\0" not in text
    assert server.post({"rows": [{"text": text}]}).status == (200 if fits else 422)


@pytest.mark.parametrize("kind", KINDS)
def test_the_service_behaves_as_its_document_says(
    kind: str, exports: Callable[[str], Exported]
) -> None:
    with serving(str(exports(kind).folder), "--max-rows", "8") as running:
        asked = conforms(running)
    assert asked >= {"/predict", "/model", "/models", "/health", "/ready", "/metrics"}


# -- what is told ---------------------------------------------------------------------------------


def test_the_model_is_told(server: Server, classes: Exported) -> None:
    certificate = read_json(classes.folder / CERTIFICATE)
    assert server.get("/model").content == {
        "name": str(classes.folder),
        "version": None,
        "run": certificate["run"],
        "sha256": certificate["onnx_sha256"],
        "adapter": None,
        "predicts": "classes",
        "labels": LABELS,
        "columns": ["text"],
        "optional_columns": ["text_pair"],
        "max_length": 32,
    }
    assert server.get("/models").content == [server.get("/model").content]
    assert server.ready["models"][0]["sha256"] == certificate["onnx_sha256"]
    assert server.get("/health").content == {"status": "alive"}
    assert server.get("/ready").content == {"status": "ready"}


def test_requests_are_counted_by_path_and_status(server: Server) -> None:
    def count(status: int) -> float:
        found = re.search(
            rf'tunetrail_serve_responses_total{{path="/predict",status="{status}"}} (\S+)',
            server.get("/metrics").content,
        )
        return float(found[1]) if found else 0.0

    before = count(200), count(422)
    server.post({"rows": [TEXT]})
    server.post({"rows": []})
    server.get("/a-path-of-somebody")
    assert (count(200), count(422)) == (before[0] + 1, before[1] + 1)
    assert "a-path-of-somebody" not in server.get("/metrics").content


def test_texts_and_tokens_never_reach_the_log(classes: Exported) -> None:
    token, secret = "t0k3n-of-this-test", "zebra crossing"
    options: dict[str, Any] = {"verbose": 2, "TUNETRAIL_SERVE_TOKEN": token}
    with serving(str(classes.folder), "--max-characters", "40", **options) as server:
        bearer = {"Authorization": f"Bearer {token}"}
        for body in ({"rows": [{"text": secret}]}, {"rows": [{"text": secret * 4}]}, [secret]):
            server.post(body, **bearer)
        server.post(secret.encode(), **bearer)
        server.post({"rows": [{"text": secret}]}, Authorization=f"Bearer {secret}")
        code, errors = server.stop()
    assert code == 0
    assert "POST /predict 200" in errors
    assert secret not in errors
    assert token not in errors


def test_with_a_token_nothing_is_told_without_it(classes: Exported) -> None:
    with serving(str(classes.folder), TUNETRAIL_SERVE_TOKEN="right") as server:
        bearer = {"Authorization": "Bearer right"}
        for wrong in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "right"},
                      {"Authorization": "Bearer r\xefght"}):  # fmt: skip
            answer = server.post({"rows": [TEXT]}, **wrong)
            assert answer.status == 401
            assert answer.headers["www-authenticate"] == "Bearer"
            assert "TUNETRAIL_SERVE_TOKEN" in answer.content["fix"]
            for path in ("/model", "/metrics", "/openapi.json"):
                assert server.get(path, **wrong).status == 401
        assert server.post({"rows": [TEXT]}, **bearer).status == 200
        assert server.get("/model", **bearer).status == 200
        assert server.get("/ready").status == server.get("/health").status == 200
        document = server.get("/openapi.json", **bearer).content
    assert "401" in document["paths"]["/predict"]["post"]["responses"]
    assert "HTTPBearer" in document["components"]["securitySchemes"]


@pytest.mark.parametrize("token", ["", "with blank", "tüv"])
def test_a_token_that_cannot_be_sent_is_refused(
    token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNETRAIL_SERVE_TOKEN", token)
    with pytest.raises(TuneTrailError, match="TUNETRAIL_SERVE_TOKEN is") as caught:
        serving_server.token_of_environment()
    assert "openssl rand" in caught.value.fix
    assert not token or token not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "token", "warned"),
    [
        ("127.0.0.1", "", None),
        ("localhost", "", None),
        ("::1", "", None),
        ("0.0.0.0", "", "there is no authentication"),
        ("192.168.1.7", "", "whoever reaches 192.168.1.7 can use the model"),
        ("0.0.0.0", "x", "the token reach 0.0.0.0 unencrypted"),
    ],
)
def test_whoever_opens_the_server_to_others_is_warned(
    host: str, token: str, warned: str | None
) -> None:
    found = serving_server.warnings(serving_server.Serving(model="m", host=host), token)
    if warned is None:
        assert found == []
    else:
        assert warned in "".join(found)


# -- the queue, and the end -----------------------------------------------------------------------


def test_beyond_the_queue_requests_are_refused_and_the_others_answered_right(
    classes: Exported,
) -> None:
    rows = classes.rows()[:4]
    options = ("--queue", "4", "--max-rows", "4", "--max-batch", "4", "--threads", "1")
    with serving(str(classes.folder), *options) as server, ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: server.post({"rows": rows}), range(200)))
    assert {answer.status for answer in answers} == {200, 503}
    for answer in answers:
        if answer.status == 503:
            assert int(answer.headers["retry-after"]) >= 1
            assert "rows wait for the model" in answer.content["problem"]
        else:
            found = answer.content["predictions"]
            assert all(classes.agrees(place, each) for place, each in enumerate(found))


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_what_was_accepted_be_answered(sig: int, classes: Exported) -> None:
    options = ("--max-wait-ms", "1500", "--max-batch", "64")
    with serving(str(classes.folder), *options) as server, ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(server.post, {"rows": [row]}) for row in classes.rows()[:8]]
        until(lambda: server.metric("tunetrail_serve_waiting_rows") == 8)
        code, errors = server.stop(sig)
        answers = [future.result() for future in asked]
        with pytest.raises(ConnectionRefusedError):
            server.get("/health")
    assert code == 0, errors
    assert errors == ""
    for place, answer in enumerate(answers):
        assert classes.agrees(place, answer.content["predictions"][0])


def test_while_it_lingers_it_is_not_ready_and_answers(classes: Exported) -> None:
    with serving(str(classes.folder), "--linger", "2") as server:
        server.process.send_signal(signal.SIGTERM)
        until(lambda: server.get("/ready").status == 503)
        assert "about to stop" in server.get("/ready").content["problem"]
        assert server.post({"rows": [TEXT]}).status == 200
        assert server.get("/health").status == 200
        assert server.stop(0)[0] == 0


def test_a_port_that_is_taken_is_named(server: Server, classes: Exported) -> None:
    command = [sys.executable, "-m", "tunetrail.cli", "serve", str(classes.folder)]
    environment = {"PYTHONPATH": str(ROOT / "src"), "PATH": ""}
    done = subprocess.run(
        [*command, "--port", str(server.port)], env=environment, capture_output=True, text=True
    )
    problem, fix = parts_of(done.returncode, done.stderr)
    assert problem == f"cannot listen at 127.0.0.1 port {server.port}: Address already in use"
    assert "--port" in fix


def test_settings_that_contradict_each_other_are_refused(
    classes: Exported, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(classes.folder)
    problem, fix = refusal(capsys, "serve", folder, "--queue", "8", "--max-rows", "9")
    assert problem.startswith("--queue is 8: a request may have 9 rows")
    assert "raise --queue to 9" in fix
    problem, _ = refusal(capsys, "serve", folder, "--follow", "5")
    assert problem.startswith("--follow needs an alias that can move")
    problem, _ = refusal(capsys, "serve", folder, "--follow", "0")
    assert "'follow' is 0.0: input should be greater than 0" in problem


# -- models that are not opened -------------------------------------------------------------------


def _flip(folder: Path) -> None:
    content = bytearray((folder / MODEL).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / MODEL).write_bytes(content)


def _cut(folder: Path) -> None:
    content = (folder / MODEL).read_bytes()
    (folder / MODEL).write_bytes(content[: len(content) // 2])


def _fail(folder: Path) -> None:
    certificate = read_json(folder / CERTIFICATE)
    write_json(folder / CERTIFICATE, certificate | {"passed": False, "prediction_flips": 3})


def _relabel(folder: Path) -> None:
    write_json(folder / SERVING, read_json(folder / SERVING) | {"labels": ["a", "b"]})


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a changed bit": (_flip, "is not the file that was certified"),
    "half a file": (_cut, "is not the file that was certified"),
    "a failed certificate": (_fail, "did not pass: ONNX logits differ by .*, 3 predictions flip"),
    "no certificate": (lambda f: (f / CERTIFICATE).unlink(), r"certificate\.json is missing"),
    "no model": (lambda f: (f / MODEL).unlink(), r"model\.onnx is missing"),
    "no tokenizer": (lambda f: (f / TOKENIZER).unlink(), r"tokenizer\.json is missing"),
    "half a certificate": (lambda f: (f / CERTIFICATE).write_text("{"), "is not valid JSON"),
    "a certificate of nothing": (lambda f: (f / CERTIFICATE).write_text("{}"), "'run' is missing"),
    "half a tokenizer": (lambda f: (f / TOKENIZER).write_text("{"), "cannot be asked"),
    "other labels": (_relabel, "the model gives 3 outputs, its settings are for 2"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_only_the_certified_model_is_opened(damage: str, classes: Exported, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(classes.folder, folder)
    change, problem = DAMAGES[damage]
    change(folder)
    with pytest.raises(TuneTrailError) as caught:
        open_model(str(folder))
    assert re.search(problem, caught.value.problem), caught.value
    assert caught.value.fix


def test_a_damaged_model_is_never_served(classes: Exported, tmp_path: Path) -> None:
    shutil.copytree(classes.folder, tmp_path / "model")
    wanted = read_json(tmp_path / "model" / CERTIFICATE)["onnx_sha256"]
    _flip(tmp_path / "model")
    process = start(str(tmp_path / "model"))
    assert process.stdout is not None
    shown = process.stdout.readline()  # empty once it has closed it
    if shown:
        process.kill()
    _, errors = process.communicate(timeout=60)
    problem, fix = parts_of(process.returncode, errors)
    assert shown == ""
    assert f"certified  sha256 {wanted}" in problem
    assert re.search(r"actual     sha256 [0-9a-f]{64}", problem)
    assert "tunetrail verify --discard" in fix


def test_what_is_no_model_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for reference, problem in {
        "nowhere": "there is no model 'nowhere'",
        "models:/a": "'models:/a' does not say which version",
        "models:/a/latest": "'models:/a/latest' does not say which version",
        "models:/a@champion": "there are no registered models",
    }.items():
        with pytest.raises(TuneTrailError, match=problem):
            open_model(reference)
    assert list(tmp_path.iterdir()) == []


def test_until_the_model_is_loaded_it_is_alive_and_not_ready(tmp_path: Path) -> None:
    """MLflow accepts, and never answers: the model does not come."""
    port = free_port()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        process = start("models:/m@champion", port=port, MLFLOW_TRACKING_URI=uri)
        try:
            address = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            until(lambda: connects(port))
            assert ask(address, "GET", "/health").status == 200
            for method, path in (("GET", "/ready"), ("GET", "/model"), ("POST", "/predict")):
                answer = ask(address, method, path, b"{}" if method == "POST" else None)
                assert answer.status == 503
                assert answer.content["problem"] == "the model is not loaded yet"
                assert answer.headers["retry-after"] == "1"
            process.send_signal(signal.SIGTERM)
            assert process.wait(15) == 0
        finally:
            process.kill()
            process.communicate()


# -- registered versions, and an alias that moves -------------------------------------------------


@pytest.fixture(scope="session")
def other(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Another model of the same task."""
    return export_tiny("classes", base, tmp_path_factory.mktemp("other"), rate=2e-3)


@pytest.fixture
def registry(tmp_path: Path) -> str:
    """An MLflow database of its own."""
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


def champion(uri: str, version: str) -> None:
    """Move the alias."""
    import mlflow

    mlflow.MlflowClient(uri).set_registered_model_alias("toy", "champion", version)


def test_an_alias_that_moves_is_followed_and_only_to_what_can_be_verified(
    classes: Exported, other: Exported, registry: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert register(registry, "toy", classes, "champion") == "1"
    rows = {"rows": classes.rows()}

    def answers_as(exported: Exported, answer: Answer) -> bool:
        found = answer.content["predictions"]
        return all(exported.agrees(place, each) for place, each in enumerate(found))

    following = ("models:/toy@champion", "--follow", "0.2")
    with serving(*following, cwd=tmp_path, MLFLOW_TRACKING_URI=registry) as server:
        first = server.post(rows)
        assert first.content["model"] == "toy"
        assert first.content["version"] == server.get("/model").content["version"] == "1"
        assert answers_as(classes, first)

        # Registered with the digest of another file: refused, and version 1 answers on.
        spoilt = register(registry, "toy", other, "champion", onnx="0" * 64)
        until(lambda: server.metric("tunetrail_serve_loads_total") >= 2)
        assert answers_as(classes, server.post(rows))
        assert server.get("/model").content["version"] == "1"

        # While requests come, the alias moves to a good one.
        good = register(registry, "toy", other)
        answers: list[Answer] = []

        def asking() -> None:
            while len(answers) < 5 or answers[-1].content["version"] != good:
                answers.append(server.post(rows))

        with ThreadPoolExecutor(4) as pool:
            asked = [pool.submit(asking) for _ in range(4)]
            champion(registry, good)
            for future in asked:
                future.result(60)
        assert {answer.content["version"] for answer in answers} == {"1", good}
        for answer in answers:
            assert answers_as(classes if answer.content["version"] == "1" else other, answer)
        assert server.get("/model").content["sha256"] == server_digest(other)

        # Without MLflow it serves on.
        database = tmp_path / "mlflow.db"
        database.write_bytes(b"no database")
        before = server.metric("tunetrail_serve_loads_total")
        until(lambda: server.metric("tunetrail_serve_loads_total") > before)
        assert answers_as(other, server.post(rows))
        code, errors = server.stop()
    assert code == 0
    assert f"version {spoilt} of 'toy' is not the file that was registered" in errors
    assert f"registered sha256 {'0' * 64}" in errors
    assert errors.count("is not the file that was registered") == 1, "told once, not every time"
    assert f"toy version {good} answers now, after toy version 1" in errors
    assert "toy version 3 answers on; the alias cannot be followed: MLflow at" in errors


def test_without_follow_the_version_stays(
    classes: Exported, other: Exported, registry: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", registry)
    register(registry, "toy", classes, "champion")
    served = open_model("models:/toy@champion")
    register(registry, "toy", other, "champion")
    assert (served.version, served.sha256) == ("1", server_digest(classes))
    assert open_model("models:/toy@champion").version == "2"
    assert open_model("models:/toy/1").sha256 == server_digest(classes)
    assert open_model("models:/toy/1").columns == ("text",)
    for reference, problem in {
        "models:/toi@champion": "unknown registered model 'toi'",
        "models:/toy@champoin": "registered model 'toy': unknown alias 'champoin'",
        "models:/toy/3": "registered model 'toy': unknown version '3'",
    }.items():
        with pytest.raises(TuneTrailError, match=problem):
            open_model(reference)


def test_a_registered_model_of_pairs_needs_them(
    exports: Callable[[str], Exported], registry: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    register(registry, "toy", exports("pairs"), "champion")
    with serving("models:/toy/1", cwd=tmp_path, MLFLOW_TRACKING_URI=registry) as server:
        answer = server.post({"rows": [TEXT]})
        assert answer.status == 422
        assert answer.content["problem"] == "rows[0].text_pair is missing"
        found = server.post({"rows": exports("pairs").rows()}).content["predictions"]
    assert all(exports("pairs").agrees(place, each) for place, each in enumerate(found))


def server_digest(exported: Exported) -> str:
    digest: str = read_json(exported.folder / CERTIFICATE)["onnx_sha256"]
    return digest


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
