"""Verdicts of a finished project: in the comparison, in MLflow, and as a recommendation."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from tests.conftest import Project

pytestmark = pytest.mark.pipeline


def test_verdicts_are_those_of_the_predictions_and_reach_mlflow(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = project.json("comparison/comparison.json")
    for name, task in content["tasks"].items():
        (label,) = task["verdicts"]
        assert (content["baseline"], label) == ("lora", "head")
        verdict = task["verdicts"][label]
        for entry in verdict["by_seed"]:
            right = []
            for method in (label, "lora"):
                folder = f"runs/evaluate/{name}/{method}/few/{entry['seed']}"
                found = pd.read_parquet(project.root / folder / "predictions.parquet")
                score = project.json(f"{folder}/metrics.json")[task["primary"]]
                assert len(found) == task["rows"]["test"]
                right.append(score)
            assert entry["difference"] == pytest.approx(right[0] - right[1])
        assert verdict["low"] <= verdict["difference"] <= verdict["high"]
        assert set(task["letters"]) == {"head", "lora"}

    monkeypatch.chdir(project.root)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    from mlflow import MlflowClient

    from tunetrail.tracking.connection import tracking_uri
    from tunetrail.tracking.sync import bring_up_to_date

    def logged() -> dict[str, tuple[dict[str, str], dict[str, float]]]:
        client = MlflowClient(tracking_uri())
        experiment = client.get_experiment_by_name(content["project"])
        runs = client.search_runs([experiment.experiment_id])
        parents = {r.data.tags.get("mlflow.parentRunId") for r in runs}
        assert parents <= {None, *(r.info.run_id for r in runs)}, "below a run that is gone"
        return {r.data.tags["mlflow.runName"]: (r.data.tags, r.data.metrics) for r in runs}

    primary = content["tasks"]["own"]["primary"]
    verdict = content["tasks"]["own"]["verdicts"]["head"]
    tags, metrics = logged()["own-head-few-1"]
    assert metrics[f"difference/{primary}"] == pytest.approx(verdict["by_seed"][0]["difference"])
    assert (tags["verdict"], tags["verdict.baseline"]) == (verdict["outcome"], "lora")
    assert tags["verdict.not_worse"] == ("yes" if verdict["not_worse"] else "no")
    assert tags["verdict.interval"] == f"{verdict['low']:.4f} {verdict['high']:.4f}"
    assert "verdict" not in logged()["own-lora-few-1"][0]

    # Another verdict, as after a further method: the runs stay, their tags follow.
    receipt = project.json("receipt.json")
    for entry in [*receipt["runs"], *receipt["groups"]]:
        if entry["against"] and entry["task"] == "own":
            entry["against"] |= {"outcome": "lose", "not_worse": not verdict["not_worse"]}
        elif entry["against"]:
            entry["against"] |= {"low": None}
    (project.root / "receipt.json").unlink()
    (project.root / "receipt.json").write_text(json.dumps(receipt))
    done = bring_up_to_date(project.root / "receipt.json")
    assert (done["runs_created"], done["runs_present"]) == (0, 8)
    assert (done["groups_created"], done["groups_present"]) == (2, 2), "with another verdict"
    above = logged()["own-head"][0]
    assert (above["verdict"], above["stage"]) == ("lose", "comparison")
    after = logged()["own-head-few-1"][0]
    assert after["verdict"] == "lose"
    assert after["verdict.not_worse"] != tags["verdict.not_worse"]
    assert logged()["movie-head-few-1"][0]["verdict.interval"] == "none"

    done = project.command("tunetrail", "recommend", "own", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["own"]
    assert found["pick"] in found["candidates"]
    assert set(found["costs"]["head"]) == {
        "trainable_parameters",
        "train_seconds",
        "memory_mb",
        "artifact_mb",
        "model_mb",
        "latency_ms",
    }
    done = project.command("tunetrail", "pairs", "own", "--json")
    assert json.loads(done.stdout)["own"]["pairs"] == [{"of": ["head", "lora"], **verdict}]
    most = found["costs"]["head"]["trainable_parameters"]
    done = project.command("tunetrail", "recommend", "own", "--max-parameters", str(most))
    assert "own: take head only" in done.stdout
    assert "Beyond a limit: LoRA: trainable_parameters" in done.stdout


def test_an_open_verdict_gets_a_seed_that_chooses_nothing(project: Project) -> None:
    before = project.json("comparison/comparison.json")
    record = before["tasks"]["own"]["verdicts"]["head"]
    # Just what two seeds miss: with three the interval is a fraction as wide.
    margin = abs(record["difference"]) + 0.9 * (record["high"] - record["difference"])
    chosen = {
        task: (project.root / "runs" / "select" / task / "choice.json").read_bytes()
        for task in before["tasks"]
    }
    project.change(margin=min(margin, 0.99), more_seeds={"most": 3, "runs": 2})

    done = project.run()
    added = project.params["more_seeds"]["added"]
    assert {(run["method"], run["seed"]) for run in added.values()} == {("head", 3), ("lora", 3)}
    (task,) = {run["task"] for run in added.values()}
    trained = {name for name in done["executed"] if name.startswith("train")}
    assert trained == {f"train_more@{task}-{method}-3" for method in ("head", "lora")}
    assert not any(name.startswith(("export@", "cost@", "resolve@")) for name in done["executed"])
    assert done["runs_created"] == 2

    found = project.json("comparison/comparison.json")["tasks"][task]
    assert [run["seed"] for run in found["methods"]["head"]["runs"]] == [1, 2, 3]
    assert [entry["seed"] for entry in found["verdicts"]["head"]["by_seed"]] == [1, 2, 3]
    assert found["winner"] == before["tasks"][task]["winner"]
    for name, content in chosen.items():
        assert (project.root / "runs" / "select" / name / "choice.json").read_bytes() == content

    assert project.run()["executed"] == []
