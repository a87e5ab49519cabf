"""Writes that a kill cannot leave half done, and what a kill leaves of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tunetrail.files import replacing, scratch, write_text


def killed_while_it_writes(target: Path, how: str) -> int:
    """A process that dies in the middle of writing ``target``; its id."""
    script = f"""
import os, signal
from pathlib import Path
import tunetrail.files as files
os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
target = Path({str(target)!r})
if {how!r} == "folder":
    with files.replacing(target) as folder:
        (folder / "half.bin").write_text("half")
else:
    files.write_text(target, "half")
"""
    process = subprocess.Popen([sys.executable, "-c", script])
    process.wait()
    return process.pid


@pytest.mark.parametrize("how", ["folder", "file"])
def test_what_a_kill_left_is_unseen_by_dvc_and_removed_by_the_next_write(
    tmp_path: Path, how: str
) -> None:
    from dvc.repo import Repo

    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    (tmp_path / ".dvcignore").write_text((ROOT / ".dvcignore").read_text())
    repo = Repo.init(str(tmp_path))
    target = tmp_path / "runs" / "1"
    killed_while_it_writes(target, how)
    left = list(target.parent.iterdir())
    assert len(left) == 1
    ignored = repo.dvcignore.is_ignored_dir if how == "folder" else repo.dvcignore.is_ignored_file
    assert ignored(str(left[0]))
    if how == "folder":
        with replacing(target) as folder:
            (folder / "whole.bin").write_text("whole")
    else:
        write_text(target, "whole")
    assert [path.name for path in target.parent.iterdir()] == ["1"]


def test_what_a_running_process_or_another_target_writes_is_left_alone(tmp_path: Path) -> None:
    others = [
        tmp_path / f".1.{os.getppid()}.abcdefgh.tmp",  # of a process that is there
        tmp_path / ".1.5.4194999.abcdefgh.tmp",  # of target 1.5
        tmp_path / ".10.4194999.tmp",
    ]
    for other in others:
        other.mkdir()
    with replacing(tmp_path / "1"):
        pass
    assert sorted(tmp_path.iterdir()) == sorted([*others, tmp_path / "1"])


def test_scratch_folders_lie_in_the_project_and_vanish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with scratch() as one, scratch() as two:
        assert one != two
        assert one.is_dir()
        assert Path(".tunetrail") in one.parents
    assert not one.exists()
    assert not list(Path(".tunetrail/tmp").iterdir())
