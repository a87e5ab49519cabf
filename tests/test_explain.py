"""``tunetrail explain`` on a finished project: every link is there, and every break is found."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.conftest import BIN, Project
from tests.refusals import exit_code
from tests.sharing import clone, git, project_mlflow, publish
from tunetrail.dag import Dag

pytestmark = pytest.mark.pipeline

MODEL = "models:/sentiment-own@champion"
WINNER = "runs/export/own/{label}/model.onnx"


@pytest.fixture(scope="module")
def finished(small_run: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A copy with a registry of its own: that of the original lies in its own folder."""
    project = small_run.copy(tmp_path_factory.mktemp("explained") / "project")
    shutil.rmtree(project.root / ".tunetrail" / "mlflow")
    done = project.command("tunetrail", "sync", "--json")
    assert done.returncode == 0, done.stderr
    return project


@pytest.fixture(scope="module")
def lineage(finished: Project) -> dict[str, Any]:
    """What explain tells programs."""
    done = finished.command("tunetrail", "explain", MODEL, "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def label_of(project: Project) -> str:
    label: str = project.json("receipt.json")["models"][0]["label"]
    return label


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def registered(project: Project) -> Path:
    """Folder of the model in the registry."""
    (found,) = project.root.glob(".tunetrail/mlflow/artifacts/models/*/artifacts")
    return found


@contextlib.contextmanager
def flipped(path: Path) -> Iterator[None]:
    """One bit of a byte in the middle changed, in a file of its own (results are hard links)."""
    before = path.read_bytes()
    damaged = bytearray(before)
    damaged[len(damaged) // 2] ^= 1
    path.unlink()
    path.write_bytes(damaged)
    try:
        yield
    finally:
        path.write_bytes(before)


# What it says ------------------------------------------------------------------------------------


def test_every_file_behind_the_model_is_a_link_with_its_digest_and_cell(
    finished: Project, lineage: dict[str, Any]
) -> None:
    with contextlib.chdir(finished.root):
        cells = Dag(finished.root).cells
    for link in lineage["links"]:
        assert sha256(finished.root / link["path"]) == link["sha256"], link
        if link["step"] == "source data":
            assert (link["path"], link["cell"]) == ("data/own.csv", "")
        else:
            outputs = cells[link["cell"]].outputs
            assert any(Path(link["path"]).is_relative_to(out) for out in outputs), link
    there = {link["path"] for link in lineage["links"]}
    folders = ("data/canonical/own", "data/prepared/own/fit", "data/prepared/own/test", "models",
               "plan/own/*/*", "runs/train/own", "runs/evaluate/own",
               f"runs/export/own/{label_of(finished)}")  # fmt: skip
    for folder in folders:
        for path in finished.root.glob(f"{folder}/**/*"):
            assert path.is_dir() or str(path.relative_to(finished.root)) in there
    steps = list(dict.fromkeys(link["step"] for link in lineage["links"]))
    assert steps == [
        "source data", "canonical data", "validation", "base model", "prepared data", "plan",
        "training", "evaluation", "selection", "export", "comparison", "receipt",
    ]  # fmt: skip


def test_json_has_every_part_of_the_story(finished: Project, lineage: dict[str, Any]) -> None:
    label = label_of(finished)
    assert lineage["model"] == finished.json("receipt.json")["models"][0]
    assert lineage["registered"] == {"version": "1", "aliases": ["champion"]}
    assert lineage["data"]["digest"] == sha256(finished.root / "data/canonical/own/data.parquet")
    assert lineage["data"]["source"]["sha256"] == sha256(finished.root / "data/own.csv")
    assert (
        lineage["comparison"]["base"]["digest"] == finished.json("models/base/card.json")["digest"]
    )
    spec = finished.json(f"plan/own/{label}/few/1.json")
    assert (lineage["run"]["digest"], lineage["run"]["spec"]) == (spec["run"], spec["spec"])
    assert lineage["choice"] == finished.json("runs/select/own/choice.json")
    whole = finished.json("comparison/comparison.json")["tasks"]["own"]
    assert lineage["comparison"]["task"] == whole
    assert lineage["certificate"] == finished.json(f"runs/export/own/{label}/certificate.json")
    gate = finished.json("data/validated/own/result.json")
    assert [c["outcome"] for c in lineage["validation"]["checks"]] == [
        c["outcome"] for c in gate["checks"]
    ]
    assert not any("rows" in check for check in lineage["validation"]["checks"])
    assert lineage["git"]["changed"] == ["params.yaml"], "the fixture changes it after its commit"
    assert lineage["environment"]["packages"]["torch"]
    predictions = pd.read_parquet(
        finished.root / f"runs/evaluate/own/{label}/few/1/predictions.parquet"
    )
    for place, name in enumerate(("bad", "good")):
        rows = predictions[predictions["label"] == place]
        right = float((rows["prediction"] == place).mean())
        found = lineage["slices"][place]
        assert (found["of"], found["rows"]) == (name, len(rows))
        assert found["score"] == pytest.approx(right)


def test_the_text_has_it_too_and_fits_a_terminal(
    finished: Project, lineage: dict[str, Any]
) -> None:
    done = finished.command("tunetrail", "explain", "own")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1] == "sentiment-own, version 1 (champion)"
    headings = ("Data", "Base model", "Run", "Compared runs", "Selection", "Verdict",
                "Certificate of the ONNX file", "Environment", "Code", "Make it again",
                "Chain")  # fmt: skip
    places = [done.stdout.index(f"\n{heading}\n") for heading in headings]
    assert places == sorted(places)
    for part in (
        lineage["data"]["digest"][:12], lineage["run"]["digest"][:12],
        lineage["comparison"]["base"]["digest"][:12], lineage["certificate"]["onnx_sha256"],
        lineage["git"]["git_commit"], "data/own.csv", " lower",
    ):  # fmt: skip
        assert part in done.stdout, part
    for method in lineage["comparison"]["task"]["methods"].values():
        for run in method["runs"]:
            assert run["run"][:12] in done.stdout
    for command in lineage["reproduce"]:
        assert f"\n{command['command']}\n" in done.stdout
    assert "\x1b" not in done.stdout
    for line in done.stdout.splitlines():
        assert len(line) <= 80 or "git checkout" in line, line


def test_the_card_lies_with_the_version_and_is_its_description(finished: Project) -> None:
    import mlflow

    client = mlflow.MlflowClient(project_mlflow(finished))
    version = client.get_model_version("sentiment-own", "1")
    written = (finished.root / "runs/lineage/own/model_card.md").read_text()
    assert (registered(finished) / "model_card.md").read_text() == written
    assert version.description == written if len(written) <= 5000 else version.description
    assert version.description.startswith("# sentiment-own: ")
    assert "one seed, so without an interval" in written
    assert not re.search(r"\bbest\b", written, re.IGNORECASE)


# The check ---------------------------------------------------------------------------------------


def checked(project: Project, **extra: str) -> tuple[int, dict[str, Any]]:
    """Exit code of the check and what it tells programs; in this process, which is quicker."""
    said = io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.chdir(project.root),
        contextlib.redirect_stdout(said),
    ):
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        for name, value in extra.items():
            patch.setenv(name, value)
        code = exit_code("explain", MODEL, "--check", "--json")
    return code, json.loads(said.getvalue())


