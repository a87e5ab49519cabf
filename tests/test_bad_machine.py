"""Machines that let a command down: full disks, no memory, no rights, two at once, other clocks."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import create_engine, text

from tests.conftest import ROOT, Project, new_project
from tests.refusals import as_somebody, exit_code, parts_of, refusal
from tests.tiny import (
    CLASSES,
    MAX_LENGTH,
    make_rows,
    make_spec,
    write_base,
    write_model,
    write_rows,
)
from tunetrail.errors import TuneTrailError
from tunetrail.files import tree_digest
from tunetrail.layout import RUN
from tunetrail.run import PlannedRun, RunSpec, write_run
from tunetrail.stages.train import train
from tunetrail.tracking.connection import reached
from tunetrail.training.rows import Rows

REPEAT = "then repeat the command: what is done is kept"


@dataclass(frozen=True)
class Made:
    """Inputs of the stages, all beside each other in one folder.

    ``run.json`` is a run of full fine-tuning over ``fit`` and ``test`` on ``base``; ``trained`` is
    what it gives, and ``selected`` the same as the select stage leaves it.
    """

    root: Path
    spec: RunSpec

    def train(self, out: str = "out", run: str = "run.json") -> tuple[str, ...]:
        return ("train", str(self.root / run), str(self.root / "base"), str(self.root / "fit"), out)

    def evaluate(self, out: str = "out") -> tuple[str, ...]:
        inputs = ("run.json", "base", "trained", "test")
        return ("evaluate", *(str(self.root / name) for name in inputs), out)

    def export(self, out: str = "out") -> tuple[str, ...]:
        return ("export", *(str(self.root / name) for name in ("selected", "base", "test")), out)

    def base(self, out: str = "out") -> tuple[str, ...]:
        return ("base", str(self.root / "base" / "model"), out)


def freeze(root: Path, file: str, rows: Rows, **changes: object) -> RunSpec:
    """Write rows to ``fit`` and ``test`` where they are not yet, and a run over them."""
    for name, held in (("fit/train", rows), ("fit/selection", rows), ("test/test", rows)):
        path = root / f"{name}.parquet"
        if not path.exists():
            write_rows(held, path)
    plain = make_spec("full")
    spec = make_spec(
        "full",
        base=plain.base.model_dump() | {"digest": tree_digest(root / "base" / "model")},
        data=plain.data.model_dump()
        | {"fit": tree_digest(root / "fit"), "test": tree_digest(root / "test")},
        **changes,
    )
    write_run(root / file, PlannedRun("full", "full", spec))
    return spec


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    root = tmp_path_factory.mktemp("made")
    write_base(root / "base")
    spec = freeze(root, "run.json", make_rows(40), budget={"steps": 200})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        train(root / "run.json", root / "base", root / "fit", root / "trained")
    shutil.copytree(root / "trained", root / "selected" / "adapter")
    shutil.copyfile(root / "run.json", root / "selected" / RUN)
    return Made(root, spec)


# Disks -----------------------------------------------------------------------------------------


@contextmanager
def small_disk(place: Path, size: str) -> Iterator[Path]:
    """A file system of its own with so much room, and the working directory in it."""
    place.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    mounted = subprocess.run(mounting, capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"a file system of a test's own: {mounted.stderr.strip()}")
    before = Path.cwd()
    os.chdir(place)
    try:
        yield place
    finally:
        os.chdir(before)
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(folder: Path, left: int = 0) -> Path:
    """Fill the file system of ``folder`` up to ``left`` bytes; the file that does it."""
    filler = folder / "somebody-elses-file"
    with filler.open("wb", buffering=0) as file:
        room = shutil.disk_usage(folder).free - left
        file.write(bytes(max(room, 0)))
    return filler


@contextmanager
def filling_when(seen: Callable[[], bool], folder: Path) -> Iterator[None]:
    """Let somebody else fill the disk as soon as ``seen()``."""
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            if seen():
                fill(folder)
                return
            time.sleep(0.001)

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield
    finally:
        done.set()
        watching.join()


@pytest.mark.parametrize(
    ("stage", "what"),
    [
        (Made.base, "the base model needs 0."),
        (Made.train, "this training needs 1."),
        (Made.export, "the exported model needs 0."),
    ],
    ids=["base", "train", "export"],
)
def test_too_little_room_is_told_before_the_work(
    stage: Callable[[Made], tuple[str, ...]],
    what: str,
    made: Made,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with small_disk(tmp_path / "disk", "64k") as disk:
        said, way_out = refusal(capsys, *stage(made))
        assert f"'{disk}' has 0.1 MB left, {what}" in said
        assert "`dvc gc --workspace`" in way_out
        assert REPEAT in way_out
        assert not (disk / "out").exists()


@pytest.mark.parametrize("stage", [Made.evaluate, Made.base, Made.train, Made.export])
def test_a_full_disk_is_named(
    stage: Callable[[Made], tuple[str, ...]],
    made: Made,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with small_disk(tmp_path / "disk", "64k") as disk:
        fill(disk)
        said, way_out = refusal(capsys, *stage(made))
        assert f"'{disk}' has 0.0 MB left" in said
        assert REPEAT in way_out
        assert not (disk / "out").exists()


def test_a_disk_that_fills_up_during_a_training_costs_nothing_that_is_done(
    made: Made,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("TUNETRAIL_CHECKPOINT_SECONDS", "0")
    with small_disk(tmp_path / "disk", "4m") as disk:
        checkpoint = disk / ".tunetrail" / "checkpoints" / made.spec.digest
        with filling_when((checkpoint / "progress.json").is_file, disk):
            said, way_out = refusal(capsys, *made.train())
        assert said.startswith(f"the disk is full: '{disk}' has 0.0 MB left, '")
        assert REPEAT in way_out
        assert not (disk / "out").exists()
        (disk / "somebody-elses-file").unlink()
        assert (checkpoint / "progress.json").is_file()
        assert exit_code(*made.train()) == 0
        assert not checkpoint.exists()
        assert tree_digest(disk / "out") == tree_digest(made.root / "trained")
        assert [p.name for p in disk.rglob(".*.tmp")] == []


def test_a_disk_that_fills_up_during_an_export_leaves_no_half_model(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with small_disk(tmp_path / "disk", "4m") as disk:
        with filling_when(lambda: any(disk.glob(".out.*.tmp")), disk):
            said, way_out = refusal(capsys, *made.export())
        assert said.startswith(f"the disk is full: '{disk}' has 0.0 MB left, '")
        assert REPEAT in way_out
        assert [p.name for p in disk.iterdir()] == ["somebody-elses-file"]
        (disk / "somebody-elses-file").unlink()
        assert exit_code(*made.export()) == 0


def test_a_full_disk_under_mlflows_database_is_named(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "64k") as disk:
        uri = f"sqlite:///{disk / 'mlflow.db'}"
        full = pytest.raises(TuneTrailError, match=r"^the disk is full: .*disk' has 0\.\d MB left")
        with full as caught, reached(uri), create_engine(uri).begin() as database:
            database.execute(text("CREATE TABLE runs AS SELECT randomblob(1000000)"))
    assert REPEAT in caught.value.fix


@pytest.mark.parametrize("patience", [None, 2])
def test_a_training_that_has_the_room_it_asks_for_never_meets_a_full_disk(
    patience: int | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("TUNETRAIL_CHECKPOINT_SECONDS", "0")
    write_base(tmp_path / "base", hidden_size=128, intermediate_size=512)
    budget = {"epochs": 3, "patience": patience}
    made = Made(tmp_path, freeze(tmp_path, "run.json", make_rows(40), budget=budget))
    with small_disk(tmp_path / "disk", "24m") as disk:
        for left in range(4_000, 24_000, 500):
            filler = fill(disk, left * 1000)
            if exit_code(*made.train()) == 0:
                break
            assert "this training needs" in capsys.readouterr().err
            filler.unlink()
        assert (disk / "out").is_dir()
        assert left > 4_000


def test_a_read_only_file_system_is_named(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with small_disk(tmp_path / "disk", "4m") as disk:
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        for stage in (made.base(), made.train(), made.evaluate(), made.export()):
            said, way_out = refusal(capsys, *stage)
            assert said.startswith("'")
            assert said.endswith("' is on a read-only file system")
            assert "copy the project to a folder that you may write to" in way_out


def test_a_folder_without_the_right_to_write_is_named(
    made: Made,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for folder in (tmp_path, *tmp_path.parents, made.root):
        if folder.is_relative_to(tmp_path.parents[1]):
            folder.chmod(folder.stat().st_mode | 0o055)
    (tmp_path / "locked").mkdir(mode=0o555)
    monkeypatch.chdir(tmp_path / "locked")
    assert exit_code(*made.base(str(tmp_path / "imported"))) == 0
    with as_somebody():
        for stage in (made.base(), made.train(), made.evaluate(), made.export()):
            said, way_out = refusal(capsys, *stage)
            assert said.startswith("user '")
            assert "' may not use '" in said
            assert "(permission denied)" in said
            assert "`chmod`, `chown`" in way_out


def test_a_limit_on_the_size_of_files_is_no_full_disk(
    made: Made,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    with limited(resource.RLIMIT_FSIZE, 20_000):
        said, way_out = refusal(capsys, *made.train())
    assert said.startswith("a file became larger than this account may write")
    assert "`ulimit -f`" in way_out


def test_no_folder_for_temporary_files_is_told_before_the_imports(tmp_path: Path) -> None:
    """Nothing can be written anywhere, which is what a full /tmp and a full project come to."""
    for program in (("-m", "pipelines.compare"), ("-m", "tunetrail.cli", *no_inputs("base"))):
        done = subprocess.run(
            [sys.executable, *program],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"},
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)),
            capture_output=True,
            text=True,
            check=False,
        )
        said, way_out = parts_of(done.returncode, done.stderr)
        assert said.startswith("there is no folder for temporary files: No usable temporary")
        assert "set TMPDIR to a folder that you may write to" in way_out


def no_inputs(stage: str) -> tuple[str, ...]:
    return (stage, "nowhere", "out")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk_under_the_output_is_named() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "tunetrail.cli", "tasks", "--json"],
            env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    said, way_out = parts_of(done.returncode, done.stderr)
    assert said.startswith("the disk is full: ")
    assert REPEAT in way_out


# Memory ----------------------------------------------------------------------------------------


@contextmanager
def limited(what: int, soft: int) -> Iterator[None]:
    before = resource.getrlimit(what)
    resource.setrlimit(what, (soft, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(what, before)


def address_space() -> int:
    """Bytes of address space that this process uses."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def long_rows(count: int) -> Rows:
    tokens = [np.full(MAX_LENGTH, 9, dtype=np.int64) for _ in range(count)]
    labels = np.arange(count, dtype=np.int64) % CLASSES
    segments = [np.zeros(MAX_LENGTH, dtype=np.int64) for _ in range(count)]
    return Rows([f"row {i}" for i in range(count)], labels, tokens, segments)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux")
