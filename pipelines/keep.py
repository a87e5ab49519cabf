"""Keep what a retraining gave where others find it: a branch of git."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

from tunetrail.errors import TuneTrailError

_NOBODY = {"NAME": "TuneTrail", "EMAIL": "tunetrail@localhost"}


def commit(
    root: Path, branch: str, paths: Iterable[Path], message: str, without: Iterable[Path] = ()
) -> str | None:
    """Commit files to a branch, without touching what is checked out or staged.

    The commit has the files of HEAD with ``paths`` on top; it follows the branch, and HEAD where
    the branch does not have it yet.

    Args:
        root: The project, the top of a git repository.
        branch: Made where there is none.
        paths: Files, relative to ``root``; ignored ones as well.
        message: Of the commit.
        without: Files that the commit does not have, though HEAD may (DVC has taken them over).

    Returns:
        The commit, or None where the branch has all of it.

    Raises:
        TuneTrailError: There is no repository, or git refuses.
    """
    if _git(root, "rev-parse", "--show-toplevel") != str(root.resolve()):
        raise TuneTrailError(
            f"retrain.branch is '{branch}', and '{root}' is not the top of a git repository",
            "`git init` there, or remove retrain.branch",
        )
    head = _git(root, "rev-parse", "--verify", "HEAD")
    tip = _tip(root, branch)
    with tempfile.TemporaryDirectory(prefix="tunetrail-") as folder:
        index = {"GIT_INDEX_FILE": str(Path(folder) / "index")}
        _git(root, "read-tree", head, **index)
        _git(root, "add", "--force", "--", *map(str, paths), **index)
        for path in without:
            _git(root, "rm", "--cached", "--ignore-unmatch", "--", str(path), **index)
        tree = _git(root, "write-tree", **index)
    if tree == _git(root, "rev-parse", f"{tip or head}^{{tree}}"):
        return None
    parents = [head] if tip is None or _has(root, tip, head) else [tip]
    if tip is not None and not _has(root, tip, head) and not _has(root, head, tip):
        parents.append(head)
    signed = {}
    if not _git(root, "config", "--default", "", "user.email"):  # a machine that nobody works at
        both = ("AUTHOR", "COMMITTER")
        signed = {f"GIT_{who}_{what}": value for who in both for what, value in _NOBODY.items()}
    options = [part for parent in parents for part in ("-p", parent)]
    made = _git(root, "commit-tree", tree, *options, "-m", message, **signed)
    # Fails where somebody else has moved the branch meanwhile.
    _git(root, "update-ref", f"refs/heads/{branch}", made, tip or "0" * 40)
    return made


def _tip(root: Path, branch: str) -> str | None:
    """The commit of a branch.

    Raises:
        TuneTrailError: It is checked out: its files would seem changed.
    """
    if _git(root, "branch", "--show-current") == branch:
        raise TuneTrailError(
            f"retrain.branch is '{branch}', the branch that is checked out",
            "name another one: it is merged by whoever has looked at it",
        )
    listed = _git(root, "for-each-ref", "--format=%(objectname)", f"refs/heads/{branch}")
    return listed or None


def _has(root: Path, older: str, newer: str) -> bool:
    """Whether ``newer`` contains ``older``."""
    return _git(root, "merge-base", older, newer, missing="") == older


def _git(root: Path, *arguments: str, missing: str | None = None, **environment: str) -> str:
    done = subprocess.run(
        ["git", *arguments],
        cwd=root,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 0:
        return done.stdout.strip()
    if missing is not None:
        return missing
    said = done.stderr.strip().splitlines()
    raise TuneTrailError(
        f"`git {' '.join(arguments[:2])}` failed: {said[-1] if said else 'no reason given'}",
        "correct what it names, or remove retrain.branch; results are kept",
    )
