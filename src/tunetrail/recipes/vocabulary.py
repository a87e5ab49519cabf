"""How much of one text's vocabulary another one has, after Gururangan et al. (arXiv 2004.10964).

They compare the 10,000 most frequent words, without stop words, of samples of comparable size.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from tunetrail.layout import DATA
from tunetrail.near_duplicates import plain
from tunetrail.splits import assign_sets, position
from tunetrail.task import read_task


def overlaps(texts: Mapping[str, Iterable[str]], reference: str, top: int) -> dict[str, float]:
    """Share of the ``top`` most frequent words of each text that are such words of the reference.

    From every text as many words are counted as the shortest has, from its first texts on, so that
    no vocabulary is larger because its text is longer. Words with a letter count, stop words do
    not. Equal frequencies are put in the order of the alphabet.

    Args:
        texts: Name → its texts.
        reference: One of the names.
        top: Size of a vocabulary; that of the smallest where one has fewer words.

    Returns:
        Name → share between 0 and 1, of all but the reference.
    """
    words = {name: _words(found) for name, found in texts.items()}
    shortest = min(len(found) for found in words.values())
    counts = {name: Counter(found[:shortest]) for name, found in words.items()}
    size = min(top, *(len(count) for count in counts.values()))
    vocabularies = {
        name: set(sorted(count, key=lambda word: (-count[word], word))[:size])
        for name, count in counts.items()
    }
    known = vocabularies.pop(reference)
    return {name: len(own & known) / size for name, own in vocabularies.items()}


def training_texts(canonical: Path, column: str | None = None) -> list[str]:
    """Different texts of a task's training set, in an order that is the same everywhere.

    Args:
        canonical: What the ingest stage wrote.
        column: ``text`` or ``text_pair`` alone; default: both.
    """
    columns = ["id", "group", "split", "text", "text_pair"]
    frame = pd.read_parquet(canonical / DATA, columns=columns)
    rows = frame[assign_sets(frame, read_task(canonical)) == "train"]
    wanted = [column] if column else ["text", "text_pair"]
    found = {str(text) for name in wanted for text in rows[name].dropna()}
    return sorted(found, key=lambda text: position(text, "vocabulary"))


def _words(texts: Iterable[str]) -> list[str]:
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    return [
        word
        for text in texts
        for word in plain(text, None).split()
        if word not in ENGLISH_STOP_WORDS and any(letter.isalpha() for letter in word)
    ]
