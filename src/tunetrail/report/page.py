"""The HTML document around a report, and its tables."""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Sequence, Set
from pathlib import Path
from typing import NamedTuple

_STYLE = Path(__file__).with_name("page.css")


class Cell(NamedTuple):
    """A cell of a table.

    Attributes:
        text: What is read first.
        sub: A smaller line below it.
        value: What a numeric column is sorted by; None where nothing was measured.
        copy: The whole of a shortened text, for the clipboard.
        badge: ``good`` or ``bad``: how the text is marked; empty for plain text.
    """

    text: str
    sub: str = ""
    value: float | None = None
    copy: str = ""
    badge: str = ""


def page(
    title: str,
    body: str,
    *,
    subtitle: str = "",
    note: str = "",
    navigation: str = "",
    script: str = "",
) -> str:
    """A self-contained HTML document; its policy forbids the browser to load anything.

    Args:
        title: Plain text of the heading and of the browser tab.
        body: HTML, taken as it is.
        subtitle: Plain text under the heading.
        note: A smaller line of plain text under that.
        navigation: HTML between heading and content, taken as it is.
        script: JavaScript, the only one that the policy lets run.
    """
    name = html.escape(title)
    lead = f'\n<p class="lead">{html.escape(subtitle)}</p>' if subtitle else ""
    lead += f'\n<p class="note">{html.escape(note)}</p>' if note else ""
    allowed, code, toggle = "'none'", "", ""
    if script:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        allowed, code = f"'sha256-{digest}'", f"\n<script>{script}</script>"
        toggle = (
            '<button type="button" id="theme" aria-pressed="false" hidden>Dark theme</button>'
            '<p id="told" class="unseen" role="status"></p>'
        )
    policy = (
        f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src {allowed}; "
        "base-uri 'none'; form-action 'none'"
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>{name}</title>
<style>
{_STYLE.read_text(encoding="utf-8")}</style>{code}
</head>
<body>
<a class="skip" href="#main">Skip to the content</a>
<header class="top">
<div class="bar"><p class="brand">TuneTrail</p>{toggle}</div>
<h1>{name}</h1>{lead}
</header>
{navigation}
<main id="main" tabindex="-1">
{body}
</main>
</body>
</html>
"""


def table(
    caption: str,
    header: Sequence[str],
    rows: Sequence[Sequence[str | Cell]],
    *,
    numeric: Set[int] = frozenset(),
    methods: Sequence[str] = (),
) -> str:
    """An HTML table that scrolls sideways where it is too wide. The first column heads the rows.

    Args:
        caption: What the table holds, for those who cannot see where it stands.
        header: Column headings.
        rows: Cells, one list a row, as long as ``header``.
        numeric: Columns (from 0) that are aligned to the right and sorted as numbers.
        methods: Label of the method of each row, where rows are of methods.
    """
    head = "".join(
        f'<th scope="col"{_class("number" if i in numeric else "")}>{html.escape(title)}</th>'
        for i, title in enumerate(header)
    )
    marks = [f' data-method="{html.escape(label)}"' for label in methods] or [""] * len(rows)
    body = "\n".join(
        f"<tr{mark}>"
        + "".join(
            cell(content, numeric=i in numeric, heading=i == 0) for i, content in enumerate(row)
        )
        + "</tr>"
        for mark, row in zip(marks, rows, strict=True)
    )
    name = html.escape(caption)
    return (
        # The keyboard can scroll a region only if it can reach it.
        f'<div class="scroll" role="region" aria-label="{name}" tabindex="0">\n<table>\n'
        f'<caption class="unseen">{name}</caption>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>\n</div>"
    )


def cell(
    content: str | Cell, *, numeric: bool = False, heading: bool = False, edge: bool = False
) -> str:
    """One cell of a row.

    Args:
        content: A text, or a text with more to it.
        numeric: Whether it is aligned to the right and sorted as a number.
        heading: Whether it heads its row.
        edge: Whether a group of columns begins with it.
    """
    shown = content if isinstance(content, Cell) else Cell(content)
    inner = html.escape(shown.text)
    if shown.badge:
        inner = f'<span class="badge {shown.badge}">{inner}</span>'
    if shown.copy:
        button = copy_button(shown.copy, f"the digest that starts with {shown.text}")
        inner = f"<code>{inner}</code> {button}"
    if shown.sub:
        inner += f'<span class="sub">{html.escape(shown.sub)}</span>'
    tag, scope = ("th", ' scope="row"') if heading else ("td", "")
    value = f' data-value="{"" if shown.value is None else shown.value}"' if numeric else ""
    names = _class("number" if numeric else "", "edge" if edge else "")
    return f"<{tag}{scope}{names}{value}>{inner}</{tag}>"


def copy_button(text: str, name: str) -> str:
    """A button that puts ``text`` into the clipboard; unseen until the script shows it."""
    return (
        f'<button type="button" class="copy" data-copy="{html.escape(text)}" '
        f'aria-label="Copy {html.escape(name)}" hidden>Copy</button>'
    )


def _class(*names: str) -> str:
    given = " ".join(name for name in names if name)
    return f' class="{given}"' if given else ""
