"""Summary of a method's own scores over seeds."""

from __future__ import annotations

import math

import numpy as np


def summarise(scores: list[float], level: float = 0.95) -> dict[str, float | int | None]:
    """Mean, standard deviation, count and Student's t interval of independent scores.

    With few seeds the t interval is wide, as it should be: 4.3 standard errors at three seeds. It
    takes scores of seeds as normally distributed. One score has no deviation and no interval.

    Args:
        scores: One score a seed, in raw units.
        level: Coverage of the interval.

    Returns:
        ``mean``, ``std`` (n - 1), ``count``, ``low``, ``high``; None where undefined.
    """
    count = len(scores)
    mean = float(np.mean(scores))
    if count < 2:
        return {"mean": mean, "std": None, "count": count, "low": None, "high": None}
    from scipy.stats import t

    std = float(np.std(scores, ddof=1))
    half = float(t.ppf(0.5 + level / 2, count - 1)) * std / math.sqrt(count)
    return {"mean": mean, "std": std, "count": count, "low": mean - half, "high": mean + half}
