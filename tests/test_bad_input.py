"""Bad data and bad models: what each row of the two tables makes, and what a person is told."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import re
import shutil
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from tests.conftest import ROOT
from tests.refusals import as_somebody, exit_code, refusal
from tests.tiny import make_spec, run_model, tiny_config, write_base, write_model
from tunetrail.errors import TuneTrailError
from tunetrail.modeling.adapter import load_adapter, save_adapter

ROWS = [
    (f"{quality} thing number {number}", label)
    for number in range(30)
    for quality, label in (("a fine", "good"), ("an awful", "bad"))
]

Make = Callable[[Path], object]


# Data ------------------------------------------------------------------------------------------


def lines(rows: list[tuple[str, str]] = ROWS, header: str = "text,label", sep: str = ",") -> bytes:
    return "".join([f"{header}\n", *(f"{t}{sep}{label}\n" for t, label in rows)]).encode()


def objects(rows: list[tuple[Any, Any]] = ROWS) -> list[dict[str, Any]]:
    return [{"text": text, "label": label} for text, label in rows]


def json_lines(rows: list[tuple[Any, Any]] = ROWS) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in objects(rows)).encode()


def labelled(change: Callable[[str], str]) -> bytes:
    return lines([(text, change(label)) for text, label in ROWS])


def in_memory(write: Callable[[Any], object]) -> bytes:
    buffer = io.BytesIO()
    write(buffer)
    return buffer.getvalue()


def zipped(buffer: Any) -> None:
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("data.csv", lines())


FRAME = pd.DataFrame(ROWS, columns=["text", "label"])
PARQUET = in_memory(lambda buffer: FRAME.to_parquet(buffer))
TWICE = pa.table([FRAME["text"], FRAME["label"], FRAME["label"]], names=["text", "label", "label"])


@dataclass(frozen=True)
class Data:
    """A file, and what is said about it.

    Attributes:
        name: What is wrong.
        content: The bytes of the file, or what to do at its path.
        says: In the first lines.
        fix: In the way out.
        file: Its name.
        task: Keys of the task.
        gate: Whether it is the gate that stops it, and not the reading.
    """

    name: str
    content: bytes | Make
    says: str
    fix: str
    file: str = "x.csv"
    task: dict[str, Any] = field(default_factory=dict)
    gate: bool = False


WITH_ID = {"columns": {"text": "text", "label": "label", "id": "id"}}

BAD_DATA = [
    # Bytes
    Data("one row is Latin-1", lines() + "café,good\nx,bad\n".encode("latin-1"),
         "'x.csv' cannot be read: line 62 is not UTF-8 (byte 0xe9 at offset 1704): 'caf\ufffd,",
         "`iconv -f WINDOWS-1252 -t UTF-8 data/x.csv > data/x-utf8.csv`"),
    Data("a line of JSON is Latin-1", json_lines() + '{"text": "é"}\n'.encode("latin-1"),
         "line 61 is not UTF-8 (byte 0xe9 at offset 3140)", "iconv", file="x.jsonl"),
    Data("UTF-16", lines().decode().encode("utf-16"), "it is UTF-16, not UTF-8",
         "`iconv -f UTF-16 -t UTF-8 data/x.csv > data/x-utf8.csv`"),
    Data("UTF-16 without a mark", lines().decode().encode("utf-16-le"), "it is UTF-16", "iconv"),
    Data("UTF-16 JSON", json_lines().decode().encode("utf-16"), "it is UTF-16", "iconv",
         file="x.jsonl"),
    Data("a NUL character", lines() + b"a\0b,good\n", "line 62 holds a NUL character",
         "damaged or binary"),
    Data("a picture", b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "it is not a text file",
         ".csv, .tsv"),
    Data("gzip called csv", gzip.compress(lines()), "it is compressed with gzip, not csv",
         "`gunzip`"),
    Data("ZIP called csv", in_memory(zipped), "it is a ZIP archive or an Excel workbook",
         "save the workbook as CSV (UTF-8)"),
    Data("Parquet called csv", PARQUET, "it is a Parquet file, not csv", "ends in .parquet"),
    Data("gzip", gzip.compress(lines()), "'x.csv.gz' has an unknown format", "unpack archives",
         file="x.csv.gz"),
    Data("Parquet cut off", PARQUET[: len(PARQUET) // 2], "it is not a whole Parquet file",
         "copy or download it again", file="x.parquet"),
    Data("Parquet with holes", PARQUET[:4] + bytes(200) + PARQUET[204:],
         "it is not a whole Parquet file", "copy or download it again", file="x.parquet"),
    Data("empty Parquet file", b"", "it is not a whole Parquet file", "download", file="x.parquet"),
    # Shape
    Data("empty file", b"", "'x.csv' cannot be read: it is empty", "a header and rows"),
    Data("blank lines only", b"\n \n\n", "it is empty", "a header and rows"),
    Data("header only", lines([]), "'x.csv' has no rows", "add rows"),
    Data("empty JSON Lines", b"", "'x.jsonl' has no rows", "add rows", file="x.jsonl"),
    Data("a folder without data", lambda path: path.mkdir(), "no data files in 'data/x.csv' (a "
         "folder)", "name them train, validation and test"),
    Data("no file", lambda path: None, "source 'data/x.csv' does not exist", "that exists"),
    Data("a pipe", lambda path: os.mkfifo(path), "'data/x.csv' cannot be used: not a directory",
         "correct the path"),
    Data("semicolons", lines([(f"a, b, {t}", label) for t, label in ROWS], "text;label", ";"),
         "with the delimiter \",\" it has one column, 'text;label'",
         "give the task `format: {delimiter: \";\"}`"),
    Data("tabs", lines(header="text\tlabel", sep="\t"), "it has one column, 'text\\tlabel'",
         "give the task `format: {delimiter: \"\\t\"}`"),
    Data("commas called tsv", lines(), "with the delimiter \"\\t\" it has one column",
         "give the task `format: {delimiter: \",\"}`", file="x.tsv"),
    Data("the wrong delimiter declared", lines(), 'with the delimiter ";" it has one column',
         "give the task `format: {delimiter: \",\"}`", task={"format": {"delimiter": ";"}}),
    Data("one column", b"text\na\n", "it has one column, 'text'", "'format.delimiter'"),
    Data("a row with more cells", lines([*ROWS, ("a, b", "good")]),
         "line 62 has 3 cells, the header 2", "quote texts that contain the delimiter"),
    Data("a row with fewer cells", lines() + b"text alone\nx,good\n",
         "line 62 has 1 cells, the header 2", "'format.delimiter'"),
    Data("rows of other length than format.names", lines(), "line 1 has 2 cells, 'format.names' 3",
         "'format.delimiter'", task={"format": {"names": ["id", "text", "label"]}}),
    Data("a quotation mark that is never closed", lines() + b'"never,good\nx,bad\n',
         "line 62: a quotation mark is never closed", "'format.quoting: false'"),
    Data("a quotation mark in the middle", lines() + b'"so" it is,good\n',
         "line 62: ',' expected after '\"'", "write a mark inside a text twice"),
    Data("a broken line of JSON", json_lines() + b'{"text": "x", "label":\n',
         "line 61, column 23: Expecting value", "correct the line", file="x.jsonl"),
    Data("a line of JSON that is no object", json_lines() + b"[1]\n", "line 61 is [1]",
         "an object a line", file="x.jsonl"),
    Data("JSON Lines called json", json_lines(), "line 2, column 1: Extra data",
         "ends in .jsonl", file="x.json"),
    Data("a JSON array called jsonl", json.dumps(objects()).encode(), "it is one JSON array",
         "ends in .json", file="x.jsonl"),
    Data("JSON with a wrapper", json.dumps({"data": objects()}).encode(),
         "neither a list of objects nor", "the list under 'data' alone", file="x.json"),
    # Columns
    Data("two columns of one name", b"text,label,label\na,good,x\n",
         "2 columns are called 'label' (columns.label)", "rename one"),
    Data("two Parquet columns of one name", lambda path: pq.write_table(TWICE, path),
         "2 columns are called 'label'", "rename one", file="x.parquet"),
    Data("blanks in the header", lines(header="text, label"), "unknown column 'label'",
         "the file calls it ' label': remove the blanks"),
    Data("columns exchanged", lines([(label, text) for text, label in ROWS]),
         "unknown label 'a fine thing number 0': 60 of 60 rows",
         "'text' holds the labels: correct 'columns.text' and 'columns.label'"),
    Data("another column holds the labels", b"text,label,class\na,3,good\nb,4,bad\n",
         "unknown label '3'", "'class' holds the labels: correct 'columns.label'"),
    Data("texts are numbers", lambda path: FRAME.assign(text=range(60)).to_parquet(path),
         "column 'text': row 1 is '0' (int64), not a text", "'columns.text'", file="x.parquet"),
    Data("texts are objects", json_lines([*ROWS, ({"de": "x"}, "good")]),
         "column 'text': row 61 is \"{'de': 'x'}\" (dict), not a text", "write them as text",
         file="x.jsonl"),
    Data("ids twice", b"id,text,label\na,x,good\nb,y,bad\na,z,bad\n",
         "column 'id': 'a' is the id of rows 1, 3; 2 of 3 rows share theirs",
         "'columns.group'", task=WITH_ID),
    Data("a blank id", b"id,text,label\na,x,good\n ,y,bad\n", "row 2 has no id", "give it one",
         task=WITH_ID),
    # Labels
    Data("no label", lines([*ROWS, ("x", "")]), "row 61: unknown label '': 1 of 61 rows",
         "give these rows a label, or remove them"),
    Data("a label missing in JSON", json_lines([*ROWS, ("x", None)]),
         "nulls in label: 'label' is never missing; 1 rows", "correct the data", file="x.jsonl",
         gate=True),
    Data("NaN as text", lines([*ROWS, ("x", "NaN")]), "row 61: unknown label 'NaN': 1 of 61 rows",
         "give these rows a label, or remove them"),
    Data("NaN in JSON", json_lines([*ROWS, ("x", float("nan"))]),
         "nulls in label: 'label' is never missing; 1 rows", "correct the data", file="x.jsonl",
         gate=True),
    Data("NaN in Parquet", lambda path: pd.DataFrame(
        {"text": FRAME["text"], "label": [float("nan"), *[0.0, 1.0] * 29, 1.0]}).to_parquet(path),
         "nulls in label: 'label' is never missing; 1 rows", "correct the data", file="x.parquet",
         gate=True),
    Data("NaN where a number is predicted", b"text,label\na,1\nb,nan\n",
         "row 2 is 'nan', not a number", "correct the row", task={"range": [0, 1], "labels": []}),
    Data("the header twice", b"text,label\n" + lines(), "row 1: unknown label 'label'",
         "this row repeats the header: remove it"),
    Data("blanks around a label", lines([*ROWS, ("x", " good")]), "row 61: unknown label ' good'",
         "labels count as they are written: remove the blanks around it; did you mean 'good'?"),
    Data("an invisible character at a label", lines([*ROWS, ("x", "good\u00a0")]),
         "unknown label 'good\\xa0'", "remove the blanks"),
    Data("another case", lines([*ROWS, ("x", "Good")]), "row 61: unknown label 'Good'",
         "case counts: write it 'good', as declared"),
    Data("indices from 1", labelled(lambda label: "2" if label == "good" else "1"),
         "unknown label '2': 30 of 60", "numbers stand for the labels from 0 to 1"),
    Data("names and indices mixed", lines([*ROWS, ("x", "1")]), "unknown label '1': 1 of 61",
         "declare them if they are names"),
    Data("10,000 different labels", lines([(f"t{i}", f"l{i}") for i in range(10_000)]),
         "unknown label 'l0': 10000 of 10000", "there are 10000 different ones: name another "
         "column, or cut numbers by 'bins'"),
    Data("an infinite number", b"text,label\na,1\nb,inf\n", "row 2 is 'inf', not a number",
         "correct the row", task={"bins": [0.0]}),
    # Texts
    Data("blank texts", lines([*ROWS, ("  ", "good")]), "blank: 'text' has a visible character; 1 "
         "rows", "'waive'", gate=True),
    Data("texts of a megabyte", lines([(t + " word" * 200_000, label) for t, label in ROWS[:4]]),
         "length: 'text' has 1 to 20000 characters; 4 rows, 100.00%", "'checks'", gate=True),
]  # fmt: skip


@contextmanager
def in_project(folder: Path, file: str, task: dict[str, Any]) -> Iterator[None]:
    """A folder with a params.yaml whose task ``own`` has the source ``data/FILE``."""
    declared = {
        "source": f"data/{file}",
        "columns": {"text": "text", "label": "label"},
        "labels": ["bad", "good"],
    }
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["tasks"] = {"own": declared | task}
    (folder / "data").mkdir()
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def write(content: bytes | Make, path: Path) -> None:
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        content(path)


@pytest.mark.parametrize("bad", BAD_DATA, ids=lambda bad: bad.name)
def test_bad_data_is_refused(bad: Data, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with in_project(tmp_path, bad.file, bad.task):
        write(bad.content, tmp_path / "data" / bad.file)
        command = ("ingest", "own", "canonical")
        if bad.gate:
            assert exit_code(*command) == 0
            command = ("validate", "canonical", "validated")
        said, way_out = refusal(capsys, *command)
        assert bad.says in said
        assert bad.fix in way_out
        assert (tmp_path / "canonical").exists() == bad.gate


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux")
def test_texts_of_a_megabyte_can_be_waived_and_are_cut(tmp_path: Path) -> None:
    columns = {"text": "text", "label": "label", "group": "shelf"}
    task = {"waive": {"length": "whole books"}, "columns": columns}
    with in_project(tmp_path, "x.csv", task):
        rows = [(text + " word" * (200_000 if number < 6 else 1), f"{label},{max(number, 5)}")
                for number, (text, label) in enumerate(ROWS)]  # fmt: skip
        (tmp_path / "data" / "x.csv").write_bytes(lines(rows, "text,label,shelf"))
        write_base(tmp_path / "base")
        assert exit_code("ingest", "own", "canonical") == 0
        assert exit_code("validate", "canonical", "validated") == 0
        Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
        before = peak_memory()
        tokenise = ("prepare", "canonical", "validated", "base", "prepared", "--max-length", "64")
        assert exit_code(*tokenise) == 0
        used = peak_memory() - before
    cut = pd.read_parquet(tmp_path / "prepared" / "fit" / "train.parquet")
    assert (cut["input_ids"].map(len) == 64).sum() >= 6, "all of them are on one shelf, in train"
    assert used < 800e6


def peak_memory() -> int:
    """Bytes that this process had in memory at most."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def quoted(rows: list[tuple[str, str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows([("text", "label"), *rows])
    return text.getvalue().encode()


