"""What a person sees while the pipeline runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from tunetrail.dag import Cell
from tunetrail.estimate import Estimator

#: Seconds between lines when output is not a terminal.
_LINE_EVERY = 15.0


class Display:
    """Live progress on a terminal; a line now and then elsewhere.

    Args:
        console: Where to draw.
        cells: Stages that may have to run.
        estimator: What is known of how long they take.
        width: Stages side by side.
    """

    def __init__(
        self, console: Console, cells: Sequence[Cell], estimator: Estimator, width: int
    ) -> None:
        self._console = console
        self._live = console.is_terminal
        self._lock = threading.Lock()
        self._last_line = time.monotonic()
        self._estimator, self._width = estimator, width
        self._waiting = {cell.name for cell in cells}
        self._alone = {cell.name for cell in cells if cell.alone}
        #: Running stage → when it started, and the share of it that is done (trainings tell).
        self._running: dict[str, tuple[float, float]] = {}
        #: What was executed → seconds.
        self.seconds: dict[str, float] = {}
        self._runs = sum(cell.stage == "train" for cell in cells)
        self._runs_done, self._done, self._total = 0, 0, len(cells)
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=18),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not self._live,
        )
        self._overall = self._progress.add_task("all stages", total=self._total, note="")
        self._rows: dict[str, TaskID] = {}

    def __enter__(self) -> Display:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def started(self, name: str) -> None:
        """A stage begins."""
        with self._lock:
            self._waiting.discard(name)
            self._running[name] = (time.monotonic(), 0.0)
            if name not in self._rows:  # a retried one has its row already
                self._rows[name] = self._progress.add_task(name, total=None, note="")

    def step(self, name: str, step: int, steps: int, loss: float) -> None:
        """A training reports its step and loss."""
        with self._lock:
            if name in self._rows:
                self._running[name] = (self._running[name][0], step / steps)
                self._progress.update(
                    self._rows[name], completed=step, total=steps, note=f"loss {loss:.3f}"
                )
                self._progress.update(self._overall, note=self._note())

    def finished(self, name: str, *, failed: bool = False) -> None:
        """A stage ended, or turned out to have nothing to do."""
        with self._lock:
            row = self._rows.pop(name, None)
            if row is not None:
                self._progress.remove_task(row)
            self._waiting.discard(name)
            if name in self._running and not failed:
                self.seconds[name] = time.monotonic() - self._running[name][0]
                self._estimator.took(name, self.seconds[name])
            self._running.pop(name, None)
            self._done += 1
            if name.startswith("train@"):
                self._runs_done += 1
            self._progress.update(self._overall, completed=self._done, note=self._note())
            if failed:
                self._console.print(f"failed: {name}", style="red")
            elif not self._live and self._due():
                self._console.print(
                    f"{self._done}/{self._total} stages, {self._note()}; last: {name}"
                )

    def note(self, text: str) -> None:
        """Something that a person should know."""
        self._console.print(text, style="yellow")

    def _due(self) -> bool:
        now = time.monotonic()
        if now - self._last_line < _LINE_EVERY and self._done < self._total:
            return False
        self._last_line = now
        return True

    def _note(self) -> str:
        shares = {name: self._share(name) for name in self._running}
        seconds = self._estimator.left(self._waiting, shares, self._alone, self._width)
        left = f"about {int(seconds // 60)}:{int(seconds % 60):02d} left"
        return f"run {self._runs_done}/{self._runs}, {left}"

    def _share(self, name: str) -> float:
        """How much of a running stage is done: as it says itself, or by the clock."""
        started, told = self._running[name]
        expected = self._estimator.seconds(name)
        return told or min((time.monotonic() - started) / max(expected, 1e-9), 0.95)


def show_results(console: Console, comparison: dict[str, Any]) -> None:
    """The scores of every task, narrow enough for 80 columns."""
    for content in comparison["tasks"].values():
        primary, *others = content["metrics"]
        titles = content["metric_titles"]
        table = Table(box=SIMPLE_HEAD, pad_edge=False, title=content["title"], title_justify="left")
        table.add_column("method", no_wrap=True)
        for name in (titles[primary], "95% interval", *(titles[m] for m in others)):
            table.add_column(name, justify="right", no_wrap=True)
        methods = sorted(
            content["methods"].items(), key=lambda item: -item[1]["summary"][primary]["mean"]
        )
        for label, method in methods:
            score = method["summary"][primary]
            single = score["std"] is None
            table.add_row(
                method["title"] + (" *" if label == content["winner"]["method"] else ""),
                f"{score['mean']:.3f}" + ("" if single else f" ± {score['std']:.3f}"),
                "–" if single else f"[{score['low']:.3f}, {score['high']:.3f}]",
                *(f"{method['summary'][m]['mean']:.3f}" for m in others),
            )
        console.print(table)
    seeds = len(next(iter(content["methods"].values()))["runs"])
    over = "1 seed" if seeds == 1 else f"{seeds} seeds"
    console.print(f"Test scores over {over}. * chosen on the selection set.\n")
