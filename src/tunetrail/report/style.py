"""Colour, marker and line of each method, by its place in the comparison."""

from __future__ import annotations

from typing import Any, NamedTuple

# Found by a search: with normal sight and with each simulated form of colour blindness any two are
# at least 26 apart (CIELAB), and all have a contrast of 2.7 or more to white and to the dark card.
_COLOURS = ("#5d4be5", "#cc891e", "#18aa76", "#cb2e3a", "#9c75d4", "#af277d")
# Seven, so that a pair of colour and marker repeats only after 42 methods.
_MARKERS = ("o", "s", "D", "^", "v", "P", "X")
_DASHES: tuple[str, ...] = ("-", "--", "-.", ":")


class Style(NamedTuple):
    """How one method is drawn, in every figure of a report."""

    colour: str
    marker: str
    dash: str


def style(place: int) -> Style:
    """Style of the method that appears at ``place`` (0 is the first) in its task."""
    return Style(
        _COLOURS[place % len(_COLOURS)],
        _MARKERS[place % len(_MARKERS)],
        _DASHES[place // len(_COLOURS) % len(_DASHES)],
    )


def styles(labels: list[str]) -> dict[str, Style]:
    """Style of each label, in the order of the comparison."""
    return {label: style(place) for place, label in enumerate(labels)}


# Text and axes. An inlined figure gets the colour of the text around it in place of this one, so
# nothing else may be drawn in it.
INK = "#2b3139"

SETTINGS: dict[str, Any] = {
    "svg.hashsalt": "tunetrail",
    "font.size": 9,
    "text.parse_math": False,  # a dollar sign in a title is a dollar sign
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": INK,
    "grid.alpha": 0.16,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "legend.handletextpad": 0.5,
    "legend.columnspacing": 1.4,
}
"""Settings of matplotlib, in force while a figure is built and while it is written."""
