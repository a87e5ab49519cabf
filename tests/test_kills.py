"""``kill -9`` of anything, then the same command again: the undisturbed end state."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.conftest import BIN, Project
from tests.kills import MAKE_REPRO, processes, series
from tests.sharing import in_mlflow
from tunetrail.dag import Dag, stale_cells
from tunetrail.errors import TuneTrailError
from tunetrail.repository import mend_lock_file

pytestmark = pytest.mark.pipeline

#: Stage and way of the kills that are always done; `python -m tests.kills` does the others.
TEN = [
    ("base", "flow"),
    ("ingest", "repro"),
    ("prepare", "flow"),
    ("train", "repro"),
    ("train", "worker"),
    ("evaluate", "server"),
    ("select", "flow"),
    ("export", "flow"),
    ("register", "flow"),
    ("sync", "flow"),
]


@pytest.fixture
def small(small_run: Project, tmp_path: Path) -> Project:
    return small_run.copy(tmp_path / "project")


@pytest.mark.timeout(3600)  # minutes, and much more beside other work
def test_ten_kills_leave_no_trace(small_run: Project, tmp_path: Path) -> None:
    outcomes = list(series(small_run, TEN, 7, tmp_path))
    wrong = [f"{outcome}\n{outcome.said}" for outcome in outcomes if outcome.wrong]
    assert wrong == [], "\n".join(wrong)
    assert sum(outcome.moment is not None for outcome in outcomes) >= 7, "hardly anything was hit"


def test_a_sync_killed_while_it_makes_the_database_can_be_repeated(small: Project) -> None:
    database = small.root / ".tunetrail" / "mlflow" / "mlflow.db"
    database.unlink()
    running = subprocess.Popen([BIN / "tunetrail", "sync"], cwd=small.root, env=small.environment())
    while not any(_size(path) > 200_000 for path in small.root.glob(".tunetrail/**/mlflow.db")):
        assert running.poll() is None, "it ended before it could be killed"
        time.sleep(0.01)
    running.kill()
    running.wait()
    done = small.command("tunetrail", "sync", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["runs_created"] == 2
    assert not list(small.root.glob(".tunetrail/tmp/*"))


def test_what_a_killed_command_left_goes_where_nothing_else_is_left_to_do(small: Project) -> None:
    left = small.root / ".tunetrail" / "tmp" / f".scratch.{2**22 - 7}.abcdefgh.tmp"
    left.mkdir(parents=True)
    (left / "dvc.lock").touch()
    assert json.loads(small.command("tunetrail", "sync", "--json").stdout)["runs_created"] == 0
    assert not left.exists()


def _size(path: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_size
    return 0


def test_a_model_without_a_version_that_a_killed_sync_left_is_removed(
    small: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    from tunetrail.tracking.sync import bring_up_to_date

    class Killed(BaseException): ...

    def killed(*_: object, **__: object) -> None:
        raise Killed

    monkeypatch.chdir(small.root)
    uri = f"sqlite:///{small.root / 'other.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with monkeypatch.context() as patched:
        patched.setattr(mlflow.MlflowClient, "create_model_version", killed)
        with pytest.raises(Killed):
            bring_up_to_date(Path("receipt.json"))
    done = bring_up_to_date(Path("receipt.json"))
    assert (done["runs_present"], done["versions_created"]) == (2, 1)
    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name("sentiment").experiment_id
    assert len(client.search_logged_models([experiment])) == 1
    assert {r.info.status for r in client.search_runs([experiment])} == {"FINISHED"}


def test_what_a_server_that_was_killed_while_it_answered_made_twice_goes(small: Project) -> None:
    """The client asks again; the first one is there all the same. And a half run of older data."""
    import mlflow

    uri = f"sqlite:///{small.root / '.tunetrail' / 'mlflow' / 'mlflow.db'}"
    mlflow.set_tracking_uri(uri)  # where it looks for the model of a new version
    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name("sentiment").experiment_id
    before = in_mlflow(uri)
    run = next(r for r in client.search_runs([experiment]) if "stage" not in r.data.tags)
    tags = {key: run.data.tags[key] for key in ("tunetrail.run", "task", "method")}
    (version,) = client.search_model_versions("name='sentiment-own'")
    source, model = version.source, version.source.removeprefix("models:/")
    client.create_run(experiment, tags=tags)
    client.create_model_version(
        version.name, source, version.run_id, tags=version.tags, model_id=model
    )
    hours = 2 * 3600 * 1000
    client.create_run(
        experiment,
        tags=tags | {"tunetrail.run": "0" * 64},
        start_time=int(time.time() * 1000) - hours,
    )
    new = client.create_run(experiment, tags=tags | {"tunetrail.run": "1" * 64})
    done = small.command("tunetrail", "sync", "--json")
    assert done.returncode == 0, done.stderr
    client.delete_run(new.info.run_id)  # another machine is at it: it stayed
    assert in_mlflow(uri) == before


def test_a_server_that_is_lost_in_the_middle_of_a_sync_is_named(
    small: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    from tunetrail.tracking.sync import bring_up_to_date

    def lost(*_: object, **__: object) -> None:
        raise mlflow.exceptions.MlflowException("API request to /api/2.0 failed")

    monkeypatch.chdir(small.root)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{small.root / 'other.db'}")
    monkeypatch.setattr(mlflow.MlflowClient, "log_batch", lost)
    with pytest.raises(TuneTrailError, match=r"other.db cannot be used: API request .* failed"):
        bring_up_to_date(Path("receipt.json"))


@pytest.mark.parametrize("shell", ["bash", "dash"])  # the second stays between DVC and the stage
def test_a_stage_ends_with_the_dvc_that_started_it(small: Project, shell: str) -> None:
    small.change(budgets={"few": {"steps": 100_000}}, methods={"head": {}}, baseline="head")
    path = shutil.which(shell)
    if path is None:
        pytest.skip(f"{shell} is not installed")
    repro = subprocess.Popen(
        [BIN / "dvc", "repro"],
        cwd=small.root,
        env=small.environment(SHELL=path),
        stdout=subprocess.DEVNULL,
    )

    def training() -> list[Path]:
        found = []
        for process in processes(small):
            with contextlib.suppress(OSError):
                started = b"tunetrail\0train" in (process / "cmdline").read_bytes()
                if started and len(os.listdir(process / "task")) > 1:  # its watch as well
                    found.append(process)
        return found

    deadline = time.monotonic() + 200
    while not training():
        assert repro.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(repro.pid, signal.SIGKILL)
    repro.wait()
    deadline = time.monotonic() + 20
    while (left := training()) and time.monotonic() < deadline:
        time.sleep(0.1)
    for process in left:
        os.kill(int(process.name), signal.SIGKILL)
    assert left == [], "the training goes on without dvc"


@pytest.mark.parametrize(
    ("owners", "code"),
    [({}, 0), ({"ours": os.getpid()}, 0), ({"gone": 2**22 - 7}, -signal.SIGKILL)],
    ids=["none", "this", "another"],
)
def test_a_stage_that_starts_after_its_dvc_was_killed_ends_at_once(
    tmp_path: Path, owners: dict[str, int], code: int
) -> None:
    # Orphans may come to a process of the same session, as they do in a container: only DVC's own
    # notes tell that the parent is not the one that started the stage.
    (tmp_path / ".dvc" / "tmp").mkdir(parents=True)
    writers = {path: {"pid": pid, "cmd": "dvc repro"} for path, pid in owners.items()}
    (tmp_path / ".dvc" / "tmp" / "rwlock").write_text(json.dumps({"write": writers, "read": {}}))
    stage = {"DVC_STAGE": "train@x", "DVC_ROOT": str(tmp_path)}
    started = subprocess.run([BIN / "tunetrail", "--version"], env=os.environ | stage)
    assert started.returncode == code


def test_what_dvc_leaves_when_it_is_killed_in_a_write_does_not_stop_the_project(
    small: Project,
) -> None:
    (small.root / ".dvc" / "tmp" / "rwlock").write_text('{"write": {"/a/pa')
    entry = next(
        p for p in small.root.glob(".dvc/cache/runs/*/*/*") if "tunetrail train" in p.read_text()
    )
    entry.unlink()  # DVC makes the folder first, and cannot bear it when it is empty
    (small.root / "dvc.lock").unlink()
    outcome = small.run()
    assert [name.partition("@")[0] for name in outcome["executed"]] == ["train"]


@pytest.mark.parametrize("size", [0, 4096])  # this much can be read, by chance
def test_make_repro_recovers_from_whatever_dvc_left_half_written(small: Project, size: int) -> None:
    """Both lists of DVC, and a result that no list knows of but the run cache."""
    lock = small.root / "dvc.lock"
    content = yaml.safe_load(lock.read_text())
    del content["stages"]["compare"], content["stages"]["register"]
    lock.write_text(yaml.safe_dump(content))
    assert small.command("tunetrail", "mend").stdout == ""
    lock.write_text(lock.read_text()[:size])
    held = small.root / ".dvc" / "tmp" / "rwlock"
    held.write_text('{"write": {"/a/pa')
    assert small.command("dvc", "repro").returncode != 0
    done = small.command(*MAKE_REPRO)
    assert done.returncode == 0, done.stderr
    assert "dvc.lock was cut off: put back as it last was whole" in done.stdout
    assert "> tunetrail" not in done.stdout, "a command was executed"
    assert len((small.root / ".tunetrail" / "dvc.lock.cut").read_bytes()) == size
    assert small.run()["executed"] == []


def test_without_a_whole_lock_file_everything_comes_back_from_the_cache(small: Project) -> None:
    lock = small.root / "dvc.lock"
    whole = lock.read_bytes()
    in_a_key = whole.rindex(b"md5: ", 0, 4096) + 2  # cut in a value, it might be readable
    for size in (0, 100, in_a_key):
        lock.write_bytes(whole[:size])
        with pytest.raises(TuneTrailError, match=r"dvc.lock in .* cannot be read") as error:
            stale_cells(Dag(small.root))
        assert "`tunetrail mend` puts it back" in error.value.fix
    assert mend_lock_file(small.root)
    assert small.run()["executed"] == []
    assert not mend_lock_file(small.root)


def test_an_unreachable_prefect_api_is_named_before_anything_runs(small: Project) -> None:
    small.change(methods={"head": {}, "lora": {"rank": 2}})
    url = "http://user:secret@127.0.0.1:9/api"
    done = small.command(sys.executable, "-m", "pipelines.compare", PREFECT_API_URL=url)
    assert done.returncode == 2
    assert "Prefect's API at 127.0.0.1:9/api does not answer: " in done.stderr
    assert "unset PREFECT_API_URL to go on without it" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stdout + done.stderr
    assert "secret" not in done.stdout + done.stderr
