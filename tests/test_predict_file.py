"""``tunetrail predict``: rows of a file, with predictions beside them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

from tests.conftest import ROOT
from tests.refusals import exit_code, refusal
from tests.served import KINDS, LABELS, Exported, export_tiny
from tunetrail.errors import TuneTrailError
from tunetrail.files import write_json
from tunetrail.layout import MODEL
from tunetrail.serving.predict import registered_model

pytestmark = pytest.mark.usefixtures("fresh_accelerate")

Exports = Callable[[str], Exported]


@pytest.fixture(scope="module")
def exports(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Exports:
    """The tiny export of a kind, made once."""
    made: dict[str, Exported] = {}

    def of(kind: str) -> Exported:
        if kind not in made:
            made[kind] = export_tiny(kind, base, tmp_path_factory.mktemp(kind))
        return made[kind]

    return of


@pytest.fixture
def classes(exports: Exports) -> Exported:
    return exports("classes")


def write(frame: pd.DataFrame, path: Path) -> Path:
    if path.suffix == ".parquet":
        frame.to_parquet(path, index=False)
    elif path.suffix == ".jsonl":
        frame.to_json(path, orient="records", lines=True, force_ascii=False)
    else:
        frame.to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")
    return path


def read(path: Path) -> pd.DataFrame:
    if path.suffix == ".parquet":
        return pd.read_parquet(path)
    if path.suffix == ".jsonl":
        return pd.DataFrame([json.loads(line) for line in path.read_text().splitlines()])
    return pd.read_csv(path, sep="\t" if path.suffix == ".tsv" else ",", dtype={"number": str})


def as_answers(kind: str, frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as the server answers them."""
    if kind == "answers":
        named = frame.rename(columns={"prediction": "answer"})
        return named[["answer", "start", "score"]].astype({"answer": str}).to_dict("records")
    if kind == "number":
        return [{"number": number} for number in frame["prediction"]]
    return [
        {"label": row["prediction"], "scores": {name: row[f"score_{name}"] for name in LABELS}}
        for row in frame.to_dict("records")
    ]


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet"])
@pytest.mark.parametrize("kind", KINDS)
def test_files_are_predicted_as_evaluated_and_keep_their_columns(
    kind: str, ending: str, exports: Exports, tmp_path: Path
) -> None:
    exported = exports(kind)
    numbers = [f"{place:03d}" for place in range(len(exported.texts))]
    awkward = ['a "mark", and\na line'] * len(numbers)
    frame = exported.texts.assign(number=numbers, note=awkward)
    path = write(frame, tmp_path / f"rows.{ending}")
    assert exit_code("predict", str(path), "--model", str(exported.folder)) == 0
    found = read(tmp_path / f"rows.predictions.{ending}")
    assert list(found)[: len(frame.columns)] == list(frame)
    for column in frame:
        assert found[column].astype(str).tolist() == frame[column].tolist()
    answers = as_answers(kind, found)
    assert len(answers) == len(frame)
    assert all(exported.agrees(place, answer) for place, answer in enumerate(answers))


def test_the_order_and_the_result_do_not_depend_on_the_batch(
    classes: Exported, tmp_path: Path
) -> None:
    frame = pd.concat([classes.texts] * 120, ignore_index=True)  # more than one part
    path = write(frame.assign(place=range(len(frame))), tmp_path / "rows.parquet")
    for batch in ("1", "64"):
        options = ("--batch", batch, "--out", str(tmp_path / f"{batch}.parquet"))
        assert exit_code("predict", str(path), "--model", str(classes.folder), *options) == 0
    one, many = (pd.read_parquet(tmp_path / f"{batch}.parquet") for batch in ("1", "64"))
    assert len(many) > 1024
    assert one["place"].tolist() == many["place"].tolist() == list(range(len(frame)))
    assert one["prediction"].tolist() == many["prediction"].tolist()
    expected = [LABELS[index] for index in classes.predictions["prediction"]] * 120
    assert many["prediction"].tolist() == expected


def test_columns_with_other_names_are_given(exports: Exports, tmp_path: Path) -> None:
    exported = exports("pairs")
    frame = exported.texts.rename(columns={"text": "message", "text_pair": "reply"})
    path = write(frame, tmp_path / "rows.csv")
    options = ("--model", str(exported.folder), "--text", "message", "--pair", "reply")
    assert exit_code("predict", str(path), *options) == 0
    answers = as_answers("pairs", read(tmp_path / "rows.predictions.csv"))
    assert all(exported.agrees(place, answer) for place, answer in enumerate(answers))


