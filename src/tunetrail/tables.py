"""CSV, JSON and Parquet files as tables: every cell as it is written, every fault by its line."""

from __future__ import annotations

import codecs
import csv
import io
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from tunetrail.errors import TuneTrailError
from tunetrail.machine import from_machine
from tunetrail.task import Format

#: First bytes of files that are no text, whatever they are called: what it is, what to do with it.
_NOT_TEXT = {
    b"\x1f\x8b": ("is compressed with gzip", "unpack it (`gunzip`) and name the file inside"),
    b"PK\x03\x04": (
        "is a ZIP archive or an Excel workbook",
        "unpack it and name the file inside, or save the workbook as CSV (UTF-8)",
    ),
    b"BZh": ("is compressed with bzip2", "unpack it (`bunzip2`) and name the file inside"),
    b"\xfd7zXZ": ("is compressed with xz", "unpack it (`unxz`) and name the file inside"),
    b"(\xb5/\xfd": ("is compressed with zstd", "unpack it (`unzstd`) and name the file inside"),
    b"\xd0\xcf\x11\xe0": ("is an Excel workbook", "save the workbook as CSV (UTF-8)"),
    b"PAR1": ("is a Parquet file", "give it a name that ends in .parquet"),
}  # fmt: skip

_DELIMITERS = {",": '","', ";": '";"', "\t": '"\\t"', "|": '"|"'}

_TEXTS = ".csv, .tsv, .txt, .jsonl or .json"
_SEE_FORMAT = "check the format (for CSV also 'format.delimiter' and 'format.quoting')"


