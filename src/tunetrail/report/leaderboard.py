"""The rows and columns of a leaderboard, as text and as what they are sorted by."""

from __future__ import annotations

from tunetrail.report import text
from tunetrail.report.page import Cell
from tunetrail.report.style import styles
from tunetrail.report.text import ABSENT, Json

_NONE = Cell(ABSENT)
_OUTCOMES = ("lose", "open", "tie", "win")  # as they are sorted


def leaderboard(task: Json, costs: Json, certificates: Json, baseline: str) -> Json:
    """Columns in groups and one row a method, ordered by mean test score of the primary metric.

    Args:
        task: One task of the comparison.
        costs: That task's costs, by label.
        certificates: That task's certificates, by label.
        baseline: See ``text.reference``.

    Returns:
        ``groups``: (title, column titles); ``unit``: title of the method whose training time is 1,
        or None; ``order``: how the rows run by the primary metric, as ``aria-sort`` has it;
        ``rows``: label, title, look, whether it was chosen, and the cells of every group;
        ``majority``: cells of the majority class.
    """
    names, look = text.titles(task), styles(list(task["methods"]))
    unit = text.reference(task, costs, baseline)
    metrics = [task["metric_titles"][metric] for metric in task["metrics"]]
    judged = bool(task["verdicts"])
    against = [(f"Against {names[baseline]}", ["difference", "verdict"])] if judged else []
    groups = [
        ("Test score", [*metrics, "seeds", "group"]),
        *against,
        ("Size", ["trainable parameters", "artifact"]),
        ("Training", ["samples/s", "time of a run", "peak memory"]),
        ("ONNX export", ["largest logit difference", "flipped predictions"]),
        ("p50 latency, ms", ["ONNX", "torch"]),
    ]
    order = text.ranked(task)
    rows = [
        {
            "label": label,
            "title": names[label],
            "look": look[label],
            "chosen": label == task["winner"]["method"],
            "groups": [
                _quality(task, label),
                *([_verdict(task["verdicts"].get(label))] if judged else []),
                *_cost(costs.get(label), costs[unit]["train_seconds"] if unit else None),
                *_export(certificates.get(label)),
            ],
        }
        for label in order
    ]
    means = [task["methods"][label]["summary"][task["primary"]]["mean"] for label in order]
    return {
        "groups": groups,
        "unit": names[unit] if unit else None,
        "order": "descending" if means == sorted(means, reverse=True) else "ascending",
        "rows": rows,
        "majority": [text.score(task["majority"][metric]) for metric in task["metrics"]],
    }


def _quality(task: Json, label: str) -> list[Cell]:
    summary = task["methods"][label]["summary"]
    count = summary[task["primary"]]["count"]
    return [
        *(
            Cell(text.spread(summary[m]), text.interval(summary[m]), summary[m]["mean"])
            for m in task["metrics"]
        ),
        Cell(str(count), value=count),
        Cell(task["letters"][label], value=list(task["letters"]).index(label)),
    ]


def _verdict(record: Json | None) -> list[Cell]:
    if record is None:
        return [_NONE, Cell("baseline", value=_OUTCOMES.index("tie"))]
    sub = "" if record["low"] is None else text.difference(record).partition(" ")[2]
    outcome = record["outcome"]
    return [
        Cell(text.signed(record["difference"]), sub, record["difference"]),
        Cell(
            outcome,
            text.short_needs(record),
            _OUTCOMES.index(outcome),
            badge={"win": "good", "lose": "bad"}.get(outcome, ""),
        ),
    ]


def _cost(cost: Json | None, unit_seconds: float | None) -> tuple[list[Cell], list[Cell]]:
    if cost is None or unit_seconds is None:
        return [_NONE] * 2, [_NONE] * 3
    trainable, total, seconds = (
        cost[key] for key in ("trainable_parameters", "total_parameters", "train_seconds")
    )
    size = [
        Cell(text.count(trainable), f"{text.share(trainable, total)} of total", trainable),
        Cell(text.size(cost["artifact_bytes"]), value=cost["artifact_bytes"]),
    ]
    speed, memory = cost["samples_per_second"], cost["peak_memory_bytes"]
    training = [
        Cell(text.three_digits(speed), value=speed),
        Cell(text.ratio(seconds, unit_seconds), text.seconds(seconds), seconds),
        Cell(text.size(memory), value=memory),
    ]
    return size, training


def _export(certificate: Json | None) -> tuple[list[Cell], list[Cell]]:
    if certificate is None:
        return [_NONE] * 2, [_NONE] * 2
    difference, flips = certificate["largest_logit_difference"], certificate["prediction_flips"]
    proof = [
        Cell(text.small(difference), "passed" if certificate["passed"] else "failed", difference),
        Cell(text.count(flips), f"of {text.count(certificate['rows'])}", flips),
    ]
    latency = certificate.get("latency")
    if not latency:
        return proof, [_NONE] * 2
    speeds = (latency[f"{side}_p50_ms"] for side in ("onnx", "torch"))
    return proof, [Cell(text.three_digits(speed), value=speed) for speed in speeds]
