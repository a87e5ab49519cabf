"""A project as DVC sees it: its repository, the lock, and what killed commands left of them."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tunetrail.errors import TuneTrailError
from tunetrail.files import STATE_DIR, write_text

#: Local configuration of DVC in a project without git.
_NO_GIT = "[core]\n    no_scm = true\n"


def open_repo(root: Path, mend: bool = True) -> Any:
    """DVC's view of the project in ``root``; it waits for other commands, and is quiet.

    Args:
        root: The project.
        mend: Clear away what killed commands left; not where projects share a cache.

    Raises:
        TuneTrailError: DVC cannot read the project.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    # Its own handlers write to standard output, which is for results, and mask no URL; the root's
    # have the lines as well.
    for name in ("dvc", "dvc_objects", "dvc_data"):
        logging.getLogger(name).handlers.clear()
    if not logging.getLogger().isEnabledFor(logging.INFO):
        logging.getLogger("dvc").setLevel(logging.ERROR)
    # What it could not put into the cache is found, and told in words, by its callers.
    logging.getLogger("dvc_data").setLevel(logging.CRITICAL)
    allow_missing_git(root)
    try:
        # A finished stage is never given up because some DVC command is busy for a moment.
        repo = Repo(str(root), _wait_for_lock=True)
        if mend:
            _mend(repo)
    except DvcException as error:
        raise unreadable(root, error) from None
    return repo


def _mend(repo: Any) -> None:
    """Remove what DVC stumbles over when it was killed while it wrote."""
    from dvc.lock import make_lock

    folder = Path(repo.tmp_dir)
    held = folder / "rwlock"
    with locked(repo):
        with make_lock(str(folder / "rwlock.lock"), tmp_dir=str(folder)):
            try:
                json.loads(held.read_text(encoding="utf-8"))
            except FileNotFoundError:
                pass
            except ValueError:  # cut off; whoever held anything by it is gone
                held.unlink()
        for entry in Path(repo.stage_cache.cache_dir).glob("*/*"):
            if not any(entry.iterdir()):
                entry.rmdir()


@contextmanager
def locked(repo: Any) -> Iterator[None]:
    """Keep DVC's lock.

    Raises:
        TuneTrailError: Another command works on what is asked for inside, or its list is cut off.
    """
    from dvc.lock import LockError
    from dvc.rwlock import RWLockFileCorruptedError

    try:
        with repo.lock, repo.scm_context():
            yield
    except LockError as error:
        busy = re.findall(r"^  \((PID \d+)\): (.*)", str(error), re.MULTILINE)
        who = "; ".join(f"{command} ({pid})" for pid, command in busy)
        raise TuneTrailError(
            f"another DVC command is at work in this project: {who or 'it holds the lock'}",
            "wait until it is done, or stop it; if there is no such process any more, delete "
            ".dvc/tmp/rwlock",
        ) from None
    except RWLockFileCorruptedError:
        raise TuneTrailError(
            "DVC's list of who works on what, .dvc/tmp/rwlock, was cut off by a kill",
            "`tunetrail mend` removes it",
        ) from None


def at_revision(root: Path, revision: str) -> Any:
    """The files of the project in ``root`` as a commit has them, those that DVC keeps included.

    What is not in DVC's cache is read from its remote.

    Returns:
        An fsspec file system. To open what neither has raises FileNotFoundError.

    Raises:
        TuneTrailError: There is no such revision, or no git here.
    """
    from dvc.api import DVCFileSystem
    from dvc.exceptions import DvcException

    try:
        files = DVCFileSystem(str(root), rev=revision)
        files.info("dvc.yaml")  # opens the revision
    except (DvcException, FileNotFoundError):
        raise TuneTrailError(
            f"'{revision}' is neither a file nor a revision of the project in '{root}'",
            "name a comparison.json, a project's folder, or a commit, branch or tag",
        ) from None
    return files


def mend_lock_file(root: Path) -> bool:
    """Put ``dvc.lock`` back as the last call found it, where a killed DVC has cut it off.

    DVC empties the file before it writes it. What was executed since is in the run cache.

    Returns:
        Whether it was cut off, or else unreadable; it is then kept as ``.tunetrail/dvc.lock.cut``.
    """
    from dvc.dvcfile import Lockfile
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    lock, whole = root / "dvc.lock", root / STATE_DIR / "dvc.lock"
    allow_missing_git(root)
    repo = Repo(str(root), _wait_for_lock=True)
    with repo.lock:  # nobody is writing it
        if not lock.exists():
            return False
        text = lock.read_text(encoding="utf-8")
        # What is left can be readable by chance, but hardly ends with a line.
        with suppress(DvcException):
            if Lockfile(repo, str(lock)).load() and text.endswith("\n"):
                write_text(whole, text)
                return False
        whole.parent.mkdir(exist_ok=True)
        os.replace(lock, whole.with_name("dvc.lock.cut"))
        if whole.exists():
            write_text(lock, whole.read_text(encoding="utf-8"))
        return True


def unreadable(root: Path, error: Exception) -> TuneTrailError:
    """The error to show for one of DVC about the project's files."""
    text = " ".join(str(error).split())
    if Path(getattr(error, "path", "")).name == "dvc.lock":
        return TuneTrailError(
            f"dvc.lock in '{root}' cannot be read: {text}",
            "DVC may have been killed while it wrote it: `tunetrail mend` puts it back as it last "
            "was whole (git may have a later one); results come back from DVC's cache",
        )
    return TuneTrailError(
        f"DVC cannot read the project in '{root}': {text}",
        "correct params.yaml or dvc.yaml (`dvc status` shows DVC's own message)",
    )


def allow_missing_git(root: Path = Path()) -> None:
    """Tell DVC, in its local configuration, to do without git where there is none (an archive).

    Once there is git, DVC is to know of it: what it keeps, git must ignore.
    """
    local = root / ".dvc" / "config.local"
    if (root / ".git").exists():
        if local.exists() and local.read_text(encoding="utf-8") == _NO_GIT:
            local.unlink()
    elif (root / ".dvc").is_dir() and not local.exists():
        local.write_text(_NO_GIT, encoding="utf-8")


def md5_of(path: Path) -> str:
    """md5 (hex) of a file's bytes, by which DVC names them."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "md5").hexdigest()
