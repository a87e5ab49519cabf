"""prepare: drop what validation found, split, cut to the limits, tokenise once for all runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pandas as pd

from tunetrail.errors import TuneTrailError
from tunetrail.files import file_digest, read_json, replacing, write_json
from tunetrail.layout import CARD, DATA, RESULT
from tunetrail.modeling.base import read_base
from tunetrail.splits import SETS, assign_sets, position
from tunetrail.task import TaskSpec, label_card, read_task

#: Characters that are tokenised at once, about: until then tokenizers keep what they cut off, in up
#: to 200 bytes a character.
_BATCH_CHARACTERS = 2_000_000


def prepare(canonical: Path, validated: Path, base: Path, max_length: int, out: Path) -> None:
    """Write ``out/fit`` (train.parquet, selection.parquet) and ``out/test`` (test.parquet).

    The two are separate outputs: training is given the first and cannot open the second.

    Args:
        canonical: What the ingest stage wrote.
        validated: What the validate stage wrote; its dropped rows are left out.
        base: What the base stage wrote.
        max_length: Tokens a text (or pair) is cut to.
        out: Folder of the two outputs.

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
    frame = pd.read_parquet(canonical / DATA)
    frame["set"] = assign_sets(frame, task)
    frame = frame[~frame["id"].isin(set(gate["dropped"]))]
    sets = {name: _limited(frame[frame["set"] == name], task, name) for name in SETS}
    _check_sets(sets, task)
    for folder, names in {"fit": ("train", "selection"), "test": ("test",)}.items():
        with replacing(out / folder) as target:
            cards = {}
            for name in names:
                tokens = _tokenise(sets[name], model, max_length)
                tokens.to_parquet(target / f"{name}.parquet", index=False)
                cards[name] = _card(tokens, task, max_length, target / f"{name}.parquet")
            write_json(target / CARD, {"task": task.name, "sets": cards})


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


def _tokenise(rows: pd.DataFrame, model: Path, max_length: int) -> pd.DataFrame:
    """Columns ``id``, ``label``, ``input_ids``, ``token_type_ids`` (zeros if there are none)."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import datasets
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model, local_files_only=True)
    paired = bool(rows["text_pair"].notna().any())

    def encode(batch: dict[str, list[Any]]) -> dict[str, list[list[int]]]:
        encoded = tokenizer(
            batch["text"],
            batch["text_pair"] if paired else None,
            truncation=True,
            max_length=max_length,
            return_token_type_ids=True,
        )
        return {name: encoded[name] for name in ("input_ids", "token_type_ids")}

    datasets.disable_progress_bars()
    columns = rows[["id", "label", "text", "text_pair"]].reset_index(drop=True)
    plain = "float64" if rows["label"].dtype == "Float64" else "int64"  # without room for missing
    source = datasets.Dataset.from_pandas(columns.astype({"label": plain}))
    texts = ["text", "text_pair"] if paired else ["text"]
    longest = max(1, *(int(rows[name].map(len, na_action="ignore").max()) for name in texts))
    size = max(1, min(1000, _BATCH_CHARACTERS // longest))
    encoded = source.map(
        encode, batched=True, batch_size=size, remove_columns=["text", "text_pair"]
    )
    frame: pd.DataFrame = encoded.to_pandas()
    return frame


def _card(tokens: pd.DataFrame, task: TaskSpec, max_length: int, path: Path) -> dict[str, Any]:
    lengths = tokens["input_ids"].map(len)
    return {
        "rows": len(tokens),
        **label_card(tokens["label"], task),
        "tokens": {"mean": round(float(lengths.mean()), 2), "longest": int(lengths.max())},
        "at_max_length": round(float((lengths == max_length).mean()), 4),
        "digest": file_digest(path),
    }