def read_table(path: Path, form: Format) -> pd.DataFrame:
    """All rows of a file; its columns may have one name twice.

    Args:
        path: The file; its ending says what it is.
        form: How CSV is to be read.

    Raises:
        TuneTrailError: Unknown ending, not UTF-8, or not the format that the ending says.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise TuneTrailError(
            f"'{path.name}' has an unknown format",
            f"use one of {', '.join(sorted(READERS))} (unpack archives, save workbooks as CSV)",
        )
    return reader(path, form)


def _unreadable(path: Path, problem: str, fix: str) -> TuneTrailError:
    return TuneTrailError(f"'{path.name}' cannot be read: {problem}", fix)


def _text(path: Path) -> str:
    """The file as text, without a byte order mark."""
    data = path.read_bytes()
    for start, (what, fix) in _NOT_TEXT.items():
        if data.startswith(start):
            raise _unreadable(path, f"it {what}, not {path.suffix[1:]}", fix)
    wide = data[:4096].count(0) > len(data[:4096]) // 4
    if wide or data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise _unreadable(path, "it is UTF-16, not UTF-8", _convert(path, "UTF-16"))
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if b"\0" in data:
            raise _unreadable(path, "it is not a text file", f"name one of {_TEXTS}") from None
        # With a byte order mark the decoder counts from behind it.
        at = error.start + (len(data) - len(error.object))
        line = data.count(b"\n", 0, at)
        near = data.split(b"\n", line + 1)[line].decode(errors="replace").strip()
        raise _unreadable(
            path,
            f"line {line + 1} is not UTF-8 (byte 0x{data[at]:02x} at offset {at}): {near[:60]!r}",
            _convert(path, "WINDOWS-1252") + ", with the encoding that it was saved in",
        ) from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0"))
        raise _unreadable(
            path,
            f"line {line + 1} holds a NUL character, which no text has",
            "the file is damaged or binary: write it again",
        )
    return text


def read_lines(path: Path) -> list[str]:
    """The lines of a text file.

    Raises:
        TuneTrailError: It is not UTF-8 text.
    """
    return _text(path).splitlines()


def _convert(path: Path, encoding: str) -> str:
    copy = path.with_name(f"{path.stem}-utf8{path.suffix}")
    return f"convert it: `iconv -f {encoding} -t UTF-8 {path} > {copy}`"


def _read_csv(path: Path, form: Format) -> pd.DataFrame:
    tab = path.suffix.lower() == ".tsv" and "delimiter" not in form.model_fields_set
    delimiter = "\t" if tab else form.delimiter
    # Nothing is guessed: the text "NA" is a text, and "01" is not a number.
    lines = _csv_lines(path, delimiter, form.quoting)
    header = list(form.names or next(lines, (0, []))[1])
    if not header:
        raise _unreadable(path, "it is empty", "name a file with a header and rows")
    if len(header) == 1:
        raise _one_column(path, header[0], delimiter)
    rows = []
    for line, cells in lines:
        if len(cells) != len(header):
            names = "'format.names'" if form.names else "the header"
            raise _unreadable(
                path,
                f"line {line} has {len(cells)} cells, {names} {len(header)}",
                "quote texts that contain the delimiter, and check 'format.delimiter' and "
                "'format.quoting'",
            )
        rows.append(cells)
    return pd.DataFrame(rows, columns=header, dtype=object)


def _csv_lines(path: Path, delimiter: str, quoting: bool) -> Iterator[tuple[int, list[str]]]:
    """The number of its first line, and the cells, of every row that is not blank."""
    csv.field_size_limit(sys.maxsize)
    reader = csv.reader(
        io.StringIO(_text(path), newline=""),
        delimiter=delimiter,
        quoting=csv.QUOTE_MINIMAL if quoting else csv.QUOTE_NONE,
        strict=True,
    )
    line = 1
    try:
        for cells in reader:
            if len(cells) > 1 or (cells and cells[0].strip()):
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        found = "a quotation mark is never closed" if "end of data" in str(error) else str(error)
        raise _unreadable(
            path,
            f"line {line}: {found}",
            "close it, write a mark inside a text twice (\"\"), or set 'format.quoting: false' if "
            "marks are plain text in this file",
        ) from None


def _one_column(path: Path, header: str, delimiter: str) -> TuneTrailError:
    found = [d for d in _DELIMITERS if d != delimiter and d in header]
    shown = _DELIMITERS.get(delimiter, repr(delimiter))
    return _unreadable(
        path,
        f"with the delimiter {shown} it has one column, {header[:80]!r}",
        f"give the task `format: {{delimiter: {_DELIMITERS[found[0]]}}}`" if found else _SEE_FORMAT,
    )


def _read_json_lines(path: Path, form: Format) -> pd.DataFrame:
    text = _text(path)
    if text.lstrip().startswith("["):
        raise _unreadable(
            path, "it is one JSON array, not an object a line", "give it a name that ends in .json"
        )
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        row = _json(path, line, number)
        if not isinstance(row, dict):
            raise _unreadable(
                path, f"line {number} is {line.strip()[:60]}", "write an object a line: {…}"
            )
        rows.append(row)
    return pd.DataFrame(rows, dtype=object)


def _read_json(path: Path, form: Format) -> pd.DataFrame:
    content = _json(path, _text(path))
    if isinstance(content, list) and all(isinstance(row, dict) for row in content):
        return pd.DataFrame(content, dtype=object)
    columns = content if isinstance(content, dict) else {}
    sizes = {len(c) if isinstance(c, list) else None for c in columns.values()}
    if len(columns) > 1 and len(sizes) == 1 and None not in sizes:
        return pd.DataFrame(columns, dtype=object)
    inside = [key for key, value in columns.items() if isinstance(value, list)]
    raise _unreadable(
        path,
        "it is neither a list of objects nor an object of equally long lists",
        f"write the list under '{inside[0]}' alone into the file"
        if len(inside) == 1
        else 'write [{"column": value, …}, …]',
    )


def _json(path: Path, text: str, line: int = 1) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        more = error.msg == "Extra data" and path.suffix.lower() == ".json"
        raise _unreadable(
            path,
            f"line {line + error.lineno - 1}, column {error.colno}: {error.msg}",
            "if it has an object a line, give it a name that ends in .jsonl"
            if more
            else "correct the line",
        ) from None


def _read_parquet(path: Path, form: Format) -> pd.DataFrame:
    import pyarrow
    import pyarrow.parquet as pq

    try:
        # Not pandas: it would refuse a name that is there twice.
        table = pq.ParquetFile(path).read()
        frame: pd.DataFrame = table.to_pandas(ignore_metadata=True)
    except (pyarrow.ArrowException, OSError) as error:
        if from_machine(error) is not None:
            raise
        raise _unreadable(
            path,
            f"it is not a whole Parquet file ({' '.join(str(error).split())[:120]})",
            f"copy or download it again; a text file is one of {_TEXTS}",
        ) from None
    return frame


READERS: dict[str, Callable[[Path, Format], pd.DataFrame]] = {
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".txt": _read_csv,
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
    ".json": _read_json,
    ".parquet": _read_parquet,
}
