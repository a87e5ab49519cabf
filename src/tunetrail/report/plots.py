"""Scores, differences to the baseline, and training loss. A method looks the same everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tunetrail.report.canvas import (
    cut_at_scores,
    key,
    mark,
    method_legend,
    name_rows,
    row,
    seed_tips,
    start,
    styled,
)
from tunetrail.report.style import INK, styles
from tunetrail.report.text import (
    Json,
    difference,
    interval,
    outcome,
    ranked,
    signed,
    spread,
    titles,
)
from tunetrail.report.text import score as shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@styled
def score_plot(task: Json) -> Figure:
    """Test scores of the primary metric: a row a method, its seeds, mean and 95 % t interval.

    Args:
        task: One task of the comparison.
    """
    from matplotlib.lines import Line2D

    metric, names, order = task["primary"], titles(task), ranked(task)
    look, score = styles(list(task["methods"])), f"test {task['metric_titles'][metric]}"
    figure, axes = start(f"{task['title']}: {score} of each method", 1.1 + 0.38 * len(order))
    for place, label in enumerate(order):
        entry = task["methods"][label]
        summary, runs = entry["summary"][metric], entry["runs"]
        told = f"{names[label]}: {spread(summary)} {interval(summary)}"
        found = [run["test"][metric] for run in runs]
        tips = seed_tips(names[label], [run["seed"] for run in runs], map(shown, found))
        whole = (summary["mean"], summary["low"], summary["high"])
        row(axes, place, label, look[label], whole, told, found, tips)
    axes.axvline(task["majority"][metric], color=INK, linestyle="--", linewidth=1)
    name_rows(axes, order, names, bold=task["winner"]["method"])
    cut_at_scores(axes, "x", task)
    axes.set_xlabel(score)
    constant = Line2D([], [], color=INK, linestyle="--", linewidth=1, label=task["majority_title"])
    handles = key("mean, 95% interval", constant)
    figure.legend(handles=handles, loc="outside upper left", ncols=3)
    return figure


@styled
def difference_plot(task: Json, comparison: Json) -> Figure:
    """Paired differences to the baseline: a row a method, its seeds, mean and deciding interval.

    Args:
        task: One task of the comparison, with verdicts.
        comparison: All of it, for the baseline and the margin, which is drawn as a band.
    """
    from matplotlib.patches import Patch

    verdicts, names, look = task["verdicts"], titles(task), styles(list(task["methods"]))
    metric, other = task["metric_titles"][task["primary"]], names[comparison["baseline"]]
    order = [label for label in ranked(task) if label in verdicts]
    title = f"{task['title']}: difference in test {metric} of each method to {other}"
    figure, axes = start(title, 1.1 + 0.38 * len(order))
    margin = comparison["margin"]
    axes.axvspan(-margin, margin, color=INK, alpha=0.1, linewidth=0)
    axes.axvline(0, color=INK, linewidth=1)
    for place, label in enumerate(order):
        record = verdicts[label]
        found = [entry["difference"] for entry in record["by_seed"]]
        seeds = [entry["seed"] for entry in record["by_seed"]]
        tips = seed_tips(names[label], seeds, map(signed, found))
        told = f"{names[label]}: {difference(record)}, {outcome(record)}"
        whole = (record["difference"], record["low"], record["high"])
        row(axes, place, label, look[label], whole, told, found, tips)
    name_rows(axes, order, names)
    axes.set_xlabel(f"test {metric}, difference to {other}")
    band = Patch(color=INK, alpha=0.1, linewidth=0, label=f"margin ±{margin:g}")
    figure.legend(handles=key("mean, interval", band), loc="outside upper left", ncols=3)
    return figure


@styled
def loss_plot(task: Json, histories: Sequence[Json]) -> Figure:
    """Training loss by step, a line a method: the mean over seeds, smoothed where it is long.

    Args:
        task: One task of the comparison, which fixes the colours.
        histories: ``label``, ``title``, ``seed`` and ``loss`` (``[[step, loss], …]``) of each run.
    """
    look, names = styles(list(task["methods"])), titles(task)
    losses: dict[str, dict[float, list[float]]] = {label: {} for label in task["methods"]}
    for history in histories:
        for step, loss in history["loss"]:
            losses[history["label"]].setdefault(step, []).append(loss)
    drawn = {label: sorted(by_step.items()) for label, by_step in losses.items() if by_step}
    window = max(1, max((len(line) for line in drawn.values()), default=0) // 20)
    figure, axes = start(f"{task['title']}: training loss of each method by step", 3.5)
    for label, line in drawn.items():
        means = _running_mean([sum(found) / len(found) for _, found in line], window)
        colour, _, dash = look[label]
        steps = [step for step, _ in line]
        curve = {"color": colour, "linestyle": dash, "linewidth": 1.5}
        lines = axes.plot(steps, means, label=names[label], **curve)
        mark(label, lines, tips=[[f"{names[label]}: {means[-1]:.3g} at step {steps[-1]:g}"]])
    axes.set_xlabel("optimiser step")
    axes.set_ylabel(f"training loss, running mean of {window}" if window > 1 else "training loss")
    axes.margins(x=0.01)
    axes.grid()
    method_legend(figure, {label: names[label] for label in drawn})
    return figure


def _running_mean(values: list[float], window: int) -> list[float]:
    """Means centred on each value; at the ends over what there is, so that no step is lost."""
    means = []
    for place in range(len(values)):
        near = values[max(0, place - window // 2) : place + (window + 1) // 2]
        means.append(sum(near) / len(near))
    return means
