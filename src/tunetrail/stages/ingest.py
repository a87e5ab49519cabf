"""ingest: any source to one canonical Parquet file and a dataset card."""

from __future__ import annotations

import csv
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tunetrail.errors import TuneTrailError, unknown
from tunetrail.files import file_digest, replacing, scratch, write_json
from tunetrail.layout import CARD, DATA, TASK
from tunetrail.sources import read_source
from tunetrail.task import TaskSpec, label_card

_SPLITS = ("train", "validation", "test")


def ingest(task: TaskSpec, out: Path) -> None:
    """Write ``data.parquet``, ``card.json`` and the frozen ``task.json`` to ``out``.

    Canonical columns: ``id``, ``group``, ``split`` (train, validation, test; null where the data
    has no split), ``text``, ``text_pair`` (null for single texts), ``label`` (class index, or a
    number).

    Raises:
        TuneTrailError: Unreadable source, missing column, or a label outside the declared set.
    """
    source = read_source(task.source)
    with scratch() as unpacked:
        content = source.fetch(unpacked)
        parts = [
            _canonical(_read(path, task), task, split, path.name)
            for split, path in _files(content, task).items()
        ]
    frame = pd.concat(parts, ignore_index=True)
    with replacing(out) as folder:
        frame.to_parquet(folder / DATA, index=False)
        write_json(folder / TASK, task.model_dump(mode="json"))
        write_json(folder / CARD, _card(task, frame, source.provenance(), folder / DATA))


def _card(
    task: TaskSpec, frame: pd.DataFrame, provenance: dict[str, str], data: Path
) -> dict[str, Any]:
    split = frame["split"].fillna("unsplit")
    return {
        "task": task.name,
        "title": task.title,
        "domain": task.domain,
        "source": provenance,
        "licence": provenance.get("licence", "unknown"),
        "digest": file_digest(data),
        "rows": len(frame),
        "rows_by_split": {str(k): int(v) for k, v in split.value_counts().items()},
        **label_card(frame["label"], task),
        "characters": {
            "median": float(frame["text"].fillna("").str.len().median()),
            "longest": int(frame["text"].fillna("").str.len().max()),
        },
    }


def _files(content: Path, task: TaskSpec) -> dict[str, Path]:
    """Split (or ``all``) → file."""
    found: dict[str, Path]
    if task.files is not None:
        found = {split: content / name for split, name in task.files.items()}
        for split, path in found.items():
            if not path.is_file():
                raise TuneTrailError(
                    f"task '{task.name}': files.{split} '{path.name}' is not in the source",
                    "correct 'files'",
                )
    elif content.is_file():
        found = {"all": content}
    else:
        data = [p for p in sorted(content.iterdir()) if p.suffix in _READERS]
        found = {}
        for p in data:
            if p.stem in found:
                raise TuneTrailError(
                    f"task '{task.name}': '{found[p.stem].name}' and '{p.name}' are both {p.stem}",
                    "remove one of them, or set 'files'",
                )
            if p.stem in _SPLITS:
                found[p.stem] = p
        if not found and len(data) == 1:
            found = {"all": data[0]}
    if not found:
        raise TuneTrailError(
            f"task '{task.name}': no data files in '{content}'",
            "name them train, validation and test (.csv, .tsv, .jsonl or .parquet), or set 'files'",
        )
    if "all" in found and len(found) > 1:
        raise TuneTrailError(
            f"task '{task.name}': 'files' names both 'all' and a split",
            "give either one file for 'all' or one file a split",
        )
    if "all" not in found and "train" not in found:
        raise TuneTrailError(
            f"task '{task.name}': there is no train file, only {', '.join(found)}",
            "add a train file, or one file that is split for you",
        )
    return found


def _read(path: Path, task: TaskSpec) -> pd.DataFrame:
    """All rows of a file; CSV cells stay text, exactly as written."""
    reader = _READERS.get(path.suffix)
    if reader is None:
        raise TuneTrailError(
            f"'{path.name}' has an unknown format", f"use one of {', '.join(sorted(_READERS))}"
        )
    try:
        with warnings.catch_warnings():
            # pandas only warns where it cuts a row that has more cells than the header.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            return reader(path, task)
    except (ValueError, OSError, pd.errors.ParserWarning) as error:
        raise TuneTrailError(
            f"'{path.name}' cannot be read: {' '.join(str(error).split())[:300]}",
            "check the format (for CSV also 'format.delimiter' and 'format.quoting')",
        ) from None


def _read_csv(path: Path, task: TaskSpec) -> pd.DataFrame:
    tab = path.suffix == ".tsv" and "delimiter" not in task.format.model_fields_set
    frame: pd.DataFrame = pd.read_csv(
        path,
        sep="\t" if tab else task.format.delimiter,
        names=task.format.names,
        header=None if task.format.names else 0,
        quoting=csv.QUOTE_MINIMAL if task.format.quoting else csv.QUOTE_NONE,
        # Nothing is guessed: the text "NA" is a text, and "01" is not a number.
        dtype=str,
        keep_default_na=False,
        index_col=False,
    )
    return frame