FINE_DATA = [
    Data("a mark before CSV", b"\xef\xbb\xbf" + lines(), "", ""),
    Data("a mark before JSON Lines", b"\xef\xbb\xbf" + json_lines(), "", "", file="x.jsonl"),
    Data("a mark before JSON", b"\xef\xbb\xbf" + json.dumps(objects()).encode(), "", "",
         file="x.json"),
    Data("line ends of Windows", lines().replace(b"\n", b"\r\n"), "", ""),
    Data("an ending in capitals", lines(), "", "", file="X.CSV"),
    Data("columns as JSON lists", json.dumps(FRAME.to_dict("list")).encode(), "", "",
         file="x.json"),
    Data("a column that nobody names", in_memory(lambda b: FRAME.to_csv(b, index=True)), "", ""),
    Data("all cells quoted", quoted(ROWS), "", ""),
    Data("whole numbers as pandas writes them", labelled(lambda n: "1.0" if n == "good" else "0"),
         "", "", task={"labels": ["0", "1"]}),
    Data("indices as pandas writes them", labelled(lambda n: "1.0" if n == "good" else "0.0"), "",
         ""),
]  # fmt: skip


@pytest.mark.parametrize("fine", FINE_DATA, ids=lambda fine: fine.name)
def test_odd_data_that_is_plain_enough_just_works(fine: Data, tmp_path: Path) -> None:
    with in_project(tmp_path, fine.file, fine.task):
        write(fine.content, tmp_path / "data" / fine.file)
        assert exit_code("ingest", "own", "canonical") == 0
    rows = pd.read_parquet(tmp_path / "canonical" / "data.parquet")
    assert rows["text"].tolist() == [text for text, _ in ROWS]
    assert rows["label"].tolist() == [int(label == "good") for _, label in ROWS]


