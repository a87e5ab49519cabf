"""Verdicts on simulated comparisons whose answer is known; benchmarks/verdicts.py has all of it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.verdicts import SCENARIOS, SEEDS, analytic, coverage, families, power

#: Fewer rows than the scenarios have, so that it takes a second. Their noise is larger for it.
ROWS = 100
COUNT = 4000
RULE = "seeds and rows, each with its own t"


def error(rate: float, count: int) -> float:
    """Three standard errors of a share."""
    return 3 * math.sqrt(rate * (1 - rate) / count)


@pytest.mark.parametrize("seeds", SEEDS)
@pytest.mark.parametrize("name", ["rows alone", "mostly rows", "mostly seeds"])
def test_false_positives_and_coverage(name: str, seeds: int) -> None:
    scenario = replace(SCENARIOS[name], rows=ROWS)
    found = coverage(scenario, seeds, COUNT, np.random.default_rng([seeds, len(name)]))[RULE]
    assert found["false_positives"] <= 0.05 + error(0.05, COUNT // 2)
    assert found["covered"] >= 0.93


def test_the_simulation_tells_rules_apart() -> None:
    found = coverage(
        replace(SCENARIOS["mostly rows"], rows=ROWS), 5, 1000, np.random.default_rng(0)
    )
    assert found["t over seeds"]["covered"] < 0.85
    found = coverage(
        replace(SCENARIOS["mostly seeds"], rows=ROWS), 5, 1000, np.random.default_rng(0)
    )
    assert found["t over rows"]["covered"] < 0.8
    assert set(found) == set(analytic_names())


def analytic_names() -> list[str]:
    from tunetrail.verdicts.difference import Parts

    one = np.ones((1, 1))
    return list(analytic(Parts(one, one, one), 3, 10))


@pytest.mark.parametrize("seeds", [3, 10])
def test_of_five_comparisons_none_is_false_95_times_in_100(seeds: int) -> None:
    scenario = replace(SCENARIOS["mostly rows"], rows=ROWS)
    found = families(scenario, seeds, 2000, np.random.default_rng(seeds))
    assert found["Holm"]["any_false"] <= 0.05 + error(0.05, 2000)
    assert found["none"]["any_false"] > found["Holm"]["any_false"]
    assert found["Holm"]["covered"] >= 0.95
    assert found["Holm"]["found"] >= found["Bonferroni"]["found"]


def test_power_grows_with_seeds_and_with_the_difference() -> None:
    scenario = replace(SCENARIOS["mostly rows"], rows=400)
    by_seeds = [power(scenario, seeds, 500, np.random.default_rng(seeds)) for seeds in (3, 10)]
    for found in by_seeds:
        assert found["0.00"] < 0.08
        assert found["0.10"] > 0.9
    assert by_seeds[1]["0.04"] > by_seeds[0]["0.04"] + 0.1
