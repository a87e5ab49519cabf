"""The project in this folder: parameters, git, DVC, locks and leftovers."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from tunetrail.doctor.finding import Finding, ok, problem, warning
from tunetrail.doctor.probe import Probe
from tunetrail.errors import TuneTrailError
from tunetrail.files import STATE_DIR
from tunetrail.place import CODE, check_pipeline, project_root

_RESULTS = ("models", "data", "plan", "runs", "comparison")


def root_of(start: Path) -> Path | None:
    """The project that a folder belongs to."""
    try:
        return project_root(start)
    except TuneTrailError:
        return None


def check(root: Path | None, probe: Probe) -> Iterator[Finding]:
    """The state of the project."""
    if root is None:
        yield ok("this folder belongs to no project (`tunetrail init` makes one)")
        return
    yield from _parameters(root, probe)
    yield from state(root)


def state(root: Path) -> Iterator[Finding]:
    """What can be told from the files of a project alone."""
    yield from _versioned(root)
    yield from _locks(root)
    yield from _pipeline(root)


def _parameters(root: Path, probe: Probe) -> Iterator[Finding]:
    answers = probe.answers
    if not (root / "params.yaml").exists():
        yield problem("there is no params.yaml", "restore it, or start with `tunetrail init`")
    elif "params_problem" in answers:
        yield problem(answers["params_problem"], answers["params_fix"])
    elif "params" in answers:
        yield ok("params.yaml is valid and its sources are there")
    else:
        yield problem(
            f"params.yaml cannot be checked: {answers.get('error', 'no answer')}",
            "install the requirements of TuneTrail again",
        )


def _versioned(root: Path) -> Iterator[Finding]:
    if shutil.which("git") is None:
        yield warning("git is not installed: results name no commit", "install git")
    elif not any((folder / ".git").exists() for folder in (root, *root.parents)):
        yield warning("no git repository: results name no commit", "git init, then commit")
    else:
        yield ok("in a git repository")
    if (root / ".dvc").is_dir():
        yield ok("DVC is initialised")
    else:
        yield problem("DVC is not initialised: there is no .dvc", f"cd {root} && dvc init --no-scm")


def _pipeline(root: Path) -> Iterator[Finding]:
    code = root / CODE
    if code.is_symlink() and not code.exists():
        yield warning(
            f"{CODE} points to a TuneTrail that is gone ({os.readlink(code)})",
            "`tunetrail plan` or `tunetrail run` renews it; `dvc repro` alone cannot",
        )
        return
    try:
        check_pipeline(root)
    except TuneTrailError as error:
        yield problem(error.problem, error.fix)


def _locks(root: Path) -> Iterator[Finding]:
    """Runs under way, and what killed ones have left."""
    ours, theirs = _held(root / STATE_DIR / "run.lock"), _held(root / ".dvc" / "tmp" / "lock")
    if ours:
        yield warning("a run is under way here", "wait for it before you start another")
    elif theirs:
        yield warning("a DVC command is at work here", "wait for it, or stop it")
    else:
        yield ok("no other run is under way")
        yield from _leftovers(root)
    gone = sorted(_dead_owners(root / ".dvc" / "tmp" / "rwlock"))
    if gone:
        yield warning(
            f"DVC's lock file .dvc/tmp/rwlock names processes that are gone: {', '.join(gone)}",
            "`tunetrail mend` clears it",
        )


def _held(lock: Path) -> bool:
    """Whether a living process holds a lock (a killed one cannot: the system takes it back)."""
    if not lock.exists():
        return False
    with lock.open("rb") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        return False


def _dead_owners(rwlock: Path) -> Iterator[str]:
    """Processes that DVC's list of readers and writers names and that are no longer there."""
    if not rwlock.is_file():
        return
    try:
        content = json.loads(rwlock.read_text(encoding="utf-8") or "{}")
    except ValueError:
        yield "(unreadable)"
        return
    writers = list(content.get("write", {}).values())
    readers = [entry for entries in content.get("read", {}).values() for entry in entries]
    for pid in {entry["pid"] for entry in writers + readers}:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            yield str(pid)
        except PermissionError:
            continue  # it lives, as another user


def _leftovers(root: Path) -> Iterator[Finding]:
    interrupted = [p for p in (root / STATE_DIR / "checkpoints").glob("[!.]*") if p.is_dir()]
    if interrupted:
        yield ok(f"{len(interrupted)} interrupted runs go on from their checkpoints next time")
    halves = [
        path
        for name in _RESULTS
        for path in (root / name).rglob(".*")
        if path.is_dir() and not path.is_symlink()
    ]
    if halves:
        shown = ", ".join(str(path.relative_to(root)) for path in halves[:3])
        yield warning(
            f"{len(halves)} half-written folders of killed stages: {shown}"
            f"{', …' if len(halves) > 3 else ''}",
            "they are never read; remove them",
        )
