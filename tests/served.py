"""Tiny exported models of every kind with their evaluated predictions, and servers to ask."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import string
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode

from tests.conftest import ROOT
from tests.tiny import CLASSES, make_spec
from tunetrail.files import read_json, tree_digest
from tunetrail.layout import CERTIFICATE, DATA, PREDICTIONS, RUN, SERVING
from tunetrail.run import PlannedRun, write_run
from tunetrail.stages.evaluate import evaluate
from tunetrail.stages.export import export
from tunetrail.stages.ingest import ingest
from tunetrail.stages.prepare import prepare
from tunetrail.stages.train import train
from tunetrail.stages.validate import validate
from tunetrail.task import load_task
from tunetrail.tracking.sync import ONNX_TAG, RUN_TAG

KINDS = ("classes", "pairs", "number", "answers")
PARITY = ["even", "odd"]
LENGTH = 32
LABELS = [f"class {number}" for number in range(CLASSES)]
_LETTERS = list(string.ascii_lowercase)

#: What a task declares, by kind.
_DECLARED: dict[str, dict[str, Any]] = {
    "classes": {"labels": LABELS, "metrics": ["accuracy"]},
    "pairs": {"labels": LABELS, "metrics": ["accuracy"]},
    "number": {"range": [0, 2], "metrics": ["pearson"]},
    "answers": {"answers": {"stride": 4, "max_length": 3}, "metrics": ["exact_match"]},
    "parity": {"labels": PARITY, "metrics": ["accuracy"]},
}


@dataclass(frozen=True)
class Exported:
    """What the export stage wrote, and what the evaluate stage found before.

    Attributes:
        folder: The exported model.
        texts: The test set as a person writes it, in the order of the predictions.
        predictions: Of the trained model.
    """

    folder: Path
    texts: pd.DataFrame
    predictions: pd.DataFrame

    def rows(self) -> list[dict[str, str]]:
        """The test set as a request has it."""
        return self.texts.to_dict("records")

    def agrees(self, place: int, answer: dict[str, Any]) -> bool:
        """Whether a server's answer is the evaluated prediction of the row at this place."""
        expected = self.predictions.iloc[place]
        found = expected["prediction"]
        if "number" in answer:
            return answer["number"] == pytest.approx(found, abs=1e-4)
        if "answer" in answer:
            start, context = answer["start"], self.texts["context"].iloc[place]
            placed = context[start : start + len(found)] == found
            close = answer["score"] == pytest.approx(expected["score"], abs=1e-3)
            return answer["answer"] == found and placed and close
        scores = list(answer["scores"].values())
        return answer["label"] == read_json(self.folder / SERVING)["labels"][
            found
        ] and scores == pytest.approx(list(expected["scores"]), abs=1e-4)


def _frame(kind: str, count: int = 160) -> pd.DataFrame:
    """Words of letters with one digit among them, which is the label, or the answer."""
    generator = np.random.default_rng(0)
    rows = []
    for _ in range(count):
        words = [str(letter) for letter in generator.permutation(_LETTERS * 2)[:24]]
        words = words[: generator.integers(8, 24)]
        place = int(generator.integers(1, len(words)))
        words[place] = str(generator.integers(CLASSES))
        text, digit = " ".join(words), words[place]
        row: dict[str, Any] = {"text": text, "label": int(digit)}
        if kind == "pairs":
            row["text_pair"] = f"{generator.choice(_LETTERS)} and {digit}"
        if kind in ("classes", "pairs"):
            row["label"] = LABELS[row["label"]]
        if kind == "parity":
            row["label"] = PARITY[row["label"] % 2]
        if kind == "answers":
            answers = {"text": [digit], "answer_start": [2 * place]}
            row = {"text": f"{generator.choice(_LETTERS)} ?", "text_pair": text, "label": answers}
        rows.append(row)
    return pd.DataFrame(rows)


def export_tiny(
    kind: str, base: Path, folder: Path, rate: float = 3e-3, method: str = "full", **options: Any
) -> Exported:
    """Train, evaluate and export a tiny model of a kind, by the stages themselves.

    Another learning rate makes another model.
    """
    frame = _frame(kind)
    folder.mkdir(parents=True, exist_ok=True)
    frame.to_parquet(folder / "rows.parquet")
    columns = {name: name for name in frame.columns}
    declared = _DECLARED[kind] | {
        "source": str(folder / "rows.parquet"),
        "columns": columns,
        "checks": {"near_duplicate": 1.0},  # one-letter words are alike
    }
    ingest(load_task("toy", declared, "test"), folder / "canonical")
    validate(folder / "canonical", folder / "validated")
    prepare(folder / "canonical", folder / "validated", base, LENGTH, folder / "prepared")
    plain = make_spec()
    data = plain.data.model_dump() | {"labels": []} | _DECLARED[kind]
    digests = {name: tree_digest(folder / "prepared" / name) for name in ("fit", "test")}
    pooling = "none" if kind == "answers" else "mean"
    spec = make_spec(
        method,
        {"learning_rate": rate, **options},
        base={"digest": tree_digest(base / "model"), "max_length": LENGTH, "pooling": pooling},
        data=data | digests,
        budget={"epochs": 10},
    )
    write_run(folder / RUN, PlannedRun(method, "full", spec))
    train(folder / RUN, base, folder / "prepared" / "fit", folder / "adapter")
    test = folder / "prepared" / "test"
    evaluate(folder / RUN, base, folder / "adapter", test, folder / "scores")
    export(folder, base, test, 1e-4, folder / "onnx")
    predictions = pd.read_parquet(folder / "scores" / PREDICTIONS)
    canonical = pd.read_parquet(folder / "canonical" / DATA).set_index("id")
    names = {"text": "question", "text_pair": "context"} if kind == "answers" else {}
    kept = ["text"] if kind in ("classes", "number", "parity") else ["text", "text_pair"]
    texts = canonical.loc[predictions["id"], kept].rename(columns=names).reset_index(drop=True)
    assert predictions["prediction"].nunique() > 1, "all predictions are alike: they prove little"
    return Exported(folder / "onnx", texts, predictions)


