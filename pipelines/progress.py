"""What a person sees while the pipeline runs."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TaskID
from rich.table import Column, Table
from rich.text import Text

from tunetrail.dag import Cell
from tunetrail.estimate import Estimator
from tunetrail.report import text

#: Seconds between lines when output is not a terminal.
_LINE_EVERY = 15.0

#: Seconds between two looks at the time left on a terminal.
_TOLD_EVERY = 1.0

#: Widths of the columns of a live row, and what a name may shrink to.
_BAR, _COUNT, _NOTE, _CLOCK = 10, 9, 10, 7
_SHORTEST_NAME = 12


def is_live(console: Console) -> bool:
    """Whether the console can redraw lines: a terminal with a cursor, that nobody records."""
    redraws = console.file.isatty() and not console.is_dumb_terminal
    return redraws and not os.environ.get("CI")


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
        self._live = is_live(console)
        # Held by whoever changes what is shown. Drawing holds rich's own locks and must never wait
        # for this one, so it reads finished texts.
        self._lock = threading.Lock()
        self._begun = time.monotonic()
        self._estimator, self._width = estimator, width
        self._waiting = {cell.name for cell in cells}
        self._alone = {cell.name for cell in cells if cell.alone}
        #: Running stage → when it started, and the share of it that is done (trainings tell).
        self._running: dict[str, tuple[float, float]] = {}
        #: What was executed → seconds.
        self.seconds: dict[str, float] = {}
        self._runs = {cell.name for cell in cells if cell.trains}
        self._runs_done, self._done, self._total = 0, 0, len(cells)
        #: Stages done when the last line was printed.
        self._told = -1
        fixed = 1 + _BAR + _COUNT + _NOTE + 2 * _CLOCK + len("  left") + 5 * len(" ")
        name = max(_SHORTEST_NAME, console.width - fixed)
        self._progress = Progress(
            SpinnerColumn(),
            _Field("name", "left", name),
            BarColumn(bar_width=_BAR),
            _Field("count", "right", _COUNT),
            _Field("note", "left", _NOTE),
            _Clock(),
            console=console,
            transient=True,
            disable=not self._live,
            redirect_stderr=sys.stderr.isatty(),
        )
        self._overall = self._progress.add_task(
            "", total=self._total, name="all stages", left="", **self._counts()
        )
        self._rows: dict[str, TaskID] = {}
        self._ended = threading.Event()
        self._clockwork = threading.Thread(target=self._keep_telling, daemon=True)

    def __enter__(self) -> Display:
        self._tell_left()
        self._progress.start()
        self._clockwork.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._clockwork.join()
        self._progress.stop()
        if not self._live and self._told < self._done:
            self._console.print(self._line())

    def started(self, name: str) -> None:
        """A stage begins."""
        with self._lock:
            self._waiting.discard(name)
            self._running[name] = (time.monotonic(), 0.0)
            expected = self._estimator.seconds(name)
            if name not in self._rows:  # a retried one has its row already
                self._rows[name] = self._progress.add_task(
                    "", total=None, name=name, count="", note="", left=_clock(expected)
                )

    def step(self, name: str, step: int, steps: int, loss: float) -> None:
        """A training reports its step and loss."""
        with self._lock:
            if name in self._rows:
                self._running[name] = (self._running[name][0], step / steps)
                self._progress.update(
                    self._rows[name],
                    completed=step,
                    total=steps,
                    count=f"{step}/{steps}",
                    note=f"loss {loss:.3g}",
                )

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
            if name in self._runs:
                self._runs_done += 1
            self._progress.update(self._overall, completed=self._done, **self._counts())
        if failed:
            self._console.print(f"failed: {name}", style="red")

    def note(self, text: str) -> None:
        """Something that a person should know."""
        self._console.print(text, style="yellow")

    def _counts(self) -> dict[str, Any]:
        return {
            "count": f"{self._done}/{self._total}",
            "note": f"{self._runs_done}/{len(self._runs)} runs",
        }

    def _keep_telling(self) -> None:
        every = _TOLD_EVERY if self._live else _LINE_EVERY
        while not self._ended.wait(every):
            if self._live:
                self._tell_left()
            else:
                self._console.print(self._line())

    def _tell_left(self) -> None:
        """Put the time left on every row."""
        with self._lock:
            self._progress.update(self._overall, left=_clock(self._seconds_left()))
            for name, row in self._rows.items():
                seconds = self._estimator.seconds(name) * (1 - self._share(name))
                self._progress.update(row, left=_clock(seconds))

    def _line(self) -> str:
        """Where everything is, in a line."""
        with self._lock:
            self._told = self._done
            parts = [
                f"{self._done}/{self._total} stages",
                f"{self._runs_done}/{len(self._runs)} runs",
                f"{_clock(time.monotonic() - self._begun)} elapsed",
            ]
            if self._done < self._total:
                parts.append(f"{_clock(self._seconds_left())} left")
            running = next(iter(self._running), None)
        line = ", ".join(parts)
        room = self._console.width - len(line) - 2
        return f"{line}; {shortened(running, room)}" if running and room >= 12 else line

    def _seconds_left(self) -> float:
        shares = {name: self._share(name) for name in self._running}
        return self._estimator.left(self._waiting, shares, self._alone, self._width)

    def _share(self, name: str) -> float:
        """How much of a running stage is done: as it says itself, or by the clock."""
        started, told = self._running[name]
        expected = self._estimator.seconds(name)
        return told or min((time.monotonic() - started) / max(expected, 1e-9), 0.95)


class _Field(ProgressColumn):
    """A field of a row, in a column that neither wraps nor moves."""

    def __init__(self, field: str, justify: Any, width: int) -> None:
        self._field, self._width = field, width
        super().__init__(Column(justify=justify, width=width, no_wrap=True))

    def render(self, task: Task) -> Text:
        return Text(shortened(str(task.fields[self._field]), self._width))


class _Clock(ProgressColumn):
    """Time since a row appeared, and about how much longer it takes."""

    def __init__(self) -> None:
        super().__init__(Column(no_wrap=True))

    def render(self, task: Task) -> Text:
        left = f"{task.fields['left']:>{_CLOCK}} left" if task.fields["left"] else ""
        return Text(f"{_clock(task.elapsed or 0.0):>{_CLOCK}} {left:{_CLOCK + 5}}")


def shortened(name: str, width: int) -> str:
    """A name in at most ``width`` characters; what is missing is missing in the middle."""
    if len(name) <= width:
        return name
    tail = (width - 1) // 2
    return f"{name[: width - 1 - tail]}…{name[-tail:]}"


def _clock(seconds: float) -> str:
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def show_results(console: Console, comparison: dict[str, Any]) -> None:
    """The scores of every task, narrow enough for 80 columns."""
    for content in comparison["tasks"].values():
        primary, *others = content["metrics"]
        titles = content["metric_titles"]
        table = Table(box=SIMPLE_HEAD, pad_edge=False, title=content["title"], title_justify="left")
        table.add_column("method", overflow="fold")  # the one that gives way to numbers
        for name in (titles[primary], "95% interval", *(titles[m] for m in others)):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("group", no_wrap=True)
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
                content["letters"][label],
            )
        console.print(table)
        sentences = [
            text.verdict_sentence(content, comparison["baseline"], comparison["margin"]),
            text.edge_sentence(content),
        ]
        for sentence in filter(None, sentences):
            console.print(text.wrapped(sentence, console.width, "  ") + "\n")
    legend = (
        f"Test scores over {text.seeds(comparison)}. * chosen on the selection set. Methods with a "
        "letter in common cannot be told apart."
    )
    console.print(text.wrapped(legend, console.width) + "\n")
