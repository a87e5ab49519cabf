"""Data files of the project whose bytes DVC keeps: ``FILE.dvc`` for git says which.

Like ``dvc add``, with three differences. The file never is a link into DVC's cache, so that who
changes it in place changes no earlier version; ``FILE.dvc`` is written in one step; and a file that
git has is taken out of git's index, where DVC would refuse it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tunetrail.errors import TuneTrailError
from tunetrail.files import copy_bytes, write_text
from tunetrail.repository import locked, md5_of, open_repo, unreadable


def check(root: Path, file: Path) -> bool:
    """Check that DVC can keep ``file``, a path relative to ``root``.

    Returns:
        Whether git has the file as well: :func:`put` will take it out of git's index.

    Raises:
        TuneTrailError: DVC cannot read the project, or a stage writes the file.
    """
    with _opened(root) as repo:
        _stage(repo, root / file)
        return _in_git(repo, root / file)


def put(root: Path, file: Path, content: Path) -> None:
    """Replace ``file``, in one step, by the bytes of ``content``, and let DVC keep these.

    Repeated after a kill or an error it ends in the same state. ``content`` may be the file itself.

    Raises:
        TuneTrailError: A DVC command works on the file, or git would not let go of it.
        OSError: The bytes cannot be written; the file is as it was.
    """
    from dvc.rwlock import rwlock
    from dvc.stage.serialize import to_single_stage_file
    from dvc.utils.serialize import dumps_yaml

    path, command = root / file, " ".join(sys.argv)
    with _opened(root) as repo:
        hardlink = repo.config["core"].get("hardlink_lock", False)
        alone = rwlock(repo.tmp_dir, repo.fs, command, [], [str(path)], hardlink)
        with locked(repo), alone:
            _keep(repo, content)
            _release(repo, path)
            if content != path:
                copy_bytes(content, path)
            stage = _stage(repo, path)
            stage.save()
            write_text(Path(stage.path), dumps_yaml(to_single_stage_file(stage)))


def get(root: Path, md5: str, target: Path) -> None:
    """Write the bytes that DVC keeps by this name to ``target``; from the remote if need be.

    Raises:
        TuneTrailError: Neither cache nor remote has them.
    """
    from dvc.exceptions import DvcException
    from dvc_data.hashfile.hash_info import HashInfo

    repo = open_repo(root)
    kept = Path(repo.cache.local.oid_to_path(md5))
    with locked(repo):
        _drop_damaged(kept, md5)
        if not kept.exists() and repo.config["core"].get("remote"):
            try:
                repo.cloud.pull([HashInfo("md5", md5)])
            except (DvcException, OSError) as error:
                raise TuneTrailError(
                    f"the bytes with md5 {md5} are not in DVC's cache, and the remote does not "
                    f"give them: {' '.join(str(error).split())}",
                    "see `dvc remote list`, and repeat the command",
                ) from None
        if not kept.exists():
            raise TuneTrailError(
                f"the bytes with md5 {md5} are neither in DVC's cache nor in its remote",
                "`dvc gc` may have removed them: copy .dvc/cache from a clone that has them, or "
                "give the rows anew with `tunetrail intake --replace`",
            )
        shutil.copyfile(kept, target)


@contextmanager
def _opened(root: Path) -> Iterator[Any]:
    from dvc.exceptions import DvcException

    repo = open_repo(root)
    try:
        yield repo
    except DvcException as error:
        raise unreadable(root, error) from None


def _stage(repo: Any, path: Path) -> Any:
    """DVC's stage of ``FILE.dvc``, as it is or new."""
    from dvc.repo.add import get_or_create_stage

    stage = get_or_create_stage(repo, str(path)).stage
    repo.check_graph(stages=[stage])
    return stage


def _keep(repo: Any, content: Path) -> None:
    """Put a copy of the bytes into DVC's cache."""
    md5, cache = md5_of(content), repo.cache.local
    kept = Path(cache.oid_to_path(md5))
    _drop_damaged(kept, md5)
    for left in kept.parent.glob(".*.tmp"):  # by a kill: whoever copies has the lock
        left.unlink()
    cache.add(str(content), repo.fs, md5)


def _drop_damaged(kept: Path, md5: str) -> None:
    """DVC believes its cache; a damaged copy must not pass for a version."""
    if kept.exists() and md5_of(kept) != md5:
        kept.unlink()


def _in_git(repo: Any, path: Path) -> bool:
    from dvc.scm import NoSCM

    return not isinstance(repo.scm, NoSCM) and bool(repo.scm.is_tracked(str(path)))


def _release(repo: Any, path: Path) -> None:
    """Take the file out of git's index if it is there, and leave the file alone."""
    if not _in_git(repo, path):
        return
    command = ["git", "rm", "--cached", "--quiet", "--", str(path.relative_to(repo.root_dir))]
    done = subprocess.run(command, cwd=repo.root_dir, capture_output=True, text=True, check=False)
    if done.returncode:
        raise TuneTrailError(
            f"git does not let go of '{path}', which DVC is to keep: {done.stderr.strip()}",
            f"`{' '.join(command)}`, then repeat the command",
        )
