"""Files of rows, read and written a part at a time: whatever their size, they need little memory.

Every cell stays as it is; columns are appended.
"""

from __future__ import annotations

import abc
import contextlib
import csv
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tunetrail.errors import TuneTrailError
from tunetrail.machine import from_machine

#: Of appended columns in which every value of a part may be missing.
_TYPES = {"score": pa.float64()}

#: Appends what belongs to a part of the rows: names of columns to their values.
Append = Callable[[Any, dict[str, Any]], None]


class Table(abc.ABC):
    """The rows of a file, whose format its ending says.

    Attributes:
        columns: Their names (JSON Lines: the keys of the first row).
    """

    columns: tuple[str, ...]

    def __init__(self, path: Path) -> None:
        self.path = path

    @abc.abstractmethod
    def parts(self, size: int) -> Iterator[Any]:
        """The rows in order, at most ``size`` at a time.

        Raises:
            TuneTrailError: With the line at which the file cannot be read.
        """

    @abc.abstractmethod
    def cells(self, part: Any, column: str) -> list[Any]:
        """A column of a part; None where a row has no such cell."""

    @abc.abstractmethod
    def writing(self, path: Path) -> contextlib.AbstractContextManager[Append]:
        """Write a file of the same format: parts, each with what is appended to it."""

    def unreadable(self, problem: str, fix: str) -> TuneTrailError:
        """The error for a file that is not what its ending says."""
        return TuneTrailError(f"'{self.path.name}' cannot be read: {problem}", fix)


def open_table(path: Path) -> Table:
    """The rows of a file.

    Raises:
        TuneTrailError: There is no such file, or it is none of the known formats.
    """
    kind = _KINDS.get(path.suffix.lower())
    if kind is None:
        raise TuneTrailError(
            f"'{path.name}' has an unknown format", f"use one of {', '.join(sorted(_KINDS))}"
        )
    if not path.is_file():
        raise TuneTrailError(f"'{path}' is not a file", "name a file with one row for each text")
    return kind(path)


class _Text(Table):
    """A format of lines."""

    @contextlib.contextmanager
    def _lines(self) -> Iterator[Iterator[str]]:
        with self.path.open(encoding="utf-8-sig", newline="") as handle:
            try:
                yield iter(handle)
            except UnicodeDecodeError as error:
                raise self.unreadable(
                    f"it is not UTF-8 (byte 0x{error.object[error.start]:02x})",
                    f"convert it: `iconv -f WINDOWS-1252 -t UTF-8 {self.path}`, with the encoding "
                    "that it was saved in; unpack it first if it is compressed",
                ) from None