def test_what_was_done_as_json(
    classes: Exported, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(classes.texts, tmp_path / "rows.csv")
    capsys.readouterr()
    assert exit_code("predict", str(path), "--model", str(classes.folder), "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["rows"] == len(classes.texts)
    assert told["out"] == str(tmp_path / "rows.predictions.csv")
    assert told["name"] == str(classes.folder)


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.csv", "message,other\nx,y\n", "no column 'text', which .* it has message, other"),
        ("a.csv", "text;other\nx;y\n", "no column 'text', which .* reads; it has text;other"),
        ("a.csv", "text,prediction\nx,y\n", "has a column 'prediction', which is to be added"),
        ("a.csv", "text,score_class 1\nx,y\n", "'a.csv' has a column 'score_class 1'"),
        ("a.csv", "text,text\nx,y\n", "it has two columns 'text'"),
        ("a.csv", "text,b\nx,y\n\nx\n", "line 4 has 1 cells, the header 2"),
        ("a.csv", 'text\n"x\n', "line 2: unexpected end of data"),
        ("a.csv", "", "'a.csv' cannot be read: it is empty"),
        ("a.csv", "text\n", "'a.csv' cannot be read: it has no rows"),
        ("a.csv", "text,b\nx,1\n ,2\n,3\n", r"row 2: 'text' is blank: .* \(and 1 more like it\)"),
        ("a.csv", b"text\n\xe4\n", "it is not UTF-8"),
        ("a.csv", "text\na\0b\n", "row 1: 'text' holds a NUL character"),
        ("a.jsonl", '{"text": "a"}\n{"text": 3}\n', "row 2: 'text' is 3, not a text"),
        ("a.jsonl", '{"text": "a"}\n{"txt": "b"}\n', "row 2: 'text' is blank"),
        ("a.jsonl", '{"text": "a"}\n{"text": "\\ud800"}\n', "row 2: 'text' holds half a character"),
        ("a.jsonl", '{"text": "a"}\n{"text"\n', "line 2: "),
        ("a.jsonl", '["a"]\n', "line 1 is "),
        ("a.jsonl", "\n", "it is empty"),
        ("a.parquet", "text", "it is not a whole Parquet file"),
        ("a.xlsx", "text", "'a.xlsx' has an unknown format"),
    ],
)  # fmt: skip
def test_files_that_cannot_be_predicted_are_refused_before_anything_is_written(
    name: str, content: str | bytes, problem: str, classes: Exported, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    said, fix = refusal(capsys, "predict", str(path), "--model", str(classes.folder))
    assert re.search(problem, said), said
    assert fix.strip()
    assert list(tmp_path.iterdir()) == [path]


def test_outputs_in_the_wrong_place_are_refused(
    classes: Exported, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(classes.texts, tmp_path / "rows.csv")
    command = ("predict", str(path), "--model", str(classes.folder), "--out")
    problem, fix = refusal(capsys, *command, str(tmp_path / "out.parquet"))
    assert "the format stays what it is" in problem
    assert ".csv" in fix
    assert "the file with the rows" in refusal(capsys, *command, str(path))[0]
    assert "is not a file" in refusal(capsys, "predict", str(tmp_path / "no.csv"), *command[2:4])[0]


def test_a_tampered_model_predicts_nothing(
    classes: Exported, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(classes.texts, tmp_path / "rows.csv")
    folder = tmp_path / "model"
    shutil.copytree(classes.folder, folder)
    content = (folder / MODEL).read_bytes()
    (folder / MODEL).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    problem, fix = refusal(capsys, "predict", str(path), "--model", str(folder))
    assert f"{folder / MODEL} is not the file that was certified" in problem
    assert "`tunetrail verify --discard`" in fix
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model", "rows.csv"]


def test_without_a_model_the_registered_one_is_taken(tmp_path: Path) -> None:
    receipt = tmp_path / "receipt.json"
    with pytest.raises(TuneTrailError, match="no --model is given, and there is no project"):
        registered_model(receipt)
    models = [{"name": name} for name in ("a-x", "a-y")]
    write_json(receipt, {"models": models[:1]})
    assert registered_model(receipt) == "models:/a-x@champion"
    write_json(receipt, {"models": models})
    with pytest.raises(TuneTrailError, match="this project has 2 registered models") as caught:
        registered_model(receipt)
    assert caught.value.fix == "name one: --model models:/a-x@champion or models:/a-y@champion"


def test_parquet_keeps_its_types(classes: Exported, tmp_path: Path) -> None:
    frame = classes.texts.assign(
        when=pd.Timestamp("2026-01-01"), many=[[1, 2]] * len(classes.texts)
    )
    path = write(frame, tmp_path / "rows.parquet")
    assert exit_code("predict", str(path), "--model", str(classes.folder)) == 0
    before, after = (pq.read_schema(p) for p in (path, tmp_path / "rows.predictions.parquet"))
    assert [after.field(name) for name in before.names] == list(before)
    assert str(after.field("score_class 0").type) == "float"


#: The peak of this program; that of getrusage would be its parent's, if larger.
_MEMORY = """
import re, sys
from tunetrail.cli import execute
execute(["predict", sys.argv[1], "--model", sys.argv[2], "--threads", "1"])
print(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
"""


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_large_files_need_no_more_memory(ending: str, classes: Exported, tmp_path: Path) -> None:
    """Five times the rows, of 20 KB each: 80 MB more that are never in memory at once."""
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    peak = {}
    for rows in (1000, 5000):
        notes = [os.urandom(10_000).hex() for _ in range(rows)]
        path = write(
            pd.DataFrame({"text": ["a b 1"] * rows, "note": notes}), tmp_path / f"{rows}.{ending}"
        )
        command = [sys.executable, "-c", _MEMORY, str(path), str(classes.folder)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        peak[rows] = int(done.stdout.split()[-1]) / 1000
    assert peak[5000] < peak[1000] + 50