def test_out_of_memory_says_what_to_lower(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_base(tmp_path / "base")
    freeze(tmp_path, "big.json", long_rows(4_000), training={"batch_size": 4_000})
    made = Made(tmp_path, make_spec())
    with limited(resource.RLIMIT_AS, address_space() + 400_000_000):
        said, way_out = refusal(capsys, *made.train(run="big.json"))
    assert said.startswith("the machine is out of memory (")
    assert " more were wanted)" in said
    assert way_out.startswith("lower training.batch_size (training.accumulate makes up for it)")
    assert "base.max_length" in way_out
    assert "--workers 1" in way_out
    assert not (tmp_path / "out").exists()


# Clocks ----------------------------------------------------------------------------------------


def under_faketime(clock: Path) -> dict[str, str]:
    """Variables under which programs see the time of day that ``clock`` says (``-1h``).

    Only the time of day: what counts since the start of the machine goes on, as it does when
    somebody sets a clock.
    """
    assert shutil.which("faketime"), "run tests/services/install.sh"
    asked = subprocess.run(
        ["faketime", "-f", "+0", "sh", "-c", "echo $LD_PRELOAD"],
        capture_output=True,
        text=True,
        check=True,
    )
    return {
        "LD_PRELOAD": asked.stdout.strip(),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


@pytest.mark.services  # faketime sets the clock of one program
def test_a_clock_set_back_during_a_training_changes_nothing(made: Made, tmp_path: Path) -> None:
    clock = tmp_path / "clock"
    clock.write_text("+0")
    faked = under_faketime(clock)
    program = [sys.executable, "-m", "tunetrail.cli", *made.train()]
    checkpoint = tmp_path / ".tunetrail" / "checkpoints" / made.spec.digest / "progress.json"
    running = subprocess.Popen(
        program,
        cwd=tmp_path,
        env={**os.environ, **faked, "PYTHONPATH": str(ROOT / "src")}
        | {"TUNETRAIL_CHECKPOINT_SECONDS": "0.01"},
        stderr=subprocess.PIPE,
        text=True,
    )
    written: dict[str, set[int]] = {"+0": set(), "-1h": set()}
    while running.poll() is None:
        with contextlib.suppress(FileNotFoundError):  # it is just replaced
            written[clock.read_text()].add(checkpoint.stat().st_mtime_ns)
            clock.write_text("-1h")
        time.sleep(0.001)
    _, errors = running.communicate()
    assert running.returncode == 0, errors
    assert len(written["-1h"]) > 1, "checkpoints go on"
    assert tree_digest(tmp_path / "out") == tree_digest(made.root / "trained")


def test_files_from_the_future_change_nothing(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was written before the clock was set back."""
    monkeypatch.chdir(tmp_path)
    for name in ("base", "fit", "run.json"):
        source = made.root / name
        copy = shutil.copytree if source.is_dir() else shutil.copyfile
        copy(source, tmp_path / name)
    for path in [p for p in tmp_path.rglob("*") if p.is_file()]:
        os.utime(path, (time.time() + 3600,) * 2)
    assert exit_code("train", "run.json", "base", "fit", "out") == 0
    assert tree_digest(tmp_path / "out") == tree_digest(made.root / "trained")


# The whole pipeline ------------------------------------------------------------------------------


def tiny_project(root: Path) -> Project:
    """One CSV task, two methods, one seed, on the tiny model."""
    project = new_project(root)
    write_model(root / "tiny")
    base = project.params["base"] | {"source": "tiny", "max_length": 32}
    project.change(base=base, tasks={"own": project.params["tasks"]["own"]}, seeds=[1])
    return project


def start(project: Project, **extra: str) -> subprocess.Popen[str]:
    """Start what `make run` starts."""
    return subprocess.Popen(
        [sys.executable, "-m", "pipelines.compare"],
        cwd=project.root,
        env=project.environment(**extra),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@dataclass(frozen=True)
class Ended:
    code: int
    shown: str


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, list[Ended]]:
    """A project, and how two runs ended that were started in it at once, the refused one last."""
    project = tiny_project(tmp_path_factory.mktemp("together") / "project")
    both = [start(project), start(project)]
    ended = []
    for running in both:
        out, errors = running.communicate(timeout=600)
        ended.append(Ended(running.returncode, out + errors))
    return project, sorted(ended, key=lambda one: one.code)


@pytest.mark.pipeline
def test_of_two_runs_at_once_one_is_refused(together: tuple[Project, list[Ended]]) -> None:
    project, (done, refused) = together
    assert done.code == 0, done.shown
    assert "16 stages executed" in done.shown
    said, way_out = parts_of(refused.code, refused.shown)
    assert said == f"another run is under way in '{project.root}'"
    assert way_out == "wait for it, or stop it\n"
    assert project.run()["executed"] == []


@pytest.mark.pipeline
def test_a_run_on_a_full_disk_says_so_and_goes_on_when_there_is_room(
    together: tuple[Project, list[Ended]], tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk", "48m") as disk:
        subprocess.run(["cp", "-a", str(together[0].root), str(disk / "project")], check=True)
        project = Project(disk / "project")
        project.change(budgets={"few": {"steps": 5}})
        filler = fill(disk, 600_000)
        done = project.command(sys.executable, "-m", "pipelines.compare")
        told = " ".join((done.stdout + done.stderr).split())  # lines are as wide as the terminal
        assert done.returncode in (1, 2), told
        # Either in the middle of a stage, or before a training that needs more.
        assert re.search(rf"'{re.escape(str(project.root))}\S*' has [\d.]+ MB left", told), told
        assert REPEAT in told
        assert "Traceback" not in told
        filler.unlink()
        assert project.run()["executed"]
        assert project.run()["executed"] == []


@pytest.mark.pipeline
def test_a_project_from_the_future_is_up_to_date(
    together: tuple[Project, list[Ended]], tmp_path: Path
) -> None:
    project = together[0].copy(tmp_path / "project")
    project.run()  # reads again what was copied
    for path in project.root.rglob("*"):
        if not path.is_symlink():
            os.utime(path, (time.time() + 3600,) * 2)
    assert project.run()["executed"] == []
