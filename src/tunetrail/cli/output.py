"""Printing results: a table for people, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Any

import typer


def print_json(value: Any) -> None:
    """Indented JSON on standard output."""
    typer.echo(json.dumps(value, indent=2, default=str))


def print_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], right: Collection[int] = ()
) -> None:
    """A table on standard output; colour and wrapping only on a terminal.

    Columns ``right``, counted from 0, hold numbers.
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        console = Console(width=200)
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for index, title in enumerate(header):
        table.add_column(title, justify="right" if index in right else "left")
    for row in rows:
        table.add_row(*row)
    console.print(table)
