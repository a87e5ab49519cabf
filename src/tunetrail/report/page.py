"""The HTML document around a report, and plain tables."""

from __future__ import annotations

import html
from collections.abc import Set
from pathlib import Path

_STYLE = Path(__file__).with_name("page.css")


def page(title: str, body: str, *, subtitle: str = "") -> str:
    """A self-contained HTML document: no scripts, nothing loaded from anywhere.

    Args:
        title: Plain text of the heading and of the browser tab.
        body: HTML, taken as it is.
        subtitle: Plain text under the heading.
    """
    name = html.escape(title)
    lead = f'\n<p class="lead">{html.escape(subtitle)}</p>' if subtitle else ""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{name}</title>
<style>
{_STYLE.read_text(encoding="utf-8")}</style>
</head>
<body>
<header class="top">
<p class="brand">TuneTrail</p>
<h1>{name}</h1>{lead}
</header>
<main>
{body}
</main>
</body>
</html>
"""


def table(header: list[str], rows: list[list[str]], *, numeric: Set[int] = frozenset()) -> str:
    """An HTML table of plain text cells that scrolls sideways where it is too wide.

    Args:
        header: Column headings.
        rows: Cells, one list a row, as long as ``header``.
        numeric: Columns (from 0) that are aligned to the right.
    """

    def attribute(column: int) -> str:
        return ' class="number"' if column in numeric else ""

    head = "".join(
        f'<th scope="col"{attribute(i)}>{html.escape(cell)}</th>' for i, cell in enumerate(header)
    )
    body = "\n".join(
        "<tr>"
        + "".join(f"<td{attribute(i)}>{html.escape(cell)}</td>" for i, cell in enumerate(row))
        + "</tr>"
        for row in rows
    )
    return (
        # The keyboard can scroll a region only if it can reach it.
        '<div class="scroll" tabindex="0">\n<table>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>\n</div>"
    )
