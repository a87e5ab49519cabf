"""Figures to files and into pages, the same bytes for the same figure."""

from __future__ import annotations

import hashlib
import html
import io
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunetrail.errors import TuneTrailError
from tunetrail.report.style import INK, METHOD, SETTINGS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Dates and version numbers would make the bytes differ from day to day and machine to machine.
_OPTIONS: dict[str, dict[str, Any]] = {
    ".svg": {"metadata": {"Date": None, "Creator": None}},
    ".png": {"metadata": {"Software": None}, "dpi": 150},
}


def save(figure: Figure, path: Path) -> None:
    """Write an SVG or a PNG (150 dpi) by suffix, on white."""
    import matplotlib

    if path.suffix not in _OPTIONS:
        raise TuneTrailError(
            f"'{path.name}' does not end like a figure", f"use one of {', '.join(_OPTIONS)}"
        )
    with matplotlib.rc_context(SETTINGS):
        figure.savefig(path, format=path.suffix[1:], facecolor="white", **_OPTIONS[path.suffix])


def inline_svg(figure: Figure) -> str:
    """An ``<svg>`` element that takes on text colour, font and width of the place it is put in.

    What is drawn for a method has its label in ``data-method``, and in ``data-tip`` what is to be
    said of it under the pointer. Ids start with a digest of the
    drawing, so that several figures fit on one page.
    """
    import matplotlib

    buffer = io.StringIO()
    # Text stays text: it is found by a search and read by a screen reader.
    with matplotlib.rc_context({**SETTINGS, "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", transparent=True, **_OPTIONS[".svg"])
    drawing = buffer.getvalue()
    drawing = _with_tips(drawing, getattr(figure, "tips", {}))
    name = str(figure.get_label())
    prefix = f"f{hashlib.sha256((name + drawing).encode()).hexdigest()[:10]}-"
    drawing = drawing[drawing.index("<svg") :]
    # A style element would reach beyond this figure; the style of the root does the same within.
    for dropped in (r"<metadata>.*?</metadata>", r"<style[^>]*>.*?</style>", r"<!--.*?-->"):
        drawing = re.sub(dropped, "", drawing, flags=re.DOTALL)
    drawing = re.sub(rf'\bid="{METHOD}([^"]*)/[^"/]*"', r'data-method="\1"', drawing)
    drawing = re.sub(r'\bid="', f'id="{prefix}', drawing)
    drawing = re.sub(r'href="#|url\(#', lambda found: found[0] + prefix, drawing)
    drawing = re.sub(r"'DejaVu Sans'[^;\"]*", "system-ui, sans-serif", drawing)
    drawing = drawing.replace(INK, "currentColor")
    width, height = (72 * side for side in figure.get_size_inches())
    root = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{html.escape(name)}" '
        'style="width:100%;height:auto;stroke-linejoin:round;stroke-linecap:butt">'
    )
    return re.sub(r"<svg[^>]*>", lambda _: root, drawing, count=1).strip()


def _with_tips(drawing: str, tips: dict[str, list[str]]) -> str:
    """Give groups their only text, or each of the markers in a group its own."""
    head, *groups = drawing.split('<g id="')
    for place, group in enumerate(groups):
        found = [f' data-tip="{html.escape(tip)}"' for tip in tips.get(group.split('"')[0], [])]
        if len(found) == 1:
            groups[place] = group.replace('">', f'"{found[0]}>', 1)
        elif found:
            before, *markers = group.split("<use")
            rest = zip(found, markers, strict=True)
            groups[place] = before + "".join(f"<use{tip}{marker}" for tip, marker in rest)
    return '<g id="'.join([head, *groups])
