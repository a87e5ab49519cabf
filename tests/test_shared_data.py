"""Public benchmarks as `files` sources, through the shipped commands (where the data is there)."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import SHARED_DATA, new_project

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="benchmark data is not on this machine"),
]

CHEMPROT = (
    "ACTIVATOR", "AGONIST", "AGONIST-ACTIVATOR", "AGONIST-INHIBITOR", "ANTAGONIST",
    "DOWNREGULATOR", "INDIRECT-DOWNREGULATOR", "INDIRECT-UPREGULATOR", "INHIBITOR", "PRODUCT-OF",
    "SUBSTRATE", "SUBSTRATE_PRODUCT-OF", "UPREGULATOR",
)  # fmt: skip


def test_similarity_of_pairs_is_learnt_as_a_number(tmp_path: Path) -> None:
    """STS-B, 0 to 5, its seven known overlapping pairs dropped from train."""
    project = new_project(tmp_path / "project")
    project.change(
        tasks={
            "stsb": {
                "source": str(SHARED_DATA / "glue" / "stsb"),
                "columns": {"text": "sentence1", "text_pair": "sentence2", "label": "label"},
                "range": [0, 5],
                "limits": {"train": 400, "selection": 100, "test": 300},
            }
        },
        methods={"lora": {}},
        baseline="lora",
        seeds=[1],
        budgets={"few": {"epochs": 2}},
    )
    project.run()
    scores = project.json("runs/evaluate/stsb/lora/few/1/metrics.json")
    # Far from the 0 of a guess, after fifty steps.
    assert scores["pearson"] > 0.3
    assert scores["spearman"] > 0.3
    certificate = project.json("runs/export/stsb/lora/certificate.json")
    assert certificate["passed"]


def test_pairs_and_thirteen_classes_run_through(tmp_path: Path) -> None:
    project = new_project(tmp_path / "project")
    limits = {"train": 120, "selection": 40, "test": 80}
    project.change(
        tasks={
            "mrpc": {
                "source": str(SHARED_DATA / "glue" / "mrpc"),
                "columns": {"text": "sentence1", "text_pair": "sentence2", "label": "label"},
                "labels": ["different", "paraphrase"],
                "metrics": ["accuracy", "f1"],
                "limits": limits,
            },
            "chemprot": {
                "source": str(SHARED_DATA / "domain" / "chemprot"),
                "columns": {"text": "text", "label": "label"},
                "labels": list(CHEMPROT),
                "metrics": ["f1_micro", "f1_macro"],
                "limits": limits,
                "waive": {"conflicts": "published with some texts under two relations"},
            },
        },
        methods={"lora": {}},
        seeds=[1],
    )
    project.run()

    sets = project.json("data/validated/mrpc/result.json")["sets"]
    assert sets == {"train": 3668, "selection": 408, "test": 1725}, "validation is selection"
    tokens = pd.read_parquet(project.root / "data/prepared/mrpc/fit/train.parquet")
    assert all(set(row) == {0, 1} for row in tokens["token_type_ids"]), "both texts are there"

    gate = project.json("data/validated/chemprot/result.json")
    assert gate["classes_missing"] == {
        "selection": ["AGONIST-INHIBITOR"],
        "test": ["SUBSTRATE_PRODUCT-OF"],
    }
    outcome = {c["check"]: c for c in gate["checks"]}
    assert outcome["conflicts"]["outcome"] == "waived"
    report = (project.root / "comparison" / "report.html").read_text()
    assert "published with some texts under two relations" in report
    leaking = outcome["leakage"]["count"] + outcome["near_leakage"]["count"]
    assert leaking == len(gate["dropped"]) > 0
    assert len(project.json("runs/export/chemprot/lora/serving.json")["labels"]) == 13
    # Micro F1 over all classes of single-label predictions is accuracy, by definition.
    predictions = pd.read_parquet(
        project.root / "runs/evaluate/chemprot/lora/few/1/predictions.parquet"
    )
    accuracy = float((predictions["label"] == predictions["prediction"]).mean())
    scores = project.json("runs/evaluate/chemprot/lora/few/1/metrics.json")
    assert scores["f1_micro"] == pytest.approx(accuracy)
