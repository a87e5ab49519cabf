"""Projects whose plans have any number of runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from tunetrail.init.project import write_pipeline
from tunetrail.place import link_code

#: Rows of each task's file; a fifth is for selection, and a fifth for the test.
_ROWS = 600


def write_project(root: Path, tasks: int, methods: int, budgets: int, seeds: int) -> None:
    """Write a project with ``tasks · methods · budgets · seeds`` runs, without its model."""
    write_pipeline(root)
    (root / "data" / "tiny").mkdir(parents=True)
    words = ["plot", "cast", "music", "camera", "ending", "pace", "script", "humour", "hero", "set"]
    sources = {}
    for number in range(tasks):
        generator = np.random.default_rng(number)
        kinds = generator.integers(0, 2, _ROWS)
        drawn = generator.integers(0, len(words), (_ROWS, 3))
        texts = [
            f"{('an awful', 'a wonderful')[kind]} {words[a]}, {words[b]} and {words[c]} of film {i}"
            for i, (kind, (a, b, c)) in enumerate(zip(kinds, drawn, strict=True))
        ]
        path = root / "data" / f"task{number}.csv"
        labels = [("bad", "good")[kind] for kind in kinds]
        pd.DataFrame({"sentence": texts, "class": labels}).to_csv(path, index=False)
        sources[f"task{number}"] = {
            "source": f"data/task{number}.csv",
            "columns": {"text": "sentence", "label": "class"},
            "labels": ["bad", "good"],
            "metrics": ["accuracy", "f1_macro"],
        }
    methods_: dict[str, Any] = {"head": {}} | {
        f"lora_{rank}": {"method": "lora", "rank": rank} for rank in range(1, methods)
    }
    params = {
        "project": "scale",
        "base": {"source": "data/tiny", "max_length": 32, "pooling": "mean"},
        "tasks": sources,
        "methods": methods_,
        "baseline": "head",
        "margin": 0.01,
        "seeds": list(range(1, seeds + 1)),
        "budgets": {f"b{steps}": {"steps": steps} for steps in range(2, budgets + 2)},
        "main_budget": "b2",
        "training": {"batch_size": 16},
        "numerics": {"precision": "fp32", "threads": 1},
        "cost": {"steps": 2},
        "export": {"tolerance": 1.0e-4},
    }
    (root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
    link_code(root)
