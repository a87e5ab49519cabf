"""The rows and columns of a leaderboard, as text and as what they are sorted by."""

from __future__ import annotations

from tunetrail.report import text
from tunetrail.report.page import Cell
from tunetrail.report.style import styles
from tunetrail.report.text import ABSENT, Json
from tunetrail.verdicts.costs import run_seconds

_NONE = Cell(ABSENT)
_OUTCOMES = ("lose", "open", "open, not worse", "tie", "win")  # as they are sorted


def leaderboard(task: Json, costs: Json, baseline: str) -> Json:
    """Columns in groups and one row a method, ordered by mean test score of the primary metric.

    Args:
        task: One task of the comparison.
        costs: That task's costs, by label.
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
        ("Cost", ["trainable parameters", "time of a run"]),
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
                cost_cells(costs.get(label), costs.get(unit or ""), text.at_most(task)),
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
    outcome = text.outcome(record)
    return [
        Cell(text.signed(record["difference"]), sub, record["difference"]),
        Cell(
            outcome,
            text.short_needs(record),
            _OUTCOMES.index(outcome),
            badge={"win": "good", "lose": "bad"}.get(outcome, ""),
        ),
    ]


def cost_cells(cost: Json | None, unit: Json | None, at_most: bool) -> list[Cell]:
    """Trainable parameters with their share, and the time of a run in units of another one.

    Args:
        cost: What the cost stage wrote.
        unit: The same of the method whose time is 1.
        at_most: Whether runs may end earlier.
    """
    if cost is None or unit is None:
        return [_NONE] * 2
    trainable, total, training, pretraining = (
        cost[key]
        for key in ("trainable_parameters", "total_parameters", "train_seconds", "pretrain_seconds")
    )
    told = "at most " * at_most + text.seconds(training)
    told += f" + {text.seconds(pretraining)} pretraining" if pretraining else ""
    seconds = run_seconds(cost)
    return [
        Cell(text.count(trainable), f"{text.share(trainable, total)} of total", trainable),
        Cell(text.ratio(seconds, run_seconds(unit)), told, seconds),
    ]