def test_an_intact_project_passes(finished: Project, lineage: dict[str, Any]) -> None:
    code, found = checked(finished)
    assert (code, found["intact"], found["break"], found["not_compared"]) == (0, True, None, None)
    compared = found["compared"]
    in_registry = compared.pop("registry")
    assert sum(compared.values()) == len(lineage["links"])
    assert in_registry == 6  # lineage, card; model, tokenizer, serving, certificate
    done = finished.command("tunetrail", "explain", MODEL, "--check")
    assert done.stdout.endswith(
        "Registry copy and project are as models:/sentiment-own/1 was registered.\n"
    )


@pytest.mark.parametrize(
    ("path", "step"),
    [
        ("data/own.csv", "source data"),
        ("data/canonical/own/data.parquet", "canonical data"),
        ("data/validated/own/result.json", "validation"),
        ("models/base/model/model.safetensors", "base model"),
        ("data/prepared/own/fit/train.parquet", "prepared data"),
        ("data/prepared/own/test/test.parquet", "prepared data"),
        ("plan/own/{other}/few/1.json", "plan"),
        ("runs/train/own/{label}/few/1/adapter.safetensors", "training"),
        ("runs/train/own/{other}/few/1/history.json", "training"),
        ("runs/evaluate/own/{label}/few/1/metrics.json", "evaluation"),
        ("runs/evaluate/own/{other}/few/1/predictions.parquet", "evaluation"),
        ("runs/select/own/{label}/adapter/adapter.safetensors", "selection"),
        ("runs/select/own/choice.json", "selection"),
        ("runs/export/own/{label}/model.onnx", "export"),
        ("runs/export/own/{label}/tokenizer.json", "export"),
        ("runs/export/own/{label}/certificate.json", "export"),
        ("comparison/comparison.json", "comparison"),
        ("receipt.json", "receipt"),
    ],
)
def test_a_flipped_byte_is_found_and_named(finished: Project, path: str, step: str) -> None:
    label = label_of(finished)
    path = path.format(label=label, other="lora" if label == "head" else "head")
    file = finished.root / path
    before = sha256(file)
    with flipped(file):
        code, found = checked(finished)
        after = sha256(file)
    assert (code, found["intact"]) == (1, False)
    broken = found["break"]
    assert (broken["file"], broken["step"]) == (path, step)
    assert (broken["expected"], broken["actual"]) == (before, after)
    assert broken["kind"] == ("source" if step == "source data" else "damaged")


