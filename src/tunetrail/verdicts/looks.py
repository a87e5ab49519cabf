"""Looking again after every further seed: how much of the error each look may use.

Whoever adds seeds until something is settled looks several times, and each look can be wrong. All
of them together keep the promised error if every look is held to a stricter one. Later looks, which
know more, get more of it: the error of a look is in proportion to the third power of its seeds
(after the spending of Kim and DeMets, Biometrika 74, 1987, where that power is close to O'Brien and
Fleming's). How large it may be is simulated in the worst case, a difference that only seeds blur:
there every seed is news. Rows, which all looks share, make the looks more alike.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

_POWER = 3
_PATHS = 400_000
_AT_ONCE = 50_000


class Looks(NamedTuple):
    """The numbers of seeds at which a comparison may be looked at.

    Attributes:
        first: Seeds at the first look.
        last: Seeds at the last one; there is one look for each number from ``first`` to it.
    """

    first: int
    last: int

    def share(self, seeds: int, comparisons: int, error: float = 0.05) -> float:
        """The share of ``error`` that a look may use, so that all together keep to it.

        Args:
            seeds: Seeds at this look.
            comparisons: Size of the family that Holm's procedure tests at each look. However many
                of them have no difference, the smallest p value of all looks keeps its part.
            error: Allowed probability of any false rejection at any look.
        """
        if self.last <= max(self.first, 2):
            return 1.0
        most = _most(max(self.first, 2), self.last, comparisons, error)
        return most * _weight(seeds, self.last)


def _weight(seeds: int, last: int) -> float:
    return float((seeds / last) ** _POWER)


@lru_cache
def _most(first: int, last: int, comparisons: int, error: float) -> float:
    """The share of a look at as many seeds as ``last``."""
    parts = np.arange(1, comparisons + 1)
    smallest = _smallest_p(first, last)
    return float((parts * np.quantile(smallest, error / parts)).min()) / error


@lru_cache
def _smallest_p(first: int, last: int) -> np.ndarray:
    """The smallest weighted p value of a t test over seeds, of all looks at no difference."""
    from scipy.stats import t

    generator = np.random.default_rng(0)
    found = []
    for _ in range(_PATHS // _AT_ONCE):
        drawn = generator.standard_normal((_AT_ONCE, last))
        smallest = np.full(_AT_ONCE, np.inf)
        for seeds in range(first, last + 1):
            own = drawn[:, :seeds]
            ratio = np.abs(own.mean(axis=1)) / (own.std(axis=1, ddof=1) / np.sqrt(seeds))
            smallest = np.minimum(smallest, 2 * t.sf(ratio, seeds - 1) / _weight(seeds, last))
        found.append(smallest)
    return np.concatenate(found)
