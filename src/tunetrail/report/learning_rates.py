"""How scores depend on the learning rate, from the trials of the tuning stage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tunetrail.report.canvas import log_axis, mark, method_legend, start, styled
from tunetrail.report.page import Cell, table
from tunetrail.report.style import INK, styles
from tunetrail.report.text import ABSENT, Json, edge_sentence, plural, titles
from tunetrail.report.text import score as shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_RATE = "learning_rate"


def tuned(task: Json) -> dict[str, dict[str, Json]]:
    """Budget → label → what tuning of the learning rate found, in the order of the methods."""
    found: dict[str, dict[str, Json]] = {}
    for label in task["methods"]:
        for budget, record in task.get("tuning", {}).get(label, {}).items():
            if any(_RATE in trial["options"] for trial in record["trials"]):
                found.setdefault(budget, {})[label] = record
    return found


def in_words(task: Json, budget: str, records: dict[str, Json]) -> str:
    """How many trials there were, what was chosen, and which optima are on an edge.

    Args:
        task: One task of the comparison.
        budget: What the trials could use.
        records: Label → what tuning found (:func:`tuned`).
    """
    names = titles(task)
    parts = []
    for label, record in records.items():
        states = [trial["state"] for trial in record["trials"]]
        ended = [f"{states.count(s)} {s}" for s in ("pruned", "failed") if s in states]
        told = plural(len(states), "trial") + (f" ({', '.join(ended)})" if ended else "")
        if _RATE in record["chosen"]:
            told += f", {record['chosen'][_RATE]:.2g} chosen"
        parts.append(f"{names[label]}: {told}.")
    return " ".join(filter(None, [*parts, edge_sentence(task, budget)]))


@styled
def learning_rate_plot(task: Json, budget: str, records: dict[str, Json]) -> Figure:
    """Selection score over the learning rate: every trial, a line through the complete ones.

    Crosses are trials that were pruned, at the score they had reached; failed ones, and pruned
    ones without a score, stand at the lower edge. A ring marks what was chosen.

    Args:
        task: One task of the comparison.
        budget: What the trials could use.
        records: Label → what tuning found (:func:`tuned`).
    """
    from matplotlib.lines import Line2D

    names, look = titles(task), styles(list(task["methods"]))
    metric = next(iter(records.values()))["metric"]
    score = f"selection {task['metric_titles'].get(metric, metric)}"
    figure, axes = start(
        f"{task['title']}: {score} of each method by learning rate, budget {budget}", 3.9
    )
    lower = axes.get_xaxis_transform()
    for label, record in records.items():
        colour, marker, dash = look[label]
        trials = _by_rate(record)
        done = [t for t in trials if t["state"] == "complete" and t["score"] is not None]
        ended = [t for t in trials if t not in done]
        line: Json = {"color": colour, "linestyle": dash, "marker": marker, "markersize": 5}
        rates, scores = [t["options"][_RATE] for t in done], [t["score"] for t in done]
        drawn = axes.plot(rates, scores, linewidth=1.3, label=names[label], **line)
        tips = [[_tip(names[label], trial) for trial in done]]
        for trial in ended:
            at, reached = trial["options"][_RATE], trial["score"]
            cross: Json = {"color": colour, "marker": "x" if trial["state"] == "failed" else "+"}
            where: Json = {} if reached is not None else {"transform": lower, "clip_on": False}
            y = 0.02 if reached is None else reached
            drawn.append(axes.scatter([at], [y], s=30, linewidths=1.2, **cross, **where))
            tips.append([_tip(names[label], trial)])
        chosen = _chosen(record)
        if chosen is not None:
            spot = ([chosen["options"][_RATE]], [chosen["score"]])
            ring: Json = {"s": 110, "facecolors": "none", "edgecolors": colour, "linewidths": 1.4}
            drawn.append(axes.scatter(*spot, **ring))
            tips.append([f"{_tip(names[label], chosen)}, chosen"])
        mark(label, drawn, tips=tips)
    axes.margins(0.06, 0.12)
    log_axis(axes)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0e}".replace("e-0", "e-"))
    axes.set_xlabel("learning rate, logarithmic scale")
    axes.set_ylabel(score)
    axes.grid()
    mono: Json = {"color": INK, "linestyle": "none"}
    handles: list[Any] = [
        Line2D([], [], marker="o", markersize=9, markerfacecolor="none", label="chosen", **mono),
        Line2D([], [], marker="+", markersize=6, label="pruned", **mono),
        Line2D([], [], marker="x", markersize=5, label="failed", **mono),
    ]
    axes.legend(handles=handles, loc="best")
    method_legend(figure, {label: names[label] for label in records})
    return figure


def trials_table(task: Json, budget: str, records: dict[str, Json]) -> str:
    """The numbers of the figure: a row a trial.

    Args:
        task: One task of the comparison.
        budget: What the trials could use.
        records: Label → what tuning found (:func:`tuned`).
    """
    names = titles(task)
    metric = next(iter(records.values()))["metric"]
    rows, labels = [], []
    for label, record in records.items():
        chosen = _chosen(record)
        for trial in _by_rate(record):
            rate, reached = trial["options"][_RATE], trial["score"]
            rows.append(
                [
                    Cell(names[label]),
                    Cell(f"{rate:.2g}", value=rate),
                    Cell(ABSENT if reached is None else shown(reached), value=reached),
                    Cell("chosen" if trial is chosen else trial["state"]),
                ]
            )
            labels.append(label)
    return table(
        f"{task['title']}: trials by learning rate, budget {budget}",
        [
            "Method",
            "learning rate",
            f"selection {task['metric_titles'].get(metric, metric)}",
            "outcome",
        ],
        rows,
        numeric={1, 2},
        methods=labels,
    )


def _by_rate(record: Json) -> list[Json]:
    """Trials with a learning rate, from the lowest."""
    trials = [trial for trial in record["trials"] if _RATE in trial["options"]]
    return sorted(trials, key=lambda trial: float(trial["options"][_RATE]))


def _chosen(record: Json) -> Json | None:
    """The complete trial whose options were taken, if there is one."""
    for trial in _by_rate(record):
        complete = trial["state"] == "complete" and trial["score"] is not None
        if complete and trial["options"] == trial["options"] | record["chosen"]:
            return trial
    return None


def _tip(title: str, trial: Json) -> str:
    reached = "no score" if trial["score"] is None else shown(trial["score"])
    state = "" if trial["state"] == "complete" else f", {trial['state']}"
    return f"{title}, learning rate {trial['options'][_RATE]:.2g}: {reached}{state}"
