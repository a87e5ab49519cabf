"""What two served models predict on the gate's rows, and how fast."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from tunetrail.gate.decision import Served, decide
from tunetrail.gate.policy import Gate
from tunetrail.gate.rows import GateSet
from tunetrail.kinds import kind_of

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


def judge(gate_set: GateSet, champion: Opened, challenger: Opened, policy: Gate) -> dict[str, Any]:
    """Ask both models and decide (:func:`decision.decide`).

    Args:
        gate_set: The rows.
        champion: What serves now.
        challenger: What may replace it.
        policy: Margin and limits.
    """
    task, rows = gate_set.task, gate_set.rows
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
    return decide(rows, task, old, new, policy) | {
        "gate_set": gate_set.digest,
        "generation": gate_set.generation,
        "rows_gone": gate_set.gone,
    }
