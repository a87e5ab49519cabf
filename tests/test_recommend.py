"""Recommendations under limits, each case with its answer known."""

from __future__ import annotations

import pytest

from tunetrail.verdicts.recommend import Pair, Recommendation, recommend

WIN, LOSE = Pair(better=True, not_worse=True), Pair(better=False, not_worse=False)
OPEN, MATCH = LOSE, Pair(better=False, not_worse=True)
SCORES = {"full": 0.78, "lora": 0.77, "head": 0.70}
COSTS = {
    "full": {"parameters": 22e6, "latency_ms": 5.0},
    "lora": {"parameters": 75e3, "latency_ms": 5.1},
    "head": {"parameters": 1e3, "latency_ms": 5.0},
}


def both_ways(**known: Pair) -> dict[tuple[str, str], Pair]:
    return {tuple(names.split("_")): pair for names, pair in known.items()}


def ask(pairs: dict[tuple[str, str], Pair], **limits: float) -> Recommendation:
    return recommend(SCORES, COSTS, pairs, limits, ["parameters", "latency_ms"])


def test_what_is_open_dominates_nobody_and_the_highest_score_is_picked() -> None:
    pairs = {(a, b): OPEN for a in SCORES for b in SCORES if a != b}
    found = ask(pairs)
    assert (found.pick, found.candidates) == ("full", ["full", "lora", "head"])
    assert found.reasons == [
        "It has the highest mean score of the methods that no other makes pointless.",
        "That it is better than lora and head is not shown.",
    ]


def test_a_cheaper_method_that_matches_makes_the_dearer_one_pointless() -> None:
    pairs = both_ways(lora_full=MATCH, full_lora=OPEN, full_head=WIN, head_full=LOSE)
    found = ask(pairs)
    assert found.pick == "lora"  # 2 % more latency is the same
    assert found.dominated == {
        "full": ("lora", "not worse by more than the margin, with less parameters")
    }
    assert "Against full it is not worse by more than the margin, with less parameters." in (
        found.reasons
    )


def test_better_is_not_enough_where_it_costs_more() -> None:
    found = ask(both_ways(full_lora=WIN, full_head=WIN, lora_head=WIN))
    assert found.candidates == ["full", "lora", "head"]
    assert found.reasons[1:] == []


def test_better_at_the_same_cost_dominates() -> None:
    pairs = both_ways(full_head=WIN, head_full=LOSE)
    found = recommend(SCORES, COSTS, pairs, {"latency_ms": 5.0}, ["latency_ms"])
    assert found.dominated == {"head": ("full", "better, and costs no more")}
    assert found.outside == {"lora": "latency_ms 5.1 > 5"}


def test_limits_leave_out_and_say_why() -> None:
    found = ask({}, parameters=100e3, latency_ms=5.05)
    assert found.pick == "head"
    assert found.outside["full"] == "parameters 2.2e+07 > 100,000"
    assert found.reasons == ["It is the only method within the limits."]


def test_nothing_within_the_limits() -> None:
    found = ask({}, latency_ms=1.0)
    assert (found.pick, found.candidates, found.reasons) == (
        None,
        [],
        ["No method is within the limits."],
    )


def test_a_cost_that_is_not_known_is_within_no_limit() -> None:
    costs = COSTS | {"head": {"parameters": 1e3}}
    found = recommend(SCORES, costs, {}, {"latency_ms": 9.0}, ["latency_ms"])
    assert found.outside == {"head": "latency_ms is not known"}


@pytest.mark.parametrize("other", ["lora", "full"])
def test_two_that_match_each_other_do_not_both_vanish(other: str) -> None:
    costs = {label: {"parameters": 5.0} for label in SCORES}
    pairs = {(a, b): MATCH for a in SCORES for b in SCORES if a != b}
    found = recommend(SCORES, costs, pairs, {}, ["parameters"])
    assert other in found.candidates