@pytest.mark.parametrize(
    "name",
    [
        "artifacts/{label}/model.onnx",
        "artifacts/{label}/serving.json",
        "lineage.json",
        "model_card.md",
    ],
)
def test_a_flipped_byte_of_the_registrys_copy_is_found(finished: Project, name: str) -> None:
    name = name.format(label=label_of(finished))
    file = registered(finished) / name
    before = sha256(file)
    with flipped(file):
        done = finished.command("tunetrail", "explain", MODEL, "--check")
        after = sha256(file)
    assert done.returncode == 1
    assert f"BROKEN  registry: models:/sentiment-own/1: {name}\n" in done.stdout
    assert f"expected sha256 {before}\n  actual   sha256 {after}" in done.stdout
    assert "delete version 1 of 'sentiment-own' in MLflow" in " ".join(done.stdout.split())


def test_of_several_breaks_the_first_of_the_chain_is_named(finished: Project) -> None:
    onnx = finished.root / WINNER.format(label=label_of(finished))
    with flipped(onnx), flipped(finished.root / "data/canonical/own/data.parquet"):
        assert checked(finished)[1]["break"]["step"] == "canonical data"
        done = finished.command("tunetrail", "explain", MODEL, "--check")
    assert "ok      source data: 1 file\n" in done.stdout
    assert "fix: `tunetrail verify --discard`" in done.stdout
    assert "`dvc repro ingest@own`" in " ".join(done.stdout.split())


def test_a_missing_result_is_a_break(finished: Project, tmp_path: Path) -> None:
    file = finished.root / "runs/evaluate/own/head/few/1/metrics.json"
    file.rename(tmp_path / "kept")
    try:
        code, found = checked(finished)
    finally:
        (tmp_path / "kept").rename(file)
    assert (code, found["break"]["kind"], found["break"]["actual"]) == (1, "missing", "")
    assert "`dvc repro evaluate@own-head-few-1`" in found["break"]["fix"]


