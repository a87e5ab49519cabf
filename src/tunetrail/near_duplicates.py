"""Texts that are nearly the same: MinHash proposes pairs, the exact similarity decides."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import islice, pairwise
from typing import Any
from zlib import crc32

import numpy as np

#: A row as it is compared: each of its texts as :func:`plain` leaves it.
Unit = tuple[str, ...]

#: Words of a text that count. Beyond them no base model sees it (512 tokens), and a text of any
#: length costs no more than this one.
_WORDS = 1_000

#: Thai to Khmer, kana and Han are written without spaces, emoji too: every character is a word.
_SPACELESS = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_SPACELESS += "\u2600-\u27bf\U0001f300-\U0001faff"
_WORD = re.compile(rf"[{_SPACELESS}]|[^\W_{_SPACELESS}]+")

#: Values of a signature; share of pairs at the threshold that the index may miss.
_SIGNATURE, _MISSED = 128, 5e-4


def plain(text: str, words: int | None = _WORDS) -> str:
    """The first ``words`` (None: all) in lower case, one blank apart, without punctuation."""
    found = _WORD.finditer(unicodedata.normalize("NFKC", text).casefold())
    return " ".join(match.group() for match in islice(found, words))


def shingles(text: str) -> frozenset[str]:
    """Words and pairs of neighbouring words of a plain text.

    Words alone would call a sentence and its reordering equal; longer runs, or characters, would
    miss a changed word in a sentence of 15.
    """
    words = text.split()
    return frozenset([*words, *(f"{first} {second}" for first, second in pairwise(words))])


def similarity(first: Unit, second: Unit) -> float:
    """Jaccard similarity of the shingles, exactly; of a pair's two texts the smaller one.

    Two texts without a word are equal.
    """

    def jaccard(a: frozenset[str], b: frozenset[str]) -> float:
        return len(a & b) / len(a | b) if a or b else 1.0

    return min(jaccard(_cached(a), _cached(b)) for a, b in zip(first, second, strict=True))


_cached = lru_cache(maxsize=1_024)(shingles)


def near_duplicates(
    earlier: Iterable[Unit], later: Iterable[Unit], threshold: float
) -> dict[Unit, tuple[Unit, float]]:
    """For units of ``earlier`` that are nearly in ``later``: one such there, and its similarity.

    The result does not depend on the order of either, nor on the process. Nothing below the
    threshold is in it. Of pairs at the threshold about one in a thousand is missed, above it fewer.
    Units without a word are not compared.

    Args:
        earlier: Units to look for.
        later: Units to find.
        threshold: Smallest similarity, from 0.5 to 1.
    """
    from datasketch import MinHashLSH

    bands, width = _bands(threshold)
    length = bands * width
    # Four standard deviations of a signature's estimate. Below that an exact comparison is not
    # worth it: rows from a few templates would be compared each with each.
    hopeless = threshold - 4 * math.sqrt(threshold * (1 - threshold) / length)
    known = sorted(set(later))
    index = MinHashLSH(num_perm=length, params=(bands, width))
    signatures = np.empty((len(known), length), dtype=np.uint32)
    for row, sketch in enumerate(_sketches(known, length)):
        index.insert(row, sketch, check_duplication=False)
        signatures[row] = sketch.hashvalues
    found = {}
    wanted = sorted({unit for unit in earlier if any(unit)})
    for unit, sketch in zip(wanted, _sketches(wanted, length), strict=True):
        candidates = np.sort(np.array(index.query(sketch), dtype=np.int64))
        estimate = (signatures[candidates] == sketch.hashvalues).mean(axis=1)
        likely = np.argsort(-estimate, kind="stable")[: (estimate >= hopeless).sum()]
        for row in candidates[likely]:
            exact = similarity(unit, known[row])
            if exact >= threshold:
                found[unit] = known[row], exact
                break
    return found


def _bands(threshold: float) -> tuple[int, int]:
    """Bands of a signature and values in each: the fewest candidates that miss few enough pairs."""
    width = max(
        width
        for width in range(1, _SIGNATURE // 2 + 1)
        if (1 - threshold**width) ** (_SIGNATURE // width) <= _MISSED
    )
    return _SIGNATURE // width, width


def _sketches(units: Sequence[Unit], length: int) -> Iterator[Any]:
    """MinHash of each unit. The texts of a pair share one, with shingles of their own.

    Where both texts are similar, so are their shingles together: no pair is lost by this.
    """
    from datasketch import MinHash

    # Unlike Python's own hash, the same in every process.
    parts = (
        [
            f"{place} {shingle}".encode()
            for place, text in enumerate(unit)
            for shingle in shingles(text)
        ]
        for unit in units
    )
    yield from MinHash.generator(parts, num_perm=length, seed=1, hashfunc=crc32)
