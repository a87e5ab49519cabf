"""Compact letter display: methods that share a letter cannot be told apart."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from string import ascii_lowercase


def letters(order: Sequence[str], apart: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Letters of each label, by insertion and absorption.

    Two labels share a letter if and only if they are not ``apart`` (Piepho, Journal of
    Computational and Graphical Statistics 13, 2004). One group of all is split by each pair that is
    apart; a group within another one is dropped.

    Args:
        order: Every label, as they are shown; the first one gets ``a``.
        apart: Pairs of labels that differ, in any order.

    Returns:
        Label → its letters in alphabetical order.
    """
    groups: list[set[str]] = [set(order)]
    for one, other in sorted(apart):
        split = []
        for group in groups:
            split += [group - {one}, group - {other}] if {one, other} <= group else [group]
        groups = _without_absorbed(split)
    place = {label: index for index, label in enumerate(order)}
    groups.sort(key=lambda group: sorted(place[label] for label in group))
    names = [_letter(number) for number in range(len(groups))]
    return {
        label: "".join(name for name, group in zip(names, groups, strict=True) if label in group)
        for label in order
    }


def _without_absorbed(groups: list[set[str]]) -> list[set[str]]:
    """Groups that are not part of another one; of equal ones the first."""
    return [
        group
        for index, group in enumerate(groups)
        if not any(
            group < other or (group == other and index > earlier)
            for earlier, other in enumerate(groups)
        )
    ]


def _letter(number: int) -> str:
    """``a`` to ``z``, and numbers in brackets where letters run out."""
    return ascii_lowercase[number] if number < len(ascii_lowercase) else f"({number + 1})"
