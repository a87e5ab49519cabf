"""Which cell may start next: dependencies, width, and cells that need the machine to themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tunetrail.dag import Cell


class Scheduler:
    """Orders the cells of a graph.

    Args:
        cells: Name → cell, upstream cells first.
        width: Cells that may be handed out at a time.
    """

    def __init__(self, cells: Mapping[str, Cell], width: int) -> None:
        self._cells = cells
        self._width = width
        self._waiting = dict(cells)
        self._running: set[str] = set()
        self._done: set[str] = set()
        self._out: dict[str, str] = {}

    def next(self) -> Cell | None:
        """A cell to look at now, or None while all that is left has to wait."""
        if any(self._cells[name].alone for name in self._running):
            return None
        if len(self._running) >= self._width:
            return None
        # Where there is a choice trainings start first: they are the longest.
        ready = sorted(self._ready(), key=lambda c: (c.alone, not c.trains))
        if not ready or (ready[0].alone and self._running):
            return None
        chosen = ready[0]
        del self._waiting[chosen.name]
        self._running.add(chosen.name)
        return chosen

    def finish(self, name: str) -> None:
        """The cell is up to date: what depends on it may start."""
        self._running.discard(name)
        self._done.add(name)

    def fail(self, name: str) -> list[str]:
        """The cell failed: give up what depends on it, and return the names of that."""
        self._running.discard(name)
        self._out[name] = name
        lost: list[str] = []
        for cell in list(self._waiting.values()):  # upstream cells come first
            cause = next((self._out[up] for up in sorted(cell.upstream) if up in self._out), None)
            if cause is not None:
                self._out[cell.name] = cause
                del self._waiting[cell.name]
                lost.append(cell.name)
        return lost

    @property
    def busy(self) -> bool:
        """Whether anything runs or may still run."""
        return bool(self._waiting or self._running)

    def _ready(self) -> Iterator[Cell]:
        return (c for c in self._waiting.values() if c.upstream <= self._done)
