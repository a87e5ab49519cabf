"""Several comparisons at once: Holm's step-down procedure, with intervals that agree with it."""

from __future__ import annotations

import numpy as np


def holm(p_values: np.ndarray, error: float = 0.05) -> tuple[np.ndarray, np.ndarray]:
    """Adjusted p values, and the level of the interval that belongs to each decision.

    The k-th smallest p value of m is held against ``error / (m - k + 1)``, until one is not below
    (Holm, Scandinavian Journal of Statistics 6, 1979): the probability of any false rejection is at
    most ``error``. The level is one minus that share, for the comparisons after the first failure
    one minus the share at which it failed, so an interval excludes zero if and only if its
    comparison is rejected.

    Args:
        p_values: Shape ``(…, comparisons)``.
        error: Allowed probability of one or more false rejections.

    Returns:
        Both of the shape of ``p_values``, in its order.
    """
    count = p_values.shape[-1]
    order = np.argsort(p_values, axis=-1, kind="stable")
    sorted_ = np.take_along_axis(p_values, order, axis=-1)
    left = count - np.arange(count)
    adjusted = np.minimum(np.maximum.accumulate(sorted_ * left, axis=-1), 1.0)
    # How many are rejected is where the first one fails; those after it are not tested further.
    rejected = (adjusted <= error).sum(axis=-1, keepdims=True)
    step = np.minimum(np.arange(count), np.minimum(rejected, count - 1))
    levels = 1 - error / (count - step)
    back = np.argsort(order, axis=-1, kind="stable")
    return np.take_along_axis(adjusted, back, axis=-1), np.take_along_axis(levels, back, axis=-1)