def test_without_the_project_the_registry_is_enough(
    finished: Project, lineage: dict[str, Any], tmp_path: Path
) -> None:
    elsewhere = Project(tmp_path)
    environment = {
        "MLFLOW_TRACKING_URI": project_mlflow(finished),
        "PYTHONPATH": str(finished.root / "src"),
    }

    def explain(*more: str) -> subprocess.CompletedProcess[str]:
        return elsewhere.command("tunetrail", "explain", MODEL, *more, **environment)

    told = explain("--json")
    assert told.returncode == 0, told.stderr
    assert json.loads(told.stdout) == lineage
    assert lineage["run"]["digest"][:12] in explain().stdout
    done = explain("--check")
    assert done.returncode == 0, done.stderr
    files = len(lineage["links"])
    assert f"skipped {files} files of the project: this is not the folder" in done.stdout
    assert "The registry's copy is as models:/sentiment-own/1 was registered." in done.stdout
    with flipped(registered(finished) / "artifacts" / label_of(finished) / "model.onnx"):
        broken = explain("--check", "--json")
    assert broken.returncode == 1
    assert json.loads(broken.stdout)["break"]["step"] == "registry"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (
            "models:/sentiment-own/9",
            "'sentiment-own' has no version 9\n  fix: its versions: 1",
        ),
        ("models:/sentiment-own@old", "'sentiment-own' has no alias 'old'"),
        ("models:/other@champion", "there is no registered model 'other'\n  fix: registered: sent"),
        ("owm", "receipt.json: unknown task 'owm'\n  fix: did you mean 'own'?"),
    ],
)
def test_what_is_not_registered_is_named(finished: Project, model: str, said: str) -> None:
    done = finished.command("tunetrail", "explain", model)
    assert done.returncode == 2
    assert said in done.stderr


# Making it again ---------------------------------------------------------------------------------


def test_the_commands_execute_nothing_where_all_is_intact(
    finished: Project, lineage: dict[str, Any]
) -> None:
    before = (finished.root / "dvc.lock").read_bytes()
    commands = [entry["command"] for entry in lineage["reproduce"]]
    assert commands[0] == f"git checkout {lineage['git']['git_commit']}"
    assert lineage["reproduce"][0]["what"].startswith("NOT all: params.yaml had changes")
    assert f"dvc repro export@own-{label_of(finished)}" in commands
    for command in commands:
        if command.startswith(("dvc repro", "tunetrail")):
            done = finished.command(*command.split())
            assert done.returncode == 0, done.stderr
            assert "Running stage" not in done.stdout
    assert (finished.root / "dvc.lock").read_bytes() == before


def test_in_a_clone_at_the_named_commit_the_model_comes_back(
    finished: Project, lineage: dict[str, Any], tmp_path: Path
) -> None:
    """What is committed after the run is what records it: that commit is named."""
    origin = finished.copy(tmp_path / "origin")
    publish(origin, str(tmp_path / "remote"))
    git(origin.root, "commit", "-q", "--allow-empty", "-m", "later")
    uri = {"MLFLOW_TRACKING_URI": project_mlflow(finished)}
    done = origin.command("tunetrail", "explain", MODEL, "--json", **uri)
    commands = [entry["command"] for entry in json.loads(done.stdout)["reproduce"]]
    head = subprocess.run(
        ["git", "rev-parse", "HEAD~1"], cwd=origin.root, capture_output=True, text=True
    )
    assert commands[0] == f"git checkout {head.stdout.strip()}"
    elsewhere = clone(origin, tmp_path / "elsewhere")
    for command in commands:
        done = elsewhere.command(*command.split())
        assert done.returncode == 0, done.stderr
        assert "Running stage" not in done.stdout, "a command was executed"
    assert checked(elsewhere)[0] == 0
    onnx = WINNER.format(label=label_of(finished))
    assert sha256(elsewhere.root / onnx) == lineage["certificate"]["onnx_sha256"]


# A later comparison ------------------------------------------------------------------------------


def test_a_later_comparison_becomes_the_lineage_of_the_version_that_it_keeps(
    finished: Project, tmp_path: Path
) -> None:
    project = finished.copy(tmp_path / "project")
    shutil.rmtree(project.root / ".tunetrail" / "mlflow")
    project.change(margin=0.2)
    done = project.run()
    assert set(done["executed"]) == {"compare", "register"}
    assert checked(project)[0] == 0
    # The registry of before has the lineage of before.
    code, found = checked(project, MLFLOW_TRACKING_URI=project_mlflow(finished))
    assert code == 1
    assert (found["break"]["file"], found["break"]["kind"]) == (
        "comparison/comparison.json", "other"
    )  # fmt: skip
    again = project.command("tunetrail", "sync", MLFLOW_TRACKING_URI=project_mlflow(finished))
    assert again.returncode == 0, again.stderr
    assert checked(project, MLFLOW_TRACKING_URI=project_mlflow(finished))[0] == 0
    back = finished.command("tunetrail", "sync")
    assert back.returncode == 0, back.stderr
    assert checked(finished)[0] == 0


