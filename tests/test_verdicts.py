"""Differences, families and decisions, against statsmodels, SciPy, and cases done by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tunetrail import metrics
from tunetrail.verdicts import decision
from tunetrail.verdicts.decision import Needs, Verdict, as_record, decide
from tunetrail.verdicts.difference import (
    Difference,
    Parts,
    half_width,
    p_value,
    paired_difference,
    variance_parts,
)
from tunetrail.verdicts.family import holm
from tunetrail.verdicts.influence import BLOCKS, row_values
from tunetrail.verdicts.judge import judge

GOLDEN = json.loads(
    Path(__file__).with_name("golden").joinpath("scores", "verdicts.json").read_text()
)


def parts(seeds: float, rows: float, both: float = 0.0) -> Parts:
    return Parts(np.float64(seeds), np.float64(rows), np.float64(both))


def of(mean: float, variances: Parts | None, seeds: int = 3, rows: int = 400) -> Difference:
    return Difference(mean, (mean,) * seeds, rows, variances)


# Variances ---------------------------------------------------------------------------------------


def test_variances_are_those_of_statsmodels_mean_squares() -> None:
    cells = np.array(GOLDEN["crossed"]["cells"])
    of_seeds, of_rows, left = GOLDEN["crossed"]["mean_squares"]
    found = variance_parts(cells)
    assert found.seeds == pytest.approx(of_seeds / cells.size)
    assert found.rows == pytest.approx((of_rows - left) / cells.size)
    assert found.both == pytest.approx(left / cells.size)


def test_rows_never_take_variance_away() -> None:
    # Two seeds that are each other's opposite: rows have no effect of their own.
    assert variance_parts(np.array([[1.0, -1.0, 0.0], [-1.0, 1.0, 0.0]])).rows == 0


def test_interval_without_an_effect_of_rows_is_scipys_t_interval_over_seeds() -> None:
    by_seed = [0.02, 0.05, 0.03, 0.04]
    cells = np.repeat(np.array(by_seed)[:, None], 50, axis=1)
    found = paired_difference(cells, np.zeros_like(cells))
    low, high = stats.t.interval(0.95, 3, np.mean(by_seed), stats.sem(by_seed))
    half = found.half_width(0.95)
    assert (found.mean - half, found.mean + half) == pytest.approx((low, high))
    assert found.p_value() == pytest.approx(stats.ttest_1samp(by_seed, 0).pvalue, rel=1e-6)


def test_interval_without_an_effect_of_seeds_is_scipys_t_interval_over_rows() -> None:
    one = np.random.default_rng(3).integers(-1, 2, 60).astype(float)
    found = paired_difference(np.stack([one] * 5), np.zeros((5, 60)))
    low, high = stats.t.interval(0.95, 59, one.mean(), stats.sem(one))
    half = found.half_width(0.95)
    assert (found.mean - half, found.mean + half) == pytest.approx((low, high))
    assert found.p_value() == pytest.approx(stats.ttest_1samp(one, 0).pvalue, rel=1e-6)


def test_half_width_by_hand() -> None:
    # t quantiles of 97.5 %: 4.302653 with 2 degrees of freedom, 1.965927 with 399.
    expected = math.sqrt(4.302653**2 * 0.0001 + 1.965927**2 * 0.0004)
    assert half_width(parts(1e-4, 4e-4), 3, 400, 0.95) == pytest.approx(expected, rel=1e-6)


@settings(deadline=None)
@given(
    seeds=st.integers(2, 20),
    variances=st.tuples(st.floats(1e-6, 1e-2), st.floats(0, 1e-2)),
    mean=st.floats(0.001, 0.2),
)
def test_p_value_is_below_a_share_exactly_if_that_interval_excludes_zero(
    seeds: int, variances: tuple[float, float], mean: float
) -> None:
    found = parts(*variances)
    p = float(p_value(np.float64(mean), found, seeds, 300))
    for share in (0.05, 0.01, 0.003):
        excluded = mean > half_width(found, seeds, 300, 1 - share)
        assert excluded == (p <= share) or p == pytest.approx(share, rel=1e-6)


def test_one_seed_shows_no_variance() -> None:
    found = paired_difference(np.ones((1, 9)), np.zeros((1, 9)))
    assert (found.mean, found.by_seed) == (1, (1,))
    assert (found.parts, found.half_width(0.95), found.p_value()) == (None, None, None)
    with pytest.raises(ValueError, match="one seed has no variance"):
        found.projected(0.95)


def test_other_rows_are_not_a_pair() -> None:
    with pytest.raises(ValueError, match=r"\(3, 4\) and \(3, 5\) are not seeds × rows"):
        paired_difference(np.zeros((3, 4)), np.zeros((3, 5)))


def test_projection_without_more_is_the_interval_and_with_four_times_the_seeds_narrower() -> None:
    found = of(0.05, parts(4e-4, 1e-4, 1e-4), seeds=5)
    assert found.projected(0.95) == pytest.approx(found.half_width(0.95))
    quantile = stats.t.ppf(0.975, [19, 399])
    expected = math.sqrt(quantile[0] ** 2 * 1e-4 + quantile[1] ** 2 * 1e-4)
    assert found.projected(0.95, more_seeds=15) == pytest.approx(expected)
    # Ten times the rows shrink the interaction and the rows' part; the rest of the seeds' stays.
    quantile = stats.t.ppf(0.975, [4, 3999])
    expected = math.sqrt(quantile[0] ** 2 * 3.1e-4 + quantile[1] ** 2 * 1e-5)
    assert found.projected(0.95, times_rows=10) == pytest.approx(expected)


# What a row contributes --------------------------------------------------------------------------


def classes(seed: int, rows: int = 120) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = generator.choice(3, rows, p=[0.6, 0.3, 0.1])
    wrong = generator.random(rows) < 0.3
    return labels, np.where(wrong, generator.integers(0, 3, rows), labels)


def score_of(name: str, number: int = 3) -> Callable[[np.ndarray, np.ndarray], float]:
    return lambda labels, predictions: metrics.find(name).score(labels, predictions, number)


def test_values_of_accuracy_are_right_and_wrong() -> None:
    labels, predictions = classes(0)
    found = row_values(score_of("accuracy"), labels, predictions)
    assert found == pytest.approx((labels == predictions).astype(float))


@pytest.mark.parametrize("name", ["f1_macro", "f1_micro", "matthews"])
def test_values_are_the_jackknifes_and_their_mean_is_the_score(name: str) -> None:
    labels, predictions = classes(1)
    found = row_values(score_of(name), labels, predictions)
    assert found.mean() == pytest.approx(score_of(name)(labels, predictions))
    # One row at a time, as SciPy's own bootstrap does it for its acceleration.
    kept = [np.arange(120) != row for row in range(120)]
    without = np.array([score_of(name)(labels[k], predictions[k]) for k in kept])
    assert found - found.mean() == pytest.approx(119 * (without.mean() - without), abs=1e-9)


@pytest.mark.parametrize("name", ["f1_macro", "matthews", "pearson", "spearman"])
def test_their_spread_is_the_standard_error_that_scipys_bootstrap_finds(name: str) -> None:
    if name in ("pearson", "spearman"):
        labels = np.random.default_rng(2).normal(size=400)
        predictions = labels + np.random.default_rng(3).normal(size=400)
    else:
        labels, predictions = classes(4, 400)
    found = row_values(score_of(name), labels, predictions)
    resampled = stats.bootstrap(
        (labels, predictions), score_of(name), paired=True, vectorized=False, n_resamples=400,
        method="percentile", rng=np.random.default_rng(0),
    )  # fmt: skip
    assert stats.sem(found) == pytest.approx(resampled.standard_error, rel=0.12)


def test_many_numbers_are_taken_in_blocks() -> None:
    labels = np.random.default_rng(5).normal(size=2 * BLOCKS + 1)
    predictions = labels + np.random.default_rng(6).normal(size=len(labels))
    found = row_values(score_of("pearson"), labels, predictions)
    assert found.shape == (667,)  # three rows a block
    assert found.mean() == pytest.approx(np.corrcoef(labels, predictions)[0, 1])
    # A correlation of r has a standard error of (1 - r²)/√n for normal values.
    assert stats.sem(found) == pytest.approx(0.5 / math.sqrt(len(labels)), rel=0.1)


# Families ----------------------------------------------------------------------------------------


def test_holm_is_statsmodels() -> None:
    p = np.array(GOLDEN["family"]["p"])
    adjusted, _ = holm(p)
    assert adjusted == pytest.approx(np.array(GOLDEN["family"]["adjusted"]))


def test_levels_by_hand() -> None:
    # 0.04 is held against 0.05 / 2 and fails, so 0.2 is not tested further.
    _, levels = holm(np.array([0.2, 0.001, 0.04]))
    assert levels == pytest.approx([0.975, 1 - 0.05 / 3, 0.975])
    _, levels = holm(np.array([0.001, 0.002, 0.003]))
    assert levels == pytest.approx([1 - 0.05 / 3, 0.975, 0.95])
    assert holm(np.array([]))[0].shape == (0,)


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_an_interval_excludes_zero_exactly_if_its_comparison_is_rejected(p: list[float]) -> None:
    adjusted, levels = holm(np.array(p))
    for one, its_adjusted, level in zip(p, adjusted, levels, strict=True):
        assert (one <= 1 - level) == (its_adjusted <= 0.05) or one == pytest.approx(1 - level)


# Decisions ---------------------------------------------------------------------------------------


def alone(mean: float, variances: Parts | None, margin: float = 0.01, seeds: int = 3) -> Verdict:
    return decide({"it": of(mean, variances, seeds)}, margin, 400)["it"]


@pytest.mark.parametrize(
    ("mean", "outcome", "not_worse"),
    [(0.05, "win", True), (-0.05, "lose", False), (0.004, "tie", True), (-0.004, "tie", True)],
)
def test_outcomes(mean: float, outcome: str, not_worse: bool) -> None:
    # Half-width 4.302653 · 0.001: the interval of 0.004 is inside 0.01, whether it has zero or not.
    verdict = alone(mean, parts(1e-6, 0))
    assert (verdict.outcome, verdict.not_worse, verdict.needs) == (outcome, not_worse, None)
    assert verdict.high - mean == pytest.approx(0.004302653)


def test_not_worse_by_more_than_the_margin_without_being_a_tie() -> None:
    verdict = alone(0.02, parts(2.5e-5, 0))  # [-0.0015, 0.0415]
    assert (verdict.outcome, verdict.differs, verdict.not_worse) == ("open", False, True)


def test_a_real_difference_within_the_margin_is_a_tie_that_differs() -> None:
    verdict = alone(0.005, parts(1e-6, 0))  # [0.0007, 0.0093]
    assert (verdict.outcome, verdict.differs) == ("tie", True)


def test_equal_predictions_are_a_tie() -> None:
    same = np.ones((3, 50))
    verdict = decide({"it": paired_difference(same, same)}, 0.01, 50)["it"]
    assert (verdict.outcome, verdict.low, verdict.high) == ("tie", 0, 0)
    assert not verdict.differs


def test_open_needs_seeds_by_hand() -> None:
    # Standard error 0.01 with 3 seeds, difference 0.03: half-widths with 3, 4 and 5 seeds are
    # 4.303·0.01 = 0.043, 3.182·0.01·√(3/4) = 0.0276.
    assert alone(0.03, parts(1e-4, 0)).needs == Needs(1, 0)
    # 0.02: 5 seeds 2.776·0.01·√(3/5) = 0.0215, 6 seeds 2.571·0.01·√(3/6) = 0.0182.
    assert alone(0.02, parts(1e-4, 0)).needs == Needs(3, 0)


def test_no_number_of_seeds_shrinks_the_noise_of_the_test_rows() -> None:
    verdict = alone(0.02, parts(0, 4e-4))
    # 1.96·0.02·√(400/n) = 0.02 at n = 1537.
    assert verdict.needs is not None
    assert verdict.needs.seeds == 0
    assert verdict.needs.rows == pytest.approx(1537 - 400, abs=5)


def test_both_may_be_missing() -> None:
    needs = alone(0.02, parts(4e-4, 4e-4)).needs
    assert needs is not None
    assert needs.seeds > 0 < needs.rows
    found = of(0.02, parts(4e-4, 4e-4))
    assert found.projected(0.95, needs.seeds, 1 + needs.rows / 400) < 0.0201
    assert found.projected(0.95, needs.seeds, 1.0) > 0.02
    assert found.projected(0.95, 0, 1 + needs.rows / 400) > 0.02


def test_one_seed_needs_two_more() -> None:
    verdict = alone(0.1, None, seeds=1)
    assert verdict == Verdict("open", None, None, 0.95, None, False, False, Needs(2, 0))


def test_several_methods_are_one_family() -> None:
    # 0.045 is beyond 4.303 standard errors of 0.01, but not beyond 9.925, one of five.
    five = {f"m{i}": of(0.0, parts(1e-4, 0)) for i in range(4)} | {"it": of(0.045, parts(1e-4, 0))}
    assert decide({"it": five["it"]}, 0.001, 400)["it"].outcome == "win"
    verdict = decide(five, 0.001, 400)["it"]
    assert (verdict.outcome, verdict.level) == ("open", 0.99)
    assert verdict.adjusted == pytest.approx(5 * stats.t.sf(4.5, 2) * 2, rel=1e-6)


def task_values(
    effects: dict[str, float], seeds: Iterable[int] = range(3)
) -> dict[str, dict[int, np.ndarray]]:
    """Right and wrong on 200 rows of which a fifth is too hard for all."""
    generator = np.random.default_rng(1)
    hard = generator.random(200)
    found = {}
    for label, effect in effects.items():
        noise = {seed: 0.02 * generator.standard_normal(200) for seed in seeds}
        found[label] = {s: (hard + own < 0.8 + effect).astype(float) for s, own in noise.items()}
    return found


def test_methods_that_differ_from_the_baseline_share_no_letter_with_it() -> None:
    values = task_values({"full": 0.0, "lora": 0.0, "head": -0.4, "bitfit": -0.4}, seeds=range(8))
    found = judge(values, "full", 0.01, 200)
    assert {label: v["outcome"] for label, v in found["verdicts"].items()} == {
        "lora": "open",
        "head": "lose",
        "bitfit": "lose",
    }
    assert found["letters"] == {"full": "a", "lora": "a", "head": "b", "bitfit": "b"}
    assert [pair["of"] for pair in found["pairs"]] == [
        ["lora", "head"],
        ["lora", "bitfit"],
        ["head", "bitfit"],
    ]
    assert [pair["differs"] for pair in found["pairs"]] == [True, True, False]
    assert found["pairs"][0]["difference"] == pytest.approx(
        found["verdicts"]["lora"]["difference"] - found["verdicts"]["head"]["difference"]
    )


def test_pairs_without_the_baseline_have_verdicts_of_a_family_of_their_own() -> None:
    values = task_values({"full": 0.0, "lora": 0.0, "head": -0.4, "bitfit": -0.4}, seeds=range(8))
    found = judge(values, "full", 0.001, 200)["pairs"]
    alone = judge({label: values[label] for label in ("lora", "head", "bitfit")}, "", 0.001, 200)
    assert found == alone["pairs"]
    assert [pair["outcome"] for pair in found] == ["win", "win", "open"]
    assert [pair["level"] for pair in found] == pytest.approx([1 - 0.05 / 3, 0.975, 0.95])
    assert [pair["p"] <= decision.ERROR for pair in found] == [True, True, False]
    assert [entry["seed"] for entry in found[2]["by_seed"]] == list(range(8))
    assert found[2]["needs"] is not None
    against = judge({label: values[label] for label in ("head", "bitfit")}, "bitfit", 0.001, 200)
    assert {key: found[2][key] for key in found[2] if key != "of"} == against["verdicts"]["head"]


def test_without_a_baseline_there_are_pairs_and_letters() -> None:
    values = task_values({"full": 0.0, "lora": 0.0, "head": -0.4}, seeds=range(8))
    found = judge(values, "", 0.01, 200)
    assert found["verdicts"] == {}
    assert len(found["pairs"]) == 3
    assert found["letters"] == {"full": "a", "lora": "a", "head": "b"}
    alone = judge({"full": values["full"]}, "full", 0.01, 200)
    assert alone == {"verdicts": {}, "pairs": [], "letters": {"full": "a"}}


def test_with_one_seed_nothing_is_told_apart() -> None:
    values = task_values({"full": 0.0, "head": -0.5}, seeds=[7])
    found = judge(values, "full", 0.01, 200)
    assert found["verdicts"]["head"]["outcome"] == "open"
    assert found["letters"] == {"full": "a", "head": "a"}


def test_record_has_every_seed_and_the_names_of_the_parts() -> None:
    found = of(0.02, parts(4e-4, 1e-4))
    record = as_record(found, decide({"it": found}, 0.01, 400)["it"], [7, 8, 9])
    assert record["by_seed"] == [{"seed": s, "difference": 0.02} for s in (7, 8, 9)]
    assert (record["std_seeds"], record["std_rows"]) == pytest.approx((0.02, 0.01))
    assert record["needs"] == decision.Needs(**record["needs"])._asdict()
    lone = of(0.02, None, seeds=1)
    assert as_record(lone, decide({"it": lone}, 0.01, 400)["it"], [7])["std_rows"] is None
