"""A finished comparison as the compare stage has it in memory, made up and small."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from tunetrail.provenance import provenance
from tunetrail.report import figures, html
from tunetrail.stages.compare import across_tasks
from tunetrail.verdicts.judge import judge
from tunetrail.verdicts.scores import summarise

Json = dict[str, Any]

SEEDS = (1, 2, 3)
#: Two curves: by share and by epochs.
BUDGETS: dict[str, dict[str, float]] = {
    "tenth": {"epochs": 2, "fraction": 0.1},
    "half": {"epochs": 2, "fraction": 0.5},
    "full": {"epochs": 2},
    "one": {"epochs": 1},
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
        label: {run["seed"]: _rows(run["test"]["accuracy"]) for run in methods[label]["runs"]}
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
        "tuning": {"lora": {"full": _tuned(0.76, "")}, "head": {"full": _tuned(0.7, "high")}},
        "methods": methods,
        **judge(predictions, "full", 0.01, 400),
        "winner": {"method": "full", "seed": 2},
    }


def _tuned(best: float, edge: str) -> Json:
    """Trials of a tuning stage; at an edge, the score still rises where the range ends."""
    rates = [1e-4, 3e-4, 1e-3, 3e-3, 1e-2]
    chosen = 4 if edge == "high" else 2
    scores: list[float | None] = [best - 0.02 * abs(place - chosen) for place in range(5)]
    states = ["pruned", *["complete"] * 4]
    if not edge:
        states[4], scores[4] = "failed", None
    return {
        "metric": "accuracy",
        "trials": [
            {
                "options": {"learning_rate": rate},
                "score": score,
                "state": state,
                "run": digest("trial", best, rate),
            }
            for rate, score, state in zip(rates, scores, states, strict=True)
        ],
        "range": {"learning_rate": [1e-4, 1e-2]},
        "chosen": {"learning_rate": rates[chosen]},
        "edge": {"learning_rate": edge} if edge else {},
        "default_score": best - 0.01,
    }


def _method(task: str, label: str) -> Json:
    title, _, best = METHODS[label]
    budgets = {}
    for budget, settings in BUDGETS.items():
        mean = best - 0.1 * (1 - settings.get("fraction", 1.0)) - 0.02 * (2 - settings["epochs"])
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
                "checkpoint_bytes": 0,
                "samples_per_second": 180.0 + place,
                "train_seconds": 12.0 - 2 * place,
                "pretrain_seconds": 0.0,
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
                "sweep": [[1, 2], [8, 64]],
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


def choice(task: Json) -> Json:
    """What select chose of a task: the method and seed that :func:`comparison` names."""
    return {
        "metric": "accuracy",
        "budget": "full",
        "runs": {
            label: [{key: run[key] for key in ("run", "seed", "selection")} for run in m["runs"]]
            for label, m in task["methods"].items()
        },
        "seeds": {label: m["selected_seed"] for label, m in task["methods"].items()},
        "winner": task["winner"]["method"],
    }


def lineage(label: str = "full") -> Json:
    """What the register stage stores of the first task's winner, or of another method."""
    whole = comparison()
    task = whole["tasks"]["movie"]
    task["winner"]["method"] = label
    spec = {
        "base": {"digest": digest("base"), "max_length": 128, "pooling": "mean"},
        "start": "pretrained",
        "data": {"fit": digest("fit"), "test": digest("test")},
        "method": {"name": label, "options": task["methods"][label]["options"]},
        "seed": 2,
        "budget": {"epochs": 2, "steps": None, "fraction": 1.0},
        "training": {"batch_size": 16, "schedule": "linear"},
        "numerics": {"precision": "fp32", "threads": 1},
        "code": digest("code"),
    }
    card = {"rows": 400, "labels": {"bad": 192, "good": 208}, "at_max_length": 0.0125}
    checks = [
        {"check": "types", "outcome": "passed", "count": 0, "share": 0.0, "limit": 0.0},
        {"check": "duplicates", "outcome": "tolerated", "count": 2, "share": 0.002, "limit": 0.05},
        {"check": "conflicts", "outcome": "waived", "count": 7, "share": 0.007, "limit": 0.0},
    ]
    return {
        "format": 1,
        "project": "sentiment",
        "model": {
            "name": "sentiment-movie", "task": "movie", "label": label, "seed": 2,
            "run": digest("movie", label, "full", 2), "onnx_sha256": digest("onnx", "movie", label),
        },
        "data": {
            "source": {"kind": "files", "path": "data/own.csv", "sha256": digest("movie")},
            "licence": "MIT",
            "digest": digest("movie"),
            "domain": "reviews",
            "rows": 1240,
            "paired": False,
            "sets": {
                name: card | {"rows": rows}
                for name, rows in (("train", 640), ("selection", 200), ("test", 400))
            },
        },
        "validation": {
            "checks": checks,
            "waived": task["validation"]["waived"],
            "dropped": 2,
            "classes_missing": {"selection": ["good"]},
        },
        "run": {
            "digest": digest("movie", label, "full", 2),
            "budget": "full",
            "spec": spec,
            "parameters": METHODS[label][1],
        },
        "choice": choice(task),
        "comparison": {key: whole[key] for key in ("base", "baseline", "margin")} | {"task": task},
        "certificate": certificates()["movie"][label],
        "serving": {"labels": ["bad", "good"], "max_length": 128},
        "slices": [
            {"measure": "found", "of": name, "rows": rows, "score": s, "low": low, "high": high}
            for name, rows, s, low, high in (
                ("bad", 380, 0.8, 0.757, 0.837), ("good", 20, 0.5, 0.299, 0.701)
            )
        ],
        "environment": {
            "python": "3.11.7", "platform": "Linux", "versions": {"torch": "2.13.0"},
            "packages": {"torch": "2.13.0", "yarl": "1.2"},
            "lock": {"file": "requirements.lock", "sha256": digest("lock")},
        },
        "git": {"git_commit": "0f" * 20, "git_dirty": True, "changed": ["params.yaml"]},
        "reproduce": [],
        "links": [
            {"step": "comparison", "path": "comparison/comparison.json", "sha256": digest("all"),
             "cell": "compare"},
        ],
    }  # fmt: skip


def pictures(whole: Json) -> figures.Pictures:
    steps = [
        {"label": label, "title": title, "seed": 1, "loss": [[s, 1 / s] for s in range(1, 40)]}
        for label, (title, _, _) in METHODS.items()
    ]
    return figures.draw(whole, costs(), certificates(), dict.fromkeys(TASKS, steps))


def made_with(**changed: Any) -> Json:
    settings = {"numerics": {"precision": "fp32", "threads": 1}, "budgets": BUDGETS}
    return provenance() | settings | {"seeds": list(SEEDS), "limits": {}} | changed


def report() -> str:
    """The page of all of it."""
    known, whole = {"git_commit": "0f" * 20, "git_dirty": False}, comparison()
    shown = figures.inline(pictures(whole))
    return html.render(whole, costs(), certificates(), made_with(**known), shown)
