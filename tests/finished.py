"""A finished comparison as the compare stage has it in memory, made up and small."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from tunetrail.provenance import provenance
from tunetrail.report import html, plots
from tunetrail.stages.compare import across_tasks
from tunetrail.verdicts.judge import judge
from tunetrail.verdicts.scores import summarise

Json = dict[str, Any]

SEEDS = (1, 2, 3)
BUDGETS: dict[str, dict[str, float]] = {
    "tenth": {"epochs": 2, "fraction": 0.1},
    "half": {"epochs": 2, "fraction": 0.5},
    "full": {"epochs": 2},
}
METRICS = {"accuracy": "accuracy", "f1_macro": "macro-F1"}

#: Label → title, trainable parameters, mean score. One method appears under two labels.
METHODS = {
    "full": ("full fine-tuning", 22_566_531, 0.78),
    "lora": ("LoRA", 74_883, 0.76),
    "lora-r2": ("LoRA (lora-r2)", 19_587, 0.74),
    "houlsby": ("Houlsby adapter", 606_339, 0.75),
    "head": ("head only", 1_155, 0.70),
}
#: The second title is of the kind that a careless page would take for markup.
TASKS = {"movie": "Movie reviews", "own": 'Own <b>"rows"</b> & more'}


def digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def comparison() -> Json:
    found: Json = {
        "project": "sentiment",
        "base": {
            "architecture": "bert",
            "layers": 6,
            "hidden_size": 384,
            "heads": 12,
            "ffn_size": 1536,
            "max_positions": 512,
            "prefixes": True,
            "digest": digest("base"),
            "source": {"kind": "folder", "licence": "Apache-2.0", "path": "models/minilm"},
        },
        "baseline": "full",
        "margin": 0.01,
        "tasks": {name: _task(name, title) for name, title in TASKS.items()},
    }
    return found | {"across": across_tasks(found)}


def _rows(score: float, number: int = 400) -> np.ndarray:
    """Right and wrong predictions; the easier rows of two methods are the same ones."""
    return (np.arange(number) < score * number).astype(float)


def _task(name: str, title: str) -> Json:
    methods = {label: _method(name, label) for label in METHODS}
    by_score = sorted(METHODS, key=lambda label: -METHODS[label][2])
    predictions = {
        label: np.stack([_rows(run["test"]["accuracy"]) for run in methods[label]["runs"]])
        for label in by_score
    }
    return {
        "title": title,
        "domain": "reviews",
        "labels": ["bad", "good"],
        "range": None,
        "predicts": "bad, good",
        "metrics": list(METRICS),
        "metric_titles": METRICS,
        "primary": "accuracy",
        "rows": {"train": 640, "selection": 200, "test": 400},
        "majority": {"accuracy": 0.52, "f1_macro": 0.34},
        "majority_title": "majority class",
        "budgets": BUDGETS,
        "main_budget": "full",
        "data": {
            "source": {"kind": "file", "path": "data/own.csv", "licence": ""},
            "licence": "MIT",
            "digest": digest(name),
        },
        "validation": {
            "dropped": 2,
            "waived": {"conflicts": "published <so>"},
            "tolerated": ["duplicates: 2 rows, 0.02% (limit 5.00%)"],
            "classes_missing": {"selection": [], "test": []},
        },
        "pretraining": {},
        "tuning": {},
        "methods": methods,
        **judge(predictions, "full", 0.01, SEEDS, 400),
        "winner": {"method": "full", "seed": 2},
    }


def _method(task: str, label: str) -> Json:
    title, _, best = METHODS[label]
    budgets = {}
    for budget, settings in BUDGETS.items():
        mean = best - 0.1 * (1 - settings.get("fraction", 1.0))
        runs = [
            {
                "run": digest(task, label, budget, seed),
                "seed": seed,
                "selection": {"accuracy": mean - 0.01 * seed, "f1_macro": mean - 0.2},
                "test": {
                    # Every method has its own lucky seed.
                    "accuracy": mean + 0.011 * ((seed - 1 + list(METHODS).index(label)) % 3 - 1),
                    "f1_macro": mean - 0.1 - 0.01 * seed,
                },
                "observed": {},
            }
            for seed in SEEDS
        ]
        summary = {m: summarise([run["test"][m] for run in runs]) for m in METRICS}
        budgets[budget] = {"runs": runs, "summary": summary}
    return {
        "name": label.partition("-")[0],
        "title": title,
        "paper": "arXiv 2106.09685",
        "start": "pretrained",
        "options": {"learning_rate": 0.002, "sites": ["query", "value"]},
        "mergeable": label != "houlsby",
        **budgets["full"],
        "budgets": budgets,
        "selected_seed": 2,
    }


def costs() -> Json:
    """One method has none, as after a cost stage that has not run."""
    return {
        task: {
            label: {
                "trainable_parameters": trainable,
                "total_parameters": 22_640_259,
                "artifact_bytes": 4 * trainable,
                "samples_per_second": 180.0 + place,
                "train_seconds": 12.0 - 2 * place,
                "peak_memory_bytes": 900_000_000 - place,
            }
            for place, (label, (_, trainable, _)) in enumerate(METHODS.items())
            if label != "head"
        }
        for task in TASKS
    }


def certificates() -> Json:
    """One method failed its check."""
    latency = {f"{side}_{rank}_ms": 4.9 for side in ("onnx", "torch") for rank in ("p50", "p95")}
    scores = {"accuracy": 0.77, "f1_macro": 0.52}
    return {
        task: {
            label: {
                "largest_logit_difference": 2.4e-6 if label != "houlsby" else 0.3,
                "tolerance": 1e-4,
                "passed": label != "houlsby",
                "prediction_flips": 0 if label != "houlsby" else 7,
                "rows": 400,
                "metrics_torch": scores,
                "metrics_onnx": scores,
                "latency": latency,
                "merged": label != "houlsby",
                "opset": 18,
                "onnx_bytes": 90_372_592,
                "onnx_sha256": digest("onnx", task, label),
            }
            for label in METHODS
        }
        for task in TASKS
    }


def figures() -> dict[str, dict[str, str]]:
    drawn = {}
    whole = comparison()
    for name, task in whole["tasks"].items():
        steps = [
            {"label": label, "title": title, "seed": 1, "loss": [[s, 1 / s] for s in range(1, 40)]}
            for label, (title, _, _) in METHODS.items()
        ]
        found = {
            "score": plots.score_plot(task),
            "difference": plots.difference_plot(task, whole),
            "parameters": plots.tradeoff_plot(task, costs()[name], "trainable parameters"),
            "time": plots.tradeoff_plot(task, costs()[name], "training seconds"),
            "budgets": plots.budget_plot(task),
            "loss": plots.loss_plot(task, steps),
        }
        drawn[name] = {key: plots.inline_svg(figure) for key, figure in found.items()}
    return drawn


def made_with(**changed: Any) -> Json:
    settings = {"numerics": {"precision": "fp32", "threads": 1}, "budgets": BUDGETS}
    return provenance() | settings | {"seeds": list(SEEDS)} | changed


def report() -> str:
    """The page of all of it."""
    known = {"git_commit": "0f" * 20, "git_dirty": False}
    return html.render(
        comparison(),
        costs(),
        certificates(),
        made_with(**known),
        figures(),
    )
