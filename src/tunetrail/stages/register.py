"""register: a receipt of what should be in MLflow. ``tunetrail sync`` brings MLflow there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tunetrail.files import file_digest, read_json, write_json
from tunetrail.layout import CERTIFICATE


def register(comparison_file: Path, exported: Path, out: Path) -> None:
    """Write the receipt to ``out``.

    It lists every run of the comparison, every tuning and, for each task, the winner that select
    chose, as the model version that should be registered. A winner without a passing certificate is
    listed under ``refused`` with the reason instead.
    """
    comparison = read_json(comparison_file)
    planned: list[dict[str, Any]] = []
    tuned: list[dict[str, Any]] = []
    models: list[dict[str, Any]] = []
    refused: list[dict[str, Any]] = []
    for task, content in comparison["tasks"].items():
        for label, method in content["methods"].items():
            planned += [
                {
                    "run": run["run"],
                    "task": task,
                    "label": label,
                    "budget": budget,
                    "seed": run["seed"],
                    "against": _against(comparison, content, label, budget, run["seed"]),
                }
                for budget, result in method["budgets"].items()
                for run in result["runs"]
            ]
        tuned += [
            {"task": task, "label": label, "budget": budget}
            for label, budgets in content["tuning"].items()
            for budget in budgets
        ]
        label, seed = content["winner"]["method"], content["winner"]["seed"]
        certificate = read_json(exported / task / label / CERTIFICATE)
        entry = {
            "name": f"{comparison['project']}-{task}",
            "task": task,
            "label": label,
            "seed": seed,
            "run": certificate["run"],
            "onnx_sha256": certificate["onnx_sha256"],
        }
        if certificate["passed"]:
            models.append(entry)
        else:
            refused.append({**entry, "reason": _reason(certificate)})
    write_json(
        out,
        {
            "project": comparison["project"],
            "comparison": file_digest(comparison_file),
            "runs": planned,
            "tuned": tuned,
            "models": models,
            "refused": refused,
        },
    )


def _against(
    comparison: dict[str, Any], content: dict[str, Any], label: str, budget: str, seed: int
) -> dict[str, Any] | None:
    """The verdict on a run's method, and this seed's difference; None where it has none."""
    verdict = content["verdicts"].get(label)
    if verdict is None or budget != content["main_budget"]:
        return None
    by_seed = {entry["seed"]: entry["difference"] for entry in verdict["by_seed"]}
    return {
        "baseline": comparison["baseline"],
        "metric": content["primary"],
        "difference": by_seed[seed],
        **{key: verdict[key] for key in ("outcome", "not_worse", "low", "high")},
        "mean": verdict["difference"],
    }


def _reason(certificate: dict[str, Any]) -> str:
    return (
        f"ONNX logits differ by {certificate['largest_logit_difference']:.2g} "
        f"(tolerance {certificate['tolerance']:.2g}), "
        f"{certificate['prediction_flips']} of {certificate['rows']} predictions flip"
    )
