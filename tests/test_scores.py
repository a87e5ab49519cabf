"""Student's t intervals against published quantiles, SciPy and a simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from tunetrail.verdicts.scores import summarise


def test_three_scores_by_hand() -> None:
    summary = summarise([1.0, 2.0, 3.0])
    half = 4.302653 / math.sqrt(3)  # t quantile of 97.5 % with 2 degrees of freedom; std is 1
    assert summary["mean"] == 2.0
    assert summary["std"] == 1.0
    assert summary["count"] == 3
    assert summary["low"] == pytest.approx(2 - half, abs=1e-6)
    assert summary["high"] == pytest.approx(2 + half, abs=1e-6)


@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
@pytest.mark.parametrize("count", [2, 3, 5, 10, 40])
def test_interval_is_scipys(count: int, level: float) -> None:
    scores = np.random.default_rng(count).normal(0.8, 0.02, count).tolist()
    summary = summarise(scores, level)
    expected = stats.t.interval(
        level, count - 1, loc=np.mean(scores), scale=stats.sem(scores, ddof=1)
    )
    assert (summary["low"], summary["high"]) == pytest.approx(expected, rel=1e-12)


def test_one_score_has_a_mean_and_nothing_else() -> None:
    assert summarise([0.75]) == {"mean": 0.75, "std": None, "count": 1, "low": None, "high": None}


def test_equal_scores_have_an_interval_of_no_width() -> None:
    summary = summarise([0.5, 0.5, 0.5])
    assert (summary["std"], summary["low"], summary["high"]) == (0.0, 0.5, 0.5)


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_interval_covers_the_true_mean_95_times_in_100(seeds: int) -> None:
    runs, truth = 3000, 0.81
    draws = np.random.default_rng(2024 + seeds).normal(truth, 0.03, (runs, seeds))
    covered = 0
    for scores in draws:
        summary = summarise(scores.tolist())
        covered += summary["low"] <= truth <= summary["high"]
    # ± 0.015 is 3.8 standard errors of the share; a normal quantile would give 81 % at 3 seeds.
    assert covered / runs == pytest.approx(0.95, abs=0.015)
