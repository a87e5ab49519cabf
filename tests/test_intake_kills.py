"""``kill -9`` of an intake, then the same intake again: the undisturbed end state."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Project
from tests.intake_project import drop, rows, state, tickets, write
from tunetrail.intake import intake, restore, versions

#: What changes files, as Python's own audit names it. A kill comes right before one of these.
_CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "shutil.rmtree")
_CHANGES += ("shutil.copyfile", "subprocess.Popen", "sqlite3.connect")


def moments(work: Callable[[], Any], kill_at: int | None = None) -> tuple[int, int | None]:
    """Do the work in a process of its own, which is killed before its change number ``kill_at``.

    Returns:
        How many changes it made, and the exit code.
    """
    context = multiprocessing.get_context("fork")
    count = context.Value("i", 0)

    def target() -> None:
        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            writes = (
                event == "open" and isinstance(arguments[2], int) and arguments[2] & os.O_ACCMODE
            )
            if writes or event in _CHANGES:
                if count.value == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)
                count.value += 1

        sys.addaudithook(hook)
        work()

    process = context.Process(target=target)
    process.start()
    process.join(120)
    return count.value, process.exitcode


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return tickets(tmp_path_factory.mktemp("kills") / "project", ids=False)


def accepted(project: Project) -> Callable[[], Any]:
    drop(project, "a.csv", rows([120, 121]))
    drop(project, "b.csv", rows([122]))
    return lambda: intake(project.root, "own")


def named(project: Project) -> Callable[[], Any]:
    file = write(project.root.parent / "elsewhere.csv", rows([120, 121]))
    return lambda: intake(project.root, "own", [file])


def rejected(project: Project) -> Callable[[], Any]:
    drop(project, "again.csv", rows(range(40)))
    return lambda: intake(project.root, "own")


def restored(project: Project) -> Callable[[], Any]:
    drop(project, "a.csv", rows([120]))
    intake(project.root, "own")
    return lambda: restore(project.root, "own", 1)


@pytest.mark.parametrize(
    ("make", "kills"), [(accepted, 12), (named, 6), (rejected, 6), (restored, 6)]
)
def test_a_killed_intake_is_ended_by_its_repetition(
    start: Project,
    tmp_path: Path,
    make: Callable[[Project], Callable[[], Any]],
    kills: int,
    request: pytest.FixtureRequest,
) -> None:
    if not request.config.getoption("--full-matrix"):
        kills //= 6
    undisturbed = start.copy(tmp_path / "undisturbed")
    count, code = moments(make(undisturbed))
    assert code == 0
    expected = state(undisturbed.root)
    assert (expected["left"], expected["decisions"]) == ([], [])
    chance = random.Random(7)
    for moment in sorted(chance.sample(range(count), kills)):
        project = start.copy(tmp_path / str(moment))
        work = make(project)
        assert moments(work, kill_at=moment)[1] == -signal.SIGKILL
        half = [path for path in (project.root / "data").rglob("*.csv") if path.stat().st_size < 60]
        assert half == [], f"half written, killed at {moment}"
        version = work()
        assert state(project.root) == expected, f"killed at {moment} of {count}"
        if version is not None:
            assert version == versions(project.root, "own")[-1]
