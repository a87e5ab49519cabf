"""The parts of a union: reading them, and what they cannot share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tunetrail.errors import TuneTrailError
from tunetrail.methods import Method, resolve
from tunetrail.modeling.sites import FAMILIES


def resolved(parts: Sequence[Mapping[str, Any]]) -> list[tuple[str, Method]]:
    """Name and method of every part.

    Raises:
        TuneTrailError: A part names no method, or has an option that it must not have.
    """
    return [_resolved(dict(part), f"parts.{index}") for index, part in enumerate(parts)]


def _resolved(options: dict[str, Any], where: str) -> tuple[str, Method]:
    name = options.pop("method", None)
    if not isinstance(name, str):
        raise TuneTrailError(f"{where}: 'method' is {name!r}, not a name", "give a method's name")
    if "learning_rate" in options:
        raise TuneTrailError(
            f"{where}: '{name}' has a learning_rate, but a union trains with one",
            "give the union's learning_rate instead",
        )
    return name, resolve(name, options, where)


def refuse_shared(parts: list[tuple[str, Method]], architecture: str = "") -> None:
    """Refuse two parts that claim one place, or two places that an architecture has at one module.

    Raises:
        TuneTrailError: With both methods and what they put there.
    """
    family = FAMILIES.get(architecture)
    modules = {} if family is None else family.sites
    taken: dict[str, tuple[int, str, str]] = {}
    for index, (name, method) in enumerate(parts):
        for place, what in method.claims().items():
            first, other, put = taken.setdefault(modules.get(place, place), (index, name, what))
            if first != index:
                raise TuneTrailError(
                    f"union: '{other}' and '{name}' cannot share '{place}': {put} and {what}",
                    f"take '{name}' out of the union, or give the two different sites",
                )
