"""Compact letters: a hand-made case, and the property that defines them."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunetrail.verdicts.letters import letters


@pytest.mark.parametrize(
    ("order", "apart", "expected"),
    [
        ("xyz", [], {"x": "a", "y": "a", "z": "a"}),
        ("xyz", ["xz"], {"x": "a", "y": "ab", "z": "b"}),
        ("xyz", ["xz", "xy", "yz"], {"x": "a", "y": "b", "z": "c"}),
        ("xyz", ["zx", "yx"], {"x": "a", "y": "b", "z": "b"}),
        # The first differs from the last two, the second from the last: a staircase.
        ("wxyz", ["wy", "wz", "xz"], {"w": "a", "x": "ab", "y": "bc", "z": "c"}),
        # Two that differ, both like two others that differ: a square needs four letters.
        ("wxyz", ["wx", "yz"], {"w": "ab", "x": "cd", "y": "ac", "z": "bd"}),
    ],
)
def test_by_hand(order: str, apart: list[str], expected: dict[str, str]) -> None:
    assert letters(order, [(pair[0], pair[1]) for pair in apart]) == expected


@settings(deadline=None)
@given(st.integers(1, 8), st.data())
def test_two_share_a_letter_exactly_if_they_are_not_apart(count: int, data: st.DataObject) -> None:
    order = [f"m{i}" for i in range(count)]
    pairs = list(combinations(order, 2))
    apart = set(data.draw(st.lists(st.sampled_from(pairs)))) if pairs else set()
    found = letters(order, apart)
    for one, other in pairs:
        assert bool(set(found[one]) & set(found[other])) == ((one, other) not in apart)
    assert all(found.values())
    # No letter says only what another one says, too.
    groups = {
        letter: {m for m in order if letter in found[m]} for m in order for letter in found[m]
    }
    assert not any(one < other for one in groups.values() for other in groups.values())
    assert found[order[0]].startswith("a")


def test_the_order_of_the_pairs_does_not_matter() -> None:
    apart = [("w", "y"), ("w", "z"), ("x", "z")]
    assert letters("wxyz", apart) == letters("wxyz", apart[::-1])


def test_after_z_there_are_numbers() -> None:
    order = [f"m{i:02}" for i in range(28)]
    found = letters(order, combinations(order, 2))
    assert [found[order[i]] for i in (0, 25, 26, 27)] == ["a", "z", "(27)", "(28)"]
