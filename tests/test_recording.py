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
import tunetrail.dag
from tunetrail.dag import Dag

tunetrail.dag._WRITTEN_EVERY = float(sys.argv[2])

def execute(dag, name):
    assert not dag.begin(name)
    folder = Path("sub") if name.startswith("sub/") else Path()
    subprocess.run(dag.cells[name].command, shell=True, check=True, cwd=folder)

dag = Dag(Path.cwd())
with dag.claimed():
    for name in sys.argv[3:]:
        execute(dag, name)
        dag.record(name)
    if sys.argv[1] == "kill":
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


def work(root: Path, end: str, every: float = 1e9) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", _KILLED, end, str(every), *_CELLS]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def repro(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that plain `dvc repro` has worked off."""
    root = project(tmp_path_factory.mktemp("repro") / "project")
    subprocess.run([BIN / "dvc", "repro", "-q", "--all-pipelines"], cwd=root, check=True)
    return root


@pytest.fixture
def killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder here: everything was executed, and nothing of it is in dvc.lock."""
    root = project(tmp_path / "project")
    assert work(root, "kill").returncode == -9
    assert not (root / "dvc.lock").exists()
    monkeypatch.chdir(root)
    return root


def locks(root: Path) -> list[str]:
    return [(root / folder / "dvc.lock").read_text() for folder in ("", "sub")]


@pytest.mark.parametrize("end", ["well", "fail"])
def test_the_lock_files_are_written_when_the_work_ends(
    end: str, repro: Path, tmp_path: Path
) -> None:
    root = project(tmp_path / "project")
    done = work(root, end)
    assert (done.returncode == 0) == (end == "well"), done.stderr
    assert locks(root) == locks(repro)
    assert stale_cells(Dag(root)) == {}


def test_after_the_time_between_two_writes_a_recorded_cell_is_written(
    repro: Path, tmp_path: Path
) -> None:
    root = project(tmp_path / "project")
    assert work(root, "kill", every=0).returncode == -9
    assert locks(root) == locks(repro)


def test_what_a_kill_kept_out_of_the_lock_file_is_there_again(killed: Path, repro: Path) -> None:
    root, dag = killed, Dag(killed)
    assert all(dag.changes(name) == [Dag.NEVER] for name in _CELLS)
    with dag.claimed():
        for name in dag.cells:
            if dag.changes(name):
                assert dag.begin(name), f"{name} would be executed again"
    assert dag.discarded == []
    assert locks(root) == locks(repro)
    assert stale_cells(Dag(root)) == {}


def test_killed_before_the_cache_has_the_outputs_they_are_kept(killed: Path, repro: Path) -> None:
    root = killed
    shutil.rmtree(root / ".dvc" / "cache" / "files")
    dag = Dag(root)
    with dag.claimed():
        for name in dag.cells:
            assert not dag.changes(name) or dag.begin(name), f"{name} would be executed again"
    assert locks(root) == locks(repro)
    assert stale_cells(Dag(root)) == {}


def test_another_file_in_the_place_of_an_output_is_not_taken_for_it(killed: Path) -> None:
    (killed / "whole").unlink()
    (killed / "whole").write_text("something else\n")
    dag = Dag(killed)
    with dag.claimed():
        for name in dag.cells:
            assert not dag.changes(name) or dag.begin(name)
    assert (killed / "whole").read_text() == "given\n1\ngiven\n2\ngiven\n3\n"


def test_who_works_on_the_outputs_is_noted_by_folders(repro: Path) -> None:
    dag = Dag(repro)
    with dag.claimed():
        noted = json.loads((repro / ".dvc" / "tmp" / "rwlock").read_text())["read"]
        assert sorted(noted) == [str(repro / place) for place in ("out/of", "sub/more", "whole")]
        busy = subprocess.run(
            [BIN / "dvc", "repro", "-f", "numbers@2"],
            cwd=repro,
            capture_output=True,
            text=True,
            check=False,
        )
    assert busy.returncode != 0
    assert "is busy, it is being blocked by" in busy.stderr
