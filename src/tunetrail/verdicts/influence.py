"""What each test row contributes to a score: the jackknife, for any metric.

Accuracy is a mean over rows; macro-F1 or a correlation is not. Jackknife pseudo-values (Tukey,
1958) turn every score into a mean over rows: ``n·score - (n-1)·score without the row``. For a mean
over rows they are its terms.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

#: Rows a correlation is computed without, one block at a time; more blocks show nothing more.
BLOCKS = 1000


def row_values(
    score: Callable[[np.ndarray, np.ndarray], float], labels: np.ndarray, predictions: np.ndarray
) -> np.ndarray:
    """Values whose mean is the score, one for each test row.

    Rows with equal labels and predictions have equal values, so for classes the metric is computed
    once for each pair of classes. Where more than ``BLOCKS`` rows differ from each other (numbers),
    neighbouring rows are one unit, ``BLOCKS`` or fewer of them.

    Args:
        score: A metric of ``(labels, predictions)``.
        labels: True classes or numbers, shape ``(rows,)``.
        predictions: Predicted ones, same shape.

    Returns:
        Shape ``(units,)``; the same number of units for every prediction of the same rows, as long
        as these are all classes or all numbers.
    """
    rows = len(labels)
    discrete = np.issubdtype(labels.dtype, np.integer)
    size = 1 if discrete else -(-rows // BLOCKS)
    block = np.arange(rows) // size
    units = int(block[-1]) + 1
    whole = score(labels, predictions)
    if discrete:
        _, first, kind = np.unique(
            np.stack([labels, predictions]), axis=1, return_index=True, return_inverse=True
        )
        left_out = [np.arange(rows) == row for row in first]
    else:
        kind, left_out = np.arange(units), [block == unit for unit in range(units)]
    without = np.array([score(labels[~out], predictions[~out]) for out in left_out])
    pseudo = (units * whole - (units - 1) * without)[np.ravel(kind)]
    # The mean of pseudo-values corrects the bias of the score; what is compared is the score.
    centred: np.ndarray = pseudo - pseudo.mean() + whole
    return centred
