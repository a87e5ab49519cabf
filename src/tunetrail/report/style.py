"""Colour, marker and line of each method, by its place in the comparison."""

from __future__ import annotations

from typing import Any, NamedTuple

# Found by a search: with normal sight and with each simulated form of colour blindness any two are
# at least 24 apart (CIELAB), and all have a contrast of 3 or more to every ground that page.css
# puts them on, light or dark.
_COLOURS = ("#5d56e7", "#bd830d", "#24a16d", "#c73238", "#9c75d4", "#b43b86")
# Seven, so that a pair of colour and marker repeats only after 42 methods. As paths in a square of
# ten units around the origin, for tables.
_SHAPES = {
    "o": "M-4,0a4,4 0 1,0 8,0a4,4 0 1,0 -8,0z",
    "s": "M-3.7,-3.7h7.4v7.4h-7.4z",
    "D": "M0,-4.8L4.8,0L0,4.8L-4.8,0z",
    "^": "M0,-4.2L4.5,4H-4.5z",
    "v": "M0,4.2L4.5,-4H-4.5z",
    "P": "M-1.6,-4.5h3.2v2.9h2.9v3.2h-2.9v2.9h-3.2v-2.9h-2.9v-3.2h2.9z",
    "X": "M-4.5,-2.2L-2.2,-4.5L0,-2.2L2.2,-4.5L4.5,-2.2L2.2,0L4.5,2.2L2.2,4.5L0,2.2L-2.2,4.5"
    "L-4.5,2.2L-2.2,0z",
}
_MARKERS = tuple(_SHAPES)
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


def shape(marker: str) -> str:
    """SVG path of a marker, to be drawn in ``viewBox="-5 -5 10 10"``."""
    return _SHAPES[marker]


# Text and axes. An inlined figure gets the colour of the text around it in place of this one, so
# nothing else may be drawn in it.
INK = "#2b3139"

# Ids of what is drawn for a method begin with this and its label, and a part of their own follows.
METHOD = "method/"

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
