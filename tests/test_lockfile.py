"""dvc.lock, written in batches: the bytes that DVC itself would write."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dvc.dvcfile import Lockfile
from dvc.repo import Repo

from tests.conftest import BIN
from tunetrail.lockfile import LockFile

#: Commands so long that DVC breaks their lines, at places that depend on how far they are indented,
#: and a name so long that it gets a line of its own.
_LONG = "x" * 130
_PIPELINE = f"""
stages:
  plain:
    cmd: echo a > plain
    deps: [given]
    outs: [plain]
  many:
    matrix:
      name: [first, second, "third one", 'yes', a, bb, dddd, ggggggg, {_LONG}]
    cmd: >-
      echo ${{item.name}} one two three four five six seven eight nine ten eleven twelve thirteen
      fourteen fifteen > "${{item.name}}"
    deps: [plain]
    params: [{{p.yaml: null}}]
    outs: ["${{item.name}}"]
"""


@pytest.fixture(scope="module")
def repro(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of which plain `dvc repro` has executed everything."""
    root = tmp_path_factory.mktemp("repro")
    (root / "dvc.yaml").write_text(_PIPELINE)
    (root / "given").write_text("given\n")
    (root / "p.yaml").write_text("rate: 0.001\nnames: [a, 'no']\ntext: 'é: #'\n")
    for command in (["init", "--no-scm", "-q"], ["repro", "-q"]):
        subprocess.run([BIN / "dvc", *command], cwd=root, check=True)
    return root


@pytest.fixture
def stages(repro: Path) -> Iterator[list[Any]]:
    repo = Repo(str(repro))
    with repo.lock:
        yield list(repo.index.stages)


def test_it_writes_what_dvc_repro_wrote(repro: Path, stages: list[Any], tmp_path: Path) -> None:
    found = LockFile(tmp_path / "dvc.lock")
    assert found.is_written
    for stage in stages:
        found.put(stage)
    assert not found.is_written
    assert not (tmp_path / "dvc.lock").exists(), "written before it is told to"
    found.write()
    assert found.is_written
    assert (tmp_path / "dvc.lock").read_text() == (repro / "dvc.lock").read_text()


@pytest.mark.parametrize("edit", ["none", "one gone", "by hand", "more", "stale", "empty", "flow"])
def test_it_changes_a_file_as_dvc_does(
    edit: str, repro: Path, stages: list[Any], tmp_path: Path
) -> None:
    text = (repro / "dvc.lock").read_text()
    head, first, _ = text.partition("  plain:\n")
    ours, theirs = tmp_path / "dvc.lock", tmp_path / "dvc" / "dvc.lock"
    theirs.parent.mkdir()
    edited = {
        "none": text,
        "one gone": text[: text.rindex("\n  many")] + "\n",
        "by hand": "\n".join(
            line.replace("  ", "    ", 1) if line.startswith("  ") else line
            for line in text.splitlines()
        ),
        "more": text.replace(head, f"schema: '2.0'\n# ours\n{head.partition(chr(10))[2]}")
        + "datasets:\n  - name: other\n    type: url\n    url: https://host/x\n    meta: {}\n",
        "stale": text.replace("md5: ", "md5: 0", 1).replace(first, "  # kept\n" + first),
        "empty": "",
        "flow": "{schema: '2.0', stages: {}}\n",
    }[edit]
    for path in (ours, theirs):
        path.write_text(edited)
    found = LockFile(ours)
    lock = Lockfile(stages[0].repo, str(theirs))
    for stage in stages[:3]:
        found.put(stage)
        lock.dump(stage)
    found.write()
    written, by_dvc = (Lockfile(stages[0].repo, str(p)).load() for p in (ours, theirs))
    assert written == by_dvc
    if edit in ("none", "one gone", "stale", "empty"):
        assert ours.read_text() == theirs.read_text()
    found.put(stages[3])
    lock.dump(stages[3])
    found.write()
    assert Lockfile(stages[0].repo, str(ours)).load() == Lockfile(lock.repo, str(theirs)).load()


def test_what_somebody_else_wrote_meanwhile_is_kept(
    repro: Path, stages: list[Any], tmp_path: Path
) -> None:
    path = tmp_path / "dvc.lock"
    found = LockFile(path)
    found.put(stages[0])
    found.write()
    Lockfile(stages[0].repo, str(path)).dump(stages[1])
    found.put(stages[2])
    found.write()
    names = [stage.name for stage in stages[:3]]
    assert sorted(Lockfile(stages[0].repo, str(path)).load()["stages"]) == sorted(names)


def test_what_could_not_be_written_is_written_the_next_time(
    stages: list[Any], tmp_path: Path
) -> None:
    path = tmp_path / "dvc.lock"
    found = LockFile(path)
    found.put(stages[0])
    path.mkdir()
    with pytest.raises(OSError, match=r"dvc\.lock"):
        found.write()
    assert not found.is_written
    path.rmdir()
    found.write()
    assert list(Lockfile(stages[0].repo, str(path)).load()["stages"]) == [stages[0].name]
