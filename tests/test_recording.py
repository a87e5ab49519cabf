"""What the flow records of cells, and when: dvc.lock in batches, and a kill between two of them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import BIN
from tunetrail.dag import Dag, stale_cells

_PIPELINE = """
stages:
  numbers:
    matrix:
      number: [1, 2, 3]
    cmd: mkdir -p out/of && (cat given; echo ${item.number}) > out/of/${item.number}
    deps: [given]
    outs: ["out/of/${item.number}"]
  whole:
    cmd: cat out/of/* > whole
    deps: [out]
    outs: [whole]
"""
_OTHER = "stages: {more: {cmd: cp ../whole more, deps: [../whole], outs: [more]}}\n"

_CELLS = ("numbers@1", "numbers@2", "numbers@3", "whole", "sub/dvc.yaml:more")

#: Executes and records as the flow does, and is killed with some of it not written to dvc.lock.
_KILLED = """
import os, signal, subprocess, sys
from pathlib import Path
from tunetrail.dag import Dag

def execute(dag, name):
    assert not dag.begin(name)
    folder = Path("sub") if name.startswith("sub/") else Path()
    subprocess.run(dag.cells[name].command, shell=True, check=True, cwd=folder)

dag = Dag(Path.cwd())
with dag.claimed():
    for name in sys.argv[2:]:
        execute(dag, name)
        dag.record(name)
    if sys.argv[1] == "kill":
        assert dag.due() is not None
        os.kill(os.getpid(), signal.SIGKILL)
    if sys.argv[1] == "fail":
        raise RuntimeError("on purpose")
"""


def project(root: Path) -> Path:
    (root / "sub").mkdir(parents=True)
    (root / "dvc.yaml").write_text(_PIPELINE)
    (root / "sub" / "dvc.yaml").write_text(_OTHER)
    (root / "given").write_text("given\n")
    subprocess.run([BIN / "dvc", "init", "--no-scm", "-q"], cwd=root, check=True)
    return root


def work(root: Path, end: str, *names: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", _KILLED, end, *names]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def repro(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that plain `dvc repro` has worked off."""
    root = project(tmp_path_factory.mktemp("repro") / "project")
    subprocess.run([BIN / "dvc", "repro", "-q", "--all-pipelines"], cwd=root, check=True)
    return root


def locks(root: Path) -> list[str]:
    return [(root / folder / "dvc.lock").read_text() for folder in ("", "sub")]


@pytest.mark.parametrize("end", ["well", "fail"])
def test_the_lock_files_are_written_when_the_work_ends(
    end: str, repro: Path, tmp_path: Path
) -> None:
    root = project(tmp_path / "project")
    done = work(root, end, *_CELLS)
    assert (done.returncode == 0) == (end == "well"), done.stderr
    assert locks(root) == locks(repro)
    assert stale_cells(Dag(root)) == {}


def test_what_a_kill_kept_out_of_the_lock_file_is_there_again(repro: Path, tmp_path: Path) -> None:
    root = project(tmp_path / "project")
    assert work(root, "kill", *_CELLS).returncode == -9
    dag = Dag(root)
    lost = [name for name in _CELLS if dag.changes(name) == [Dag.NEVER]]
    assert len(lost) >= 2, "everything was written before the kill"
    before = {p: p.stat().st_ino for p in [*(root / "out" / "of").iterdir(), root / "whole"]}
    with dag.claimed():
        for name in dag.cells:
            if dag.changes(name):
                assert dag.begin(name), f"{name} would be executed again"
    assert {p: p.stat().st_ino for p in before} == before, "written anew"
    assert dag.discarded == []
    assert locks(root) == locks(repro)
    assert stale_cells(Dag(root)) == {}


def test_killed_before_the_cache_has_the_outputs_they_are_kept(repro: Path, tmp_path: Path) -> None:
    root = project(tmp_path / "project")
    assert work(root, "kill", *_CELLS).returncode == -9
    shutil.rmtree(root / ".dvc" / "cache" / "files")
    dag = Dag(root)
    with dag.claimed():
        for name in dag.cells:
            assert not dag.changes(name) or dag.begin(name), f"{name} would be executed again"
    assert locks(root) == locks(repro)
    assert stale_cells(Dag(root)) == {}


def test_another_file_in_the_place_of_an_output_is_not_taken_for_it(tmp_path: Path) -> None:
    root = project(tmp_path / "project")
    assert work(root, "kill", *_CELLS).returncode == -9
    (root / "whole").unlink()
    (root / "whole").write_text("something else\n")
    dag = Dag(root)
    with dag.claimed():
        for name in dag.cells:
            assert not dag.changes(name) or dag.begin(name)
    assert (root / "whole").read_text() == "given\n1\ngiven\n2\ngiven\n3\n"


def test_who_works_on_the_outputs_is_noted_by_folders(repro: Path) -> None:
    dag = Dag(repro)
    with dag.claimed():
        noted = json.loads((repro / ".dvc" / "tmp" / "rwlock").read_text())["read"]
        assert sorted(noted) == [str(repro / place) for place in ("out/of", "sub/more", "whole")]
        busy = subprocess.run(
            [BIN / "dvc", "repro", "-q", "-f", "numbers@2"],
            cwd=repro,
            capture_output=True,
            text=True,
            check=False,
        )
    assert busy.returncode != 0
    assert "busy" in busy.stderr
