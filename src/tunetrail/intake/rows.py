"""Rows of a data file as they are: read, told apart, and written in the file's own format."""

from __future__ import annotations

import csv
import json
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from tunetrail.errors import TuneTrailError
from tunetrail.tables import read_table
from tunetrail.task import Format, TaskSpec


def read_rows(path: Path, form: Format) -> pd.DataFrame:
    """All rows of a file, cells as Python's own values.

    Raises:
        TuneTrailError: It cannot be read, has no rows, or two columns of one name.
    """
    if path.suffix.lower() == ".parquet":
        read_table(path, form)  # says what is wrong with it
        import pyarrow.parquet as pq

        table = pq.ParquetFile(path).read()
        names = table.column_names
        columns = [column.to_pylist() for column in table.columns]
        frame = pd.DataFrame(
            dict(enumerate(columns)), index=range(table.num_rows), dtype=object
        ).set_axis(names, axis=1)
    else:
        frame = read_table(path, form).astype(object)
    if frame.empty:
        raise TuneTrailError(f"'{path.name}' has no rows", "give a file with data")
    twice = frame.columns[frame.columns.duplicated()]
    if len(twice):
        raise TuneTrailError(
            f"'{path.name}' has two columns that are called '{twice[0]}'", "rename one of them"
        )
    return frame


def write_rows(frame: pd.DataFrame, path: Path, like: Path, form: Format) -> None:
    """Write rows in the format, and with the types, of the file ``like``.

    Raises:
        TuneTrailError: A cell does not fit the type of its column there.
    """
    _WRITERS[path.suffix.lower()](frame, path, like, form)


def row_keys(frame: pd.DataFrame, columns: list[str]) -> list[str]:
    """One text a row, equal for rows with equal cells, whatever the order of the columns."""
    cells = frame[columns].itertuples(index=False, name=None)
    return [json.dumps(row, sort_keys=True, default=str, ensure_ascii=False) for row in cells]


def ids_of(frame: pd.DataFrame, task: TaskSpec) -> list[str] | None:
    """The name of each row; None where the task declares none."""
    column = task.columns.id
    return None if column is None else frame[column].astype(str).tolist()


def changes(
    before: pd.DataFrame, after: pd.DataFrame, task: TaskSpec
) -> tuple[dict[str, int], list[int]]:
    """What became of the rows of a file.

    Returns:
        How many were ``added``, ``removed`` and ``changed``, and the places (from 0) of those of
        ``after`` that ``before`` does not have. Without ids a row is known by its cells: the second
        of two equal rows is one more row, and nothing is changed.
    """
    columns = sorted({*before.columns, *after.columns})
    old, new = (row_keys(frame.reindex(columns=columns), columns) for frame in (before, after))
    old_ids, new_ids = ids_of(before, task), ids_of(after, task)
    if old_ids is not None and new_ids is not None:
        known = dict(zip(old_ids, old, strict=True))
        fresh = [i for i, (name, row) in enumerate(zip(new_ids, new, strict=True))
                 if known.get(name) != row]  # fmt: skip
        changed = sum(new_ids[i] in known for i in fresh)
        removed = len(known.keys() - set(new_ids))
        return {"added": len(fresh) - changed, "removed": removed, "changed": changed}, fresh
    left, fresh = Counter(old), []
    for i, row in enumerate(new):
        if left[row]:
            left[row] -= 1
        else:
            fresh.append(i)
    return {"added": len(fresh), "removed": left.total(), "changed": 0}, fresh


def _write_csv(frame: pd.DataFrame, path: Path, like: Path, form: Format) -> None:
    tab = path.suffix.lower() == ".tsv" and "delimiter" not in form.model_fields_set
    rows = list(frame.itertuples(index=False, name=None))
    # Python's writer puts a cell with a line break into quotation marks only where the break is
    # one of those that end its rows.
    breaks = "\r\n" if b"\r\n" in like.read_bytes() or _has(rows, "\r") else "\n"
    with path.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(
            handle,
            delimiter="\t" if tab else form.delimiter,
            quoting=csv.QUOTE_MINIMAL if form.quoting else csv.QUOTE_NONE,
            quotechar='"' if form.quoting else None,
            lineterminator=breaks,
        )
        if not form.names:
            writer.writerow(frame.columns)
        writer.writerows(rows)


def _has(rows: list[tuple[Any, ...]], character: str) -> bool:
    return any(character in cell for row in rows for cell in row)


def _write_json_lines(frame: pd.DataFrame, path: Path, like: Path, form: Format) -> None:
    path.write_text("".join(f"{line}\n" for line in _objects(frame)), encoding="utf-8")


def _write_json(frame: pd.DataFrame, path: Path, like: Path, form: Format) -> None:
    path.write_text("[\n" + ",\n".join(_objects(frame)) + "\n]\n", encoding="utf-8")


def _objects(frame: pd.DataFrame) -> list[str]:
    """An object a row, without the keys that the row lacked."""
    return [
        json.dumps({k: v for k, v in row.items() if not _absent(v)}, ensure_ascii=False)
        for row in frame.to_dict("records")
    ]


def _absent(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _write_parquet(frame: pd.DataFrame, path: Path, like: Path, form: Format) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pq.ParquetFile(like).schema_arrow
    columns = []
    for field in schema:
        try:
            columns.append(pa.array(frame[field.name].tolist(), type=field.type))
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
            raise TuneTrailError(
                f"column '{field.name}': a new value does not fit the type {field.type} that it "
                f"has in '{like.name}': {' '.join(str(error).split())[:120]}",
                "write the new rows with the same types",
            ) from None
    pq.write_table(pa.table(columns, schema=schema), path)


_Writer = Callable[[pd.DataFrame, Path, Path, Format], None]
_WRITERS: dict[str, _Writer] = {
    ".csv": _write_csv,
    ".tsv": _write_csv,
    ".txt": _write_csv,
    ".jsonl": _write_json_lines,
    ".ndjson": _write_json_lines,
    ".json": _write_json,
    ".parquet": _write_parquet,
}
