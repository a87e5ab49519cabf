"""A number: one output, squared error, correlations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tunetrail.errors import TuneTrailError
from tunetrail.kinds import Kind, first

if TYPE_CHECKING:
    import torch

    from tunetrail.training.rows import Rows


class Number(Kind):
    """Labels as they are, within ``interval``."""

    predicts = "a number"
    label_types = ("float64", "Float64Dtype")
    constant_title = "mean of train"

    def __init__(self, interval: tuple[float, float]) -> None:
        self.interval = interval
        self._low, self._high = interval
        if self._low <= -1 <= self._high:  # then it may be a label
            self.absent = frozenset(("",))

    def encode(
        self,
        frame: pd.DataFrame,
        label: str,
        where: str,
        text: str,
        bins: tuple[float, ...] | None = None,
    ) -> pd.Series:
        """Numbers within the range."""
        column = frame[label]
        numbers = numbers_of(column, where)
        outside = (numbers < self._low) | (numbers > self._high)
        if outside.any():
            row = first(outside)
            raise TuneTrailError(
                f"{where}: row {row + 1} is {column.iloc[row]}: {int(outside.sum())} of "
                f"{len(column)} rows are outside the range {self._low:g} to {self._high:g}",
                "correct the data or 'range'",
            )
        return pd.Series(numbers.to_numpy(dtype="float64", na_value=np.nan)).astype("Float64")

    def card(self, labels: pd.Series) -> dict[str, Any]:
        """The spread of the numbers."""
        numbers = labels.dropna().astype(float)
        return {
            "labels": {},
            "numbers": {
                "mean": float(numbers.mean()),
                "std": float(numbers.std(ddof=0)),
                "lowest": float(numbers.min()),
                "highest": float(numbers.max()),
            },
        }

    def shown(self) -> str:
        """With the range."""
        return f"a number from {self._low:g} to {self._high:g}"

    def loss(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Squared error in units of half the range."""
        unit = (self._high - self._low) / 2
        return ((outputs[:, 0] - labels) / unit).square().sum()

    def decide(self, rows: Rows, outputs: np.ndarray) -> np.ndarray:
        """The numbers, ``(rows,)``."""
        numbers: np.ndarray = outputs[:, 0]
        return numbers

    def flips(self, one: np.ndarray, other: np.ndarray) -> int:
        """A number has no decision that could flip."""
        return 0

    def constant(self, train: Mapping[str, Any], rows: Rows) -> np.ndarray:
        """The mean of train."""
        return np.full_like(rows.labels, train["numbers"]["mean"])

    def accepted(self, labels: pd.Series) -> np.ndarray:
        """The numbers."""
        return np.asarray(labels, dtype=np.float64)


def numbers_of(column: pd.Series, where: str) -> pd.Series:
    """A column as numbers, missing ones kept.

    Raises:
        TuneTrailError: A value that is none, with its row.
    """
    numbers = pd.to_numeric(column, errors="coerce").astype("Float64")
    bad = ~np.isfinite(numbers.to_numpy("float64", na_value=np.nan)) & column.notna()
    if bad.any():
        row = first(bad)
        raise TuneTrailError(
            f"{where}: row {row + 1} is {column.iloc[row]!r}, not a number",
            "correct the row; if the column holds class names, give 'labels' without 'bins'",
        )
    return numbers
