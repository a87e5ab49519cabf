"""What methods cost and what is known of each pair of them: what a recommendation is made from."""

from __future__ import annotations

from typing import Any

from tunetrail.verdicts.recommend import Pair

_MEBIBYTE = 2**20

#: Costs by the names of their limits, in the order to show them.
COSTS = (
    "trainable_parameters",
    "train_seconds",
    "memory_mb",
    "artifact_mb",
    "model_mb",
    "latency_ms",
)


def run_seconds(cost: dict[str, Any]) -> float:
    """Seconds of one run from nothing: with the whole pretraining of what it starts from.

    Runs share a checkpoint, but a method that needs one is not had without making it.

    Args:
        cost: What the cost stage wrote.
    """
    return float(cost["train_seconds"] + cost["pretrain_seconds"])


def costs_of(cost: dict[str, Any] | None, certificate: dict[str, Any] | None) -> dict[str, float]:
    """What a method costs by name (:data:`COSTS`); what was not measured is left out.

    Args:
        cost: What the cost stage wrote, or None.
        certificate: Certificate of the exported model, or None.
    """
    costs: dict[str, float] = {}
    if cost:
        costs["trainable_parameters"] = cost["trainable_parameters"]
        costs["train_seconds"] = run_seconds(cost)
        costs["memory_mb"] = cost["peak_memory_bytes"] / _MEBIBYTE
        costs["artifact_mb"] = (cost["artifact_bytes"] + cost["checkpoint_bytes"]) / _MEBIBYTE
    if certificate:
        costs["model_mb"] = certificate["onnx_bytes"] / _MEBIBYTE
        if latency := certificate.get("latency"):
            costs["latency_ms"] = latency["onnx_p50_ms"]
    return costs


def known_pairs(task: dict[str, Any], baseline: str, margin: float) -> dict[tuple[str, str], Pair]:
    """Every pair of methods, in both directions, with what their interval says.

    Args:
        task: One task of the comparison.
        baseline: A label, or empty.
        margin: Difference, in raw units, that does not matter.
    """
    intervals = {
        (label, baseline): (record["low"], record["high"])
        for label, record in task["verdicts"].items()
    }
    intervals |= {tuple(pair["of"]): (pair["low"], pair["high"]) for pair in task["pairs"]}
    found = {}
    for (one, other), (low, high) in intervals.items():
        if low is not None:
            found[one, other] = Pair(low > 0, low > -margin)
            found[other, one] = Pair(high < 0, high < margin)
    return found
