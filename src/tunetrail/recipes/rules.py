"""When a published claim is supported, not supported, or open. docs/recipes.md has the reasons.

Every interval covers with 95 % and treats seeds and test rows as drawn: the rule of
:mod:`tunetrail.verdicts.difference`. A claim about several tasks or budgets has a *cell* for each.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import permutations
from typing import Literal, NamedTuple

import numpy as np

from tunetrail.verdicts.difference import Difference

Verdict = Literal["supported", "not supported", "open"]

#: Scores of two methods with the same budget, a seed each.
Pair = tuple[Sequence[float], Sequence[float]]

_ERROR = 0.05


class Interval(NamedTuple):
    """An estimate with a 95 % interval; no ends where nothing shows a variance."""

    value: float
    low: float | None
    high: float | None


def interval(difference: Difference, error: float = _ERROR) -> Interval:
    """The interval of one difference."""
    half = difference.half_width(1 - error)
    if half is None:
        return Interval(difference.mean, None, None)
    return Interval(difference.mean, difference.mean - half, difference.mean + half)


def not_worse(cells: Sequence[Difference], margin: float) -> Verdict:
    """Whether one method is not worse than another by more than the margin, in every cell.

    Supported: each interval lies above ``-margin`` (an intersection-union test, so the level needs
    no adjustment). Not supported: some interval, at the level of Bonferroni, lies below it.
    """
    found = [interval(cell) for cell in cells]
    strict = [interval(cell, _ERROR / len(cells)) for cell in cells]
    if all(cell.low is not None and cell.low > -margin for cell in found):
        return "supported"
    if any(cell.high is not None and cell.high < -margin for cell in strict):
        return "not supported"
    return "open"


def mean_over(cells: Sequence[Difference]) -> Interval:
    """The mean of differences on different tasks, each with equal weight.

    The tasks are these, not drawn from others. Their half-widths add up as squares, which
    keeps each variance with the quantile of its own degrees of freedom.
    """
    halves = [cell.half_width(1 - _ERROR) for cell in cells]
    mean = sum(cell.mean for cell in cells) / len(cells)
    known = [half for half in halves if half is not None]
    if len(known) < len(cells):
        return Interval(mean, None, None)
    half = math.hypot(*known) / len(cells)
    return Interval(mean, mean - half, mean + half)


def better(mean: Interval, margin: float) -> Verdict:
    """Whether a difference is positive; if all of it is below the margin, it helps nothing."""
    if mean.low is not None and mean.low > 0:
        return "supported"
    if mean.high is not None and mean.high < margin:
        return "not supported"
    return "open"


def spread_ratio(
    tasks: Mapping[str, Iterable[tuple[Sequence[float], Sequence[float]]]],
) -> Interval:
    """Standard deviation over seeds of one method in units of another's, over tasks.

    The logarithm of the ratio of two standard deviations of equally many normal scores is unbiased
    and, if they are equal, symmetric. Budgets of one task share rows and are averaged; tasks are
    independent of each other, so the t interval is over tasks. A pair in which a method has the
    same score with every seed has no ratio and is left out.

    Args:
        tasks: Task → for each budget the scores of both methods, a score a seed.

    Raises:
        ValueError: No task has a ratio.
    """
    means = []
    for pairs in tasks.values():
        ratios = []
        for one, other in pairs:
            stds = np.std(one, ddof=1), np.std(other, ddof=1)
            if min(stds) > 0:
                ratios.append(math.log(stds[0] / stds[1]))
        if ratios:
            means.append(float(np.mean(ratios)))
    if not means:
        raise ValueError("no task has scores that differ between seeds")
    mean = float(np.mean(means))
    if len(means) < 2:
        return Interval(math.exp(mean), None, None)
    from scipy.stats import t

    error = float(np.std(means, ddof=1)) / math.sqrt(len(means))
    half = float(t.ppf(1 - _ERROR / 2, len(means) - 1)) * error
    return Interval(math.exp(mean), math.exp(mean - half), math.exp(mean + half))


def varies_more(ratio: Interval) -> Verdict:
    """Whether a ratio of spreads is above 1."""
    if ratio.low is not None and ratio.low > 1:
        return "supported"
    if ratio.high is not None and ratio.high < 1:
        return "not supported"
    return "open"


def varies_no_more(ratio: Interval, factor: float) -> Verdict:
    """Whether a ratio of spreads is at most ``factor``, which is 1 or a little more."""
    if ratio.high is not None and ratio.high < factor:
        return "supported"
    if ratio.low is not None and ratio.low > factor:
        return "not supported"
    return "open"


class Trend(NamedTuple):
    """A rank correlation with its exact one-sided p values.

    Attributes:
        rho: Spearman's.
        falls: Share of all orders with a correlation as low as this one, or lower.
        rises: As high, or higher.
    """

    rho: float
    falls: float
    rises: float


def trend(x: Sequence[float], y: Sequence[float]) -> Trend:
    """Spearman's rank correlation of up to eight points, against every order of ``y``.

    Raises:
        ValueError: There are fewer than three points or more than eight, or all are equal.
    """
    from scipy.stats import rankdata

    if not 3 <= len(x) == len(y) <= 8 or min(np.ptp(x), np.ptp(y)) == 0:
        raise ValueError(f"{len(x)} points have no rank correlation that all orders can test")
    first, second = (rankdata(values) - (len(x) + 1) / 2 for values in (x, y))
    scale = float(np.sqrt((first**2).sum() * (second**2).sum()))
    orders = np.array(list(permutations(second)))
    drawn, rho = orders @ first / scale, float(first @ second) / scale
    close = 1e-9
    falls, rises = (drawn <= rho + close).mean(), (drawn >= rho - close).mean()
    return Trend(rho, float(falls), float(rises))


def falls(found: Trend) -> Verdict:
    """Whether one goes down where the other goes up."""
    if found.falls <= _ERROR:
        return "supported"
    return "not supported" if found.rises <= _ERROR else "open"


def together(parts: Iterable[Verdict]) -> Verdict:
    """Of a claim with several parts: all must hold."""
    found = set(parts)
    if "not supported" in found:
        return "not supported"
    return "open" if "open" in found else "supported"
