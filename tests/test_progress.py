"""What is drawn on a terminal of 80 columns, and printed where there is none."""

from __future__ import annotations

import io
import os
import re
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from pipelines import progress
from pipelines.compare import _tracking_page
from pipelines.progress import Display, shortened
from tunetrail.dag import Cell
from tunetrail.estimate import Estimator

LONG = "support_tickets_of_last_year-houlsby_with_wide_bottleneck"
TRAIN, EVALUATE = f"train@{LONG}-1", f"evaluate@{LONG}-1"
CELLS = [Cell(name, "", frozenset(), alone=False) for name in (TRAIN, EVALUATE, "compare")]

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@pytest.fixture
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CI", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


def drawn(work: Callable[[Display], None]) -> str:
    """Everything that a display writes to a (pseudo) terminal of 80 columns."""
    ours, theirs = os.openpty()
    written: list[bytes] = []

    def collect() -> None:
        try:
            while block := os.read(ours, 4096):
                written.append(block)
        except OSError:  # how Linux says that the other end is closed
            return

    reader = threading.Thread(target=collect)
    reader.start()
    with os.fdopen(theirs, "w", encoding="utf-8") as terminal:
        console = Console(file=terminal, width=80, soft_wrap=True, markup=False, highlight=False)
        with Display(console, CELLS, Estimator({}), width=2) as display:
            work(display)
    reader.join()
    os.close(ours)
    return b"".join(written).decode()


def training(display: Display) -> None:
    display.started(TRAIN)
    display.started(EVALUATE)
    for step in range(5):
        display.step(TRAIN, step * 1000, 9000, 12.345)
        time.sleep(0.1)
    display.finished(EVALUATE)
    time.sleep(0.2)


def rows(text: str) -> list[str]:
    return [line for line in re.split(r"[\r\n]+", _CONTROL.sub("", text)) if line.strip()]


@pytest.mark.usefixtures("plain_environment")
def test_a_terminal_row_never_wraps_and_long_names_lose_their_middle() -> None:
    shown = rows(drawn(training))
    assert max(len(row) for row in shown) <= 80
    of_training = [row for row in shown if "4000/9000" in row]
    assert of_training, shown
    assert re.search(
        r"train@suppor…bottleneck-1 .* 4000/9000 loss 12.3 +0:00:0\d +0:00:\d\d left",
        of_training[-1],
    )


@pytest.mark.usefixtures("plain_environment")
def test_elapsed_and_left_stand_under_each_other() -> None:
    shown = [row for row in rows(drawn(training)) if row.rstrip().endswith("left")]
    assert any("all stages" in row for row in shown)
    assert any("train@" in row for row in shown)
    assert len({row.rindex(" left") for row in shown}) == 1
    assert len({re.search(r"\d:\d\d:\d\d", row).start() for row in shown}) == 1  # type: ignore[union-attr]


@pytest.mark.usefixtures("plain_environment")
def test_the_terminal_is_left_clean() -> None:
    assert not _CONTROL.sub("", drawn(training).rpartition("\x1b[2K")[2]).strip()


@pytest.mark.parametrize(("name", "value"), [("CI", "1"), ("TERM", "dumb")])
@pytest.mark.usefixtures("plain_environment")
def test_no_control_characters_where_lines_are_recorded(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    text = drawn(training)
    assert "\x1b" not in text
    assert rows(text)[-1].startswith("1/3 stages, 0/1 runs, 0:00:00 elapsed")


@pytest.mark.usefixtures("plain_environment")
def test_no_color_is_respected_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    colours = re.findall(r"\x1b\[([0-9;]*)m", drawn(training))
    assert not [code for code in colours if re.search(r"\b(3[0-9]|4[0-9]|9[0-7])\b", code)]


@pytest.mark.usefixtures("plain_environment")
def test_forced_colour_does_not_make_a_pipe_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert not progress.is_live(Console(file=io.StringIO()))


@pytest.mark.usefixtures("plain_environment")
def test_lines_come_while_a_single_stage_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_LINE_EVERY", 0.1)
    out = io.StringIO()
    with Display(Console(file=out, width=80), CELLS, Estimator({}), width=2) as display:
        display.started(TRAIN)
        time.sleep(0.35)
    lines = out.getvalue().splitlines()
    assert len(lines) >= 2
    assert all(len(line) <= 80 and "\x1b" not in line for line in lines)
    assert re.fullmatch(
        r"0/3 stages, 0/1 runs, 0:00:00 elapsed, 0:00:\d\d left; train@\S*…\S*-1", lines[0]
    )


@pytest.mark.timeout(120)
def test_updates_from_many_threads_do_not_block_each_other() -> None:
    """Drawing and reporting take locks of their own: a wrong order would hang here."""

    def work(display: Display) -> None:
        def report() -> None:
            for step in range(300):
                display.started(TRAIN)
                display.step(TRAIN, step, 300, 0.5)
                display.finished(TRAIN)

        threads = [threading.Thread(target=report, daemon=True) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()

    drawn(work)


@pytest.mark.parametrize(
    ("width", "expected"), [(30, "train@movie-houlsby-1"), (12, "train@…sby-1"), (7, "tra…y-1")]
)
def test_short_names_stay_and_long_ones_keep_both_ends(width: int, expected: str) -> None:
    shown = shortened("train@movie-houlsby-1", width)
    assert len(shown) <= width
    assert shown == expected


def test_a_failed_stage_is_named_in_full() -> None:
    out = io.StringIO()
    with Display(Console(file=out, soft_wrap=True), CELLS, Estimator({}), width=1) as display:
        display.started(TRAIN)
        display.finished(TRAIN, failed=True)
    assert f"failed: {TRAIN}\n" in out.getvalue()


def test_warnings_do_not_go_through_the_display_unless_they_are_shown_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``2> file`` gets what is written to standard error while a bar is drawn."""
    log = tmp_path / "log"

    def work(display: Display) -> None:
        sys.stderr.write("a warning\n")

    with log.open("w") as handle:
        monkeypatch.setattr(sys, "stderr", handle)
        text = drawn(work)
    assert log.read_text() == "a warning\n"
    assert "a warning" not in text


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("http://me:s3cret@host:5000", "http://me:***@host:5000"),
        ("postgresql://me:s3cret@host/db", "ui --backend-store-uri 'postgresql://me:***@host/db'"),
        ("sqlite:////a/mlflow.db", "ui --backend-store-uri sqlite:////a/mlflow.db"),
    ],
)
def test_where_to_look_at_mlflow_is_told_without_its_password(
    uri: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert _tracking_page(Path("bin")).endswith(shown)
