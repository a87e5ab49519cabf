"""Rows of data files: told apart, and written so that reading gives them back."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunetrail.errors import TuneTrailError
from tunetrail.intake.incoming import Incoming, merged
from tunetrail.intake.rows import changes, read_rows, row_keys, write_rows
from tunetrail.task import Format, TaskSpec

#: What a file of text can hold; a NUL is refused where it is read.
_CELL = st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), max_size=12)


def task(ids: bool) -> TaskSpec:
    columns = {"text": "text", "label": "label"} | ({"id": "id"} if ids else {})
    return TaskSpec(name="own", source=Path("x.csv"), columns=columns, labels=("a", "b"))


def frame(*rows: tuple[Any, ...]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["id", "text", "label"], dtype=object)


def test_rows_with_ids_are_added_removed_and_changed() -> None:
    before = frame(("1", "one", "a"), ("2", "two", "a"), ("3", "three", "b"))
    after = frame(("3", "three", "b"), ("2", "other", "a"), ("4", "one", "a"), ("5", "five", "b"))
    assert changes(before, after, task(ids=True)) == (
        {"added": 2, "removed": 1, "changed": 1},
        [1, 2, 3],
    )


def test_rows_without_ids_are_counted_one_by_one() -> None:
    before = frame(("1", "one", "a"), ("1", "one", "a"), ("2", "two", "a"))
    after = frame(("1", "one", "a"), ("2", "two", "a"), ("2", "two", "a"), ("3", "three", "b"))
    assert changes(before, after, task(ids=False)) == (
        {"added": 2, "removed": 1, "changed": 0},
        [2, 3],
    )


def test_another_column_makes_every_row_another() -> None:
    before = frame(("1", "one", "a"))
    after = before.assign(more="x")
    assert changes(before, after, task(ids=True))[0] == {"added": 0, "removed": 0, "changed": 1}


def test_the_last_file_decides_about_an_id() -> None:
    present = frame(("1", "one", "a"), ("2", "two", "a"))
    files = [
        Incoming(Path(name), "", rows)
        for name, rows in (
            ("a.csv", frame(("2", "second", "b"), ("3", "three", "a"))),
            ("b.csv", frame(("3", "third", "b"))),
        )
    ]
    together = merged(present, files, task(ids=True))
    expected = [["1", "one", "a"], ["2", "second", "b"], ["3", "third", "b"]]
    assert together.to_numpy().tolist() == expected
    assert len(merged(present, files, task(ids=False))) == 5


@pytest.mark.parametrize(
    "form",
    [Format(), Format(delimiter=";"), Format(delimiter="\t", names=("id", "text", "label"))],
    ids=["csv", "semicolons", "no header"],
)
@given(cells=st.lists(st.tuples(_CELL, _CELL, _CELL), min_size=1, max_size=4))
def test_csv_is_read_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, form: Format, cells: list[tuple[str, ...]]
) -> None:
    path = tmp_path_factory.getbasetemp() / "round.csv"
    path.write_text("id,text,label\n")
    rows = frame(*cells)
    # A byte order mark at the start of a file is no part of its first cell.
    rows["id"] = rows["id"].str.lstrip("\ufeff")
    write_rows(rows, path, path, form)
    assert read_rows(path, form).to_numpy().tolist() == rows.to_numpy().tolist()


def test_csv_without_quoting_stays_without(tmp_path: Path) -> None:
    path = tmp_path / "plain.tsv"
    path.write_text('id\ttext\tlabel\n1\tsaid "no\ta\n')
    form = Format(quoting=False)
    rows = read_rows(path, form)
    write_rows(rows, path, path, form)
    assert path.read_text() == 'id\ttext\tlabel\n1\tsaid "no\ta\n'


def test_line_ends_of_a_file_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "dos.csv"
    path.write_bytes(b"id,text,label\r\n1,one,a\r\n")
    write_rows(read_rows(path, Format()), path, path, Format())
    assert path.read_bytes() == b"id,text,label\r\n1,one,a\r\n"


@pytest.mark.parametrize("ending", [".jsonl", ".json"])
def test_json_keeps_values_and_absent_keys(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"rows{ending}"
    rows = [{"id": 1, "text": "Grüße", "label": None}, {"id": 2, "text": "b", "spans": {"at": [1]}}]
    path.write_text(
        json.dumps(rows) if ending == ".json" else "".join(f"{json.dumps(r)}\n" for r in rows)
    )
    write_rows(read_rows(path, Format()), path, path, Format())
    text = path.read_text(encoding="utf-8")
    read = json.loads(text) if ending == ".json" else [json.loads(x) for x in text.splitlines()]
    assert read == rows
    assert "Grüße" in text


def test_parquet_keeps_types_and_refuses_others(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    schema = pa.schema(
        [
            ("id", pa.int32()),
            ("text", pa.string()),
            ("day", pa.date32()),
            ("n", pa.list_(pa.int8())),
        ]
    )
    rows = [
        {"id": 1, "text": "one", "day": date(2026, 1, 2), "n": [1, 2]},
        {"id": None, "text": None, "day": None, "n": None},
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)
    read = read_rows(path, Format())
    target = tmp_path / "again.parquet"
    write_rows(read, target, path, Format())
    assert pq.read_table(target).equals(pq.read_table(path))
    assert row_keys(read, ["id", "day"]) == ['[1, "2026-01-02"]', "[null, null]"]
    read.loc[0, "id"] = "one"
    with pytest.raises(
        TuneTrailError, match="column 'id': a new value does not fit the type int32"
    ):
        write_rows(read, target, path, Format())


def test_a_column_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "twice.csv"
    path.write_text("text,text,label\na,b,c\n")
    with pytest.raises(TuneTrailError, match="two columns that are called 'text'"):
        read_rows(path, Format())
