"""prepare: drop what validation found, split, cut to the limits, tokenise once for all runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pandas as pd

from tunetrail.errors import TuneTrailError
from tunetrail.files import file_digest, read_json, replacing, write_json
from tunetrail.kinds import Kind, kind_of
from tunetrail.layout import CARD, DATA, RESULT, TASK
from tunetrail.modeling.base import read_base
from tunetrail.run import TAPT
from tunetrail.splits import SETS, assign_sets, position
from tunetrail.task import TaskSpec, read_task

#: Characters that are tokenised at once, about: until then tokenizers keep what they cut off, in up
#: to 200 bytes a character.
_BATCH_CHARACTERS = 2_000_000


def prepare(canonical: Path, validated: Path, base: Path, max_length: int, out: Path) -> None:
    """Write ``out/fit`` (train.parquet, selection.parquet) and ``out/test`` (test.parquet).

    The two are separate outputs: training is given the first and cannot open the second.
    ``out/tapt/task.json`` is the frozen task, without data. The checkpoints that the task's text
    gives come to lie beside it: a stage can depend on all of them, and on none.

    Args:
        canonical: What the ingest stage wrote.
        validated: What the validate stage wrote; its dropped rows are left out.
        base: What the base stage wrote.
        max_length: Tokens a text (or pair) is cut to.
        out: Folder of the outputs.

    Raises:
        TuneTrailError: Validation did not pass, a set is empty, train has one class only, or the
            base model has fewer positions than ``max_length``.
    """
    task = read_task(canonical)
    gate = read_json(validated / RESULT)
    if not gate["passed"]:
        raise TuneTrailError(f"task '{task.name}' did not pass validation", "correct the data")
    model, card = read_base(base)
    if max_length > card["max_positions"]:
        raise TuneTrailError(
            f"base.max_length is {max_length}: the model has {card['max_positions']} positions",
            f"set base.max_length to at most {card['max_positions']}",
        )
    kind = kind_of(task)
    kind.check_base(card, max_length, task.name)
    frame = pd.read_parquet(canonical / DATA)
    frame["set"] = assign_sets(frame, task)
    frame = frame[~frame["id"].isin(set(gate["dropped"]))]
    sets = {name: _limited(frame[frame["set"] == name], task, name) for name in SETS}
    _check_sets(sets, task)
    for folder, names in {"fit": ("train", "selection"), "test": ("test",)}.items():
        with replacing(out / folder) as target:
            cards = {}
            for name in names:
                tokens = _tokenise(sets[name], kind, model, max_length)
                tokens.to_parquet(target / f"{name}.parquet", index=False)
                found = kind.card(sets[name]["label"])
                cards[name] = _card(tokens, found, max_length, target / f"{name}.parquet")
            write_json(target / CARD, {"task": task.name, "sets": cards})
    write_json(out / TAPT / TASK, task.model_dump(mode="json"))


def _limited(rows: pd.DataFrame, task: TaskSpec, name: str) -> pd.DataFrame:
    """At most the limit, in an order that new rows do not disturb; smaller limits are subsets."""
    limit: int | None = getattr(task.limits, name)
    order = rows["id"].map(lambda i: position(str(i), "order")).sort_values(kind="stable").index
    return rows.loc[order[:limit]]


def _check_sets(sets: dict[str, pd.DataFrame], task: TaskSpec) -> None:
    for name, rows in sets.items():
        if rows.empty:
            raise TuneTrailError(
                f"task '{task.name}': the {name} set is empty",
                "add rows, or change the task's 'split' and 'limits'",
            )
    present = sets["train"]["label"].unique()
    if len(present) < 2:
        only = task.labels[int(present[0])] if task.labels else present[0]
        raise TuneTrailError(
            f"task '{task.name}': all {len(sets['train'])} training rows have the label '{only}'",
            "training needs at least two different labels: add rows, or raise limits.train",
        )


def _tokenise(rows: pd.DataFrame, kind: Kind, model: Path, max_length: int) -> pd.DataFrame:
    """Columns ``id``, ``label``, ``input_ids``, ``token_type_ids`` (zeros if there are none), and
    what else the kind of task needs.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import datasets
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model, local_files_only=True)
    paired = bool(rows["text_pair"].notna().any())

    def encode(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        return kind.tokens(batch, tokenizer, max_length)

    datasets.disable_progress_bars()
    columns = rows[["id", "label", "text", "text_pair"]].reset_index(drop=True)
    plain = {"Float64": "float64", "Int64": "int64"}  # without room for missing ones
    label = str(rows["label"].dtype)
    source = datasets.Dataset.from_pandas(columns.astype({"label": plain.get(label, label)}))
    texts = ["text", "text_pair"] if paired else ["text"]
    longest = max(1, *(int(rows[name].map(len, na_action="ignore").max()) for name in texts))
    size = max(1, min(1000, _BATCH_CHARACTERS // longest))
    encoded = source.map(encode, batched=True, batch_size=size, remove_columns=source.column_names)
    frame: pd.DataFrame = encoded.to_pandas()
    return frame


def _card(
    tokens: pd.DataFrame, labels: dict[str, Any], max_length: int, path: Path
) -> dict[str, Any]:
    lengths = tokens["input_ids"].map(len)
    rows = tokens["id"].nunique()
    return {
        "rows": rows,
        **({"windows": len(tokens)} if rows < len(tokens) else {}),
        **labels,
        "tokens": {"mean": round(float(lengths.sum()) / rows, 2), "longest": int(lengths.max())},
        "at_max_length": round(float((lengths == max_length).mean()), 4),
        "digest": file_digest(path),
    }
