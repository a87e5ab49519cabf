"""The paired difference of two methods over seeds and test rows, with its interval.

Both methods are trained with the same seeds and predict the same test rows. The difference in one
cell, ``d[s, i] = δ + a[s] + b[i] + e[s, i]``, has an effect of the seed, one of the row, which all
seeds share, and one of both together. Seeds and rows are drawn from populations, and δ is meant for
all of both: another seed, another text of the kind that is tested.

The half-width of the interval is ``√(t²[S-1]·V + t²[n-1]·W)``: V is the variance of the mean over
the S seeds as their own spread shows it, W what the n rows add, and each has the quantile of its
own degrees of freedom (Banerjee, Sankhyā 22, 1960). With V alone it is the t interval over seeds;
it is never narrower. docs/verdicts.md has the simulations that chose it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


class Parts(NamedTuple):
    """Estimated variances of a mean difference, by where they come from.

    Each is a number, or an array of one shape.

    Attributes:
        seeds: Of the mean over seeds, the test rows held fixed.
        rows: What drawing the test rows adds.
        both: The part of ``seeds`` that is the interaction with rows: more rows shrink it, too.
    """

    seeds: np.ndarray
    rows: np.ndarray
    both: np.ndarray


def variance_parts(cells: np.ndarray) -> Parts:
    """Analysis of variance of the crossed design, by the method of moments.

    Args:
        cells: Differences of shape ``(…, seeds, rows)``, at least two of each.
    """
    seeds, rows = cells.shape[-2:]
    by_seed, by_row = cells.mean(axis=-1), cells.mean(axis=-2)
    whole = by_seed.mean(axis=-1)
    left = cells - by_seed[..., None] - by_row[..., None, :] + whole[..., None, None]
    both = np.square(left).sum(axis=(-2, -1)) / ((seeds - 1) * (rows - 1) * seeds * rows)
    over_rows = by_row.var(axis=-1, ddof=1) / rows
    return Parts(by_seed.var(axis=-1, ddof=1) / seeds, np.maximum(over_rows - both, 0.0), both)


def half_width(parts: Parts, seeds: int, rows: int, level: float | np.ndarray) -> np.ndarray:
    """Half the width of the interval that covers with at least the probability ``level``."""
    from scipy.stats import t

    upper = 0.5 + np.asarray(level) / 2
    by_seed, by_row = t.ppf(upper, seeds - 1), t.ppf(upper, rows - 1)
    width: np.ndarray = np.sqrt(by_seed**2 * parts.seeds + by_row**2 * parts.rows)
    return width


def p_value(mean: np.ndarray, parts: Parts, seeds: int, rows: int) -> np.ndarray:
    """1 - the level at which the interval just reaches zero, to within a relative 1e-9.

    Args:
        mean: Mean differences, of the shape of each part.
        parts: Their variances.
        seeds: Number of seeds.
        rows: Number of test rows.
    """
    shape = np.broadcast_shapes(np.shape(mean), np.shape(parts.seeds))
    low, high = np.full(shape, math.log(1e-15)), np.zeros(shape)
    for _ in range(40):
        middle = (low + high) / 2
        excluded = half_width(parts, seeds, rows, 1 - np.exp(middle)) < np.abs(mean)
        low, high = np.where(excluded, low, middle), np.where(excluded, middle, high)
    return np.exp(high)


@dataclass(frozen=True)
class Difference:
    """A mean paired difference and what is known of its precision.

    Attributes:
        mean: Over all cells.
        by_seed: Of each seed, in the order of the cells.
        rows: Number of test rows (or of blocks of them) the variances rest on.
        parts: Variances, or None for one seed, which shows none.
    """

    mean: float
    by_seed: tuple[float, ...]
    rows: int
    parts: Parts | None

    @property
    def seeds(self) -> int:
        """Number of seeds."""
        return len(self.by_seed)

    def half_width(self, level: float) -> float | None:
        """Half the width of the interval; None for one seed."""
        if self.parts is None:
            return None
        return float(half_width(self.parts, self.seeds, self.rows, level))

    def p_value(self) -> float | None:
        """Two-sided p value of no difference; None for one seed."""
        if self.parts is None:
            return None
        return float(p_value(np.asarray(self.mean), self.parts, self.seeds, self.rows))

    def projected(self, level: float, more_seeds: int = 0, times_rows: float = 1.0) -> float:
        """Half-width to expect with more seeds and ``times_rows`` as many test rows.

        Raises:
            ValueError: One seed, which shows no variance to start from.
        """
        if self.parts is None:
            raise ValueError("one seed has no variance")
        seeds, (own, rows, both) = self.seeds + more_seeds, self.parts
        parts = Parts(
            (max(own - both, 0.0) + min(own, both) / times_rows) * self.seeds / seeds,
            rows / times_rows,
            both / times_rows * self.seeds / seeds,
        )
        count = min(self.rows * times_rows, 1e9)
        return float(half_width(parts, seeds, max(2, math.floor(count)), level))


def paired_difference(one: np.ndarray, other: np.ndarray) -> Difference:
    """Mean of ``one - other``.

    Args:
        one: A value for each seed and test row, ``(seeds, rows)``, whose means over rows are the
            seeds' scores (``influence.row_values``).
        other: The same of the other method; same seeds, same rows.

    Raises:
        ValueError: The shapes differ, or there is only one row.
    """
    if one.shape != other.shape or one.ndim != 2 or one.shape[1] < 2:
        raise ValueError(f"shapes {one.shape} and {other.shape} are not seeds × rows of one design")
    cells = one - other
    parts = None
    if len(cells) > 1:
        parts = variance_parts(cells)
    return Difference(
        float(cells.mean()), tuple(float(d) for d in cells.mean(axis=1)), cells.shape[1], parts
    )


def seeds_alone(by_seed: np.ndarray, rows: int) -> Difference:
    """A mean difference of which only each seed's score is known, not what each row adds.

    Its interval is the t interval over seeds: it speaks of these very test rows, of no others.

    Args:
        by_seed: Shape ``(seeds,)``, one minus other.
        rows: Number of test rows.
    """
    parts = None
    if len(by_seed) > 1:
        none = np.asarray(0.0)
        parts = Parts(by_seed.var(ddof=1) / len(by_seed), none, none)
    return Difference(float(by_seed.mean()), tuple(float(d) for d in by_seed), rows, parts)