def test_a_sync_that_was_killed_before_the_lineage_was_there_is_repeated(
    finished: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    from tunetrail.tracking.sync import bring_up_to_date

    class Killed(BaseException): ...

    def killed(*_: object, **__: object) -> None:
        raise Killed

    project = finished.copy(tmp_path / "project")
    monkeypatch.chdir(project.root)
    uri = f"sqlite:///{tmp_path / 'other.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setattr(sys, "argv", ["tunetrail", "sync"])
    version = "models:/sentiment-own/1"  # the champion it becomes last, when it is whole
    for moment, model, said in (
        (
            "log_model_artifacts",
            MODEL,
            "'sentiment-own' has no alias 'champion'\n  fix: its versions: none",
        ),
        ("update_model_version", MODEL, "'sentiment-own' has no alias 'champion'"),
        ("update_model_version", version, "version 1 of 'sentiment-own' has no lineage"),
        ("set_model_version_tag", version, "version 1 of 'sentiment-own' has no lineage"),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(mlflow.MlflowClient, moment, killed)
            with pytest.raises(Killed):
                bring_up_to_date(Path("receipt.json"))
        done = project.command("tunetrail", "explain", model, MLFLOW_TRACKING_URI=uri)
        assert done.returncode == 2
        assert said in done.stderr
    done_ = bring_up_to_date(Path("receipt.json"))
    assert (done_["groups_present"], done_["runs_present"], done_["versions_present"]) == (2, 2, 1)
    assert checked(project, MLFLOW_TRACKING_URI=uri)[0] == 0


# Secrets -----------------------------------------------------------------------------------------

_SECRET = "planted-hunter2"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """A real MLflow server on a free loopback port; its address with a user and a password."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [BIN / "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
         "--backend-store-uri", f"sqlite:///{tmp_path / 'server.db'}",
         "--artifacts-destination", str(tmp_path / "artifacts")],
        env={k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}
        | {"MLFLOW_DISABLE_TELEMETRY": "true", "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"},
        cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while not _answers(f"http://127.0.0.1:{port}/health"):
            assert process.poll() is None, "the server ended"
            assert time.monotonic() < deadline
            time.sleep(0.2)
        yield f"http://user:{_SECRET}@127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=30)


def _answers(url: str) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:
        return bool(answer.status == 200)
    return False


def test_the_password_of_a_server_is_nowhere(
    finished: Project, server: str, tmp_path: Path
) -> None:
    project = finished.copy(tmp_path / "project")
    shutil.rmtree(project.root / ".tunetrail" / "mlflow")
    said = ""
    for command in (["sync"], ["explain", MODEL], ["explain", MODEL, "--json"],
                    ["explain", MODEL, "--check"]):  # fmt: skip
        done = project.command("tunetrail", *command, MLFLOW_TRACKING_URI=server)
        assert done.returncode == 0, done.stderr
        said += done.stdout + done.stderr
    assert "registered" in said
    (copy,) = tmp_path.glob(f"artifacts/**/{label_of(finished)}/model.onnx")
    with flipped(copy):
        broken = project.command("tunetrail", "explain", MODEL, "--check",
                                 MLFLOW_TRACKING_URI=server)  # fmt: skip
    assert broken.returncode == 1
    said += broken.stdout + broken.stderr
    gone = server.rpartition(":")[0] + ":9"
    lost = project.command("tunetrail", "explain", MODEL, MLFLOW_TRACKING_URI=gone,
                           MLFLOW_HTTP_REQUEST_MAX_RETRIES="0")  # fmt: skip
    assert lost.returncode == 2
    assert "MLflow at 127.0.0.1:9 cannot be used" in lost.stderr
    assert _SECRET not in said + lost.stdout + lost.stderr
    for folder in (project.root, tmp_path / "artifacts"):
        for path in folder.rglob("*"):
            if path.is_file() and path.suffix not in (".onnx", ".safetensors"):
                assert _SECRET.encode() not in path.read_bytes(), path
    assert _SECRET.encode() not in (tmp_path / "server.db").read_bytes()
