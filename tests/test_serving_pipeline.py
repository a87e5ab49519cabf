"""The server on the real model, under load, and through the registry of a finished project."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.conftest import Project
from tests.served import Answer, ask, serving

pytestmark = pytest.mark.pipeline

#: What one in ten requests is.
MALFORMED = [
    b"{", b"\xff", b"null", b"{}", b'{"rows": []}', b'{"rows": [{"text": 1}]}',
    b'{"rows": [{"text": "\\ud800"}]}', b'{"rows": [{"text": " "}]}', b'{"rows": [{"a": "b"}]}',
    b"[" * 100_000,
]  # fmt: skip


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
            assert "rows wait for the model" in answer.content["problem"]
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
        while server.metric("tunetrail_serve_waiting_rows") < 4 * len(rows):
            assert time.monotonic() < deadline
        code, errors = server.stop(signal.SIGTERM)
        for future in asked:
            future.result()
    assert code == 0, errors
    assert outcomes["wrong"] == 0
    assert outcomes["not taken"] == 16
    assert outcomes["right"] >= 4


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
