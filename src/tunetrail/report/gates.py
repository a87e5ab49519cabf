"""What methods observe of themselves (gates), by layer and part, over seeds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from tunetrail.report.canvas import mark, start, styled
from tunetrail.report.page import Cell, table
from tunetrail.report.style import styles
from tunetrail.report.text import ABSENT, Json, score, spread, titles
from tunetrail.verdicts.scores import summarise

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: How opaque an open gate is: text on it can still be read, in light and in dark.
_OPAQUE = 0.45


class Observed(NamedTuple):
    """What one method observed in the runs of its main budget.

    Attributes:
        layers: Numbers of layers, from the lowest; one more, empty, for what belongs to none.
        parts: What a layer has gates of, in the order of the method.
        runs: Of each seed: (layer, part) → value, from 0 to 1.
    """

    layers: list[str]
    parts: list[str]
    runs: list[dict[tuple[str, str], float]]

    def over_seeds(self, layer: str, part: str) -> Json | None:
        """Mean and deviation of a cell; None where the layer has no such part."""
        found = [run[layer, part] for run in self.runs if (layer, part) in run]
        return summarise(found) if found else None


def observed(task: Json) -> dict[str, Observed]:
    """Label → what it observed, of the methods that observe something."""
    found = {}
    for label, method in task["methods"].items():
        runs = [
            {_place(name): value for name, value in run["observed"].items()}
            for run in method["runs"]
            if run["observed"]
        ]
        places = list(dict.fromkeys(place for run in runs for place in run))
        if places:
            layers = sorted({layer for layer, _ in places}, key=lambda k: (k == "", int(k or 0)))
            found[label] = Observed(layers, list(dict.fromkeys(p for _, p in places)), runs)
    return found


def _place(name: str) -> tuple[str, str]:
    """``3 LoRA query`` → its layer and part; ``prompt`` belongs to no layer."""
    layer, _, part = name.partition(" ") if name[0].isdigit() else ("", "", name)
    return layer, part


def in_words(found: Observed) -> str:
    """``Mean over layers: prefix 0.50 ± 0.02.``; empty for a single row."""
    if len(found.layers) < 2:
        return ""
    told = []
    for part in found.parts:
        of_runs = [[v for (_, p), v in run.items() if p == part] for run in found.runs]
        means = summarise([sum(values) / len(values) for values in of_runs if values])
        told.append(f"{part} {spread(means, 2)}")
    return f"Mean over layers: {', '.join(told)}."


def _named(layer: str) -> str:
    return f"Layer {layer}" if layer else "No layer"


@styled
def gate_plot(task: Json, label: str, found: Observed) -> Figure:
    """A row a layer and a column a part: the more open a gate is, the stronger its cell.

    Args:
        task: One task of the comparison, which fixes the colour.
        label: Label of the method.
        found: What it observed.
    """
    from matplotlib.patches import Rectangle

    name, colour = titles(task)[label], styles(list(task["methods"]))[label].colour
    title = f"{task['title']}: gates of {name} by layer and part"
    figure, axes = start(title, 0.6 + 0.25 * len(found.layers))
    cells: list[Any] = []
    words: list[Any] = []
    tips: list[list[str]] = []
    # Of four columns each has room for nine points.
    size = min(9.0, 36 / len(found.parts))
    centred: Json = {"ha": "center", "va": "center_baseline", "fontsize": size}
    for row, layer in enumerate(found.layers):
        for column, part in enumerate(found.parts):
            summary = found.over_seeds(layer, part)
            if summary is None:
                continue
            look: Json = {"facecolor": colour, "alpha": _OPAQUE * summary["mean"], "linewidth": 0}
            cells.append(axes.add_patch(Rectangle((column - 0.49, row - 0.48), 0.98, 0.96, **look)))
            shown = spread(summary, 2)
            words.append(axes.text(column, row, shown, **centred))
            seeds = f"{summary['count']} seeds" if summary["count"] > 1 else "one seed"
            tips.append([f"{name}, {_named(layer).lower()}, {part}: {shown}, {seeds}"])
    axes.set_xlim(-0.5, len(found.parts) - 0.5)
    axes.set_ylim(len(found.layers) - 0.5, -0.5)
    axes.set_xticks(range(len(found.parts)), found.parts)
    axes.set_yticks(range(len(found.layers)), [_named(layer) for layer in found.layers])
    axes.tick_params(length=0)
    axes.xaxis.tick_top()
    axes.spines[:].set_visible(False)
    mark(label, cells, "cell", tips)
    mark(label, words, "word", tips)
    mark(label, [*axes.get_xticklabels(), *axes.get_yticklabels()], "name")
    return figure


def gate_table(task: Json, label: str, found: Observed) -> str:
    """The numbers of the figure: a row a layer, a column a part.

    Args:
        task: One task of the comparison.
        label: Label of the method.
        found: What it observed.
    """

    def cell(summary: Json | None) -> Cell:
        if summary is None:
            return Cell(ABSENT)
        deviation = "" if summary["std"] is None else f"± {score(summary['std'], 2)}"
        return Cell(score(summary["mean"], 2), deviation, summary["mean"])

    return table(
        f"{task['title']}: gates of {titles(task)[label]}",
        ["Layer", *found.parts],
        [
            [Cell(_named(layer)), *(cell(found.over_seeds(layer, part)) for part in found.parts)]
            for layer in found.layers
        ],
        numeric=set(range(1, 1 + len(found.parts))),
        methods=[label] * len(found.layers),
    )
