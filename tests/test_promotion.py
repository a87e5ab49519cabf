"""Champion and challenger in MLflow, with models that the shipped commands trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Project
from tests.gated import gated_project, registered
from tunetrail.gate.rows import gate_set

pytestmark = pytest.mark.pipeline

#: A rate at which the head learns nothing: its answers are those of a random head.
NOTHING = 1e-9


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Not run yet."""
    return gated_project(tmp_path_factory.mktemp("gate") / "project")


def trained(project: Project, rate: float, seed: int) -> dict[str, Any]:
    """The flow with a head that learns at this rate; what MLflow has then."""
    project.change(methods={"head": {"learning_rate": rate}}, seeds=[seed])
    project.run()
    return registered(project)


def test_a_better_model_replaces_the_champion_a_worse_one_does_not(
    project: Project, tmp_path: Path
) -> None:
    first = trained(project, NOTHING, 1)
    assert first["aliases"] == {"champion": 1}
    better = trained(project, 0.01, 1)
    assert better["aliases"] == {"champion": 2}
    tags = better["tags"][2]
    assert (tags["gate.outcome"], tags["gate.against"], tags["gate.replaced"]) == (
        "passed",
        "1",
        "1",
    )
    worse = trained(project, NOTHING, 2)
    assert worse["aliases"] == {"champion": 2, "challenger": 3}
    tags = worse["tags"][3]
    assert tags["gate.outcome"] == "refused"
    assert "it is worse by more than the margin as it stands" in tags["gate.reasons"]
    path = worse["client"].download_artifacts(worse["runs"][3], tags["gate.file"], str(tmp_path))
    stored = json.loads(Path(path).read_text())
    assert stored["champion"] == "2"
    assert stored["inputs"]["challenger"]["tunetrail.run"] == tags["tunetrail.run"]
    frozen = project.json("data/gate/own.json")["generations"]["1"]
    assert stored["rows"] == len(frozen)
    assert stored["uses"] == 2

    # Repeating decides nothing anew, and changes nothing.
    done = json.loads(project.command("tunetrail", "sync", "--json").stdout)
    assert done["decisions"] == []
    assert registered(project)["aliases"] == {"champion": 2, "challenger": 3}

    # The scores are those of the served models on rows that no set has.
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{project.root / '.tunetrail' / 'mlflow' / 'mlflow.db'}")
    gate = gate_set(project.root / "data/canonical/own", project.root / "data/gate/own.json", 1)
    assert gate is not None
    rows = gate.rows
    for version, role in ((3, "challenger"), (2, "champion")):
        model = mlflow.pyfunc.load_model(f"models:/sentiment-own/{version}")
        right = model.predict(rows[["text"]])["label"] == rows["label"].map({0: "bad", 1: "good"})
        assert stored["scores"][role]["accuracy"] == pytest.approx(right.mean())

    back = project.command("tunetrail", "rollback", "own", "--reason", "a test", "--json")
    assert json.loads(back.stdout) == {
        "model": "sentiment-own",
        "rolled_back": "2",
        "champion": "1",
    }
    again = trained(project, 0.01, 1)  # the same as version 2
    assert again["aliases"]["champion"] == 1
    assert "a test" in again["tags"][2]["gate.rolled_back"]
    nothing = project.command("tunetrail", "rollback", "own", "--reason", "again")
    assert nothing.returncode == 2
    assert "version 1 of model 'sentiment-own' is its first champion" in nothing.stderr


def test_a_changed_model_file_in_the_registry_stops_the_gate(project: Project) -> None:
    model = registered(project)
    champion = model["aliases"]["champion"]
    source = model["client"].get_model_version("sentiment-own", str(champion)).source
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{project.root / '.tunetrail' / 'mlflow' / 'mlflow.db'}")
    folder = Path(mlflow.artifacts.download_artifacts(artifact_uri=source))
    (onnx,) = folder.rglob("model.onnx")
    whole = onnx.read_bytes()
    onnx.unlink()  # its bytes may be shared with the project's copy
    onnx.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    project.change(methods={"head": {"learning_rate": 0.02}}, seeds=[1])
    done = project.command("python", "-m", "pipelines.compare")
    assert done.returncode == 2
    assert f"version {champion} of model 'sentiment-own': model.onnx in the registry is not" in (
        " ".join(done.stderr.split())
    )
    assert registered(project)["aliases"]["champion"] == champion
