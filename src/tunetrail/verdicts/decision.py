"""The decision on each method against the baseline, and what an open one still needs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np

from tunetrail.verdicts.difference import Difference
from tunetrail.verdicts.family import holm
from tunetrail.verdicts.looks import Looks

Outcome = Literal["win", "tie", "lose", "open"]
Compared = TypeVar("Compared")

#: Probability of any false claim that all verdicts of a family together may have.
ERROR = 0.05
#: Seeds, together with those that are there, beyond which nobody is sent for more.
_MOST_SEEDS = 50
#: The same for test rows, as a multiple of those that are there.
_MOST_ROWS = 1000.0
#: Seeds of a first look: two more than one show a spread, with two degrees of freedom.
_FIRST_SEEDS = 3


class Needs(NamedTuple):
    """What would settle an open comparison, if the difference stays as it is.

    Attributes:
        seeds: About how many more; 0 where seeds are not what is missing.
        rows: About how many more test rows; 0 where rows are not what is missing.
    """

    seeds: int
    rows: int


class Verdict(NamedTuple):
    """The decision on one method.

    Attributes:
        outcome: ``win``, ``lose``, ``tie`` (not different by more than the margin) or ``open``.
        low: Lower end of the interval of the difference; None for one seed.
        high: Upper end.
        level: Probability with which that interval covers, 0.95 or more: Holm's step.
        adjusted: p value of no difference, allowing for the number of comparisons and of looks, to
            be held against :data:`ERROR`; None as above.
        differs: Whether the interval excludes zero.
        not_worse: Whether it lies above ``-margin``: non-inferiority, "matches the baseline".
        needs: Of an open comparison, else None.
    """

    outcome: Outcome
    low: float | None
    high: float | None
    level: float
    adjusted: float | None
    differs: bool
    not_worse: bool
    needs: Needs | None


def decide(
    differences: Mapping[Compared, Difference],
    margin: float,
    rows: int,
    looks: Looks | None = None,
) -> dict[Compared, Verdict]:
    """Verdicts on several comparisons, as one family.

    Args:
        differences: What is compared (a method with the baseline) → first minus second.
        margin: Difference, in raw units, that does not matter.
        rows: Number of test rows.
        looks: At which numbers of seeds there is a look, where there are several. Any claim at any
            of them is false with the probability :data:`ERROR` at most.
    """
    share = {
        label: looks.share(d.seeds, len(differences), ERROR) if looks else 1.0
        for label, d in differences.items()
    }
    tested = {label: p for label, d in differences.items() if (p := d.p_value()) is not None}
    weighted = [p / share[label] for label, p in tested.items()]
    adjusted, levels = holm(np.array(weighted), ERROR)
    levels = 1 - (1 - levels) * np.array([share[label] for label in tested])
    found = dict(zip(tested, zip(adjusted.tolist(), levels.tolist(), strict=True), strict=True))
    return {
        label: _one(difference, margin, rows, *found.get(label, (None, 1 - ERROR)))
        for label, difference in differences.items()
    }


def _one(
    difference: Difference, margin: float, rows: int, adjusted: float | None, level: float
) -> Verdict:
    half = difference.half_width(level)
    if half is None:
        more = Needs(_FIRST_SEEDS - 1, 0)
        return Verdict("open", None, None, level, None, False, False, more)
    low, high = difference.mean - half, difference.mean + half
    differs = low > 0 or high < 0
    outcome: Outcome = "open"
    if low > -margin and high < margin:
        outcome = "tie"
    elif differs:
        outcome = "win" if low > 0 else "lose"
    needs = _needs(difference, margin, rows, level) if outcome == "open" else None
    return Verdict(outcome, low, high, level, adjusted, differs, low > -margin, needs)


def _needs(difference: Difference, margin: float, rows: int, level: float) -> Needs:
    """The least that makes the interval narrow enough to exclude zero, or to fit in the margin."""
    wanted = max(abs(difference.mean), margin - abs(difference.mean))

    def seeds_for(width: float, times_rows: float) -> int | None:
        left = range(1, max(_MOST_SEEDS - difference.seeds, 1) + 1)
        fits = (n for n in left if difference.projected(level, n, times_rows) < width)
        return next(fits, None)

    def rows_for(seeds: int) -> int | None:
        if difference.projected(level, seeds, _MOST_ROWS) >= wanted:
            return None
        low, high = 0.0, math.log(_MOST_ROWS)
        for _ in range(30):
            middle = (low + high) / 2
            enough = difference.projected(level, seeds, math.exp(middle)) < wanted
            low, high = (low, middle) if enough else (middle, high)
        return math.ceil((math.exp(high) - 1) * rows)

    if (seeds := seeds_for(wanted, 1.0)) is not None:
        return Needs(seeds, 0)
    if (more := rows_for(0)) is not None:
        return Needs(0, more)
    # Neither alone: seeds for their share of the width with any number of rows, then rows.
    seeds = seeds_for(wanted / math.sqrt(2), _MOST_ROWS) or _MOST_SEEDS
    return Needs(seeds, rows_for(seeds) or math.ceil(_MOST_ROWS * rows))


def as_record(difference: Difference, verdict: Verdict, seeds: Iterable[int]) -> dict[str, Any]:
    """A verdict as ``comparison.json`` has it."""
    parts = difference.parts
    return {
        "difference": difference.mean,
        "low": verdict.low,
        "high": verdict.high,
        "level": verdict.level,
        "p": verdict.adjusted,
        "outcome": verdict.outcome,
        "differs": verdict.differs,
        "not_worse": verdict.not_worse,
        "needs": verdict.needs._asdict() if verdict.needs else None,
        "by_seed": [
            {"seed": seed, "difference": value}
            for seed, value in zip(seeds, difference.by_seed, strict=True)
        ],
        "std_seeds": math.sqrt(parts.seeds) if parts else None,
        "std_rows": math.sqrt(parts.rows) if parts else None,
    }
