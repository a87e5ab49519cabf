"""Whether one trained model may replace another: the paired difference over the rows of a gate.

Both models are there, so seeds have no part in it: what is uncertain is which rows the gate holds.
Rows of one group (repeated texts, pages of one document) are one draw.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

#: Probability with which a model that is worse by the margin may pass.
ERROR = 0.05


class Bound(NamedTuple):
    """A mean difference and how low it may be.

    Attributes:
        mean: First model minus second.
        low: Lower end of the one-sided interval that covers with the probability 1 - ``ERROR``.
        groups: Independent units it rests on.
        rows_needed: Rows with which ``low`` would lie above minus the margin, were the difference
            to stay; None where no number would do. At most what is there where it does already.
    """

    mean: float
    low: float
    groups: int
    rows_needed: int | None


def lower_bound(one: np.ndarray, other: np.ndarray, groups: np.ndarray, margin: float) -> Bound:
    """How much worse than ``other`` ``one`` may be.

    A t bound of the mean over groups of rows. Where models hardly ever disagree, the spread that is
    seen is too small (two models that agree on 30 rows are not proven equal), so one more group
    each way is added to it, as Agresti and Min add rows for paired proportions (Statistics in
    Medicine 24, 2005). ``benchmarks/gate_rates.py`` has the rates of wrong promotions.

    Args:
        one: A value for each row, ``(rows,)``, whose mean is the score (``influence.row_values``).
        other: The same of the other model; same rows.
        groups: What each row belongs to, ``(rows,)``.
        margin: Difference, in raw units, that does not matter.

    Raises:
        ValueError: The shapes differ, or there are fewer than two groups.
    """
    if not one.shape == other.shape == groups.shape or one.ndim != 1:
        raise ValueError(f"shapes {one.shape}, {other.shape} and {groups.shape} are not one design")
    from scipy.stats import t

    names, place = np.unique(groups, return_inverse=True)
    count, rows = len(names), len(one)
    if count < 2:
        raise ValueError("one group has no spread")
    cells = one - other
    mean = float(cells.mean())
    sums = np.bincount(place, weights=cells, minlength=count)
    sizes = np.bincount(place, minlength=count)
    step = float(np.abs(sums).max() or sizes.max())
    squares = float(np.square(sums - mean * sizes).sum()) + 2 * step**2
    half = float(t.ppf(1 - ERROR, count - 1)) * math.sqrt(squares * count / (count - 1)) / rows
    room = mean + margin
    needed = math.ceil(rows * (half / room) ** 2) if room > 0 else None
    return Bound(mean, mean - half, count, needed)
