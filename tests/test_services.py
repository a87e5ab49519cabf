"""Prefect, Great Expectations and MLflow carry load: read back through their own APIs."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.conftest import BIN, Project, new_project

pytestmark = pytest.mark.pipeline


@pytest.fixture
def prefect_server(tmp_path: Path) -> Iterator[str]:
    """A Prefect server on a free loopback port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    environment |= {
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    server = subprocess.Popen(
        [BIN / "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while True:
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                break
        assert time.monotonic() < deadline, "the server did not start"
        time.sleep(0.2)
    yield f"http://127.0.0.1:{port}/api"
    server.terminate()
    server.wait(timeout=30)


def test_a_configured_prefect_server_has_states_names_and_the_table(
    project: Project, prefect_server: str
) -> None:
    project.change(methods={"head": {}, "lora": {"rank": 2}})
    outcome = project.run(PREFECT_API_URL=prefect_server)

    async def read() -> tuple[Any, Any, Any]:
        from prefect.client.orchestration import PrefectClient

        async with PrefectClient(prefect_server) as client:
            return (
                await client.read_flow_runs(),
                await client.read_task_runs(),
                await client.read_artifacts(),
            )

    flows, tasks, artifacts = asyncio.run(read())
    assert [flow.state_name for flow in flows] == ["Completed"]
    assert sorted(task.name for task in tasks) == sorted(outcome["executed"])
    assert {task.state_name for task in tasks} == {"Completed"}
    assert [artifact.key for artifact in artifacts] == ["comparison"]
    assert "head only" in str(artifacts[0].data)


def test_prefect_has_the_failure_and_its_reason(project: Project, prefect_server: str) -> None:
    project.change(methods={"head": {"learning_rate": 1e30}, "lora": {}})
    done = project.command(
        sys.executable, "-m", "pipelines.compare", PREFECT_API_URL=prefect_server
    )
    assert done.returncode == 1

    async def read() -> tuple[Any, Any]:
        from prefect.client.orchestration import PrefectClient

        async with PrefectClient(prefect_server) as client:
            return await client.read_flow_runs(), await client.read_task_runs()

    flows, tasks = asyncio.run(read())
    assert flows[0].state_name == "Failed"
    failed = [task for task in tasks if task.state_name == "Failed"]
    assert {task.name.split("-")[1] for task in failed} == {"head"}
    assert "the loss became" in failed[0].state.message


def test_without_a_server_the_flow_is_quiet(project: Project) -> None:
    project.change(methods={"head": {}, "lora": {"rank": 2}})
    done = project.command(sys.executable, "-m", "pipelines.compare")
    assert done.returncode == 0
    assert "prefect." not in done.stdout + done.stderr
    assert "Warning" not in done.stdout + done.stderr


def test_bad_data_stops_the_pipeline_and_names_the_rows(project: Project) -> None:
    data = project.root / "data" / "own.csv"
    data.write_text(data.read_text() + '"   ",good\n')
    done = project.command(sys.executable, "-m", "pipelines.compare")
    assert done.returncode == 1
    assert "blank: 'text' has a visible character; 1 rows" in done.stdout
    assert "row 180: '   '" in done.stdout
    checks = project.json("data/validated/own/result.json")["checks"]
    assert [c["check"] for c in checks if c["outcome"] == "failed"] == ["blank"]
    assert project.json("data/validated/movie/result.json")["passed"]


def test_mlflow_has_every_run_and_the_registered_winner(
    first_run: tuple[Project, dict[str, Any]],
) -> None:
    import mlflow

    project, outcome = first_run
    client = mlflow.MlflowClient(f"sqlite:///{project.root / '.tunetrail/mlflow/mlflow.db'}")
    comparison = project.json("comparison/comparison.json")
    experiment = client.get_experiment_by_name(comparison["project"])
    runs = {r.data.tags["tunetrail.run"]: r for r in client.search_runs([experiment.experiment_id])}
    above = {
        (r.data.tags["task"], r.data.tags["method"]): r
        for r in runs.values()
        if r.data.tags.get("stage") == "comparison"
    }
    assert len(runs) - len(above) == 8 == outcome["runs_created"]
    assert len(above) == 4 == outcome["groups_created"]
    for task, content in comparison["tasks"].items():
        for label, method in content["methods"].items():
            parent = above[task, label]
            for metric, summary in method["summary"].items():
                for end, key in {"": "mean", "_low": "low", "_high": "high"}.items():
                    assert parent.data.metrics[f"test/{metric}{end}"] == pytest.approx(summary[key])
            chosen = "yes" if label == content["winner"]["method"] else "no"
            assert (parent.data.tags["chosen"], parent.data.tags["seeds"]) == (chosen, "1 2")
            for entry in method["runs"]:
                run = runs[entry["run"]]
                assert run.info.status == "FINISHED"
                assert run.data.params["method"] == label
                assert run.data.params["seed"] == str(entry["seed"])
                for metric, value in entry["test"].items():
                    assert run.data.metrics[f"test/{metric}"] == pytest.approx(value, abs=1e-12)
                assert len(client.get_metric_history(run.info.run_id, "train/loss")) == 4
                assert len(run.data.tags["git_commit"]) == 40
                assert run.data.tags["data_digest"] == content["data"]["digest"]
                assert run.data.tags["fraction"] == "1"
                assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
                shared = parent.data.params.keys() & run.data.params.keys()
                assert run.data.params.keys() - shared == {"seed"}, "columns of one page"
                assert run.data.metrics["cost/samples_per_second"] > 0
    for task, content in comparison["tasks"].items():
        version = client.get_model_version_by_alias(f"{comparison['project']}-{task}", "champion")
        assert version.tags["method"] == content["winner"]["method"]
        assert int(version.tags["seed"]) == content["winner"]["seed"]


def test_the_registered_model_takes_raw_text_and_predicts_as_evaluated(
    first_run: tuple[Project, dict[str, Any]],
) -> None:
    project, _ = first_run
    winner = project.json("comparison/comparison.json")["tasks"]["movie"]["winner"]
    predicted = pd.read_parquet(
        project.root
        / f"runs/evaluate/movie/{winner['method']}/few/{winner['seed']}/predictions.parquet"
    )
    data = pd.read_parquet(project.root / "data/canonical/movie/data.parquet").set_index("id")
    texts = data.loc[predicted["id"], ["text"]]
    texts.to_parquet(project.root.parent / "texts.parquet")
    # In a process of its own, away from the checkout: the model must carry all it needs.
    script = f"""
import mlflow, pandas as pd
mlflow.set_tracking_uri("sqlite:///{project.root}/.tunetrail/mlflow/mlflow.db")
model = mlflow.pyfunc.load_model("models:/sentiment-movie@champion")
model.predict(pd.read_parquet("texts.parquet")).to_parquet("served.parquet")
import sys; assert "tunetrail" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], cwd=project.root.parent, check=True)
    served = pd.read_parquet(project.root.parent / "served.parquet")
    labels = ["negative", "neutral", "positive"]
    assert served["label"].tolist() == [labels[i] for i in predicted["prediction"]]
    for i, label in enumerate(labels):
        expected = [scores[i] for scores in predicted["scores"]]
        assert served[f"score_{label}"].tolist() == pytest.approx(expected, abs=1e-4)


def test_sync_repeated_or_rebuilt_leaves_one_run_and_one_version_each(project: Project) -> None:
    again = project.command("tunetrail", "sync", "--json")
    assert again.returncode == 0, again.stderr
    assert '"runs_created": 0' in again.stdout
    assert '"versions_created": 0' in again.stdout
    fresh = f"sqlite:///{project.root / 'elsewhere.db'}"
    rebuilt = project.command("tunetrail", "sync", "--json", MLFLOW_TRACKING_URI=fresh)
    assert rebuilt.returncode == 0, rebuilt.stderr
    assert '"runs_created": 8' in rebuilt.stdout


def test_beyond_the_tolerance_nothing_is_registered(tmp_path: Path) -> None:
    project = new_project(tmp_path / "project")
    project.change(
        tasks={"own": project.params["tasks"]["own"]},
        methods={"lora": {}},
        seeds=[1],
        export={"tolerance": 1e-12},
    )
    done = project.command(sys.executable, "-m", "pipelines.compare")
    assert done.returncode == 1
    assert "NOT registered: sentiment-own: ONNX logits differ by" in done.stdout
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{project.root / '.tunetrail/mlflow/mlflow.db'}")
    assert client.search_registered_models() == []
