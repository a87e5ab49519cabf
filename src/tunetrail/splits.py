"""Which set a row belongs to: stable under new rows, so that none ever moves."""

from __future__ import annotations

import hashlib

import pandas as pd

from tunetrail.task import TaskSpec

SETS = ("train", "selection", "test")

#: Kept out of all of these, to decide between a champion and its challenger.
GATE = "gate"


def position(key: str, salt: str) -> float:
    """A number in [0, 1) that depends on ``key`` and ``salt`` alone."""
    raw = hashlib.sha256(f"{salt}\x1f{key}".encode()).digest()[:8]
    return int.from_bytes(raw, "big") / 2**64


def assign_sets(frame: pd.DataFrame, task: TaskSpec) -> pd.Series:
    """train, selection, test or gate for each row of canonical data.

    With validation and test in the data, validation is selection. With one of them, it is test and
    selection is drawn from train. With neither, both are drawn. The gate's share is drawn first,
    from what the data does not give to another set. Draws are by group, and independent: those of
    the others are not moved by it.
    """
    given = set(frame["split"].dropna())
    names = {"train": "train", "validation": "selection", "test": "test"}
    if "validation" in given and "test" not in given:
        names["validation"] = "test"
    sets = frame["split"].map(names).astype("object")
    drawn = frame["group"].map(lambda g: position(str(g), "split"))
    free = sets.isna() | (sets == "train")
    if task.split.gate:
        kept_out = frame["group"].map(lambda g: position(str(g), "gate"))
        sets[free & (kept_out < task.split.gate)] = GATE
        free &= sets != GATE
    if not given & {"validation", "test"}:
        in_test = free & (drawn < task.split.test)
        sets[in_test] = "test"
        free &= ~in_test
    if not {"validation", "test"} <= given:
        # A second, independent draw, so that the selection share is of what is not test.
        again = frame["group"].map(lambda g: position(str(g), "selection"))
        sets[free & (again < task.split.selection)] = "selection"
    return sets.fillna("train")


def text_keys(frame: pd.DataFrame) -> pd.Series:
    """What makes two rows the same text: both texts, without surrounding or repeated blanks."""

    def plain(column: pd.Series) -> pd.Series:
        return column.fillna("").astype(str).str.split().str.join(" ")

    return plain(frame["text"]) + "\x1f" + plain(frame["text_pair"])
