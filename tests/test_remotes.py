"""Results travel by a DVC remote: nothing runs again elsewhere, and damage on the way is found."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Project
from tests.sharing import clone, flip, in_mlflow, project_mlflow, publish, stored

pytestmark = pytest.mark.pipeline


@pytest.fixture(scope="module")
def origin(small_run: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A finished project whose results are in a folder remote (``../remote``)."""
    folder = tmp_path_factory.mktemp("shared")
    project = small_run.copy(folder / "origin")
    publish(project, str(folder / "remote"))
    return project


@pytest.fixture
def elsewhere(origin: Project, tmp_path: Path) -> Project:
    """A fresh clone with a copy of the remote of its own; nothing is pulled."""
    remote = tmp_path / "remote"
    subprocess.run(["cp", "-a", str(origin.root.parent / "remote"), str(remote)], check=True)
    project = clone(origin, tmp_path / "elsewhere")
    done = project.command("dvc", "remote", "modify", "--local", "shared", "url", str(remote))
    assert done.returncode == 0, done.stderr
    return project


def pull(project: Project) -> subprocess.CompletedProcess[str]:
    return project.command("dvc", "pull")


def an_adapter(project: Project) -> Path:
    """The weights of one trained run (a file of a folder that is one output)."""
    return sorted((project.root / "runs" / "train").rglob("*.safetensors"))[0]


def test_after_a_pull_nothing_runs_and_one_command_rebuilds_mlflow(
    origin: Project, elsewhere: Project
) -> None:
    assert pull(elsewhere).returncode == 0
    sync = elsewhere.command("tunetrail", "sync", "--json")
    assert sync.returncode == 0, sync.stderr
    done = json.loads(sync.stdout)
    assert (done["runs_created"], done["versions_created"]) == (2, 1)
    assert in_mlflow(project_mlflow(elsewhere)) == in_mlflow(project_mlflow(origin))
    again = elsewhere.run()
    assert again["executed"] == again["restored"] == []
    assert again["runs_created"] == again["versions_created"] == 0
    assert (elsewhere.root / "dvc.lock").read_bytes() == (origin.root / "dvc.lock").read_bytes()


def test_repro_with_pull_in_a_fresh_clone_runs_nothing(elsewhere: Project) -> None:
    done = elsewhere.command("dvc", "repro", "--pull")
    assert done.returncode == 0, done.stderr
    assert "> tunetrail" not in done.stdout, "a command was executed"
    sync = elsewhere.command("tunetrail", "sync", "--json")
    assert json.loads(sync.stdout)["versions_created"] == 1
    assert elsewhere.command("dvc", "status", "--json").stdout.strip() == "{}"


def test_what_is_damaged_in_the_remote_is_named_and_made_again_alone(
    origin: Project, elsewhere: Project
) -> None:
    adapter = an_adapter(origin).relative_to(origin.root)
    copy = stored(elsewhere.root.parent / "remote", origin.root / adapter)
    flip(copy)
    pulled = elsewhere.command("dvc", "pull", "-v")
    assert pulled.returncode != 0
    assert str(adapter.parent) in pulled.stderr
    cached = stored(elsewhere.root / ".dvc" / "cache", origin.root / adapter)
    assert f"corrupted cache file '{cached}'" in pulled.stdout
    assert not (elsewhere.root / adapter).exists()
    outcome = elsewhere.run()
    train = [name for name in outcome["executed"] if name.startswith("train@")]
    assert outcome["executed"] == train
    assert len(train) == 1
    # The same bytes at the same place, so that they can be copied into the remote.
    shutil.copyfile(cached, copy)
    cached.unlink()
    (elsewhere.root / adapter).unlink()
    assert pull(elsewhere).returncode == 0
    assert (elsewhere.root / adapter).read_bytes() == (origin.root / adapter).read_bytes()


def test_without_verify_dvc_takes_damaged_files_and_tunetrail_finds_them(
    origin: Project, elsewhere: Project
) -> None:
    adapter = an_adapter(origin).relative_to(origin.root)
    elsewhere.command("dvc", "remote", "modify", "--local", "shared", "verify", "false")
    flip(stored(elsewhere.root.parent / "remote", origin.root / adapter))
    assert pull(elsewhere).returncode == 0
    assert elsewhere.command("dvc", "status", "--json").stdout.strip() == "{}"
    verify = elsewhere.command("tunetrail", "verify")
    assert verify.returncode == 2
    assert f"damaged: {adapter} (of {adapter.parent})" in verify.stdout
    assert "do not have the recorded bytes" in verify.stderr
    assert "`tunetrail verify --discard` removes them; then `dvc pull`" in verify.stderr


def test_a_damaged_copy_in_the_cache_is_named_and_not_restored(elsewhere: Project) -> None:
    assert pull(elsewhere).returncode == 0
    adapter = an_adapter(elsewhere)
    copy = stored(elsewhere.root / ".dvc" / "cache", adapter)
    before = adapter.read_bytes()
    flip(copy)
    assert adapter.read_bytes() != before, "the result is a hard link to the copy in the cache"
    flow = elsewhere.command(sys.executable, "-m", "pipelines.compare")
    assert flow.returncode == 0, flow.stdout
    output = adapter.parent.relative_to(elsewhere.root)
    assert f"The copy of {output} in DVC's cache was damaged: made again." in flow.stdout
    assert adapter.read_bytes() == before
    assert elsewhere.command("tunetrail", "verify").returncode == 0


def test_damage_that_no_time_stamp_shows_is_found_and_fetched_again(elsewhere: Project) -> None:
    assert pull(elsewhere).returncode == 0
    model = sorted((elsewhere.root / "runs" / "export").rglob("model.onnx"))[0]
    before = model.read_bytes()
    flip(model, keep_time=True)
    assert elsewhere.command("dvc", "status", "--json").stdout.strip() == "{}"
    found = json.loads(elsewhere.command("tunetrail", "verify", "--json").stdout)
    assert str(model.relative_to(elsewhere.root)) in [entry["file"] for entry in found]
    discard = elsewhere.command("tunetrail", "verify", "--discard")
    assert discard.returncode == 0, discard.stderr
    assert f"removed: {model.relative_to(elsewhere.root)}" in discard.stdout
    assert pull(elsewhere).returncode == 0
    assert model.read_bytes() == before
    whole = elsewhere.command("tunetrail", "verify")
    assert whole.returncode == 0
    assert whole.stdout == "Every result has the recorded bytes.\n"


def test_a_damaged_winner_is_not_registered(elsewhere: Project) -> None:
    assert pull(elsewhere).returncode == 0
    models = elsewhere.json("receipt.json")["models"]
    folder = Path("runs", "export", models[0]["task"], models[0]["label"])
    flip(elsewhere.root / folder / "model.onnx", keep_time=True)
    sync = elsewhere.command("tunetrail", "sync")
    assert sync.returncode == 2
    assert f"{folder / 'model.onnx'} is not the file that was certified" in sync.stderr
    assert "`tunetrail verify --discard`" in sync.stderr
