"""Figures of claims."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tunetrail.report.style import INK, SETTINGS, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WIDTH = 5.6  # inches


def cells_plot(part: dict[str, Any]) -> Figure:
    """Differences with their intervals, a row a cell, and the margin as a band.

    Args:
        part: A judged part of a claim whose cells have differences.
    """
    import matplotlib

    cells, (colour, marker, _) = part["cells"], style(0)
    names = [cell_name(cell, cells) for cell in cells]
    if mean := part.get("mean"):
        cells = [*cells, {"difference": mean["value"], "low": mean["low"], "high": mean["high"]}]
        names.append("mean of the tasks")
    with matplotlib.rc_context(SETTINGS):
        figure, axes = _start(0.9 + 0.24 * len(cells))
        margin = part["cells"][0]["margin"]
        axes.axvspan(-margin, margin, color=INK, alpha=0.1, linewidth=0)
        axes.axvline(0, color=INK, linewidth=1)
        for row, cell in enumerate(cells):
            if cell["low"] is not None:
                ends = [cell["low"], cell["high"]]
                axes.plot(ends, [row, row], color=colour, linewidth=1.6)
            axes.plot([cell["difference"]], [row], color=colour, marker=marker, markersize=5)
        axes.set_yticks(range(len(cells)), names)
        axes.set_ylim(len(cells) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x")
        axes.set_xlabel(f"{part['method']} − {part['than']}, 95% intervals; band: ±{margin:g}")
    return figure


def overlap_plot(part: dict[str, Any]) -> Figure:
    """Difference over the overlap of vocabularies, a point a task with its interval."""
    import matplotlib

    with matplotlib.rc_context(SETTINGS):
        figure, axes = _start(3.4)
        axes.axhline(0, color=INK, linewidth=1)
        for place, cell in enumerate(part["cells"]):
            colour, marker, _ = style(place)
            if cell["low"] is not None:
                x = [cell["overlap"]] * 2
                axes.plot(x, [cell["low"], cell["high"]], color=colour, linewidth=1.2)
            point = {"color": colour, "marker": marker, "markersize": 6, "linestyle": "none"}
            axes.plot([cell["overlap"]], [cell["difference"]], label=cell["task"], **point)
        axes.set_xlabel("share of the task's frequent words that are frequent in the reference")
        axes.set_ylabel(f"{part['method']} − {part['than']}")
        axes.grid()
        figure.legend(loc="outside upper left", ncols=5)
    return figure


def cell_name(cell: dict[str, Any], cells: list[dict[str, Any]]) -> str:
    """Task, and the budget where cells differ in it."""
    several = len({other["budget"] for other in cells}) > 1
    return f"{cell['task']}, {cell['budget']}" if several else str(cell["task"])


def _start(height: float) -> tuple[Figure, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, height), dpi=72, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()
