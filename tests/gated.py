"""A project whose task has a gate set, and what MLflow has of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.conftest import Project, new_project

WORDS = ["plot", "cast", "music", "camera", "ending", "pace", "script", "humour", "hero", "set"]


def rows(numbers: range) -> list[str]:
    """Lines of a CSV file: 20 texts for each number, half of them good."""
    return [
        f'"{quality} {word} in film number {number}",{label}'
        for number in numbers
        for word in WORDS
        for quality, label in (("a wonderful", "good"), ("an awful", "bad"))
    ]


def gated_project(root: Path) -> Project:
    """One task with some hundred rows for the gate, one method; not run yet."""
    made = new_project(root)
    (root / "data" / "own.csv").write_text("\n".join(["sentence,class", *rows(range(60))]) + "\n")
    own = made.params["tasks"]["own"] | {
        "split": {"gate": 0.4},
        "limits": {"train": 96, "selection": 40, "test": 60},
        "checks": {"near_leakage": 1.0},
        "metrics": ["accuracy"],
    }
    made.change(
        tasks={"own": own}, methods={"head": {}}, seeds=[1], baseline="", gate={"margin": 0.05}
    )
    return made


def registered(project: Project) -> dict[str, Any]:
    """Aliases, and tags of each version."""
    import mlflow

    uri = f"sqlite:///{project.root / '.tunetrail' / 'mlflow' / 'mlflow.db'}"
    client = mlflow.MlflowClient(uri)
    model = client.get_registered_model("sentiment-own")
    versions = client.search_model_versions("name='sentiment-own'")
    return {
        "aliases": {alias: int(v) for alias, v in model.aliases.items()},
        "tags": {int(v.version): v.tags for v in versions},
        "runs": {int(v.version): v.run_id for v in versions},
        "client": client,
    }
