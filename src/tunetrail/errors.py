"""Errors a user can act on: the value, the rule it breaks, and the way out."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence

#: Names that an error lists at most.
_LISTED = 30


class TuneTrailError(Exception):
    """Bad input or a failed check. The command line prints it without a traceback and exits 2.

    URLs in both texts lose their secrets (:func:`masked`): libraries quote them in their errors.

    Args:
        problem: The offending value and the rule it breaks.
        fix: What to do about it.
    """

    def __init__(self, problem: str, fix: str) -> None:
        self.problem = masked(problem)
        self.fix = masked(fix)
        super().__init__(f"{self.problem}\n  fix: {self.fix}")

    def __reduce__(self) -> tuple[type[TuneTrailError], tuple[str, str]]:
        return type(self), (self.problem, self.fix)


class TrainingDiverged(TuneTrailError):
    """The loss of a run stopped being a finite number."""


class Unreachable(TuneTrailError):
    """A server or a remote does not take results. They wait in the project: nothing is lost."""


def joined(errors: Sequence[Unreachable]) -> Unreachable:
    """One error that says what each of them does."""
    return Unreachable("; ".join(e.problem for e in errors), "; ".join(e.fix for e in errors))


def unknown(kind: str, name: str, known: Iterable[str], where: str = "") -> TuneTrailError:
    """Error for a name that is not in a closed set; names the nearest valid one."""
    options = sorted(known)
    valid = ", ".join(options[:_LISTED]) or "none"
    if len(options) > _LISTED:
        valid += f", … ({len(options)} in all)"
    near = difflib.get_close_matches(name, options, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'? " if near else ""
    place = f"{where}: " if where else ""
    return TuneTrailError(f"{place}unknown {kind} {name!r}", f"{hint}valid: {valid}")


def masked(text: str) -> str:
    """A text whose URLs lose their secrets: passwords, tokens as user, and values in the query."""
    text = re.sub(r"(?<=//)[^/\s]*@", lambda m: f"{_user(m[0])}@", text)
    return re.sub(r"([?&][^=&\s]+=)[^&\s]*", r"\1***", text)


def _user(credentials: str) -> str:
    user, colon, _ = credentials.removesuffix("@").partition(":")
    return f"{user}:***" if colon else "***"
