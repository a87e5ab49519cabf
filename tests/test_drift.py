"""Figures about new rows, against values from formulas, counting, or pen and paper."""

from __future__ import annotations

import math
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tunetrail.intake import drift as levels
from tunetrail.intake.drift import (
    distance_of_labels,
    distance_of_numbers,
    distance_of_words,
    drift,
    notes,
)
from tunetrail.task import TaskSpec


def test_labels_are_compared_by_shares_and_by_chi_square() -> None:
    found = distance_of_labels({"a": 60, "b": 40}, {"a": 10, "b": 30})
    assert found["before"] == {"a": 60, "b": 40}
    assert found["distance"] == pytest.approx(0.35)  # (|.60 - .25| + |.40 - .75|) / 2
    # Expected are 50, 50 and 20, 20: 4 · 10²/… = 2 + 2 + 5 + 5 = 14, one degree of freedom.
    assert found["p"] == pytest.approx(math.erfc(math.sqrt(14 / 2)), rel=1e-3)


def test_three_classes_have_two_degrees_of_freedom() -> None:
    found = distance_of_labels({"a": 20, "b": 20, "c": 20}, {"a": 10, "b": 20, "c": 30})
    # Expected are 15, 20, 25 in both: 4 · 25/… = 2 · (25/15 + 25/25).
    assert found["p"] == pytest.approx(math.exp(-(25 / 15 + 25 / 25)), rel=1e-3)


def test_labels_that_do_not_occur_do_not_count() -> None:
    with_third = distance_of_labels({"a": 60, "b": 40, "c": 0}, {"a": 10, "b": 30, "c": 0})
    assert with_third["p"] == distance_of_labels({"a": 60, "b": 40}, {"a": 10, "b": 30})["p"]
    one_class = distance_of_labels({"a": 60, "b": 0}, {"a": 10, "b": 0})
    assert (one_class["distance"], one_class["p"]) == (0.0, None)
    no_label = distance_of_labels({"a": 60, "b": 0}, {"a": 0, "b": 0})
    assert (no_label["distance"], no_label["p"]) == (None, None)


def test_lengths_are_compared_by_kolmogorov_and_smirnov() -> None:
    old, new = [1.0, 2.0, 3.0, 4.0], [3.5, 4.5, 5.0, 6.0]
    found = distance_of_numbers(np.array(old), np.array(new))

    def largest_gap(first: set[int]) -> float:
        """Of the steps of both, where the ranks ``first`` are those of one sample."""
        others = set(range(8)) - first
        below = [
            [sum(rank <= at for rank in ranks) for ranks in (first, others)] for at in range(8)
        ]
        return max(abs(one - other) / 4 for one, other in below)

    assert found["distance"] == 0.75  # above 3, one of four and none of four are left of 3.5
    every = [largest_gap(set(ranks)) for ranks in combinations(range(8), 4)]
    assert found["p"] == pytest.approx(sum(gap >= 0.75 for gap in every) / len(every), rel=1e-3)
    assert found["before"][2] == 2.5
    assert distance_of_numbers(np.array(old), np.array([]))["distance"] is None


def test_words_are_compared_by_share_and_by_jensen_and_shannon() -> None:
    found = distance_of_words(["A a, b!"], ["a C"])
    assert found["unknown"]["share"] == 0.5
    old, new = (2 / 3, 1 / 3, 0), (1 / 2, 0, 1 / 2)
    middle = [(p + q) / 2 for p, q in zip(old, new, strict=True)]

    def divergence(shares: tuple[float, ...]) -> float:
        return sum(p * math.log2(p / m) for p, m in zip(shares, middle, strict=True) if p)

    expected = math.sqrt((divergence(old) + divergence(new)) / 2)
    assert found["frequencies"]["distance"] == pytest.approx(expected, rel=1e-3)
    assert found["frequencies"]["by_chance"] is None, "one text cannot be drawn from"


def test_what_chance_does_is_drawn_from_old_rows_alone() -> None:
    alike = distance_of_words(["x y"] * 10, ["z"])
    assert alike["unknown"] == {"share": 1.0, "by_chance": 0.0}
    assert alike["frequencies"] == {"distance": 1.0, "by_chance": 0.0}
    own = distance_of_words([f"w{i}" for i in range(10)], ["w1", "w2"])
    assert own["unknown"] == {"share": 0.0, "by_chance": 1.0}, "every word is in one row"
    assert own == distance_of_words([f"w{i}" for i in range(10)], ["w1", "w2"])
    nothing = distance_of_words(["a"], ["!"])
    assert nothing["unknown"]["share"] is None


def canonical(texts: list[str], labels: list[float]) -> pd.DataFrame:
    return pd.DataFrame({"text": texts, "text_pair": None, "label": labels})


def task(**target: object) -> TaskSpec:
    columns = {"text": "text", "label": "label"}
    return TaskSpec(name="own", source=Path("x.csv"), columns=columns, **target)


def test_rows_like_those_before_give_no_note() -> None:
    generator = np.random.default_rng(3)
    words = [f"word{i}" for i in range(40)]

    def some(count: int) -> pd.DataFrame:
        texts = [" ".join(generator.choice(words, generator.integers(5, 15))) for _ in range(count)]
        return canonical(texts, list(generator.integers(0, 2, count)))

    before = some(400)
    told = [notes(drift(before, some(size), task(labels=("a", "b")))) for size in (3, 20, 100) * 7]
    assert sum(map(bool, told)) <= 1, "about one in a hundred for each of four figures"


def test_a_note_says_what_moved_and_past_which_level() -> None:
    before = canonical(
        [f"some text of ten words or so, number {i % 9}" for i in range(90)], [0] * 45 + [1] * 45
    )
    fresh = canonical([f"kurz {i}" for i in range(30)], [1] * 30)
    told = notes(drift(before, fresh, task(labels=("a", "b"))))
    assert told == [
        "labels: distributed differently in the new rows: a 50% → 0%, b 50% → 100% (distance 0.50, "
        "level 0.1)",
        "length of 'text': different in the new rows: median 38 → 7 (distance 1.00, level 0.2)",
        "unknown words: 85% of the words in the new rows were never there before; in as many old "
        "rows 0% at most",
        told[3],
    ]
    assert told[3].startswith("word frequencies: others in the new rows (distance 0.9")


def test_numbers_to_predict_are_compared_as_numbers() -> None:
    before = canonical(["a b"] * 50, [float(i % 5) for i in range(50)])
    fresh = canonical(["a b"] * 30, [4.0] * 30)
    found = drift(before, fresh, task(range=(0, 5)))
    assert "labels" not in found
    assert found["numbers"]["distance"] == 0.8
    assert notes(found) == [
        "numbers: different in the new rows: median 2 → 4 (distance 0.80, level 0.2)"
    ]


def test_few_rows_can_be_far_away_by_chance() -> None:
    before = canonical(["a b"] * 50, [0, 1] * 25)
    found = drift(before, canonical(["a b"] * 2, [1, 1]), task(labels=("a", "b")))
    assert found["labels"]["distance"] == 0.5 > levels.LABELS
    assert notes(found) == []
