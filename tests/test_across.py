"""Views over all tasks, against rliable and SciPy."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tunetrail.verdicts import across

GOLDEN = json.loads(
    Path(__file__).with_name("golden").joinpath("scores", "verdicts.json").read_text()
)["across"]
SCORES = dict(zip("abc", np.array(GOLDEN["scores"]), strict=True))


@pytest.mark.parametrize("name", SCORES)
def test_interquartile_mean_is_rliables(name: str) -> None:
    assert across.interquartile_mean(SCORES[name]) == pytest.approx(GOLDEN["iqm"][name])
    ends = across.bootstrap(across.interquartile_mean, SCORES[name])
    # Percentiles of 2,000 draws against those of 20,000: the width is about 0.06.
    assert ends == pytest.approx(GOLDEN["iqm_ends"][name], abs=0.004)


@pytest.mark.parametrize("names", ["b,a", "c,a"])
def test_probability_of_improvement_is_rliables(names: str) -> None:
    one, other = (SCORES[name] for name in names.split(","))
    assert across.improvement(one, other) == pytest.approx(GOLDEN["improvement"][names])
    assert across.improvement(one, other) + across.improvement(other, one) == pytest.approx(1)
    ends = across.bootstrap(across.improvement, one, other)
    assert ends == pytest.approx(GOLDEN["improvement_ends"][names], abs=0.02)


@pytest.mark.parametrize("name", SCORES)
def test_performance_profile_is_rliables(name: str) -> None:
    thresholds = np.array(GOLDEN["thresholds"])
    assert across.profile(SCORES[name], thresholds) == pytest.approx(GOLDEN["profiles"][name])
    low, high = across.bootstrap(lambda s: across.profile(s, thresholds), SCORES[name])
    assert low.shape == high.shape == thresholds.shape
    assert (low <= GOLDEN["profiles"][name]).all()
    assert (high >= GOLDEN["profiles"][name]).all()


def test_mean_ranks_are_scipys() -> None:
    assert across.mean_ranks(np.array(GOLDEN["scores"])) == pytest.approx(GOLDEN["ranks"])


def test_by_hand() -> None:
    # 0 to 7: the middle half is 2, 3, 4, 5.
    assert across.interquartile_mean(np.arange(8.0).reshape(4, 2)) == 3.5
    one, other = np.array([[2.0], [3.0]]), np.array([[1.0], [3.0]])
    assert across.improvement(one, other) == (1 + 0 + 1 + 0.5) / 4
    assert across.profile(one, np.array([1.0, 2.0, 2.5])) == pytest.approx([1, 0.5, 0.5])
    assert across.mean_ranks(np.array([[[1.0, 3.0]], [[2.0, 3.0]]])) == pytest.approx([1.75, 1.25])


def test_summary_is_the_same_every_time_and_knows_what_has_no_interval() -> None:
    found = across.summary(SCORES, "a")
    assert found == across.summary(SCORES, "a")
    assert set(found["a"]) == {"iqm", "rank"}
    assert set(found["b"]) == {"iqm", "rank", "improvement"}
    for entry in found.values():
        assert all(e.low <= e.value <= e.high for e in entry.values())
    once = across.summary({label: scores[:1] for label, scores in SCORES.items()}, "")
    assert once["b"].keys() == {"iqm", "rank"}
    assert once["b"]["iqm"][1:] == (None, None)


def test_seeds_are_drawn_within_a_task() -> None:
    # Tasks far apart and no spread within them: every draw has the same mean.
    fixed = np.tile([0.1, 0.5, 0.9], (4, 1))
    low, high = across.bootstrap(across.interquartile_mean, fixed)
    assert (
        low == high == across.interquartile_mean(fixed) == stats.trim_mean(fixed, 0.25, axis=None)
    )


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 6), st.integers(1, 5), st.randoms(use_true_random=False))
def test_interquartile_mean_is_scipys_trimmed_mean(runs: int, tasks: int, random: object) -> None:
    scores = np.array([random.random() for _ in range(runs * tasks)]).reshape(runs, tasks)
    expected = stats.trim_mean(scores, 0.25, axis=None)
    assert across.interquartile_mean(scores) == pytest.approx(expected)
    assert across.interquartile_mean(scores[None])[0] == pytest.approx(expected)
