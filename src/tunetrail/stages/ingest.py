"""ingest: any source to one canonical Parquet file and a dataset card."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tunetrail.errors import TuneTrailError, unknown
from tunetrail.files import file_digest, replacing, scratch, write_json
from tunetrail.layout import CARD, DATA, TASK
from tunetrail.sources import read_source
from tunetrail.tables import READERS, read_table
from tunetrail.task import TaskSpec, label_card

#: How programs write that there is no label.
_MISSING = {"", "nan", "none", "null", "na", "n/a", "<na>"}

_SPLITS = ("train", "validation", "test")


def ingest(task: TaskSpec, out: Path) -> None:
    """Write ``data.parquet``, ``card.json`` and the frozen ``task.json`` to ``out``.

    Canonical columns: ``id``, ``group``, ``split`` (train, validation, test; null where the data
    has no split), ``text``, ``text_pair`` (null for single texts), ``label`` (class index, or a
    number).

    A validation or test split without any label, as public benchmarks publish it, can score
    nothing: it is left out, and the card says so.

    Raises:
        TuneTrailError: Unreadable source, missing column, or a label outside the declared set.
    """
    source = read_source(task.source)
    parts, left_out = [], []
    with scratch() as unpacked:
        content = source.fetch(unpacked)
        for split, path in _files(content, task).items():
            rows = read_table(path, task.format)
            if split in {"validation", "test"} and _unlabelled(rows, task):
                left_out.append(f"{split} ({len(rows)} rows, none has a label)")
            else:
                parts.append(_canonical(rows, task, split, path.name))
    frame = pd.concat(parts, ignore_index=True)
    with replacing(out) as folder:
        frame.to_parquet(folder / DATA, index=False)
        write_json(folder / TASK, task.model_dump(mode="json"))
        origin = source.provenance()
        if left_out:
            origin |= {"left out": "; ".join(left_out)}
        write_json(folder / CARD, _card(task, frame, origin, folder / DATA))


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
        data = [p for p in sorted(content.iterdir()) if p.suffix.lower() in READERS]
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
            f"task '{task.name}': no data files in '{content}' (a folder)",
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


def _canonical(frame: pd.DataFrame, task: TaskSpec, split: str, file: str) -> pd.DataFrame:
    if frame.empty:
        raise TuneTrailError(
            f"task '{task.name}': '{file}' has no rows", "add rows, or remove the file"
        )
    _check_columns(frame, task, file)
    prefix = "" if split == "all" else f"{split}-"
    ids = _ids(frame, task, file)
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
    out["label"] = _labels(frame, task, file)
    return out


def _check_columns(frame: pd.DataFrame, task: TaskSpec, file: str) -> None:
    """Every declared column is there once, and texts are texts."""
    where = f"task '{task.name}': {file}"
    names = [str(name) for name in frame.columns]
    for role, column in task.columns.model_dump().items():
        if column is None:
            continue
        if column not in names:
            error = unknown("column", column, names, where)
            padded = next((n for n in names if n.strip() == column), None)
            fix = f"the file calls it {padded!r}: remove the blanks there; " if padded else ""
            raise TuneTrailError(f"{error.problem} (columns.{role})", fix + error.fix)
        if names.count(column) > 1:
            raise TuneTrailError(
                f"{where}: {names.count(column)} columns are called '{column}' (columns.{role})",
                "rename one of them",
            )
    for column in filter(None, (task.columns.text, task.columns.text_pair)):
        odd = frame[column].map(lambda value: not isinstance(value, str)) & frame[column].notna()
        if odd.any():
            row = _first(odd)
            value = frame[column].iloc[row]
            raise TuneTrailError(
                f"{where}: column '{column}': row {row + 1} is {str(value)[:80]!r} "
                f"({type(value).__name__}), not a text",
                "name the column of the texts in 'columns.text', or write them as text",
            )


def _ids(frame: pd.DataFrame, task: TaskSpec, file: str) -> pd.Series:
    """The name of every row."""
    if task.columns.id is None:
        return pd.Series(range(len(frame)))
    ids: pd.Series = frame[task.columns.id]
    where = f"task '{task.name}': {file}: column '{task.columns.id}'"
    absent = ids.isna() | (ids.astype(str).str.strip() == "")
    if absent.any():
        raise TuneTrailError(
            f"{where}: row {_first(absent) + 1} has no id", "give it one, or remove 'columns.id'"
        )
    repeated = ids.duplicated(keep=False)
    if repeated.any():
        one = ids.iloc[_first(repeated)]
        rows = ", ".join(str(i + 1) for i in np.flatnonzero((ids == one).to_numpy())[:3])
        raise TuneTrailError(
            f"{where}: {str(one)!r} is the id of rows {rows}; {int(repeated.sum())} of {len(ids)} "
            "rows share theirs with another",
            "give every row its own, or remove 'columns.id' (rows are then counted); rows that "
            "belong together are a 'columns.group'",
        )
    return ids


def _first(flags: pd.Series) -> int:
    """The place of the first row that is flagged."""
    return int(np.flatnonzero(flags.to_numpy())[0])


def _unlabelled(frame: pd.DataFrame, task: TaskSpec) -> bool:
    """Whether no row has a label: all are missing or blank, or all are -1, where that is none."""
    if frame.empty or list(frame.columns).count(task.columns.label) != 1:
        return False
    given = {_plain(value) for value in frame[task.columns.label].dropna().unique()}
    low, high = task.range or (0.0, 0.0)
    none = {""} if low <= -1 <= high else {"-1", ""}
    return given <= none - set(task.labels)


def _text_key(frame: pd.DataFrame, task: TaskSpec) -> np.ndarray:
    parts = [frame[c] for c in (task.columns.text, task.columns.text_pair) if c]
    key = parts[0].fillna("").astype(str)
    for part in parts[1:]:
        key = key + "\x1f" + part.fillna("").astype(str)
    keys: np.ndarray = key.to_numpy(dtype=object)
    return keys


def _labels(frame: pd.DataFrame, task: TaskSpec, file: str) -> pd.Series:
    """Class indices or numbers; a missing label stays missing: the validate stage's business."""
    column = frame[task.columns.label]
    where = f"task '{task.name}': {file}: column '{task.columns.label}'"
    if task.bins is not None or task.range is not None:
        numbers = pd.to_numeric(column, errors="coerce").astype("Float64")
        bad = ~np.isfinite(numbers.to_numpy("float64", na_value=np.nan)) & column.notna()
        if bad.any():
            row = _first(bad)
            raise TuneTrailError(
                f"{where}: row {row + 1} is {column.iloc[row]!r}, not a number",
                "correct the row; if the column holds class names, give 'labels' without 'bins'",
            )
        if task.range is not None:
            low, high = task.range
            outside = (numbers < low) | (numbers > high)
            if outside.any():
                row = _first(outside)
                raise TuneTrailError(
                    f"{where}: row {row + 1} is {column.iloc[row]}: {int(outside.sum())} of "
                    f"{len(column)} rows are outside the range {low:g} to {high:g}",
                    "correct the data or 'range'",
                )
            return pd.Series(numbers.to_numpy(dtype="float64", na_value=np.nan)).astype("Float64")
        binned = pd.Series(np.digitize(numbers.fillna(0.0), task.bins or ())).astype("Int64")
        return binned.mask(numbers.isna().to_numpy())
    names = {name: i for i, name in enumerate(task.labels)}
    mapped = _mapped(column, names)
    if mapped.isna().all():
        # Class indices instead of names, as public benchmarks publish them.
        mapped = _mapped(column, {str(i): i for i in range(len(task.labels))})
    bad = mapped.isna() & column.notna()
    if bad.any():
        row = _first(bad)
        error = unknown("label", str(column.iloc[row]), task.labels, f"{where}, row {row + 1}")
        raise TuneTrailError(
            f"{error.problem}: {int(bad.sum())} of {len(column)} rows are outside the declared set",
            f"{_label_hint(frame, bad, task)}{error.fix}; correct the data or 'labels'",
        )
    return pd.Series(mapped.to_numpy()).astype("Int64")


