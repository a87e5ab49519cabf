"""Near-duplicates: what the index finds, against every pair compared with other people's code."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import CountVectorizer

from tests.conftest import SHARED_DATA
from tunetrail.near_duplicates import near_duplicates, plain, similarity

#: 15 different words each.
SENTENCES = (
    "The old ferry left the harbour before sunrise and carried forty crates of oranges north.",
    "Our neighbours painted their wooden fence green last Sunday while all of us slept late.",
    "Nobody could explain why seven clocks in that tower stopped at exactly the same moment.",
    "She repaired radios for thirty years, then opened a small bakery beside an empty station.",
    "Heavy snow closed both mountain roads, so trucks waited three days below the last village.",
    "A retired teacher collects maps of imaginary islands and lends them out to curious children.",
    "Engineers replaced each rusty bolt on this bridge without ever stopping any of its traffic.",
    "When rain finally came, farmers danced between dry rows and laughed like very young boys.",
    "My grandmother kept every letter he wrote inside one blue tin under her kitchen table.",
    "Critics praised his second novel although hardly anyone had heard of that first one before.",
)


def units(*texts: str) -> list[tuple[str, ...]]:
    return [(plain(text),) for text in texts]


def near(first: str, second: str, threshold: float = 0.8) -> bool:
    return bool(near_duplicates(units(first), units(second), threshold))


def every_similarity(earlier: list[str], later: list[str]) -> np.ndarray:
    """Jaccard similarity of words and word pairs, earlier x later, by scikit-learn."""
    counter = CountVectorizer(ngram_range=(1, 2), token_pattern=r"[^\W_]+", binary=True)
    counter.fit(earlier + later)
    a, b = counter.transform(earlier), counter.transform(later)
    common = (a @ b.T).toarray()
    either = np.asarray(a.sum(axis=1)) + np.asarray(b.sum(axis=1)).T - common
    return common / np.maximum(either, 1)


# Recall ----------------------------------------------------------------------------------------


def shouted(text: str, _: random.Random) -> str:
    return f"  {text.upper()} "


def without_punctuation(text: str, _: random.Random) -> str:
    return re.sub(r"[^\w\s]", "", text)


def other_punctuation(text: str, _: random.Random) -> str:
    return re.sub(r"[.,]", " -- ", text).replace(" ", "\t") + "!?"


def one_word_changed(text: str, rng: random.Random) -> str:
    words = text.split()
    words[rng.randrange(len(words))] = "zebra"
    return " ".join(words)


def one_word_more(text: str, rng: random.Random) -> str:
    words = text.split()
    words.insert(rng.randrange(len(words) + 1), "zebra")
    return " ".join(words)


def one_word_less(text: str, rng: random.Random) -> str:
    words = text.split()
    del words[rng.randrange(len(words))]
    return " ".join(words)


def one_letter_changed(text: str, rng: random.Random) -> str:
    place = rng.choice([i for i, letter in enumerate(text) if letter.isalpha()])
    return f"{text[:place]}q{text[place + 1 :]}"


Change = Callable[[str, random.Random], str]
CHANGES: tuple[Change, ...] = (
    shouted,
    without_punctuation,
    other_punctuation,
    one_word_changed,
    one_word_more,
    one_word_less,
    one_letter_changed,
)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_changed_sentence_of_fifteen_words_is_found(change: Change) -> None:
    rng = random.Random(0)
    for text in SENTENCES:
        assert len(plain(text).split()) == 15
        changed = change(text, rng)
        assert changed != text
        ((match, share),) = near_duplicates(units(changed), units(*SENTENCES), 0.8).values()
        assert match == (plain(text),)
        assert 0.8 <= share <= 1.0


@pytest.mark.parametrize("words", [5, 8, 11])
def test_short_sentence_is_found_whatever_its_case_and_punctuation(words: int) -> None:
    for text in SENTENCES:
        text = " ".join(text.split()[:words])
        assert near(text, f"{text.upper()}...")


def test_other_word_in_a_short_sentence_is_another_sentence() -> None:
    assert not near("the film was very good", "the film was very bad")
    assert not near("I would not watch this again", "I would gladly watch this again")


def test_same_words_in_another_order_are_another_sentence() -> None:
    assert not near("Anna told Peter that Mary knew Paul", "Paul told Mary that Peter knew Anna")


def test_other_sentences_are_not_found() -> None:
    assert near_duplicates(units(*SENTENCES[:5]), units(*SENTENCES[5:]), 0.5) == {}


def ascii_texts(path: Path, column: str, count: int) -> list[str]:
    """scikit-learn leaves other characters as they are encoded."""
    texts = pd.read_parquet(path)[column]
    return texts[texts.map(str.isascii)].tolist()[:count]


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="benchmark data is not on this machine")
@pytest.mark.parametrize("threshold", [0.6, 0.8, 0.9])
@pytest.mark.parametrize(
    ("data", "column"),
    [("glue/cola", "sentence"), ("domain/scicite", "text"), ("domain/agnews", "text")],
)
def test_real_rows_against_every_pair(data: str, column: str, threshold: float) -> None:
    rng = random.Random(0)
    later = ascii_texts(SHARED_DATA / data / "validation.parquet", column, 400)
    earlier = ascii_texts(SHARED_DATA / data / "train.parquet", column, 1500)
    earlier += [change(text, rng) for text in later[:200] for change in CHANGES]
    highest = every_similarity(earlier, later).max(axis=1)
    expected = {
        unit for unit, high in zip(units(*earlier), highest, strict=True) if high >= threshold
    }
    found = near_duplicates(units(*earlier), units(*later), threshold)
    assert len(expected) > 200
    assert found.keys() <= expected, "no false positive"
    assert len(found) >= 0.998 * len(expected)


# Precision -------------------------------------------------------------------------------------

#: Few words, so that many texts are similar.
TEXTS = st.lists(
    st.lists(st.sampled_from(["red", "fox", "ran", "far", "To", "THE", "sea"]), max_size=9).map(
        " ".join
    ),
    min_size=1,
    max_size=25,
)


@settings(deadline=None)
@given(TEXTS, TEXTS, st.sampled_from([0.5, 0.65, 0.8, 0.9, 1.0]))
def test_what_is_found_is_similar_and_what_is_equal_is_found(
    earlier: list[str], later: list[str], threshold: float
) -> None:
    exact = every_similarity([*earlier, "sea"], [*later, "sea"])[:-1, :-1]
    found = near_duplicates(units(*earlier), units(*later), threshold)
    places = {unit: i for i, unit in enumerate(units(*later))}
    for text, row in zip(earlier, exact, strict=True):
        unit = units(text)[0]
        if unit in found:
            match, share = found[unit]
            assert share >= threshold
            assert share == row[places[match]]
        else:
            assert row.max() < 1.0


def test_threshold_itself_is_enough() -> None:
    # 14 words and 13 pairs; the last word differs: 25 in common of 29.
    first = " ".join(f"w{i}" for i in range(14))
    second = first.replace("w13", "other")
    ((_, share),) = near_duplicates(units(first), units(second), 25 / 29).values()
    assert share == 25 / 29
    assert not near(first, second, 25 / 29 + 1e-9)


# Short, blank and long texts -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("good film", "bad film"),
        ("good", "bad"),
        ("no", "not"),
        ("very good film", "very bad film"),
        ("good film", "good"),
        ("film good", "good film"),
        ("so good \U0001f600", "so good \U0001f621"),
    ],
)
def test_short_texts_are_not_alike_for_being_short(first: str, second: str) -> None:
    assert not near(first, second)
    assert near(first, f"{first.upper()}!")


@pytest.mark.parametrize("blank", ["", " \t\n", "...", "?!", "_"])
def test_texts_without_a_word_are_ignored(blank: str) -> None:
    assert near_duplicates(units(blank, "a film"), units(blank, "?"), 0.8) == {}


def test_text_of_a_megabyte_costs_no_more_than_its_first_words() -> None:
    rng = random.Random(0)
    words = [f"w{rng.randrange(10**6)}" for _ in range(130_000)]
    text = " ".join(words)
    assert len(text) > 950_000
    changed = f"A {text.upper()}"
    other = " ".join(reversed(words))
    tracemalloc.start()
    started = time.perf_counter()
    found = near_duplicates(units(changed, other), units(text), 0.8)
    assert time.perf_counter() - started < 5
    assert tracemalloc.get_traced_memory()[1] < 60e6
    tracemalloc.stop()
    assert set(found) == set(units(changed))


def test_text_without_a_blank_is_one_word() -> None:
    assert near("x" * 1_000_000, "X" * 1_000_000)
    assert not near("x" * 1_000_000, "x" * 999_999)


def test_scripts_without_blanks_are_compared_by_character() -> None:
    text = "昨日の夜、私は友人と一緒に新しい映画を見ました。とても面白かったです。"
    assert near(text, text.replace("夜", "朝"))
    assert not near(text, "今日は雨が降っているので、家で本を読むことにしました。")


def test_one_letter_in_two_encodings_is_one_letter() -> None:
    assert plain("Caf\u00e9") == plain("CAFE\u0301") == "caf\u00e9"


# Pairs -----------------------------------------------------------------------------------------


def test_pairs_are_alike_where_both_texts_are() -> None:
    first, second, third = (plain(text) for text in SENTENCES[:3])
    changed = f"{first} indeed"
    assert near_duplicates([(changed, second)], [(first, second)], 0.8)
    assert near_duplicates([(changed, "")], [(first, "")], 0.8)
    for other in ((first, third), (third, second), (second, first), (first, "")):
        assert near_duplicates([(changed, second)], [other], 0.8) == {}, other
    assert similarity((first, "a b"), (first, "a c")) == pytest.approx(1 / 5)


def test_long_text_that_pairs_share_does_not_make_them_alike() -> None:
    passage = plain(" ".join(SENTENCES))
    asked = [(passage, "who was it"), (passage, "when did it end")]
    assert near_duplicates(asked[:1], asked[1:], 0.8) == {}


# The same result every time --------------------------------------------------------------------


def crowd() -> list[str]:
    """500 sentences, many of them near several others."""
    rng = random.Random(0)
    return [rng.choice(CHANGES[3:])(rng.choice(SENTENCES), rng) for _ in range(500)]


def test_order_of_rows_does_not_matter() -> None:
    texts = units(*crowd())
    expected = near_duplicates(texts[:300], texts[300:], 0.8)
    assert len(expected) > 200
    rng = random.Random(1)
    for _ in range(3):
        earlier, later = rng.sample(texts[:300], 300), rng.sample(texts[300:], 200)
        assert near_duplicates(earlier, later, 0.8) == expected


PRINTING = """
import json, sys
from tunetrail.near_duplicates import near_duplicates
texts = [(text,) for text in json.load(sys.stdin)]
found = near_duplicates(texts[:300], texts[300:], 0.8)
print(json.dumps(sorted([*unit, *match, share] for unit, (match, share) in found.items())))
"""


def test_every_process_finds_the_same() -> None:
    texts = [plain(text) for text in crowd()]
    printed = [
        subprocess.run(
            [sys.executable, "-c", PRINTING],
            env={**os.environ, "PYTHONHASHSEED": seed},
            input=json.dumps(texts),
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert printed[0] == printed[1]
    assert len(json.loads(printed[0])) > 200