class _Csv(_Text):
    """Separated cells below a header; a part is a list of rows, each a list of its cells."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
        csv.field_size_limit(sys.maxsize)
        self.columns = tuple(next((cells for _, cells in self._rows()), []))
        if not self.columns:
            raise self.unreadable("it is empty", "name a file with a header and rows")
        twice = sorted({name for name in self.columns if self.columns.count(name) > 1})
        if twice:
            raise self.unreadable(f"it has two columns '{twice[0]}'", "rename one of them")

    def _rows(self) -> Iterator[tuple[int, list[str]]]:
        """The number of its last line, and the cells, of every row that is not blank."""
        with self._lines() as lines:
            reader = csv.reader(lines, delimiter=self._delimiter, strict=True)
            try:
                for cells in reader:
                    if len(cells) > 1 or (cells and cells[0].strip()):
                        yield reader.line_num, cells
            except csv.Error as error:
                raise self.unreadable(
                    f"line {reader.line_num}: {error}",
                    'close quotation marks, and write a mark inside a text twice ("")',
                ) from None

    def parts(self, size: int) -> Iterator[list[list[str]]]:
        """See :meth:`Table.parts`."""
        part = []
        rows = self._rows()
        next(rows)
        for line, cells in rows:
            if len(cells) != len(self.columns):
                raise self.unreadable(
                    f"line {line} has {len(cells)} cells, the header {len(self.columns)}",
                    "quote texts that contain the delimiter",
                )
            part.append(cells)
            if len(part) == size:
                yield part
                part = []
        if part:
            yield part

    def cells(self, part: list[list[str]], column: str) -> list[Any]:
        """See :meth:`Table.cells`."""
        place = self.columns.index(column)
        return [cells[place] for cells in part]

    @contextlib.contextmanager
    def writing(self, path: Path) -> Iterator[Append]:
        """See :meth:`Table.writing`."""
        with path.open("w", encoding="utf-8", newline="") as handle:
            writer = csv.writer(handle, delimiter=self._delimiter, lineterminator="\n")
            begun = False

            def append(part: list[list[str]], more: dict[str, Any]) -> None:
                nonlocal begun
                if not begun:
                    writer.writerow([*self.columns, *more])
                    begun = True
                added = zip(*(_plain(values) for values in more.values()), strict=True)
                writer.writerows([*row, *new] for row, new in zip(part, added, strict=True))

            yield append


class _JsonLines(_Text):
    """An object a line; a part is a list of them."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        first = next(self.parts(1), None)
        if first is None:
            raise self.unreadable("it is empty", "name a file with an object a line")
        self.columns = tuple(first[0])

    def parts(self, size: int) -> Iterator[list[dict[str, Any]]]:
        """See :meth:`Table.parts`."""
        part = []
        with self._lines() as lines:
            for number, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                except ValueError as error:
                    raise self.unreadable(f"line {number}: {error}", "correct the line") from None
                if not isinstance(row, dict):
                    raise self.unreadable(
                        f"line {number} is {line.strip()[:40]}", "write an object a line: {…}"
                    )
                part.append(row)
                if len(part) == size:
                    yield part
                    part = []
        if part:
            yield part

    def cells(self, part: list[dict[str, Any]], column: str) -> list[Any]:
        """See :meth:`Table.cells`."""
        return [row.get(column) for row in part]

    @contextlib.contextmanager
    def writing(self, path: Path) -> Iterator[Append]:
        """See :meth:`Table.writing`."""
        # A half of a surrogate pair, which JSON can write and UTF-8 cannot, stays an escape.
        with path.open("w", encoding="utf-8", errors="backslashreplace") as handle:

            def append(part: list[dict[str, Any]], more: dict[str, Any]) -> None:
                added = zip(*(_plain(values) for values in more.values()), strict=True)
                for row, new in zip(part, added, strict=True):
                    whole = row | dict(zip(more, new, strict=True))
                    handle.write(json.dumps(whole, ensure_ascii=False) + "\n")

            yield append


class _Parquet(Table):
    """Typed columns; a part is a record batch."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        with self._file() as file:
            self._schema = file.schema_arrow
        self.columns = tuple(self._schema.names)

    @contextlib.contextmanager
    def _file(self) -> Iterator[Any]:
        try:
            with pq.ParquetFile(self.path, pre_buffer=False, buffer_size=1 << 20) as file:
                yield file
        except (pa.ArrowException, OSError) as error:
            if from_machine(error) is not None:
                raise
            raise self.unreadable(
                f"it is not a whole Parquet file ({' '.join(str(error).split())[:120]})",
                "copy or write it again",
            ) from None

    def parts(self, size: int) -> Iterator[Any]:
        """See :meth:`Table.parts`."""
        with self._file() as file:
            yield from file.iter_batches(batch_size=size)

    def cells(self, part: Any, column: str) -> list[Any]:
        """See :meth:`Table.cells`."""
        found: list[Any] = part.column(self.columns.index(column)).to_pylist()
        return found

    @contextlib.contextmanager
    def writing(self, path: Path) -> Iterator[Append]:
        """See :meth:`Table.writing`."""
        with contextlib.ExitStack() as stack:
            writer: Any = None

            def append(part: Any, more: dict[str, Any]) -> None:
                nonlocal writer
                arrays = [pa.array(values, _TYPES.get(name)) for name, values in more.items()]
                fields = [pa.field(n, a.type) for n, a in zip(more, arrays, strict=True)]
                schema = pa.schema([*self._schema, *fields], metadata=self._schema.metadata)
                if writer is None:
                    writer = stack.enter_context(pq.ParquetWriter(path, schema))
                # Not write_batch: it keeps what it is given until a million rows are together.
                writer.write_table(pa.Table.from_arrays([*part.columns, *arrays], schema=schema))

            yield append


def _plain(values: Sequence[Any]) -> list[Any]:
    """Values of numpy as those of Python, with the digits that their type has."""
    kind = getattr(values, "dtype", None)
    if kind is None:
        return list(values)
    return [float(str(value)) for value in values]


_KINDS: dict[str, type[Table]] = {
    ".csv": _Csv,
    ".tsv": _Csv,
    ".jsonl": _JsonLines,
    ".ndjson": _JsonLines,
    ".parquet": _Parquet,
}