def _read_json(path: Path, task: TaskSpec) -> pd.DataFrame:
    lines = path.suffix != ".json"
    frame: pd.DataFrame = pd.read_json(path, lines=lines, dtype=False)
    return frame


def _read_parquet(path: Path, task: TaskSpec) -> pd.DataFrame:
    frame: pd.DataFrame = pd.read_parquet(path)
    return frame


_READERS = {".csv": _read_csv, ".tsv": _read_csv, ".txt": _read_csv, ".parquet": _read_parquet}
_READERS |= {".jsonl": _read_json, ".ndjson": _read_json, ".json": _read_json}


def _canonical(frame: pd.DataFrame, task: TaskSpec, split: str, file: str) -> pd.DataFrame:
    if frame.empty:
        raise TuneTrailError(
            f"task '{task.name}': '{file}' has no rows", "add rows, or remove the file"
        )
    for role, column in task.columns.model_dump().items():
        if column is not None and column not in frame.columns:
            error = unknown(
                "column", column, map(str, frame.columns), f"task '{task.name}': {file}"
            )
            raise TuneTrailError(f"{error.problem} (columns.{role})", error.fix)
    prefix = "" if split == "all" else f"{split}-"
    ids = frame[task.columns.id] if task.columns.id else pd.Series(range(len(frame)))
    if ids.isna().any():
        row = int(np.flatnonzero(ids.isna().to_numpy())[0])
        raise TuneTrailError(
            f"task '{task.name}': {file}: column '{task.columns.id}': row {row + 1} has no id",
            "give it one, or remove 'columns.id'",
        )
    out = pd.DataFrame({"id": prefix + ids.astype(str).to_numpy(dtype=object)})
    if task.columns.group:
        group = frame[task.columns.group].astype(str)
        if task.group_separator:
            group = group.str.split(task.group_separator, n=1, regex=False).str[0]
        out["group"] = group.to_numpy(dtype=object)
    else:
        # Without a declared group, equal texts are a group: they cannot fall into two splits.
        out["group"] = _text_key(frame, task)
    out["split"] = pd.Series([None if split == "all" else split] * len(out), dtype="str")
    out["text"] = frame[task.columns.text].to_numpy(dtype=object)
    pair = task.columns.text_pair
    out["text_pair"] = frame[pair].to_numpy(dtype=object) if pair else None
    for column in ("id", "group", "split", "text", "text_pair"):
        out[column] = out[column].astype("str")
    out["label"] = _labels(frame[task.columns.label], task, file)
    return out


def _text_key(frame: pd.DataFrame, task: TaskSpec) -> np.ndarray:
    parts = [frame[c] for c in (task.columns.text, task.columns.text_pair) if c]
    key = parts[0].fillna("").astype(str)
    for part in parts[1:]:
        key = key + "\x1f" + part.fillna("").astype(str)
    keys: np.ndarray = key.to_numpy(dtype=object)
    return keys


def _labels(column: pd.Series, task: TaskSpec, file: str) -> pd.Series:
    """Class indices or numbers; a missing label stays missing: the validate stage's business."""
    where = f"task '{task.name}': {file}: column '{task.columns.label}'"
    if task.bins is not None or task.range is not None:
        numbers = pd.to_numeric(column, errors="coerce")
        bad = numbers.isna() & column.notna()
        if bad.any():
            row = int(np.flatnonzero(bad.to_numpy())[0])
            raise TuneTrailError(
                f"{where}: row {row + 1} is {column.iloc[row]!r}, not a number",
                "correct the row; if the column holds class names, give 'labels' without 'bins'",
            )
        if task.range is not None:
            low, high = task.range
            outside = (numbers < low) | (numbers > high)
            if outside.any():
                row = int(np.flatnonzero(outside.to_numpy())[0])
                raise TuneTrailError(
                    f"{where}: row {row + 1} is {column.iloc[row]}: {int(outside.sum())} of "
                    f"{len(column)} rows are outside the range {low:g} to {high:g}",
                    "correct the data or 'range'",
                )
            return pd.Series(numbers.to_numpy(dtype="float64", na_value=np.nan)).astype("Float64")
        binned = pd.Series(np.digitize(numbers.fillna(0.0), task.bins or ())).astype("Int64")
        return binned.mask(numbers.isna().to_numpy())
    index = {name: i for i, name in enumerate(task.labels)}
    text = column.map(lambda value: _plain(value), na_action="ignore")
    mapped = text.map(index)
    if mapped.isna().all():
        # Class indices instead of names, as public benchmarks publish them.
        mapped = text.map({str(i): i for i in range(len(task.labels))})
    bad = mapped.isna() & column.notna()
    if bad.any():
        row = int(np.flatnonzero(bad.to_numpy())[0])
        error = unknown("label", str(column.iloc[row]), task.labels, f"{where}, row {row + 1}")
        raise TuneTrailError(
            f"{error.problem}: {int(bad.sum())} of {len(column)} rows are outside the declared set",
            f"{error.fix}; correct the data or 'labels'",
        )
    return pd.Series(mapped.to_numpy()).astype("Int64")


def _plain(value: Any) -> str:
    """A label as text; 1.0 and 1 are the same class."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
