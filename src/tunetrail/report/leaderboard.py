"""The rows and columns of a leaderboard, as text."""

from __future__ import annotations

from tunetrail.report import text
from tunetrail.report.style import styles
from tunetrail.report.text import ABSENT, Json

Cell = tuple[str, str]  # what is read first, and the smaller line below it


def leaderboard(task: Json, costs: Json, certificates: Json, baseline: str) -> Json:
    """Columns in groups and one row a method, ordered by mean test score of the primary metric.

    Args:
        task: One task of the comparison.
        costs: That task's costs, by label.
        certificates: That task's certificates, by label.
        baseline: See ``text.reference``.

    Returns:
        ``groups``: (title, column titles); ``rows``: label, title, colour, whether it was chosen,
        and the cells of every group; ``majority``: cells of the majority class.
    """
    names, look = text.titles(task), styles(list(task["methods"]))
    unit = text.reference(task, costs, baseline)
    relative = f", time relative to {names[unit]}" if unit else ""
    metrics = [task["metric_titles"][metric] for metric in task["metrics"]]
    groups = [
        ("Test score, mean ± std over seeds [95% interval]", [*metrics, "Seeds"]),
        ("Size", ["Trainable parameters", "Artifact"]),
        (f"Training{relative}", ["Samples/s", "Time of a run", "Peak memory"]),
        ("ONNX export", ["Largest logit difference", "Flipped predictions", "p50 latency"]),
    ]
    rows = [
        {
            "label": label,
            "title": names[label],
            "colour": look[label].colour,
            "chosen": label == task["winner"]["method"],
            "groups": [
                _quality(task, label),
                *_cost(costs.get(label), costs[unit]["train_seconds"] if unit else None),
                _export(certificates.get(label)),
            ],
        }
        for label in text.ranked(task)
    ]
    majority = [text.score(task["majority"][metric]) for metric in task["metrics"]]
    return {"groups": groups, "rows": rows, "majority": majority}


def _quality(task: Json, label: str) -> list[Cell]:
    summary = task["methods"][label]["summary"]
    cells = [(text.spread(summary[m]), text.interval(summary[m])) for m in task["metrics"]]
    return [*cells, (str(summary[task["primary"]]["count"]), "")]


def _cost(cost: Json | None, unit_seconds: float | None) -> tuple[list[Cell], list[Cell]]:
    if cost is None or unit_seconds is None:
        return [(ABSENT, "")] * 2, [(ABSENT, "")] * 3
    trainable, total = cost["trainable_parameters"], cost["total_parameters"]
    size = [
        (text.count(trainable), f"{text.share(trainable, total)} of total"),
        (text.size(cost["artifact_bytes"]), ""),
    ]
    training = [
        (text.three_digits(cost["samples_per_second"]), ""),
        (text.ratio(cost["train_seconds"], unit_seconds), text.seconds(cost["train_seconds"])),
        (text.size(cost["peak_memory_bytes"]), ""),
    ]
    return size, training


def _export(certificate: Json | None) -> list[Cell]:
    if certificate is None:
        return [(ABSENT, "")] * 3
    latency = certificate.get("latency")
    return [
        (
            text.small(certificate["largest_logit_difference"]),
            "passed" if certificate["passed"] else "failed",
        ),
        (text.count(certificate["prediction_flips"]), f"of {text.count(certificate['rows'])}"),
        (
            f"ORT {text.three_digits(latency['onnx_p50_ms'])} ms",
            f"torch {text.three_digits(latency['torch_p50_ms'])} ms",
        )
        if latency
        else (ABSENT, ""),
    ]
