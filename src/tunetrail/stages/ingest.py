"""ingest: any source to one canonical Parquet file and a dataset card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tunetrail.errors import TuneTrailError, unknown
from tunetrail.files import file_digest, replacing, scratch, write_json
from tunetrail.kinds import first, kind_of
from tunetrail.layout import CARD, DATA, TASK
from tunetrail.sources import read_source
from tunetrail.tables import READERS, read_table
from tunetrail.task import TaskSpec, built_in_tasks

_SPLITS = ("train", "validation", "test")


def ingest(task: TaskSpec, out: Path) -> None:
    """Write ``data.parquet``, ``card.json`` and the frozen ``task.json`` to ``out``.

    Canonical columns: ``id``, ``group``, ``split`` (train, validation, test; null where the data
    has no split), ``text``, ``text_pair`` (null for single texts), ``label`` (class index, a
    number, or answers as JSON) and, where the task names its column, ``domain``.

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
        **kind_of(task).card(frame["label"]),
        "characters": {
            "median": float(frame["text"].fillna("").str.len().median()),
            "longest": int(frame["text"].fillna("").str.len().max()),
        },
    }


def _files(content: Path, task: TaskSpec) -> dict[str, Path]:
    """Split (or ``all``) → file."""
    found: dict[str, Path]
    if task.files is not None:
        found = {split: _named(content, name) for split, name in task.files.items()}
        for split, path in found.items():
            if not path.is_file():
                raise TuneTrailError(
                    f"task '{task.name}': files.{split} '{path.name}' is not in the source",
                    "correct 'files'"
                    + (
                        ", which the built-in task has; a task of your own needs another name"
                        if task.name in built_in_tasks()
                        else ""
                    ),
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


def _named(content: Path, name: str) -> Path:
    """The file, or where there is none of that name the one with that and a known ending."""
    path = content / name
    endings = (path.with_name(path.name + ending) for ending in READERS)
    return path if path.is_file() else next((p for p in endings if p.is_file()), path)


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
    if task.columns.domain:
        out["domain"] = frame[task.columns.domain].to_numpy(dtype=object)
    for column in out.columns:
        out[column] = out[column].astype("str")
    where = f"task '{task.name}': {file}: column '{task.columns.label}'"
    out["label"] = kind_of(task).encode(
        frame, task.columns.label, where, task.columns.text, task.bins
    )
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
            row = first(odd)
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
            f"{where}: row {first(absent) + 1} has no id", "give it one, or remove 'columns.id'"
        )
    repeated = ids.duplicated(keep=False)
    if repeated.any():
        one = ids.iloc[first(repeated)]
        rows = ", ".join(str(i + 1) for i in np.flatnonzero((ids == one).to_numpy())[:3])
        raise TuneTrailError(
            f"{where}: {str(one)!r} is the id of rows {rows}; {int(repeated.sum())} of {len(ids)} "
            "rows share theirs with another",
            "give every row its own, or remove 'columns.id' (rows are then counted); rows that "
            "belong together are a 'columns.group'",
        )
    return ids


def _unlabelled(frame: pd.DataFrame, task: TaskSpec) -> bool:
    """Whether no row of a file has a label."""
    if frame.empty or list(frame.columns).count(task.columns.label) != 1:
        return False
    return kind_of(task).unlabelled(frame[task.columns.label])


def _text_key(frame: pd.DataFrame, task: TaskSpec) -> np.ndarray:
    columns = task.columns.model_dump()
    parts = [frame[columns[role]] for role in kind_of(task).grouped_by if columns[role]]
    key = parts[0].fillna("").astype(str)
    for part in parts[1:]:
        key = key + "\x1f" + part.fillna("").astype(str)
    keys: np.ndarray = key.to_numpy(dtype=object)
    return keys
