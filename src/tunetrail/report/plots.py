"""Figures of a comparison. Every method keeps its colour and marker in all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any, Literal, ParamSpec

from tunetrail.report.labels import place_labels
from tunetrail.report.output import inline_svg, save
from tunetrail.report.style import INK, METHOD, SETTINGS, styles
from tunetrail.report.text import Json, ranked, short_count, titles

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "budget_plot",
    "difference_plot",
    "inline_svg",
    "loss_plot",
    "save",
    "score_plot",
    "tradeoff_plot",
]

#: What a budget may differ in → title of the axis.
_BUDGET_AXES = {
    "fraction": "share of the training rows",
    "shots": "training rows of each class",
    "epochs": "epochs",
    "steps": "optimiser steps",
    "minutes": "minutes of training",
}

_P = ParamSpec("_P")
_WIDTH = 4.8  # inches, so that 9 points are still readable when a phone scales the figure down
_SEED = {"s": 18, "facecolors": "none", "linewidths": 1}
_MEAN = {"s": 42, "zorder": 3, "linewidths": 0}
_COSTS = {
    "trainable parameters": ("trainable_parameters", "log"),
    "training seconds": ("train_seconds", "linear"),
}


def _styled(draw: Callable[_P, Figure]) -> Callable[_P, Figure]:
    """Matplotlib's defaults are read whenever a part is made, so they hold for a whole figure."""

    @wraps(draw)
    def styled(*args: _P.args, **kwargs: _P.kwargs) -> Figure:
        import matplotlib

        with matplotlib.rc_context(SETTINGS):
            return draw(*args, **kwargs)

    return styled


