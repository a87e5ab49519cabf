"""Read a data file of which nothing is known: encoding, delimiter, header."""

from __future__ import annotations

import codecs
import csv
import io
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from tunetrail.errors import TuneTrailError
from tunetrail.task import Format

_DELIMITERS = {",": "','", ";": "';'", "\t": "tab", "|": "'|'"}

#: Bytes from which the delimiter is told.
_SAMPLE = 1 << 18

#: The share of rows that must have the same number of cells for a delimiter to be believed.
_REGULAR = 0.9

_TEXT = {".csv", ".tsv", ".txt"}
_JSON = {".jsonl", ".ndjson", ".json"}
FORMATS = (".csv", ".tsv", ".jsonl", ".parquet")

_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


@dataclass(frozen=True)
class Table:
    """A data file as it was read.

    Attributes:
        path: The file.
        rows: One column a field; CSV cells are text, exactly as written.
        format: What a task has to say about a CSV file (nothing for other formats).
        encoding: Of the file; "utf-8" where the pipeline can read it as it is.
    """

    path: Path
    rows: pd.DataFrame
    format: Format
    encoding: str

    def described(self) -> str:
        """The format in words."""
        if self.path.suffix not in _TEXT:
            return {".parquet": "Parquet"}.get(self.path.suffix, "JSON Lines")
        header = "no header" if self.format.names else "with a header"
        quotes = "" if self.format.quoting else ", quotation marks as text"
        between = _DELIMITERS.get(self.format.delimiter, repr(self.format.delimiter))
        return f"{_shown(self.encoding)}, {between} between cells, {header}{quotes}"


def read_table(
    path: Path, delimiter: str | None, header: bool | None, encoding: str | None
) -> Table:
    """Read a CSV, TSV, JSON Lines or Parquet file.

    Args:
        path: The file.
        delimiter: Between the cells of a CSV file, if known.
        header: Whether its first row has the names of the columns, if known.
        encoding: Of a CSV file, if known.

    Raises:
        TuneTrailError: Missing, empty, of another format, or without a regular structure.
    """
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise TuneTrailError(
            f"data file '{path}' {what}",
            f"give one file ({', '.join(FORMATS)}); for files that are split already, declare "
            "the task in params.yaml (README, By hand)",
        )
    if path.suffix not in _TEXT | _JSON | {".parquet"}:
        raise TuneTrailError(
            f"'{path.name}' has an unknown format",
            f"use one of {', '.join(FORMATS)} (a spreadsheet can be saved as CSV)",
        )
    if path.suffix in _TEXT:
        return _read_csv(path, delimiter, header, encoding)
    try:
        rows = (
            pd.read_parquet(path)
            if path.suffix == ".parquet"
            else pd.read_json(path, lines=path.suffix != ".json", dtype=False)
        )
    except (ValueError, OSError) as error:
        raise _unreadable(path, error) from None
    return Table(path, _not_empty(rows, path), Format(), "utf-8")


def _read_csv(
    path: Path, delimiter: str | None, header: bool | None, encoding: str | None
) -> Table:
    encoding = encoding or _encoding(path)
    try:
        text = path.read_text(encoding=encoding)
    except (UnicodeError, LookupError) as error:
        raise TuneTrailError(
            f"'{path.name}' is not {_shown(encoding)}: {error}", "give the right one: --encoding"
        ) from None
    if "\0" in text[:_SAMPLE]:
        raise TuneTrailError(
            f"'{path.name}' is not a text file", f"use one of {', '.join(FORMATS)}"
        )
    shape, sample = _shape(text, path, delimiter)
    if not (has_header(sample) if header is None else header):
        names = tuple(f"column_{number}" for number in range(1, len(sample[0]) + 1))
        shape = shape.model_copy(update={"names": names})
    options: dict[str, Any] = {
        "sep": shape.delimiter,
        "names": shape.names,
        "header": None if shape.names else 0,
        "quoting": csv.QUOTE_MINIMAL if shape.quoting else csv.QUOTE_NONE,
        "dtype": str,
        "keep_default_na": False,
        "index_col": False,
    }
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            rows = pd.read_csv(io.StringIO(text), **options)
    except (ValueError, pd.errors.ParserWarning) as error:
        raise _unreadable(path, error) from None
    return Table(path, _not_empty(rows, path), shape, encoding)


