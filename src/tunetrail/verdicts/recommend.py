"""Which method to take under limits: what no other one makes pointless, and the one to pick."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

#: Times and memory are measured: less than this share apart they are taken as equal.
SAME_COST = 0.05


class Pair(NamedTuple):
    """What the verdicts know of one method against another.

    Attributes:
        better: The interval of its difference lies above zero.
        not_worse: It lies above minus the margin.
    """

    better: bool
    not_worse: bool


class Recommendation(NamedTuple):
    """Outcome for one task.

    Attributes:
        pick: The label to take, or None where nothing is within the limits.
        candidates: Within the limits and not dominated, by score, highest first.
        dominated: Label → (by which, why).
        outside: Label → why it is not within the limits.
        reasons: Why this one, in sentences.
    """

    pick: str | None
    candidates: list[str]
    dominated: dict[str, tuple[str, str]]
    outside: dict[str, str]
    reasons: list[str]


def recommend(
    scores: Mapping[str, float],
    costs: Mapping[str, Mapping[str, float]],
    pairs: Mapping[tuple[str, str], Pair],
    limits: Mapping[str, float],
    counted: Sequence[str],
    titles: Mapping[str, str] = MappingProxyType({}),
) -> Recommendation:
    """Recommend a method of one task.

    A method is dominated where another one costs no more and is better by a verdict, or costs less
    and is shown not to be worse by more than the margin. A difference that is open dominates
    nobody. Of what remains the highest mean score is picked.

    Args:
        scores: Mean score of each label.
        costs: Its costs by name; one that is missing is within no limit on that cost.
        pairs: For (label, other label) what is known, in both directions.
        limits: Most that each cost may be, by name.
        counted: Names of the costs that domination looks at.
        titles: What the reasons call a label, where not by itself.
    """
    outside = {}
    for label in scores:
        over = [
            f"{name} {written(costs[label][name])} > {written(most)}"
            if name in costs[label]
            else f"{name} is not known"
            for name, most in limits.items()
            if not costs[label].get(name, float("inf")) <= most
        ]
        if over:
            outside[label] = "; ".join(over)
    inside = sorted((label for label in scores if label not in outside), key=lambda m: -scores[m])
    dominated: dict[str, tuple[str, str]] = {}
    for label in inside:
        for other in inside:
            why = _dominates(costs[other], costs[label], pairs.get((other, label)), counted)
            if other != label and other not in dominated and why:
                dominated[label] = (other, why)
                break
    candidates = [label for label in inside if label not in dominated]
    pick = candidates[0] if candidates else None
    called = {label: titles.get(label, label) for label in scores}
    reasons = _reasons(candidates, inside, dominated, pairs, limits, called)
    return Recommendation(pick, candidates, dominated, outside, reasons)


def written(cost: float) -> str:
    """``22,566,531`` or ``4.9``."""
    return f"{cost:,.0f}" if cost >= 1000 else f"{cost:g}"


def _dominates(
    one: Mapping[str, float],
    other: Mapping[str, float],
    pair: Pair | None,
    counted: Sequence[str],
) -> str:
    """Why one makes the other pointless; empty where it does not."""
    known = [name for name in counted if name in one and name in other]
    if pair is None or len(known) < len(counted):
        return ""
    if any(one[name] > other[name] * (1 + SAME_COST) for name in known):
        return ""
    less = [name for name in known if one[name] < other[name] * (1 - SAME_COST)]
    if pair.better:
        return "better, and costs no more"
    if pair.not_worse and less:
        gained = [f"{'fewer' if name.endswith('parameters') else 'less'} {name}" for name in less]
        return f"not worse by more than the margin, with {' and '.join(gained)}"
    return ""


def _reasons(
    candidates: Sequence[str],
    inside: Sequence[str],
    dominated: Mapping[str, tuple[str, str]],
    pairs: Mapping[tuple[str, str], Pair],
    limits: Mapping[str, float],
    called: Mapping[str, str],
) -> list[str]:
    if not inside:
        return ["No method is within the limits."]
    pick = candidates[0]
    within = " within the limits" if limits else ""
    reasons = []
    if len(inside) == 1:
        reasons.append(f"It is the only method{within}.")
    else:
        reasons.append(
            f"It has the highest mean score of the methods{within} that no other makes pointless."
        )
    unsettled = [
        called[label]
        for label in candidates[1:]
        if not pairs.get((pick, label), Pair(False, False)).better
    ]
    if unsettled:
        reasons.append(f"That it is better than {_list(unsettled)} is not shown.")
    for label, (by, why) in dominated.items():
        if by == pick:
            reasons.append(f"Against {called[label]} it is {why}.")
    return reasons


def _list(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
