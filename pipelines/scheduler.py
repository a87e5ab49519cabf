"""Which cell may start next: dependencies, width, and cells that need the machine to themselves."""

from __future__ import annotations

import heapq
from collections.abc import Mapping

from tunetrail.dag import Cell


class Scheduler:
    """Orders the cells of a graph.

    What a cell costs here does not depend on how many there are: they may be tens of thousands.

    Args:
        cells: Name → cell, upstream cells first.
        width: Cells that may be handed out at a time.
    """

    def __init__(self, cells: Mapping[str, Cell], width: int) -> None:
        self._cells = cells
        self._width = width
        self._place = {name: i for i, name in enumerate(cells)}
        self._running: set[str] = set()
        #: Waiting cell → how many of the cells above it are not done.
        self._waiting = {name: len(cell.upstream) for name, cell in cells.items()}
        self._below: dict[str, list[str]] = {name: [] for name in cells}
        for name, cell in cells.items():
            for above in cell.upstream:
                self._below[above].append(name)
        #: Those of the waiting cells that have nothing to wait for.
        self._ready: list[tuple[bool, bool, int, str]] = []
        for name, waits_for in self._waiting.items():
            self._push(name, waits_for)

    def next(self) -> Cell | None:
        """A cell to look at now, or None while all that is left has to wait."""
        if len(self._running) >= self._width or not self._ready:
            return None
        if any(self._cells[name].alone for name in self._running):
            return None
        name = self._ready[0][-1]
        if self._cells[name].alone and self._running:
            return None
        heapq.heappop(self._ready)
        del self._waiting[name]
        self._running.add(name)
        return self._cells[name]

    def finish(self, name: str) -> None:
        """The cell is up to date: what depends on it may start."""
        self._running.discard(name)
        for below in self._below[name]:
            if below in self._waiting:
                self._waiting[below] -= 1
                self._push(below, self._waiting[below])

    def fail(self, name: str) -> list[str]:
        """The cell failed: give up what depends on it, and return the names of that."""
        self._running.discard(name)
        lost: set[str] = set()
        below = list(self._below[name])
        while below:
            found = below.pop()
            if found in self._waiting:
                del self._waiting[found]
                lost.add(found)
                below += self._below[found]
        return sorted(lost, key=self._place.__getitem__)

    @property
    def busy(self) -> bool:
        """Whether anything runs or may still run."""
        return bool(self._waiting or self._running)

    def _push(self, name: str, waits_for: int) -> None:
        if waits_for == 0:
            # Where there is a choice trainings start first: they are the longest.
            cell = self._cells[name]
            heapq.heappush(self._ready, (cell.alone, not cell.trains, self._place[name], name))