def _encoding(path: Path) -> str:
    """By its first bytes, as UTF-8 if it is that, else by its characters."""
    content = path.read_bytes()
    for mark, name in _MARKS.items():
        if content.startswith(mark):
            return name
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        from charset_normalizer import from_bytes

        best = from_bytes(content[:_SAMPLE]).best()
        return best.encoding if best is not None else "cp1252"
    return "utf-8"


def _shape(text: str, path: Path, delimiter: str | None) -> tuple[Format, list[list[str]]]:
    """Delimiter and quoting under which most rows have equally many cells, and these rows."""
    sample = text[:_SAMPLE]
    complete = len(sample) == len(text)
    found: list[tuple[float, int, Format, list[list[str]]]] = []
    marks = {delimiter: f"'{delimiter}'"} if delimiter else _DELIMITERS
    for mark in marks:
        for quoting in (True, False):
            shape = Format(delimiter=mark, quoting=quoting)
            rows = _split(sample, shape, complete)
            counts = pd.Series([len(row) for row in rows], dtype=int)
            if counts.empty or (usual := int(counts.mode()[0])) < 2:
                continue
            found.append((float((counts == usual).mean()), usual, shape, rows))
    if not found:
        raise TuneTrailError(
            f"'{path.name}' has one column only, with {' or '.join(marks.values())} between cells",
            "a text and its label need a column each; another delimiter: --delimiter",
        )
    # A mark that texts repeat is no delimiter if the first row (a header, mostly) goes without it.
    # Properly quoted comes before unquoted where both are regular.
    share, usual, shape, rows = max(
        found, key=lambda f: (len(f[3][0]) == f[1], round(f[0], 2), f[2].quoting, f[1])
    )
    if share < _REGULAR:
        raise TuneTrailError(
            f"'{path.name}' is irregular: with {_DELIMITERS.get(shape.delimiter)} between cells "
            f"only {share:.0%} of the rows have {usual} cells",
            "put texts that contain the delimiter in quotation marks, or give another one: "
            "--delimiter",
        )
    return shape, [row for row in rows if len(row) == usual]


def _split(sample: str, shape: Format, complete: bool) -> list[list[str]]:
    """Rows of the sample; none where the quoting is not kept to."""
    reader = csv.reader(
        io.StringIO(sample),
        delimiter=shape.delimiter,
        quoting=csv.QUOTE_MINIMAL if shape.quoting else csv.QUOTE_NONE,
        strict=True,
    )
    rows: list[list[str]] = []
    try:
        for row in reader:
            if row:
                rows.append(row)
    except csv.Error as error:
        # The sample may end inside quotation marks.
        return rows if not complete and "end of data" in str(error) else []
    return rows if complete else rows[:-1]


def has_header(rows: list[list[str]]) -> bool:
    """Whether the first row names the columns: short, different, no numbers, not met again."""
    first, rest = rows[0], rows[1:]
    if len(set(first)) < len(first) or any(len(cell) > 60 or "\n" in cell for cell in first):
        return False
    if any(_is_number(cell) for cell in first):
        return False
    return not any(
        cell.strip() and sum(row[i] == cell for row in rest) > 1 for i, cell in enumerate(first)
    )


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _not_empty(rows: pd.DataFrame, path: Path) -> pd.DataFrame:
    if rows.empty:
        raise TuneTrailError(f"'{path.name}' has no rows", "give a file with data")
    return rows.rename(columns=str)


def _unreadable(path: Path, error: Exception) -> TuneTrailError:
    return TuneTrailError(
        f"'{path.name}' cannot be read: {' '.join(str(error).split())[:300]}",
        "correct the line; for CSV see also --delimiter, --encoding and --no-header",
    )


def _shown(encoding: str) -> str:
    plain = encoding.lower().replace("_", "-")
    return "UTF-8" if plain.startswith("utf-8") else plain
