"""Score by budget: a curve for each way in which the budgets of a comparison differ."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tunetrail.report.canvas import (
    cut_at_scores,
    mark,
    method_legend,
    rings_beside,
    seed_tips,
    start,
    styled,
)
from tunetrail.report.page import Cell, table
from tunetrail.report.style import styles
from tunetrail.report.text import Json, interval, spread, titles
from tunetrail.report.text import score as shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: What a budget may differ in → title of the axis.
_TITLES = {
    "fraction": "share of the training rows",
    "shots": "training rows of each class",
    "epochs": "epochs",
    "steps": "optimiser steps",
    "minutes": "minutes of training",
}
_UNITS = {
    "epochs": ("epoch", "epochs"),
    "steps": ("step", "steps"),
    "minutes": ("minute", "minutes"),
    "shots": ("row of each class", "rows of each class"),
    "patience": ("epoch of patience", "epochs of patience"),
}
_LOGARITHMIC = 8  # a span of budgets from which on the axis is logarithmic


class Axis(NamedTuple):
    """Budgets that differ in one setting.

    Attributes:
        name: The setting; ``budget`` where they have nothing in common.
        fixed: The other settings, in words; empty where no other curve has the same axis.
        places: Budget → where it is on the axis, from low to high.
    """

    name: str
    fixed: str
    places: dict[str, float]

    @property
    def title(self) -> str:
        """Title of the axis."""
        what = _TITLES.get(self.name, self.name)
        return f"{what} ({self.fixed})" if self.fixed else what

    @property
    def logarithmic(self) -> bool:
        """Whether equal ratios are drawn equally long."""
        ends = list(self.places.values())
        return self.name in _TITLES and ends[-1] >= _LOGARITHMIC * ends[0]


def budget_axes(budgets: Json, main: str) -> list[Axis]:
    """The curves that a set of budgets has, those through the main budget first.

    Budgets are points of one curve where they differ in a single setting. One that lies on no
    curve stands beside the main budget, on an axis without a scale.

    Args:
        budgets: Budget → settings that are not their defaults.
        main: Name of the main budget.
    """
    whole = {label: {"fraction": 1.0, **budget} for label, budget in budgets.items()}
    found: list[tuple[str, Json, dict[str, float]]] = []
    for name in _TITLES:
        curves: list[tuple[Json, dict[str, float]]] = []
        for label, settings in whole.items():
            if name not in settings:
                continue
            rest = {k: v for k, v in settings.items() if k != name}
            places = next((places for other, places in curves if other == rest), None)
            if places is None:
                curves.append((rest, places := {}))
            places[label] = float(settings[name])
        found += [(name, rest, p) for rest, p in curves if len(set(p.values())) > 1]
    found.sort(key=lambda curve: main not in curve[2])
    names = [name for name, *_ in found]
    axes = [
        Axis(
            name,
            _in_words(rest) if names.count(name) > 1 else "",
            dict(sorted(places.items(), key=lambda entry: entry[1])),
        )
        for name, rest, places in found
    ]
    alone = [label for label in budgets if not any(label in axis.places for axis in axes)]
    beside = [label for label in budgets if label in alone or label == main]
    if alone and len(beside) > 1:
        axes.append(Axis("budget", "", {label: float(i) for i, label in enumerate(beside)}))
    return axes


def _in_words(settings: Json) -> str:
    """``2 epochs, 30% of the rows``."""
    words = [
        f"{settings[name]:g} {one if settings[name] == 1 else many}"
        for name, (one, many) in _UNITS.items()
        if name in settings
    ]
    share = settings.get("fraction")
    if share is not None and "shots" not in settings:
        words.append("all rows" if share == 1 else f"{100 * share:.4g}% of the rows")
    return ", ".join(words)


@styled
def budget_plot(task: Json, axis: Axis) -> Figure:
    """Test score of the primary metric over budgets: every seed, means and 95 % t intervals.

    Args:
        task: One task of the comparison.
        axis: The budgets, and what they differ in.
    """
    metric, names = task["primary"], titles(task)
    look, score = styles(list(task["methods"])), f"test {task['metric_titles'][metric]}"
    figure, axes = start(f"{task['title']}: {score} of each method by {axis.title}", 3.9)
    places = list(axis.places.values())
    if axis.logarithmic:
        axes.set_xscale("log")
    for number, (label, method) in enumerate(task["methods"].items()):
        colour, marker, dash = look[label]
        # Methods stand a little apart, so that their intervals can be told from each other.
        apart = (number - (len(names) - 1) / 2) * 0.016
        at = [
            place * (places[-1] / places[0]) ** apart
            if axis.logarithmic
            else place + apart * (places[-1] - places[0])
            for place in places
        ]
        results = [method["budgets"][budget] for budget in axis.places]
        found = [result["summary"][metric] for result in results]
        told = [f"{names[label]}: {spread(s)} {interval(s)}" for s in found]
        line = {"color": colour, "linestyle": dash, "linewidth": 1.5, "marker": marker}
        means = [summary["mean"] for summary in found]
        drawn = axes.plot(at, means, label=names[label], markersize=5, **line)
        tips = [told]
        for x, result, summary, words in zip(at, results, found, told, strict=True):
            runs = result["runs"]
            scores = [run["test"][metric] for run in runs]
            drawn.append(rings_beside(axes, [x] * len(runs), scores, colour))
            tips.append(seed_tips(names[label], [r["seed"] for r in runs], map(shown, scores)))
            if summary["low"] is not None:
                ends = [summary["low"], summary["high"]]
                drawn += axes.plot([x, x], ends, color=colour, linewidth=1, alpha=0.6)
                tips.append([words])
        mark(label, drawn, tips=tips)
    axes.set_xticks(places, [_tick(axis, budget) for budget in axis.places])
    axes.minorticks_off()
    axes.set_xlabel(axis.title + (", logarithmic scale" if axis.logarithmic else ""))
    axes.set_ylabel(score)
    cut_at_scores(axes, "y", task)
    axes.grid()
    method_legend(figure, names)
    return figure


def budget_table(task: Json, axis: Axis) -> str:
    """The numbers of the figure: a row a method and budget.

    Args:
        task: One task of the comparison.
        axis: The budgets, and what they differ in.
    """
    metric, names = task["primary"], titles(task)
    shown_of = [
        (label, budget, method["budgets"][budget]["summary"][metric])
        for label, method in task["methods"].items()
        for budget in axis.places
    ]
    rows = [
        [
            Cell(names[label]),
            Cell(_tick(axis, budget), value=axis.places[budget]),
            Cell(spread(found), interval(found), found["mean"]),
            Cell(str(found["count"]), value=found["count"]),
        ]
        for label, budget, found in shown_of
    ]
    return table(
        f"{task['title']}: score by {axis.title}",
        ["Method", axis.title, f"test {task['metric_titles'][metric]}", "seeds"],
        rows,
        numeric={1, 2, 3},
        methods=[label for label, *_ in shown_of],
    )


def _tick(axis: Axis, budget: str) -> str:
    place = axis.places[budget]
    if axis.name == "budget":
        return budget
    return f"{100 * place:.4g}%" if axis.name == "fraction" else f"{place:g}"
