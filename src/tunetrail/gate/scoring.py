"""What two served models predict on the gate's rows, and how fast."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from tunetrail.files import read_json
from tunetrail.gate.decision import Served, decide
from tunetrail.gate.policy import Gate
from tunetrail.kinds import kind_of
from tunetrail.layout import CARD, DATA
from tunetrail.task import read_task

_REPEATS = 30


@dataclass(frozen=True)
class Opened:
    """A model that can be asked.

    Attributes:
        version: Its version in the registry.
        predict: What is asked (``Kind.asked``) → output, a row each.
        size_bytes: Of its ONNX file.
    """

    version: str
    predict: Callable[[pd.DataFrame], pd.DataFrame]
    size_bytes: int


def judge(gate_set: Path, champion: Opened, challenger: Opened, policy: Gate) -> dict[str, Any]:
    """Ask both models and decide (:func:`decision.decide`).

    Args:
        gate_set: What the gate_set stage wrote, with rows in it.
        champion: What serves now.
        challenger: What may replace it.
        policy: Margin and limits.
    """
    task, card = read_task(gate_set), read_json(gate_set / CARD)
    frame = pd.read_parquet(gate_set / DATA)
    rows = frame[frame["generation"] == card["generation"]].reset_index(drop=True)
    kind = kind_of(task)
    asked = kind.asked(rows)
    middle = rows["text"].str.len().rank(method="first").sub(len(rows) / 2).abs().idxmin()
    pair = (champion, challenger)
    predictions = [kind.served(model.predict(asked)) for model in pair]
    seconds: list[list[float]] = [[], []]
    for _ in range(_REPEATS):  # taking turns, so that what else the machine does meets both
        for model, found in zip(pair, seconds, strict=True):
            started = time.perf_counter()
            model.predict(asked.loc[[middle]])
            found.append(time.perf_counter() - started)
    old, new = (
        Served(model.version, predicted, statistics.median(took) * 1000, model.size_bytes)
        for model, predicted, took in zip(pair, predictions, seconds, strict=True)
    )
    found_ = {"gate_set": card["digest"], "generation": card["generation"]}
    return decide(rows, task, old, new, policy) | found_
