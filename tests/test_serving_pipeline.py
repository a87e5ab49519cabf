"""The server on the real model, under load, and through the registry of a finished project."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.conftest import Project
from tests.served import Answer, ask, connects, free_port, serving

pytestmark = pytest.mark.pipeline

#: What one in ten requests is.
MALFORMED = [
    b"{", b"\xff", b"null", b"{}", b'{"rows": []}', b'{"rows": [{"text": 1}]}',
    b'{"rows": [{"text": "\\ud800"}]}', b'{"rows": [{"text": " "}]}', b'{"rows": [{"a": "b"}]}',
    b"[" * 100_000,
]  # fmt: skip

#: What is told where rows find no room: those that wait, and those that came.
REFUSED = r"(\d+) rows wait for the model, and (\d+) more are too many"


@pytest.fixture
def project(small_run: Project, tmp_path: Path) -> Project:
    return small_run.copy(tmp_path / "project")


def evaluated(project: Project) -> pd.DataFrame:
    """Text, class and scores of every test row of the winner."""
    winner = project.json("comparison/comparison.json")["tasks"]["own"]["winner"]
    place = f"runs/evaluate/own/{winner['method']}/few/{winner['seed']}/predictions.parquet"
    predictions = pd.read_parquet(project.root / place)
    data = pd.read_parquet(project.root / "data/canonical/own/data.parquet").set_index("id")
    return predictions.assign(text=data.loc[predictions["id"], "text"].to_numpy())


def right(row: Any, answer: dict[str, Any]) -> bool:
    return answer["label"] == ["bad", "good"][row.prediction] and list(
        answer["scores"].values()
    ) == pytest.approx(list(row.scores), abs=1e-4)


def test_a_thousand_requests_of_sixteen_clients(project: Project) -> None:
    rows = list(evaluated(project).itertuples())
    sent = iter(range(1000))
    lock = threading.Lock()
    found: list[tuple[int, Answer]] = []

    def client(server: Any) -> None:
        connection = server.connection()
        while True:
            with lock:
                number = next(sent, None)
            if number is None:
                return
            if number % 10 == 0:
                body: Any = MALFORMED[number // 10 % len(MALFORMED)]
            else:
                chosen = [rows[(number + k) % len(rows)] for k in range(1 + number % 4)]
                body = {"rows": [{"text": row.text} for row in chosen]}
            answer = ask(connection, "POST", "/predict", body)
            with lock:
                found.append((number, answer))

    options = ("models:/sentiment-own@champion", "--queue", "24", "--max-rows", "8")
    with (
        serving(*options, cwd=project.root) as server,
        ThreadPoolExecutor(16) as pool,
    ):
        for done in [pool.submit(client, server) for _ in range(16)]:
            done.result()
        refused = server.metric("tunetrail_serve_responses_total")
        code, errors = server.stop()
    assert code == 0
    assert errors == ""
    assert len(found) == 1000
    assert refused >= 1000
    statuses: Counter[int] = Counter()
    for number, answer in found:
        statuses[answer.status] += 1
        if number % 10 == 0:
            assert answer.status in (400, 422), answer
            assert answer.content["fix"]
        elif answer.status == 503:  # the queue is shorter than what 16 clients may ask
            told = re.fullmatch(REFUSED, answer.content["problem"])
            assert told, answer.content
            assert int(told[1]) + int(told[2]) > 24, "there was room"
            assert int(told[2]) == 1 + number % 4
            assert int(answer.headers["retry-after"]) >= 1
        else:
            assert answer.status == 200, answer
            assert answer.content["version"] == "1"
            for k, prediction in enumerate(answer.content["predictions"]):
                assert right(rows[(number + k) % len(rows)], prediction)
    assert statuses[200] > 100
    assert statuses[400] + statuses[422] == 100


def test_within_the_queue_nothing_is_refused(project: Project) -> None:
    rows = list(evaluated(project).itertuples())
    with (
        serving("models:/sentiment-own@champion", cwd=project.root) as server,
        ThreadPoolExecutor(16) as pool,
    ):
        answers = list(
            pool.map(
                lambda k: server.post({"rows": [{"text": rows[k % len(rows)].text}]}), range(200)
            )
        )
    for place, answer in enumerate(answers):
        assert answer.status == 200
        assert right(rows[place % len(rows)], answer.content["predictions"][0])


def test_sigterm_under_load_answers_what_was_accepted(project: Project) -> None:
    """Each client sees a whole right answer, or a connection that was never taken."""
    rows = list(evaluated(project).itertuples())
    body = {"rows": [{"text": row.text} for row in rows]}
    outcomes: Counter[str] = Counter()
    lock = threading.Lock()

    def client(server: Any) -> None:
        while True:
            connection = server.connection()
            try:
                connection.connect()
            except ConnectionRefusedError:
                outcome = "not taken"
            else:
                try:
                    answer = ask(connection, "POST", "/predict", body)
                    found = answer.content["predictions"]
                    good = all(right(row, each) for row, each in zip(rows, found, strict=True))
                    outcome = "right" if good else "wrong"
                except ConnectionResetError:  # it was in the system's queue, not in the server's
                    outcome = "not taken"
            with lock:
                outcomes[outcome] += 1
            if outcome != "right":
                return

    options = ("--queue", "100000", "--threads", "1")
    with (
        serving("models:/sentiment-own@champion", *options, cwd=project.root) as server,
        ThreadPoolExecutor(16) as pool,
    ):
        asked = [pool.submit(client, server) for _ in range(16)]
        deadline = time.monotonic() + 60
        accepted = 0
        while accepted < 8:
            answered = outcomes["right"]
            accepted = int(server.metric("tunetrail_serve_waiting_rows")) // len(rows)
            assert time.monotonic() < deadline
        code, errors = server.stop(signal.SIGTERM)
        for future in asked:
            future.result()
    assert code == 0, errors
    assert outcomes["wrong"] == 0
    assert outcomes["not taken"] == 16
    # Those that waited when they were counted had not been answered before.
    assert outcomes["right"] >= answered + accepted


def test_the_champion_is_served_from_a_shared_base(project: Project) -> None:
    """Shared and compared on the real model by the command, then asked by name."""
    frame = evaluated(project)
    done = project.command(
        "tunetrail", "share", "models:/sentiment-own@champion", "--out", "shared", "--json"
    )
    assert done.returncode == 0, done.stderr
    (told,) = json.loads(done.stdout)["models"]
    assert (told["name"], told["version"], told["rows"]) == ("sentiment-own", "1", len(frame))
    assert told["largest_logit_difference"] <= told["tolerance"]
    base = (project.root / "shared" / "model.onnx").stat().st_size
    assert told["adapter_bytes"] < base / 50
    rows = [{"text": text} for text in frame["text"]]
    with serving("shared", cwd=project.root) as server:
        answer = server.post({"rows": rows}, "/models/sentiment-own/predict")
        assert server.get("/models").content[0]["sha256"] == told["onnx_sha256"]
    assert answer.content["version"] == "1"
    for row, each in zip(frame.itertuples(), answer.content["predictions"], strict=True):
        assert right(row, each)


def test_mlflow_serves_raw_text_as_evaluated(project: Project) -> None:
    frame = evaluated(project)
    port = free_port()
    database = f"sqlite:///{project.root / '.tunetrail' / 'mlflow' / 'mlflow.db'}"
    command = ["mlflow", "models", "serve", "-m", "models:/sentiment-own@champion"]
    process = subprocess.Popen(
        [*command, "--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)],
        cwd=project.root,
        env=project.environment(MLFLOW_TRACKING_URI=database, MLFLOW_DISABLE_TELEMETRY="true"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 120
        while not connects(port):
            assert process.poll() is None, "the server ended"
            assert time.monotonic() < deadline
            time.sleep(0.2)
        texts = {"columns": ["text"], "data": [[text] for text in frame["text"]]}
        address = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        answer = ask(address, "POST", "/invocations", {"dataframe_split": texts})
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=30)
    assert answer.status == 200, answer.content
    found = pd.DataFrame(answer.content["predictions"])
    assert found["label"].tolist() == [["bad", "good"][i] for i in frame["prediction"]]
    assert found["score_good"].tolist() == pytest.approx([s[1] for s in frame["scores"]], abs=1e-4)


def test_a_file_is_predicted_by_the_champion_of_the_project(project: Project) -> None:
    frame = evaluated(project)
    frame[["id", "text"]].to_csv(project.root / "rows.csv", index=False)
    done = project.command("tunetrail", "predict", "rows.csv", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["name"], told["version"], told["rows"]) == ("sentiment-own", "1", len(frame))
    found = pd.read_csv(project.root / told["out"])
    assert found["id"].astype(str).tolist() == frame["id"].astype(str).tolist()
    assert found["prediction"].tolist() == [["bad", "good"][i] for i in frame["prediction"]]
    assert found["score_good"].tolist() == pytest.approx([s[1] for s in frame["scores"]], abs=1e-4)
    assert "MLflow" not in done.stderr
