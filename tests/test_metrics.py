"""Metrics against values worked out by hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.tiny import make_rows
from tunetrail import metrics
from tunetrail.errors import TuneTrailError
from tunetrail.files import read_json, write_json
from tunetrail.kinds.classes import Classes


def score(name: str, labels: list[int], predictions: list[int], classes: int = 2) -> float:
    return metrics.find(name).score(np.array(labels), np.array(predictions), classes)


@pytest.mark.parametrize(
    ("name", "labels", "predictions", "classes", "expected"),
    [
        ("accuracy", [0, 1, 1, 0], [0, 1, 0, 0], 2, 3 / 4),
        ("accuracy", [0, 1, 2], [1, 2, 0], 3, 0.0),
        # 2 true positives, 1 false positive, 1 false negative
        ("f1", [1, 1, 0, 0, 1], [1, 0, 1, 0, 1], 2, 2 * 2 / (2 * 2 + 1 + 1)),
        # class F1s 2/3, 2/3 and 1
        ("f1_macro", [0, 0, 1, 2], [0, 1, 1, 2], 3, 7 / 9),
        # one decision in four is wrong: one false positive and one false negative
        ("f1_micro", [0, 0, 1, 2], [0, 1, 1, 2], 3, 3 / 4),
        # (tp·tn - fp·fn) / √((tp+fp)(tp+fn)(tn+fp)(tn+fn)) with tp 2, tn 1, fp 1, fn 1
        ("matthews", [1, 1, 1, 0, 0], [1, 1, 0, 0, 1], 2, (2 * 1 - 1 * 1) / math.sqrt(36)),
        # Gorodkin's form: 3 right of 4, classes 2 1 1, predictions 1 2 1
        ("matthews", [0, 0, 1, 2], [0, 1, 1, 2], 3, (3 * 4 - 5) / math.sqrt(10 * 10)),
    ],
)
def test_value_worked_out_by_hand(
    name: str, labels: list[int], predictions: list[int], classes: int, expected: float
) -> None:
    assert score(name, labels, predictions, classes) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", ["accuracy", "f1", "f1_macro", "f1_micro", "matthews"])
def test_perfect_predictions_score_one(name: str) -> None:
    assert score(name, [0, 1, 1, 0, 1], [0, 1, 1, 0, 1]) == 1.0


def test_matthews_is_minus_one_when_every_prediction_is_inverted() -> None:
    assert score("matthews", [0, 1, 1, 0], [1, 0, 0, 1]) == pytest.approx(-1.0)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("accuracy", 3 / 4),
        ("f1", 0.0),  # nothing is predicted positive
        ("f1_macro", (2 * 3 / (2 * 3 + 1) + 0) / 2),
        ("f1_micro", 3 / 4),
        ("matthews", 0.0),
    ],
)
def test_constant_predictions_have_a_defined_score(name: str, expected: float) -> None:
    assert score(name, [0, 0, 0, 1], [0, 0, 0, 0]) == pytest.approx(expected)


def test_f1_is_of_class_one_and_not_symmetric() -> None:
    labels, predictions = [1, 1, 1, 0], [1, 1, 1, 1]
    assert score("f1", labels, predictions) == pytest.approx(6 / 7)
    swapped = [1 - x for x in labels], [1 - x for x in predictions]
    assert score("f1", *swapped) == 0.0


@pytest.mark.parametrize(
    ("labels", "predictions", "expected"),
    [
        ([0, 0, 1, 1], [0, 0, 1, 1], 1.0),  # class 2 occurs nowhere and does not count
        ([0, 0, 1, 1], [0, 0, 1, 2], (1 + 2 / 3 + 0) / 3),  # predicted only: it counts as 0
        ([0, 0, 1, 2], [0, 0, 1, 1], (1 + 2 / 3 + 0) / 3),  # labelled only: it counts as 0
    ],
)
def test_macro_f1_counts_the_classes_that_occur(
    labels: list[int], predictions: list[int], expected: float
) -> None:
    assert score("f1_macro", labels, predictions, 3) == pytest.approx(expected)


def test_micro_f1_counts_a_class_that_is_missing_from_the_labels() -> None:
    assert score("f1_micro", [0, 0, 1, 1], [0, 2, 1, 2], 3) == pytest.approx(1 / 2)


def test_score_all_gives_plain_floats_by_name() -> None:
    scores = metrics.score_all(
        ("f1_macro", "accuracy"), np.array([0, 1, 1]), np.array([0, 1, 0]), classes=2
    )
    assert list(scores) == ["f1_macro", "accuracy"]
    assert {type(value) for value in scores.values()} == {float}
    assert scores["accuracy"] == pytest.approx(2 / 3)


def test_unknown_metric_names_the_nearest() -> None:
    with pytest.raises(TuneTrailError) as caught:
        metrics.find("acuracy")
    assert "unknown metric 'acuracy'" in caught.value.problem
    assert "did you mean 'accuracy'?" in caught.value.fix


def test_constant_answer_is_the_largest_class_whatever_the_order_in_its_card(
    tmp_path: Path,
) -> None:
    kind = Classes(("unequal", "equal"))
    write_json(tmp_path / "card.json", kind.card(pd.Series([0, 0, 0, 1])))
    found = kind.constant(read_json(tmp_path / "card.json"), make_rows(5))
    assert found.tolist() == [0] * 5
