"""Which method to take of a finished comparison, and the words that say it everywhere."""

from __future__ import annotations

from collections.abc import Mapping

from tunetrail.report.text import Json, interval, score, titles, wrapped
from tunetrail.report.tradeoffs import plain
from tunetrail.verdicts.costs import COSTS, known_pairs
from tunetrail.verdicts.recommend import recommend, written


def recommended(
    task: Json,
    costs: Mapping[str, Mapping[str, float]],
    baseline: str,
    margin: float,
    limits: Mapping[str, float],
) -> Json:
    """The recommendation of one task.

    A method is set aside as dominated by the costs that have limits or, without any, by all.

    Args:
        task: One task of the comparison.
        costs: Label → costs (``verdicts.costs.costs_of``).
        baseline: Of the comparison.
        margin: Of the comparison.
        limits: Most that each cost may be, by name (:data:`verdicts.costs.COSTS`).

    Returns:
        ``pick`` (label or None), ``candidates`` and the others with reasons, the methods'
        ``scores``, ``titles`` and ``costs``, and ``reasons`` in sentences.
    """
    scores = {
        label: method["summary"][task["primary"]]["mean"]
        for label, method in task["methods"].items()
    }
    counted = [cost for cost in COSTS if cost in limits] or list(COSTS)
    names, pairs = titles(task), known_pairs(task, baseline, margin)
    found = recommend(scores, costs, pairs, limits, counted, names)
    return {
        "pick": found.pick,
        "candidates": found.candidates,
        "dominated": {
            label: {"by": by, "why": why} for label, (by, why) in found.dominated.items()
        },
        "outside": found.outside,
        "reasons": found.reasons,
        "titles": names,
        "scores": {
            label: {k: method["summary"][task["primary"]][k] for k in ("mean", "low", "high")}
            for label, method in task["methods"].items()
        },
        "metric": task["metric_titles"][task["primary"]],
        "costs": costs,
    }


def in_words(found: Mapping[str, Json], limits: Mapping[str, float]) -> str:
    """A paragraph a task, for a terminal: what to take, why, what else there is, what was left."""
    parts = [limits_in_words(limits)]
    for name, task in found.items():
        first, *more = sentences(task)
        lines = [f"{name}: {first}", *(f"  {line}" for line in more)]
        parts.append(wrapped("\n".join(lines), indent="    "))
    return "\n\n".join(parts)


def limits_in_words(limits: Mapping[str, float]) -> str:
    """``Limits: latency_ms ≤ 5``."""
    asked = ", ".join(f"{name} ≤ {written(most)}" for name, most in limits.items())
    return f"Limits: {asked or 'none'}"


def sentences(task: Json) -> list[str]:
    """What to take; then why, what else is not dominated, and why the others were left out."""
    names = task["titles"]
    if task["pick"] is None:
        lines = [f"nothing to take. {' '.join(task['reasons'])}"]
    else:
        lines = [f"take {_scored(task, task['pick'])}", *map(plain, task["reasons"])]
        others = task["candidates"][1:]
        if others:
            lines.append(f"Also not dominated: {'; '.join(_scored(task, m) for m in others)}")
    for label, entry in task["dominated"].items():
        lines.append(f"Pointless: {names[label]}: {names[entry['by']]} is {plain(entry['why'])}")
    for label, why in task["outside"].items():
        lines.append(f"Beyond a limit: {names[label]}: {why}")
    return lines


def _scored(task: Json, label: str) -> str:
    found = task["scores"][label]
    ends = "one seed, so without an interval" if found["low"] is None else interval(found)
    return f"{task['titles'][label]}, {task['metric']} {score(found['mean'])} {ends}"
