"""What a check finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Outcome = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        outcome: ``problem`` where something will not work, ``warning`` where it may surprise.
        what: What was found, with its figures.
        fix: What to do about it.
    """

    outcome: Outcome
    what: str
    fix: str = ""


def ok(what: str) -> Finding:
    """Nothing to do."""
    return Finding("ok", what)


def warning(what: str, fix: str) -> Finding:
    """It works, but not as one might expect."""
    return Finding("warning", what, fix)


def problem(what: str, fix: str) -> Finding:
    """It does not work."""
    return Finding("problem", what, fix)
