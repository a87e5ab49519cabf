"""Score over each cost, with what recommendations set aside: the rule is theirs."""

from __future__ import annotations

from collections.abc import Sequence
from math import log10
from typing import TYPE_CHECKING, Any, NamedTuple

from tunetrail.report.canvas import (
    ASIDE,
    MEAN,
    counted,
    cut_at_scores,
    log_axis,
    mark,
    rings_beside,
    seed_tips,
    start,
    styled,
)
from tunetrail.report.labels import place_labels
from tunetrail.report.style import INK, METHOD, styles
from tunetrail.report.text import Json, interval, ranked, short_count, spread, titles
from tunetrail.report.text import score as shown
from tunetrail.verdicts.costs import known_pairs
from tunetrail.verdicts.recommend import Recommendation, recommend

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Where along a bar no label should be.
_PARTS = (0.0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0)
#: Share of the axis that two methods are apart at least.
_GAP = 0.035
_LOGARITHMIC = 10  # a span of costs from which on the axis is logarithmic


class Cost(NamedTuple):
    """How a cost is shown.

    Attributes:
        file: Name of its figure.
        title: What it is called.
        axis: Title of the axis, with the unit.
    """

    file: str
    title: str
    axis: str


#: By the names of `verdicts.costs`.
SHOWN = {
    "trainable_parameters": Cost("parameters", "Trainable parameters", "trainable parameters"),
    "train_seconds": Cost("time", "Training time", "training seconds of one run"),
    "memory_mb": Cost("memory", "Peak memory", "peak memory of training, MiB"),
    "artifact_mb": Cost("artifact", "Artifact", "artifact of the method, MiB"),
    "model_mb": Cost("onnx", "ONNX file", "exported ONNX model, MiB"),
    "latency_ms": Cost("latency", "Latency", "p50 latency of the ONNX model, ms"),
}


def weighed(task: Json, costs: Json, cost: str, comparison: Json) -> Recommendation:
    """What is not dominated where this cost alone counts; methods without it are left out.

    Args:
        task: One task of the comparison.
        costs: Label → costs (``verdicts.costs.costs_of``).
        cost: Name of the cost.
        comparison: All of it, for the baseline and the margin.
    """
    scores = {
        label: method["summary"][task["primary"]]["mean"]
        for label, method in task["methods"].items()
        if cost in costs[label]
    }
    pairs = known_pairs(task, comparison["baseline"], comparison["margin"])
    return recommend(scores, costs, pairs, {}, [cost])


def in_words(task: Json, found: Recommendation) -> str:
    """``Not dominated: LoRA, head only. BitFit: LoRA is better, and costs no more.``"""
    names = titles(task)
    kept = ", ".join(names[label] for label in found.candidates)
    aside = [
        f"{names[label]}: {names[by]} is {plain(why)}."
        for label, (by, why) in found.dominated.items()
    ]
    return " ".join([f"Not dominated: {kept}.", *aside])


def plain(why: str) -> str:
    """The reason with the titles of costs for their names."""
    for name, cost in SHOWN.items():
        why = why.replace(name, cost.title.lower().replace("onnx", "ONNX"))
    return why


def apart(places: Sequence[float], logarithmic: bool) -> list[float]:
    """Costs with those that are nearly the same moved a little from each other.

    Args:
        places: The costs.
        logarithmic: Whether the axis is; otherwise it begins at 0.
    """
    on_axis = [log10(place) if logarithmic else place for place in places]
    gap = _GAP * (max(on_axis) - (min(on_axis) if logarithmic else 0.0))
    clusters: list[list[int]] = []
    for number in sorted(range(len(places)), key=lambda n: on_axis[n]):
        if clusters and on_axis[number] - on_axis[clusters[-1][-1]] < gap:
            clusters[-1].append(number)
        else:
            clusters.append([number])
    moved = list(places)
    for cluster in clusters:
        middle = sum(on_axis[number] for number in cluster) / len(cluster)
        for place, number in enumerate(cluster):
            at = middle + (place - (len(cluster) - 1) / 2) * gap
            if len(cluster) > 1:
                moved[number] = 10**at if logarithmic else at
    return moved


@styled
def tradeoff_plot(task: Json, costs: Json, cost: str, comparison: Json) -> Figure:
    """Test score of the primary metric over a cost: seeds, means with 95 % t intervals, names.

    Markers are filled where nothing dominates the method, hollow where another one does.

    Args:
        task: One task of the comparison.
        costs: Label → costs (``verdicts.costs.costs_of``); a method without this one is left out.
        cost: Name of the cost.
        comparison: All of it, for the baseline and the margin.
    """
    from matplotlib.lines import Line2D

    metric, names, look = task["primary"], titles(task), styles(list(task["methods"]))
    kept = weighed(task, costs, cost, comparison).candidates
    score = f"test {task['metric_titles'][metric]}"
    figure, axes = start(f"{task['title']}: {score} over {SHOWN[cost].axis}", 3.7)
    order = [label for label in ranked(task) if cost in costs[label]]
    places = [costs[label][cost] for label in order]
    logarithmic = min(places) > 0 and max(places) > _LOGARITHMIC * min(places)
    others, means = [], []
    for label, at in zip(order, apart(places, logarithmic), strict=True):
        entry, (colour, marker, _) = task["methods"][label], look[label]
        summary, runs = entry["summary"][metric], entry["runs"]
        scores = [run["test"][metric] for run in runs]
        told = f"{names[label]}: {spread(summary)} {interval(summary)}, "
        told += short_count(round(costs[label][cost], 2))
        tips = [seed_tips(names[label], [run["seed"] for run in runs], map(shown, scores))]
        drawn = [rings_beside(axes, [at] * len(scores), scores, colour)]
        if summary["low"] is not None:
            ends = [summary["low"], summary["high"]]
            low, high = ends
            others += [(at, low + share * (high - low), 0.0) for share in _PARTS]
            drawn += axes.plot([at, at], ends, color=colour, linewidth=1.4, alpha=0.7)
            tips.append([told])
        inside: dict[str, Any] = {"color": colour}
        if label not in kept:
            inside = {"facecolors": "none", "edgecolors": colour, "linewidths": 1.6}
        drawn.append(axes.scatter([at], [summary["mean"]], marker=marker, **(MEAN | inside)))
        mark(label, drawn, tips=[*tips, [told]])
        others += [(at, value, ASIDE) for value in scores]
        means.append((at, summary["mean"]))
    axes.margins(0.1, 0.1)
    if logarithmic:
        log_axis(axes)
    else:
        axes.set_xlim(0, 1.09 * max(at for at, _ in means))
    cut_at_scores(axes, "y", task)
    counted(axes.xaxis)
    axes.grid()
    axes.set_xlabel(SHOWN[cost].axis + (", logarithmic scale" if logarithmic else ""))
    axes.set_ylabel(score)
    dot: dict[str, Any] = {"marker": "o", "color": INK, "linestyle": "none", "markersize": 6}
    figure.legend(
        handles=[
            Line2D([], [], label="not dominated", **dot),
            Line2D([], [], label="dominated", markerfacecolor="none", **dot),
        ],
        loc="outside upper left",
        ncols=2,
    )
    colours = [look[label].colour for label in order]
    marks = [f"{METHOD}{label}" for label in order]
    place_labels(figure, axes, means, [names[label] for label in order], colours, others, marks)
    return figure