@_styled
def score_plot(task: Json) -> Figure:
    """Test scores of the primary metric: a row a method, its seeds, mean and 95 % t interval.

    Args:
        task: One task of the comparison.
    """
    metric, names, order = task["primary"], titles(task), ranked(task)
    look, score = styles(list(task["methods"])), f"test {task['metric_titles'][metric]}"
    figure, axes = _start(f"{task['title']}: {score} of each method", 1.1 + 0.38 * len(order))
    for row, label in enumerate(order):
        entry, (colour, marker, _) = task["methods"][label], look[label]
        scores = [run["test"][metric] for run in entry["runs"]]
        # Below the interval and a little apart, so that equal scores of two seeds both show.
        heights = [row + 0.2 + 0.16 * i / max(len(scores) - 1, 1) for i in range(len(scores))]
        drawn = [axes.scatter(scores, heights, edgecolors=colour, **_SEED)]
        summary = entry["summary"][metric]
        if summary["low"] is not None:
            ends = [summary["low"], summary["high"]]
            drawn += axes.plot(ends, [row, row], color=colour, linewidth=1.8)
        drawn.append(axes.scatter([summary["mean"]], [row], color=colour, marker=marker, **_MEAN))
        _mark(label, drawn)
    axes.axvline(task["majority"][metric], color=INK, linestyle="--", linewidth=1)
    axes.set_yticks(range(len(order)), [names[label] for label in order])
    for tick, label in zip(axes.get_yticklabels(), order, strict=True):
        tick.set_fontweight("bold" if label == task["winner"]["method"] else "normal")
        _mark(label, [tick], "name")
    axes.set_ylim(len(order) - 0.4, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    axes.set_xlabel(score)
    figure.legend(handles=_score_key(task["majority_title"]), loc="outside upper left", ncols=3)
    return figure


def _score_key(constant: str) -> list[Any]:
    from matplotlib.lines import Line2D

    dot: dict[str, Any] = {"marker": "o", "color": INK}
    ring = dot | {"markersize": 4, "markerfacecolor": "none", "linestyle": "none"}
    return [
        Line2D([], [], label="one seed", **ring),
        Line2D([], [], markersize=6, linewidth=1.8, label="mean, 95% interval", **dot),
        Line2D([], [], color=INK, linestyle="--", linewidth=1, label=constant),
    ]


@_styled
def difference_plot(task: Json, comparison: Json) -> Figure:
    """Paired differences to the baseline: a row a method, its seeds, mean and deciding interval.

    Args:
        task: One task of the comparison, with verdicts.
        comparison: All of it, for the baseline and the margin, which is drawn as a band.
    """
    verdicts, names, look = task["verdicts"], titles(task), styles(list(task["methods"]))
    metric, other = task["metric_titles"][task["primary"]], names[comparison["baseline"]]
    order = [label for label in ranked(task) if label in verdicts]
    title = f"{task['title']}: difference in test {metric} of each method to {other}"
    figure, axes = _start(title, 1.1 + 0.38 * len(order))
    margin = comparison["margin"]
    axes.axvspan(-margin, margin, color=INK, alpha=0.1, linewidth=0)
    axes.axvline(0, color=INK, linewidth=1)
    for row, label in enumerate(order):
        record, (colour, marker, _) = verdicts[label], look[label]
        found = [entry["difference"] for entry in record["by_seed"]]
        heights = [row + 0.2 + 0.16 * i / max(len(found) - 1, 1) for i in range(len(found))]
        drawn = [axes.scatter(found, heights, edgecolors=colour, **_SEED)]
        if record["low"] is not None:
            ends = [record["low"], record["high"]]
            drawn += axes.plot(ends, [row, row], color=colour, linewidth=1.8)
        drawn.append(
            axes.scatter([record["difference"]], [row], color=colour, marker=marker, **_MEAN)
        )
        _mark(label, drawn)
    axes.set_yticks(range(len(order)), [names[label] for label in order])
    for tick, label in zip(axes.get_yticklabels(), order, strict=True):
        _mark(label, [tick], "name")
    axes.set_ylim(len(order) - 0.4, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    axes.set_xlabel(f"test {metric}, difference to {other}")
    figure.legend(handles=_difference_key(margin), loc="outside upper left", ncols=3)
    return figure


def _difference_key(margin: float) -> list[Any]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    dot: dict[str, Any] = {"marker": "o", "color": INK}
    ring = dot | {"markersize": 4, "markerfacecolor": "none", "linestyle": "none"}
    return [
        Line2D([], [], label="one seed", **ring),
        Line2D([], [], markersize=6, linewidth=1.8, label="mean, interval", **dot),
        Patch(color=INK, alpha=0.1, linewidth=0, label=f"margin ±{margin:g}"),
    ]


@_styled
def tradeoff_plot(
    task: Json,
    costs: Json,
    x: Literal["trainable parameters", "training seconds"] = "trainable parameters",
) -> Figure:
    """Test score of the primary metric over a cost: every seed as a ring, means with names.

    Args:
        task: One task of the comparison.
        costs: That task's costs, by label; a method without costs is left out.
        x: The horizontal axis; parameters are on a logarithmic scale.
    """
    from matplotlib.ticker import FuncFormatter

    (key, scale), metric = _COSTS[x], task["primary"]
    names, look = titles(task), styles(list(task["methods"]))
    score = f"test {task['metric_titles'][metric]}"
    figure, axes = _start(f"{task['title']}: {score} over {x}", 3.5)
    shown = [label for label in ranked(task) if label in costs]
    seeds, means = [], []
    for label in shown:
        entry, (colour, marker, _), at = task["methods"][label], look[label], costs[label][key]
        scores = [run["test"][metric] for run in entry["runs"]]
        means.append((at, entry["summary"][metric]["mean"]))
        rings = axes.scatter([at] * len(scores), scores, edgecolors=colour, **_SEED)
        _mark(label, [rings, axes.scatter(*means[-1], color=colour, marker=marker, **_MEAN)])
        seeds += [(at, score) for score in scores]
    axes.set_xscale(scale)
    axes.margins(0.1, 0.12)
    if scale == "log":
        _log_ticks(axes)
    else:
        axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_count(value)))
    axes.grid()
    axes.set_xlabel(f"{x}, logarithmic scale" if scale == "log" else f"{x} of one run")
    axes.set_ylabel(score)
    colours = [look[label].colour for label in shown]
    texts, marks = [names[label] for label in shown], [f"{METHOD}{label}" for label in shown]
    place_labels(figure, axes, means, texts, colours, seeds, marks)
    return figure


def _log_ticks(axes: Any) -> None:
    """Ticks at powers of ten; between them too where the axis spans less than two."""
    from matplotlib.ticker import LogLocator, NullLocator

    low, high = axes.get_xlim()
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if high / low > 100 else (1.0, 2.0, 5.0)))
    axes.xaxis.set_minor_locator(NullLocator())