def test_a_file_without_the_right_to_read_it_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with in_project(tmp_path, "x.csv", {}):
        (tmp_path / "data" / "x.csv").write_bytes(lines())
        assert exit_code("ingest", "own", "canonical") == 0  # and imports what it needs
        (tmp_path / "data" / "x.csv").chmod(0)
        for folder in (tmp_path, *(p for p in tmp_path.rglob("*") if p.is_dir())):
            folder.chmod(0o777)
        with as_somebody():
            said, way_out = refusal(capsys, "ingest", "own", "other")
    assert "may not use 'data/x.csv' (permission denied)" in said
    assert "`chmod`, `chown`" in way_out


# Models ----------------------------------------------------------------------------------------


def configured(**changes: Any) -> Make:
    """Change keys of config.json; None removes one."""

    def make(model: Path) -> None:
        config = json.loads((model / "config.json").read_text()) | changes
        kept = {key: value for key, value in config.items() if value is not None}
        (model / "config.json").write_text(json.dumps(kept))

    return make


def weighed(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Make:
    """Change the tensors of the weights."""

    def make(model: Path) -> None:
        tensors = change(load_file(model / "model.safetensors"))
        save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})

    return make


def tokenised(change: Callable[[dict[str, Any]], object]) -> Make:
    """Change tokenizer.json."""

    def make(model: Path) -> None:
        content = json.loads((model / "tokenizer.json").read_text())
        change(content)
        (model / "tokenizer.json").write_text(json.dumps(content))

    return make