@dataclass(frozen=True)
class Answer:
    """A response.

    Attributes:
        status: Its code.
        headers: By name in lower case.
        content: Parsed where it is JSON, else text.
    """

    status: int
    headers: dict[str, str]
    content: Any


class Server:
    """A server process on a free loopback port.

    Attributes:
        process: Its process.
        ready: What it printed when it was ready.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, f"no server: exit code {process.wait(30)}, {process.stderr.read()}"  # type: ignore[union-attr]
        self.ready: dict[str, Any] = json.loads(line)
        self.port = int(self.ready["url"].rpartition(":")[2])

    def connection(self) -> http.client.HTTPConnection:
        """A connection that may carry several requests."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    def get(self, path: str, **headers: str) -> Answer:
        """Ask for a path."""
        return ask(self.connection(), "GET", path, None, headers)

    def post(self, body: Any, path: str = "/predict", **headers: str) -> Answer:
        """Ask for predictions: bytes as they are, anything else as JSON."""
        return ask(self.connection(), "POST", path, body, headers)

    def metric(self, name: str) -> float:
        """The sum of a counter over its labels."""
        lines = [line for line in self.get("/metrics").content.splitlines() if line[:1] != "#"]
        values = [line.split() for line in lines if line.partition("{")[0].split()[0] == name]
        return sum(float(value[-1]) for value in values)

    def stop(self, sig: int = signal.SIGTERM) -> tuple[int, str]:
        """End it by a signal; exit code and what it wrote to standard error."""
        if self.process.poll() is None:
            self.process.send_signal(sig)
        _, errors = self.process.communicate(timeout=60)
        return self.process.returncode, errors


def ask(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    body: Any = None,
    headers: dict[str, str] | None = None,
) -> Answer:
    """One request over a connection that stays open."""
    if body is not None and not isinstance(body, bytes):
        body = json.dumps(body).encode()
    given = {"Content-Type": "application/json"} if method == "POST" else {}
    connection.request(method, path, body, {**given, **(headers or {})})
    response = connection.getresponse()
    raw = response.read()
    names = {name.lower(): value for name, value in response.getheaders()}
    as_json = names.get("content-type", "").startswith("application/json")
    return Answer(response.status, names, json.loads(raw) if as_json else raw.decode())


def start(
    *arguments: str, cwd: Path | None = None, verbose: int = 0, port: int = 0, **environment: str
) -> subprocess.Popen[str]:
    """Start ``tunetrail serve``, by default on a free port."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "TUNETRAIL_"))}
    kept |= {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])} | environment
    flags = ["-" + "v" * verbose] if verbose else []
    command = [sys.executable, "-m", "tunetrail.cli", *flags, "serve", *arguments]
    return subprocess.Popen(
        [*command, "--port", str(port), "--json"],
        cwd=cwd,
        env=kept,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def conforms(server: Server, examples: int = 60) -> set[str]:
    """Ask a server what its document allows, and what it does not; the paths that were asked.

    Whatever is sent: a declared status, type and schema; no 5xx; what fits is accepted.
    ``examples`` are those of each path, of each sort.
    """
    asked = set()
    document = schemathesis.openapi.from_url(f"{server.ready['url']}/openapi.json")
    for found in document.get_all_operations():
        operation = found.ok()
        asked.add(operation.path)
        wrong = [GenerationMode.NEGATIVE] if operation.method == "post" else []
        for mode in (GenerationMode.POSITIVE, *wrong):
            _conforms(operation.as_strategy(generation_mode=mode), examples)
    return asked


def _conforms(cases: st.SearchStrategy[Any], examples: int) -> None:
    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))
    @given(case=cases)
    def check(case: Any) -> None:
        case.call_and_validate()

    check()


@contextlib.contextmanager
def serving(*arguments: str, **options: Any) -> Iterator[Server]:
    """A server that is ready, and ended with the block."""
    process = start(*arguments, **options)
    try:
        yield Server(process)
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def free_port() -> int:
    """A loopback port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def connects(port: int) -> bool:
    """Whether somebody listens at a loopback port."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def register(uri: str, name: str, exported: Exported, alias: str = "", **tags: str) -> str:
    """Register an exported model in MLflow as ``tunetrail sync`` does; the number of the version.

    ``tags`` replace those of the certificate, with ``onnx`` for its digest.
    """
    import mlflow
    from mlflow.models import infer_signature

    mlflow.set_tracking_uri(uri)
    client = mlflow.MlflowClient(uri)
    certificate = read_json(exported.folder / CERTIFICATE)
    with mlflow.start_run() as run:
        logged = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(ROOT / "src" / "tunetrail" / "tracking" / "served_model.py"),
            artifacts={"export": str(exported.folder)},
            signature=infer_signature(exported.texts.head(2).astype("object")),
            pip_requirements=["onnxruntime"],
        )
    if not client.search_registered_models(f"name='{name}'"):
        client.create_registered_model(name)
    version = client.create_model_version(
        name,
        source=logged.model_uri,
        run_id=run.info.run_id,
        tags={
            RUN_TAG: certificate["run"],
            ONNX_TAG: tags.get("onnx", certificate["onnx_sha256"]),
        },
        model_id=logged.model_id,
    )
    if alias:
        client.set_registered_model_alias(name, alias, version.version)
    return str(version.version)