@_styled
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
    figure, axes = _start(f"{task['title']}: training loss of each method by step", 3.5)
    for label, line in drawn.items():
        means = _running_mean([sum(found) / len(found) for _, found in line], window)
        colour, _, dash = look[label]
        steps = [step for step, _ in line]
        curve = {"color": colour, "linestyle": dash, "linewidth": 1.5}
        _mark(label, axes.plot(steps, means, label=names[label], **curve))
    axes.set_xlabel("optimiser step")
    axes.set_ylabel(f"training loss, running mean of {window}" if window > 1 else "training loss")
    axes.margins(x=0.01)
    axes.grid()
    longest = max((len(names[label]) for label in drawn), default=0)
    legend = figure.legend(loc="outside upper left", ncols=3 if longest <= 16 else 2)
    for label, *entry in zip(drawn, legend.get_lines(), legend.get_texts(), strict=True):
        _mark(label, entry, "legend")
    return figure


@_styled
def budget_plot(task: Json) -> Figure:
    """Test score of the primary metric over the budgets: means and 95 % t intervals.

    Where the budgets differ in one number alone (a share, steps, minutes, …), that number is the
    horizontal axis; otherwise the budgets stand side by side.

    Args:
        task: One task of the comparison.
    """
    metric, names = task["primary"], titles(task)
    look, score = styles(list(task["methods"])), f"test {task['metric_titles'][metric]}"
    title, places = _budget_axis(task["budgets"])
    figure, axes = _start(f"{task['title']}: {score} of each method by {title}", 3.7)
    span = max(places.values()) - min(places.values())
    order = sorted(places, key=places.__getitem__)
    for number, (label, method) in enumerate(task["methods"].items()):
        colour, marker, dash = look[label]
        found = [method["budgets"][budget]["summary"][metric] for budget in order]
        # Methods stand a little apart, so that their intervals can be told from each other.
        apart = (number - (len(names) - 1) / 2) * span * 0.012
        at = [places[budget] + apart for budget in order]
        means = [summary["mean"] for summary in found]
        line = {"color": colour, "linestyle": dash, "linewidth": 1.5, "marker": marker}
        drawn = axes.plot(at, means, label=names[label], markersize=5, **line)
        for x, summary in zip(at, found, strict=True):
            if summary["low"] is not None:
                ends = [summary["low"], summary["high"]]
                drawn += axes.plot([x, x], ends, color=colour, linewidth=1, alpha=0.7)
        _mark(label, drawn)
    if title == "budget":
        axes.set_xticks([places[budget] for budget in order], order)
    axes.set_xlabel(title)
    axes.set_ylabel(score)
    axes.grid()
    longest = max(len(name) for name in names.values())
    legend = figure.legend(loc="outside upper left", ncols=3 if longest <= 16 else 2)
    entries = zip(names, legend.get_lines(), legend.get_texts(), strict=True)
    for label, *entry in entries:
        _mark(label, entry, "legend")
    return figure


def _budget_axis(budgets: Json) -> tuple[str, dict[str, float]]:
    """Title of the axis, and where on it each budget is."""
    shares = {label: {"fraction": 1.0, **budget} for label, budget in budgets.items()}
    for key, title in _BUDGET_AXES.items():
        others = [{k: v for k, v in b.items() if k != key} for b in shares.values()]
        if all(key in b for b in shares.values()) and all(o == others[0] for o in others):
            return title, {label: float(b[key]) for label, b in shares.items()}
    return "budget", {label: float(place) for place, label in enumerate(shares)}


def _running_mean(values: list[float], window: int) -> list[float]:
    """Means centred on each value; at the ends over what there is, so that no step is lost."""
    means = []
    for place in range(len(values)):
        near = values[max(0, place - window // 2) : place + (window + 1) // 2]
        means.append(sum(near) / len(near))
    return means


def _mark(label: str, drawn: Sequence[Any], part: str = "mark") -> None:
    """Give what is drawn for a method ids by which a page finds it."""
    for number, artist in enumerate(drawn):
        artist.set_gid(f"{METHOD}{label}/{part}{number}")


def _start(description: str, height: float) -> tuple[Figure, Any]:
    """An empty figure (height in inches), described for those who cannot see it, and its axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, height), dpi=72, layout="constrained", label=description)
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()