def _mapped(column: pd.Series, index: dict[str, int]) -> pd.Series:
    """Indices of labels; missing where there is none."""
    return column.astype("object").map(
        lambda value: index.get(str(value), index.get(_plain(value))), na_action="ignore"
    )


def _plain(value: Any) -> str:
    """A label as text; 1.0 and 1 are the same class."""
    return re.sub(r"^(-?\d+)\.0+$", r"\1", str(value))


def _label_hint(frame: pd.DataFrame, bad: pd.Series, task: TaskSpec) -> str:
    """What is probably wrong with labels outside the declared set; empty if nobody can tell."""
    outside = frame.loc[bad.to_numpy(), task.columns.label].astype(str)
    value, distinct = str(outside.iloc[0]), outside.nunique()
    folded = {name.casefold(): name for name in task.labels}
    for name, column in frame.items():
        if name != task.columns.label and column.isin(task.labels).all():
            swapped = " 'columns.text' and" if name == task.columns.text else ""
            return f"'{name}' holds the labels: correct{swapped} 'columns.label'; "
    if value.strip().casefold() in _MISSING:
        return "give these rows a label, or remove them; "
    if value == task.columns.label:
        return "this row repeats the header: remove it; "
    if value.strip() in task.labels:
        return "labels count as they are written: remove the blanks around it; "
    if value.casefold() in folded:
        return f"case counts: write it '{folded[value.casefold()]}', as declared; "
    if outside.str.fullmatch(r"\d+").all():
        last = len(task.labels) - 1
        return f"numbers stand for the labels from 0 to {last}; declare them if they are names; "
    if distinct > max(20, len(task.labels)):
        return (
            f"there are {distinct} different ones: name another column, or cut numbers by 'bins'; "
        )
    return ""
