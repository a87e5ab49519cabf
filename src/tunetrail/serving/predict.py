"""Predictions for every row of a file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from tunetrail.errors import TuneTrailError
from tunetrail.files import read_json, replacing_file
from tunetrail.serving.batching import Row
from tunetrail.serving.models import Model
from tunetrail.serving.tables import Table, open_table

#: Rows in memory at a time: enough to batch texts of similar length.
_PART = 512

#: What a predictor calls its columns, where a file may have one of that name.
_NAMES = {"label": "prediction", "answer": "prediction"}


def registered_model(receipt: Path) -> str:
    """The reference of the model that the project in this folder has registered.

    Raises:
        TuneTrailError: There is none, or more than one.
    """
    if not receipt.is_file():
        raise TuneTrailError(
            "no --model is given, and there is no project with a registered model here",
            "name it: --model models:/NAME@champion, or a folder of the export stage",
        )
    names = [f"models:/{m['name']}@champion" for m in read_json(receipt)["models"]]
    if len(names) != 1:
        raise TuneTrailError(
            f"no --model is given, and this project has {len(names)} registered models",
            f"name one: --model {' or '.join(names) or 'FOLDER'}",
        )
    return names[0]


def predict_file(
    path: Path, model: Model, out: Path, texts: Sequence[str | None] = (None, None)
) -> int:
    """Write the rows of a file with predictions beside them; the number of rows.

    Appended are ``prediction`` and ``score_<label>`` of classes; ``prediction`` of a number;
    ``prediction``, ``start`` and ``score`` of an answer. Every row is looked at before the first
    one is predicted.

    Args:
        path: CSV, TSV, JSON Lines or Parquet.
        model: Predicts.
        out: File to write, in the same format.
        texts: Columns that hold what the model reads, where they have other names than it says.

    Raises:
        TuneTrailError: A column is missing or in the way, a row has no text, or the file cannot be
            read.
    """
    table = open_table(path)
    if out.suffix.lower() != path.suffix.lower():
        raise TuneTrailError(
            f"--out is '{out.name}', the rows are in '{path.name}': the format stays what it is",
            f"end its name in {path.suffix}",
        )
    if out.exists() and out.samefile(path):
        raise TuneTrailError(f"--out is '{out}', the file with the rows", "choose another name")
    columns = _columns(table, model, texts)
    rows = _checked(table, columns)
    with (
        replacing_file(out) as temporary,
        table.writing(temporary) as append,
        tqdm(total=rows, unit="row", desc=path.name, disable=None) as bar,
    ):
        for part in table.parts(_PART):
            asked = _asked(table, part, columns)
            found = model.predictor(asked)
            if "score" in found:  # of an answer; JSON has no infinity
                found["score"] = [s if math.isfinite(s) else None for s in found["score"]]
            append(part, {_NAMES.get(name, name): values for name, values in found.items()})
            bar.update(len(asked))
    return rows


def _columns(table: Table, model: Model, texts: Sequence[str | None]) -> tuple[str, ...]:
    """The columns of the file that hold what the model reads.

    Raises:
        TuneTrailError: One is missing, or one of the file has the name of a prediction.
    """
    known = (*model.columns, *model.optional)
    given = dict(zip(known, texts, strict=False))
    if len(known) == 1 and texts[1] is not None:
        raise TuneTrailError(
            f"--pair is '{texts[1]}': {model.shown} reads single texts", "leave --pair out"
        )
    wanted = [given[name] or name for name in model.columns]
    wanted += [
        given[name] or name
        for name in model.optional
        if given[name] is not None or name in table.columns
    ]
    missing = [name for name in wanted if name not in table.columns]
    if missing:
        flags = dict(zip(wanted, ("--text", "--pair"), strict=False))
        raise TuneTrailError(
            f"'{table.path.name}' has no column '{missing[0]}', which {model.shown} reads; it has "
            f"{', '.join(table.columns)}",
            f"say which one it is: {flags[missing[0]]} COLUMN",
        )
    labels = [f"score_{label}" for label in model.predictor.labels]
    added = ["prediction", *(["start", "score"] if model.predicts == "answers" else labels)]
    taken = [name for name in added if name in table.columns]
    if taken:
        raise TuneTrailError(
            f"'{table.path.name}' has a column '{taken[0]}', which is to be added",
            "rename or remove it",
        )
    return tuple(wanted)


def _checked(table: Table, columns: tuple[str, ...]) -> int:
    """The number of rows.

    Raises:
        TuneTrailError: There are none, or one has no text that can be read.
    """
    rows = faulty = 0
    first = ""
    for part in table.parts(_PART):
        for place, cells in enumerate(zip(*(table.cells(part, c) for c in columns), strict=True)):
            for column, cell in zip(columns, cells, strict=True):
                fault = _fault(cell)
                if fault is not None:
                    faulty += 1
                    first = first or f"row {rows + place + 1}: '{column}' {fault}"
        rows += len(part)
    if faulty:
        more = f" (and {faulty - 1:,} more like it)" if faulty > 1 else ""
        raise TuneTrailError(f"'{table.path.name}', {first}{more}", "correct or remove the row")
    if not rows:
        raise table.unreadable("it has no rows", "name a file with one row for each text")
    return rows


def _fault(cell: Any) -> str | None:
    """What is wrong with a text; None where nothing is."""
    if cell is None or (isinstance(cell, str) and not cell.strip()):
        return "is blank: there is nothing to predict from"
    if not isinstance(cell, str):
        return f"is {str(cell)[:40]}, not a text"
    if "\0" in cell:
        return "holds a NUL character, which no text has"
    if any("\ud800" <= character <= "\udfff" for character in cell):
        return "holds half a character (a lone surrogate)"
    return None


def _asked(table: Table, part: Any, columns: tuple[str, ...]) -> list[Row]:
    cells = [table.cells(part, column) for column in columns]
    return list(cells[0] if len(cells) == 1 else zip(*cells, strict=True))
