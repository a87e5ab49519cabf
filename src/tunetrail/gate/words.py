"""A decision of the gate, for a person."""

from __future__ import annotations

from typing import Any


def in_words(decision: dict[str, Any]) -> str:
    """One paragraph: who is the champion now, and why; then what to bear in mind."""
    new, old = decision["challenger"], decision["champion"]
    measured = (
        f"{decision['metric']} {decision['scores']['challenger'][decision['metric']]:.3f} against "
        f"{decision['scores']['champion'][decision['metric']]:.3f}, a difference of at least "
        f"{decision['low']:+.3f} on {decision['rows']} rows"
    )
    if decision["passed"]:
        said = (
            f"{decision['model']}: version {new} replaces version {old} as champion: {measured} "
            f"(the margin is {decision['margin']:g})"
        )
    else:
        said = (
            f"{decision['model']}: version {old} stays champion, version {new} is its challenger "
            f"({measured}): {'; '.join(decision['reasons'])}"
        )
    return ". ".join([said, *decision["notes"]])
