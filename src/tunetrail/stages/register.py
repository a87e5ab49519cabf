"""register: a receipt of what should be in MLflow. ``tunetrail sync`` brings MLflow there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tunetrail.files import file_digest, read_json, write_json
from tunetrail.layout import CERTIFICATE

#: Of the receipt; ``tunetrail sync`` reads no other one.
FORMAT = 2


def register(comparison_file: Path, exported: Path, out: Path) -> None:
    """Write the receipt to ``out``.

    It lists every run of the comparison, its groups (a task and method), every tuning and, for each
    task, the winner that select chose, as the model version that should be registered. A winner
    without a passing certificate is listed under ``refused`` with the reason instead.
    """
    comparison = read_json(comparison_file)
    planned: list[dict[str, Any]] = []
    groups: list[dict[str, Any]] = []
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
            groups.append(
                {
                    "task": task,
                    "label": label,
                    "seeds": [run["seed"] for run in method["runs"]],
                    "summary": method["summary"],
                    "chosen": label == content["winner"]["method"],
                    "against": _verdict(comparison, content, label),
                }
            )
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
            "format": FORMAT,
            "project": comparison["project"],
            "comparison": file_digest(comparison_file),
            "runs": planned,
            "groups": groups,
            "tuned": tuned,
            "models": models,
            "refused": refused,
        },
    )


def _against(
    comparison: dict[str, Any], content: dict[str, Any], label: str, budget: str, seed: int
) -> dict[str, Any] | None:
    """The verdict on a run's method, and this seed's difference; None where it has none."""
    found = _verdict(comparison, content, label)
    if found is None or budget != content["main_budget"]:
        return None
    by_seed = content["verdicts"][label]["by_seed"]
    return found | {"difference": next(e["difference"] for e in by_seed if e["seed"] == seed)}


def _verdict(
    comparison: dict[str, Any], content: dict[str, Any], label: str
) -> dict[str, Any] | None:
    """The verdict on a method; None where it has none."""
    verdict = content["verdicts"].get(label)
    if verdict is None:
        return None
    return {
        "baseline": comparison["baseline"],
        "metric": content["primary"],
        **{key: verdict[key] for key in ("outcome", "not_worse", "low", "high")},
        "mean": verdict["difference"],
    }


def _reason(certificate: dict[str, Any]) -> str:
    return (
        f"ONNX logits differ by {certificate['largest_logit_difference']:.2g} "
        f"(tolerance {certificate['tolerance']:.2g}), "
        f"{certificate['prediction_flips']} of {certificate['rows']} predictions flip"
    )
