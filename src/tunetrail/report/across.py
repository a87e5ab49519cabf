"""Figures of the views over all tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunetrail.report.canvas import mark, method_legend, name_rows, row, start, styled
from tunetrail.report.style import INK, styles
from tunetrail.report.text import Json, across_cell, titles

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def _names(comparison: Json) -> dict[str, str]:
    return titles(next(iter(comparison["tasks"].values())))


@styled
def profile_plot(comparison: Json) -> Figure:
    """Performance profiles: the share of runs, of all tasks and seeds, above each score.

    Bands are 95 % bootstrap intervals of each share.

    Args:
        comparison: With two or more tasks.
    """
    names, found = _names(comparison), comparison["across"]
    look = styles(list(names))
    figure, axes = start("All tasks: share of runs above each score", 3.7)
    thresholds = found["thresholds"]
    for label, profile in found["profiles"].items():
        colour, _, dash = look[label]
        band = axes.fill_between(
            thresholds, profile["low"], profile["high"], color=colour, alpha=0.15, linewidth=0
        )
        line = {"color": colour, "linestyle": dash, "linewidth": 1.5}
        drawn = axes.plot(thresholds, profile["share"], label=names[label], **line)
        half = _last(profile["share"], thresholds, 0.5)
        mark(label, [*drawn, band], tips=[[f"{names[label]}: half of its runs above {half:.2f}"]])
    shares = [max(p["high"][i] for p in found["profiles"].values()) for i in range(len(thresholds))]
    lows = [min(p["low"][i] for p in found["profiles"].values()) for i in range(len(thresholds))]
    ends = (_last(lows, thresholds, 1.0) - 0.05, _last(shares, thresholds, 1e-9) + 0.05)
    axes.set_xlim(max(0.0, ends[0]), min(1.0, ends[1]))
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlabel("score, as the share of the way to a perfect one")
    axes.set_ylabel("share of runs above it")
    axes.grid()
    method_legend(figure, {label: names[label] for label in found["profiles"]})
    return figure


def _last(shares: list[float], thresholds: list[float], least: float) -> float:
    """The highest threshold with at least so large a share above it; 0 without one."""
    return max(
        (t for t, share in zip(thresholds, shares, strict=True) if share >= least), default=0
    )


@styled
def improvement_plot(comparison: Json) -> Figure:
    """How probable it is that a run of a method beats one of the baseline on the same task.

    Args:
        comparison: With two or more tasks and a baseline.
    """
    names, entries = _names(comparison), comparison["across"]["methods"]
    look, other = styles(list(names)), names[comparison["baseline"]]
    found = {label: e["improvement"] for label, e in entries.items() if "improvement" in e}
    order = sorted(found, key=lambda label: -found[label]["value"])
    description = f"All tasks: probability that a run of each method beats one of {other}"
    figure, axes = start(description, 1.0 + 0.32 * len(order))
    axes.axvline(0.5, color=INK, linestyle="--", linewidth=1)
    for place, label in enumerate(order):
        value, low, high = (found[label][name] for name in ("value", "low", "high"))
        told = f"{names[label]}: {across_cell(found[label])}"
        row(axes, place, label, look[label], (value, low, high), told)
    name_rows(axes, order, names)
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel(f"probability of a higher score than {other}")
    return figure
