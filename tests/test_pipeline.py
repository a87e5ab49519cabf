"""The shipped commands on the real model: what is executed when, and what comes out."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from tests.conftest import Project, new_project

pytestmark = pytest.mark.pipeline

#: Stages whose outputs hold no times: equal inputs give equal bytes.
DETERMINISTIC = ("base", "ingest", "validate", "prepare", "resolve", "train", "evaluate", "select")


def stages(names: list[str]) -> Counter[str]:
    return Counter(name.partition("@")[0] for name in names)


def locked_outputs(project: Project) -> dict[str, Any]:
    lock = yaml.safe_load((project.root / "dvc.lock").read_text())["stages"]
    return {
        name: [out["md5"] for out in entry["outs"]]
        for name, entry in lock.items()
        if name.partition("@")[0] in DETERMINISTIC
    }


@pytest.fixture
def small(small_run: Project, tmp_path: Path) -> Project:
    """A copy of the finished project of one task and one seed, free to be changed."""
    return small_run.copy(tmp_path / "small")


def test_first_run_executes_every_stage_and_leaves_the_results(
    first_run: tuple[Project, dict[str, Any]],
) -> None:
    project, outcome = first_run
    assert stages(outcome["executed"]) == {
        "base": 1, "ingest": 2, "validate": 2, "prepare": 2, "resolve": 2, "train": 8, "cost": 4,
        "evaluate": 8, "select": 2, "export": 4, "compare": 1, "register": 1,
    }  # fmt: skip
    for path in ("comparison/report.html", "comparison/table.md", "dvc.lock", "receipt.json"):
        assert (project.root / path).stat().st_size > 0
    assert list((project.root / "comparison" / "png").rglob("*.png"))
    for certificate in (project.root / "runs" / "export").rglob("certificate.json"):
        certified = project.json(str(certificate.relative_to(project.root)))
        assert certified["passed"]
        assert certified["prediction_flips"] == 0
        assert certified["metrics_torch"] == certified["metrics_onnx"]


def test_again_nothing_runs(project: Project) -> None:
    outcome = project.run()
    assert outcome["executed"] == outcome["restored"] == []
    assert outcome["runs_created"] == outcome["versions_created"] == 0


def test_after_the_flow_dvc_repro_runs_nothing(project: Project) -> None:
    before = (project.root / "dvc.lock").read_bytes()
    done = project.command("dvc", "repro")
    assert done.returncode == 0, done.stderr
    assert "Running stage" not in done.stdout
    assert (project.root / "dvc.lock").read_bytes() == before


def test_dvc_repro_alone_gives_the_same_numbers_as_the_flow(
    small_run: Project, tmp_path: Path
) -> None:
    """The same spec executed twice, in two ways."""
    project = new_project(tmp_path / "project")
    project.change(tasks=small_run.params["tasks"], seeds=small_run.params["seeds"])
    done = project.command("dvc", "repro")
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("scores", "comparison"):
        path = f"comparison/{name}.json"
        assert project.json(path) == small_run.json(path)
    assert len(locked_outputs(project)) == 10
    assert locked_outputs(project) == locked_outputs(small_run)


def test_a_new_method_runs_only_its_runs_then_compare_onwards(small: Project) -> None:
    small.change(methods={**small.params["methods"], "bitfit": {}})
    outcome = small.run()
    trained = [name for name in outcome["executed"] if name.startswith("train@")]
    assert trained == ["train@own-bitfit-few-1"]
    assert stages(outcome["executed"]) == {
        "resolve": 1, "train": 1, "cost": 1, "evaluate": 1, "select": 1, "export": 1,
        "compare": 1, "register": 1,
    }  # fmt: skip


def test_a_new_seed_runs_only_its_runs_then_compare_onwards(small: Project) -> None:
    small.change(seeds=[1, 2])
    outcome = small.run()
    counts = stages(outcome["executed"])
    assert all(
        name.endswith("-2") for name in outcome["executed"] if name.startswith(("train", "eval"))
    )
    # A method is exported again only where the new seed is the one to ship.
    moved = counts.pop("export", 0)
    assert moved <= 2
    assert counts == {
        "resolve": 1, "train": 2, "evaluate": 2, "select": 1, "compare": 1, "register": 1,
    }  # fmt: skip


def test_a_changed_learning_rate_runs_only_that_method(small: Project) -> None:
    small.change(methods={"head": {}, "lora": {"learning_rate": 0.003}})
    outcome = small.run()
    assert all("-lora" in n for n in outcome["executed"] if n.startswith(("train", "cost", "exp")))
    assert stages(outcome["executed"]) == {
        "resolve": 1, "train": 1, "cost": 1, "evaluate": 1, "select": 1, "export": 1,
        "compare": 1, "register": 1,
    }  # fmt: skip
    assert outcome["runs_created"] == 1

    small.change(methods={"head": {}, "lora": {}})
    back = small.run()
    assert stages(back["restored"])["train"] == 1, "the first result comes back from the run cache"
    assert stages(back["executed"])["train"] == 0


@pytest.mark.parametrize(
    ("path", "trained"),
    [
        ("src/tunetrail/methods/lora.py", {"lora"}),
        ("src/tunetrail/training/loop.py", {"head", "lora"}),
        ("src/tunetrail/report/html.py", set()),
    ],
)
def test_a_change_in_code_trains_what_it_can_change(
    small: Project, path: str, trained: set[str]
) -> None:
    with (small.root / path).open("a") as source:
        source.write("\n# changed\n")
    executed = small.run()["executed"]
    names = {name for name in executed if name.startswith("train@")}
    assert names == {f"train@own-{method}-few-1" for method in trained}
    assert "compare" in executed


def test_one_changed_row_runs_only_that_tasks_chain(project: Project) -> None:
    data = project.root / "data" / "own.csv"
    data.write_text(data.read_text().replace('film number 3",bad', 'film number 3 again",bad', 1))
    outcome = project.run()
    of_task = [n for n in outcome["executed"] if "@" in n]
    assert all(n.partition("@")[2].partition("-")[0] == "own" for n in of_task)
    assert stages(outcome["executed"])["train"] == 4
    assert {"compare", "register"} <= set(outcome["executed"])


def test_a_number_and_a_second_budget_run_through(project: Project) -> None:
    """Movie ratings as numbers from -4 to 4, over two shares of the training rows."""
    limits = {"train": 96, "selection": 40, "test": 60}
    project.change(
        tasks={"score": {"task": "movie", "source": "data/hutto.yaml", "range": [-4, 4],
                         "limits": limits}},
        seeds=[1],
        budgets={"few": {"steps": 4}, "third": {"epochs": 3, "fraction": 0.34, "patience": 1}},
    )  # fmt: skip
    outcome = project.run()
    counts = stages(outcome["executed"])
    assert counts["train"] == counts["evaluate"] == 4
    assert counts["cost"] == counts["export"] == 2
    assert outcome["runs_created"] == 4
    assert outcome["versions_created"] == 1
    content = project.json("comparison/comparison.json")["tasks"]["score"]
    assert content["metrics"] == ["pearson", "spearman"]
    assert content["main_budget"] == "few"
    for method in content["methods"].values():
        assert set(method["budgets"]) == {"few", "third"}
        assert method["budgets"]["few"]["runs"] == method["runs"]
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{project.root / '.tunetrail/mlflow/mlflow.db'}")
    version = client.get_model_version_by_alias("sentiment-score", "champion")
    mlflow.set_tracking_uri(f"sqlite:///{project.root / '.tunetrail/mlflow/mlflow.db'}")
    model = mlflow.pyfunc.load_model(f"models:/sentiment-score/{version.version}")
    winner = content["winner"]
    predicted = pd.read_parquet(
        project.root / f"runs/evaluate/score/{winner['method']}/few/{winner['seed']}"
        "/predictions.parquet"
    )
    texts = pd.read_parquet(project.root / "data/canonical/score/data.parquet").set_index("id")
    served = model.predict(texts.loc[predicted["id"], ["text"]])
    assert served["label"].tolist() == pytest.approx(predicted["prediction"].tolist(), abs=1e-4)

    # Another budget runs its own runs alone.
    budgets = project.params["budgets"]
    project.change(budgets={**budgets, "shorter": {"steps": 2}})
    again = stages(project.run()["executed"])
    assert again == {"resolve": 1, "train": 2, "evaluate": 2, "select": 1, "compare": 1,
                     "register": 1}  # fmt: skip


def test_killed_in_training_three_times_it_ends_with_the_same_numbers(
    small_run: Project, tmp_path: Path
) -> None:
    def long_run(name: str) -> Project:
        project = small_run.copy(tmp_path / name)
        project.change(methods={"lora": {}}, budgets={"few": {"steps": 60}})
        return project

    undisturbed = long_run("undisturbed")
    done = undisturbed.command("dvc", "repro", "select@own")
    assert done.returncode == 0, done.stderr
    killed = long_run("killed")
    checkpoints = killed.root / ".tunetrail" / "checkpoints"
    for least in (5, 20, 40):
        flow = subprocess.Popen(
            [sys.executable, "-m", "pipelines.compare", "--json"],
            cwd=killed.root,
            env=killed.environment(TUNETRAIL_CHECKPOINT_SECONDS="0"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + 120
        while _checkpointed_step(checkpoints) < least:
            assert flow.poll() is None, "the flow ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.005)
        os.kill(flow.pid, signal.SIGKILL)
        flow.wait()
        assert not (killed.root / "runs" / "train" / "own" / "lora" / "few" / "1").exists()
    killed.run()
    same, trained = ("select@own", "train@own-lora-few-1"), locked_outputs(killed)
    assert {n: trained[n] for n in same} == {n: locked_outputs(undisturbed)[n] for n in same}
    assert not list(checkpoints.glob("*")), "a finished run leaves no checkpoint"


def _checkpointed_step(folder: Path) -> int:
    import json

    for progress in folder.glob("[!.]*/progress.json"):
        try:
            return int(json.loads(progress.read_text())["step"])
        except (OSError, ValueError):  # it is being replaced this moment
            return 0
    return 0


def test_a_failing_run_is_reported_and_the_others_finish(small: Project) -> None:
    small.change(methods={"head": {}, "lora": {"learning_rate": 1e30}, "bitfit": {}})
    done = small.command(sys.executable, "-m", "pipelines.compare")
    assert done.returncode == 1
    assert re.search(r"the loss became \w+ at step \d \(learning rate [\d.]+e\+\d+\)", done.stdout)
    assert (small.root / "runs/evaluate/own/bitfit/few/1/metrics.json").is_file()
    page = small.root / ".tunetrail" / "failures.html"
    assert f"Failures    {page}" in done.stdout
    known = small.json(".tunetrail/failures.json")
    assert {failure["stage"].partition("@")[0] for failure in known["failed"]} == {"train"}
    for failure in known["failed"]:
        assert failure["stage"] in page.read_text()
        assert (page.parent / failure["log"]).is_file()
    assert "compare" in known["blocked"]
    finished = small.root / ".tunetrail" / "finished"
    assert f"Finished    {finished / 'report.html'}" in done.stdout
    compared = small.json(".tunetrail/finished/comparison.json")
    assert list(compared["tasks"]["own"]["methods"]) == ["bitfit", "head"]
    assert "the loss became" in (finished / "report.html").read_text()
    small.change(methods={"head": {}, "lora": {}, "bitfit": {}})
    outcome = small.run()
    assert not list(page.parent.glob("failures.*")), "what succeeded takes the page away"
    assert not finished.exists()
    assert stages(outcome["executed"])["train"] == 0, "what was done is not done again"


def test_a_killed_worker_is_retried(small: Project) -> None:
    """A worker that dies is infrastructure: Prefect tries again and the run resumes."""
    small.change(methods={"head": {}, "lora": {"rank": 4}}, budgets={"few": {"steps": 40}})
    flow = subprocess.Popen(
        [sys.executable, "-m", "pipelines.compare", "--json"],
        cwd=small.root,
        env=small.environment(TUNETRAIL_CHECKPOINT_SECONDS="0"),
        stdout=subprocess.PIPE,
        text=True,
    )
    checkpoints = small.root / ".tunetrail" / "checkpoints"
    deadline = time.monotonic() + 120
    while _checkpointed_step(checkpoints) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    victim = next(
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and _is_worker_of(entry, small.root)
    )
    os.kill(victim, signal.SIGKILL)
    out, _ = flow.communicate(timeout=300)
    assert flow.returncode == 0, out


def _is_worker_of(process: Path, root: Path) -> bool:
    """A session leader that writes to a train log of this project."""
    try:
        log = os.readlink(process / "fd" / "1")
        return log.startswith(str(root)) and "train@" in log
    except OSError:
        return False


def test_predictions_keep_every_test_row_and_its_scores(
    first_run: tuple[Project, dict[str, Any]],
) -> None:
    root = first_run[0].root
    rows = pd.read_parquet(root / "data/prepared/movie/test/test.parquet")
    predictions = pd.read_parquet(root / "runs/evaluate/movie/lora/few/1/predictions.parquet")
    assert predictions["id"].tolist() == rows["id"].tolist()
    assert predictions["label"].tolist() == rows["label"].tolist()
    assert all(
        abs(sum(s) - 1) < 1e-5 and s.argmax() == p
        for s, p in zip(predictions["scores"], predictions["prediction"], strict=True)
    )


def test_training_cannot_see_the_test_set(small: Project, tmp_path: Path) -> None:
    root = small.root
    lock = yaml.safe_load((root / "dvc.lock").read_text())["stages"]
    for name, entry in lock.items():
        if name.startswith(("train@", "select@", "cost@")):
            assert not any("/test" in dep["path"] for dep in entry["deps"]), name
    # And it does not need it: a folder with the fit output alone is enough.
    (tmp_path / "fit").symlink_to(root / "data/prepared/own/fit")
    done = small.command(
        "tunetrail", "train", "plan/own/head/few/1.json", "models/base", str(tmp_path / "fit"),
        str(tmp_path / "out"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
