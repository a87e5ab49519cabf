"""Labels beside points without overlaps: the first free place around each point is taken."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

# Offsets from a point in typographic points, from the most to the least wanted.
_DIRECTIONS = ((1, 0), (0, 1), (0, -1), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1))
_DISTANCES = (7.0, 13.0, 20.0, 28.0, 38.0)
_MARKER = 4.0

Box = tuple[float, float, float, float]


def place_labels(
    figure: Any,
    axes: Any,
    points: Sequence[tuple[float, float]],
    texts: Sequence[str],
    colours: Sequence[str],
    others: Sequence[tuple[float, float, float]],
    names: Sequence[str] = (),
) -> None:
    """Write each text beside its point, clear of labels, markers and the edges of the axes.

    Args:
        figure: A figure with its final limits; its layout is fixed here.
        axes: Axes of the points.
        points: Data coordinates, one for each text.
        texts: One label a point.
        colours: Colour of the line to a label that ends up away from its point.
        others: What else labels should not cover: data coordinates, and how many typographic points
            right of them it stands.
        names: Ids for what is drawn, one for each text.
    """
    figure.canvas.draw()
    figure.set_layout_engine("none")
    scale = figure.dpi / 72
    frame = _box(axes.get_window_extent())
    aside = [(0.0, 0.0)] * len(points) + [(right * scale, 0.0) for *_, right in others]
    spots = axes.transData.transform([*points, *(other[:2] for other in others)]) + aside
    markers = [_around(x, y, _MARKER * scale) for x, y in spots]
    taken: list[Box] = []
    for index, (text, colour) in enumerate(zip(texts, colours, strict=True)):
        note = axes.annotate(text, points[index], (0, 0), textcoords="offset points", zorder=5)
        extent = note.get_window_extent()
        x, y = spots[index]
        options: list[tuple[float, float, int, Box, bool]] = []
        for distance in _DISTANCES:
            for right, up in _DIRECTIONS:
                box = _beside(x, y, extent.width, extent.height, right, up, distance * scale)
                clash = sum(_overlap(box, other) for other in taken)
                covered = sum(_overlap(box, other) for other in markers)
                outside = extent.width * extent.height - _overlap(box, frame)
                badness = 20 * clash + 5 * covered + 20 * outside
                # Away from the point or beside its corner, a label needs a line to it.
                led = distance > _DISTANCES[0] or bool(right and up)
                options.append((round(badness, 3), distance, len(options), box, led))
        *_, box, led = min(options)
        taken.append(box)
        # Text starts at the lower left corner of its box.
        corner = ((box[0] - x) / scale, (box[1] - y) / scale)
        note.set_position(corner)
        note.set_verticalalignment("bottom")
        line = _leader(axes, points[index], box, spots[index], scale, colour) if led else None
        if names:
            note.set_gid(f"{names[index]}/label")
        if names and line is not None:
            line.set_gid(f"{names[index]}/line")


def _leader(
    axes: Any, point: tuple[float, float], box: Box, spot: Any, scale: float, colour: str
) -> Any:
    """The line, from the nearest place of the box to the point."""
    x = min(max(spot[0], box[0]), box[2])
    y = min(max(spot[1], box[1]), box[3])
    return axes.annotate(
        "",
        point,
        ((x - spot[0]) / scale, (y - spot[1]) / scale),
        textcoords="offset points",
        arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.7, "shrinkB": 4},
    ).arrow_patch


def _beside(
    x: float, y: float, width: float, height: float, right: int, up: int, distance: float
) -> Box:
    left = x - width / 2 + right * (width / 2 + distance)
    low = y - height / 2 + up * (height / 2 + distance)
    return left, low, left + width, low + height


def _around(x: float, y: float, radius: float) -> Box:
    return x - radius, y - radius, x + radius, y + radius


def _box(extent: Any) -> Box:
    return extent.x0, extent.y0, extent.x1, extent.y1


def _overlap(one: Box, other: Box) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(width, 0.0) * max(height, 0.0)
