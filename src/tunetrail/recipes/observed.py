"""A finished comparison as claims read it."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tunetrail.files import read_json
from tunetrail.layout import COMPARISON, PREDICTIONS
from tunetrail.settings import read_yaml
from tunetrail.stages.compare import row_scores
from tunetrail.verdicts.difference import Difference, paired_difference


class Observed:
    """Scores and predictions of one comparison, at every budget.

    Args:
        name: What the recipe calls it.
        folder: Its project.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder
        self.content: dict[str, Any] = read_json(folder / "comparison" / COMPARISON)
        self.margin: float = self.content["margin"]
        plan = read_yaml(folder / "params.yaml")  # its order; JSON's is the alphabet's
        self.tasks: dict[str, Any] = {
            name: self.content["tasks"][name]
            | {
                key: {label: self.content["tasks"][name][key][label] for label in plan[key]}
                for key in ("methods", "budgets")
            }
            for name in plan["tasks"]
        }
        self._values = lru_cache(maxsize=None)(self._read)

    def has(self, *methods: str) -> bool:
        """Whether it compares all of these methods."""
        first = next(iter(self.tasks.values()))
        return all(method in first["methods"] for method in methods)

    def budgets(self) -> list[str]:
        """Labels of its budgets."""
        return list(next(iter(self.tasks.values()))["budgets"])

    def scores(self, task: str, method: str, budget: str) -> list[float]:
        """Test scores of the primary metric, a seed each."""
        metric = self.tasks[task]["primary"]
        return [run["test"][metric] for run in self._runs(task, method, budget)]

    def difference(self, task: str, method: str, than: str, budget: str) -> Difference:
        """Of two methods with the same budget, paired over seeds and test rows."""
        return paired_difference(
            self._values(task, method, budget), self._values(task, than, budget)
        )

    def change(self, task: str, method: str, than: str, budget: str, start: str) -> Difference:
        """How much more (less, if negative) a method gains from one budget to another."""
        one, other = (
            self._values(task, label, budget) - self._values(task, label, start)
            for label in (method, than)
        )
        return paired_difference(one, other)

    def parameters(self, task: str, method: str) -> int:
        """Trainable parameters."""
        cost = read_json(self.folder / "runs" / "cost" / task / f"{method}.json")
        return int(cost["trainable_parameters"])

    def _runs(self, task: str, method: str, budget: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.tasks[task]["methods"][method]["budgets"][budget]["runs"]
        return sorted(found, key=lambda run: run["seed"])

    def _read(self, task: str, method: str, budget: str) -> np.ndarray:
        about = self.tasks[task]
        place = self.folder / "runs" / "evaluate" / task / method / budget
        return np.stack(
            [
                row_scores(
                    pd.read_parquet(place / str(run["seed"]) / PREDICTIONS),
                    about["primary"],
                    len(about["labels"]),
                )
                for run in self._runs(task, method, budget)
            ]
        )