def written(name: str, content: str | bytes) -> Make:
    data = content.encode() if isinstance(content, str) else content
    return lambda model: (model / name).write_bytes(data)


def cut_off(model: Path) -> None:
    whole = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(whole[: len(whole) // 2])


def own_code(model: Path) -> None:
    configured(auto_map={"AutoModel": "own.Model"})(model)
    (model / "own.py").write_text("open('it-ran', 'w')\nclass Model: ...\n")


def own_tokenizer(model: Path) -> None:
    named = {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", None]}}
    (model / "tokenizer_config.json").write_text(json.dumps(named))
    (model / "own.py").write_text("open('it-ran', 'w')\nclass Own: ...\n")


def pickled(model: Path) -> None:
    torch.save(load_file(model / "model.safetensors"), model / "pytorch_model.bin")
    (model / "model.safetensors").unlink()


def one_shard_of_two(model: Path) -> None:
    tensors = load_file(model / "model.safetensors")
    (model / "model.safetensors").rename(model / "model-00001-of-00002.safetensors")
    places = dict.fromkeys(tensors, "model-00001-of-00002.safetensors")
    places[next(iter(places))] = "model-00002-of-00002.safetensors"
    index = {"metadata": {}, "weight_map": places}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))


def contradicting(model: Path) -> None:
    """What transformers reads lower-cases, what serving reads does not."""
    tokenised(lambda content: content["normalizer"].update(lowercase=False))(model)
    settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": True}
    (model / "tokenizer_config.json").write_text(json.dumps(settings))


def extended(content: dict[str, Any]) -> None:
    vocabulary = content["model"]["vocab"]
    vocabulary["foreign"] = len(vocabulary) + 7


def without_unknown(content: dict[str, Any]) -> None:
    del content["model"]["vocab"]["[UNK]"]
    content["added_tokens"] = [t for t in content["added_tokens"] if t["content"] != "[UNK]"]


QUERY = "encoder.layer.0.attention.self.query.weight"
GPT2 = json.dumps({"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "vocab_size": 99})


@dataclass(frozen=True)
class Model:
    """A model folder, and what is said about it."""

    name: str
    make: Make
    says: str
    fix: str


BAD_MODELS = [
    Model("an empty folder", lambda m: (shutil.rmtree(m), m.mkdir()), "no config.json in model",
          "at a model folder"),
    Model("a file", lambda m: (shutil.rmtree(m), m.write_text("x")), "'model' is a file",
          "at a model folder"),
    # config.json
    Model("config.json is not JSON", written("config.json", "{not"),
          "model/config.json is not valid JSON (Expecting property name", "download the model"),
    Model("config.json is a list", written("config.json", "[]"), "does not say 'model_type'",
          "the folder of a transformers model"),
    Model("config.json without a size", configured(hidden_size=None),
          "does not say 'hidden_size'", "the folder of a transformers model"),
    Model("a size that is text", configured(hidden_size="32"), "model cannot be loaded: ",
          "save_pretrained"),
    Model("heads that do not divide the size", configured(num_attention_heads=5),
          "model cannot be loaded: The hidden size (32) is not a multiple", "save_pretrained"),
    Model("T5", configured(model_type="t5"),
          "architecture 't5' has no declared sites (attention, query", "use one of albert, bert, "),
    Model("the configuration of a decoder", written("config.json", GPT2),
          "does not say 'max_position_embeddings'", "the folder of a transformers model"),
    Model("the weights of an encoder in a decoder", configured(model_type="llama"),
          "the weights in model lack 'embed_tokens.weight'", ""),
    Model("an encoder that is told to be a decoder", configured(is_decoder=True),
          "says 'is_decoder'", "use an encoder"),
    Model("code of its own", own_code, "model/config.json names code of its own ('auto_map'), and "
          "the code of a model is never run", "that transformers knows by itself"),
    Model("a tokenizer with code of its own", own_tokenizer,
          "model/tokenizer_config.json names code of its own", "knows by itself"),
    Model("quantised, by config.json", configured(quantization_config={"quant_method": "awq"}),
          "has a 'quantization_config': quantised weights cannot be trained", "float32"),
    # Weights
    Model("weights as a pickle", pickled, "(pytorch_model.bin is a pickle and is never loaded)",
          "convert the weights to safetensors"),
    Model("a pickle called safetensors", lambda m: torch.save({}, m / "model.safetensors"),
          "model/model.safetensors is not a whole safetensors file", "download it again"),
    Model("weights cut off", cut_off, "is not a whole safetensors file", "download it again"),
    Model("a pointer of git-lfs", written("model.safetensors", "version https://git-lfs…\noid x"),
          "is not a whole safetensors file", "`git lfs pull`"),
    Model("weights of another name",
          lambda m: (m / "model.safetensors").rename(m / "weights.safetensors"),
          "no model.safetensors in model, only weights.safetensors", "download all of the model"),
    Model("a shard is missing", one_shard_of_two,
          "no model-00002-of-00002.safetensors in model, only model-00001", "download all"),
    Model("quantised weights", weighed(lambda t: t | {QUERY: t[QUERY].to(torch.int8)}),
          f"'{QUERY}' in model/model.safetensors is I8: quantised", "float32"),
    Model("a tensor is missing", weighed(lambda t: {k: v for k, v in t.items() if k != QUERY}),
          f"the weights in model lack '{QUERY}'", "use complete weights"),
    Model("weights of another model", weighed(lambda t: {f"x.{k}": v for k, v in t.items()}),
          "the weights in model lack 'embeddings.LayerNorm.bias'", "use complete weights"),
    Model("config.json of a wider model", configured(hidden_size=64),
          "'embeddings.LayerNorm.bias' is (32,) in the weights in model and (64,) by config.json",
          "weights and config.json of one model"),
    Model("config.json of a deeper model", configured(num_hidden_layers=3),
          "the weights in model lack 'encoder.layer.2.", "use complete weights"),
    Model("config.json of a flatter model", configured(num_hidden_layers=1),
          "has no place for the weights of 'encoder.layer.1.", "of one model"),
    Model("a weight is NaN", weighed(lambda t: t | {QUERY: t[QUERY] * float("nan")}),
          f"'{QUERY}' in model holds numbers that are not finite", "download the weights again"),
    # Tokenizer
    Model("no tokenizer", lambda m: (m / "tokenizer.json").unlink(), "no tokenizer.json in model",
          "save the fast tokenizer"),
    Model("tokenizer.json is not JSON", written("tokenizer.json", "{"),
          "model/tokenizer.json cannot be used: EOF", "download the model"),
    Model("the tokenizer of another model", tokenised(extended),
          "the model has 87 embeddings: it is the tokenizer of another model",
          "save this model's own tokenizer"),
    Model("no special tokens", tokenised(lambda c: c.update(post_processor=None)),
          "puts no special tokens around a text ('a' is the first)", "the post-processor"),
    Model("no token for the unknown", tokenised(without_unknown), "tokenizer.json cannot be used: ",
          "download the model"),
    Model("two tokenizers in one folder", contradicting,
          "tokenizer.json and tokenizer_config.json in model contradict each other",
          "save_pretrained"),
]  # fmt: skip


@pytest.fixture(scope="module")
def whole_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("whole") / "model")


@pytest.mark.parametrize("bad", BAD_MODELS, ids=lambda bad: bad.name)
def test_a_bad_model_is_refused_by_the_base_stage(
    bad: Model,
    whole_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(whole_model, tmp_path / "model")
    bad.make(tmp_path / "model")
    said, way_out = refusal(capsys, "base", "model", "out")
    assert bad.says in said
    assert bad.fix in way_out
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "it-ran").exists()


def test_the_model_that_the_rows_spoil_is_accepted(
    whole_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert exit_code("base", str(whole_model), "out") == 0


def test_an_adapter_is_not_put_onto_another_base(tmp_path: Path) -> None:
    spec = make_spec("lora")
    wide = write_base(tmp_path / "wide", hidden_size=64)
    save_adapter(
        run_model(spec, write_base(tmp_path / "base")), tmp_path, run=spec.digest, base="one"
    )
    with pytest.raises(TuneTrailError, match="adapter of another base\n  adapter one") as caught:
        load_adapter(run_model(spec, wide), tmp_path, run=spec.digest, base="two")
    assert "this run's train stage wrote" in caught.value.fix
    with pytest.raises(TuneTrailError, match=r"'\S+' is \(\S+ \d+\) in the adapter and \("):
        load_adapter(run_model(spec, wide), tmp_path, run=spec.digest, base="one")


def test_an_adapter_that_is_cut_off_is_named(tmp_path: Path) -> None:
    spec, base = make_spec("lora"), write_base(tmp_path / "base")
    save_adapter(run_model(spec, base), tmp_path, run=spec.digest, base="one")
    whole = (tmp_path / "adapter.safetensors").read_bytes()
    (tmp_path / "adapter.safetensors").write_bytes(whole[:-9])
    with pytest.raises(TuneTrailError, match="is not a whole safetensors file") as caught:
        load_adapter(run_model(spec, base), tmp_path, run=spec.digest, base="one")
    assert "train this run again" in caught.value.fix


def test_a_missing_pooler_says_which_pooling_needs_none(tmp_path: Path) -> None:
    from transformers import BertModel

    base = write_base(tmp_path / "base")
    BertModel(tiny_config(), add_pooling_layer=False).save_pretrained(base / "model")
    pooled = make_spec("head").base.model_dump() | {"pooling": "cls"}
    with pytest.raises(TuneTrailError, match="lack 'pooler") as caught:
        run_model(make_spec("head", base=pooled), base)
    assert "set base.pooling to 'mean'" in caught.value.fix
