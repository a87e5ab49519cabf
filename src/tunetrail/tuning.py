"""Tuning: what can be asked for, the space that trials are drawn from, and where it ends."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from tunetrail import methods
from tunetrail.errors import TuneTrailError, unknown
from tunetrail.settings import Settings

#: The option that is tuned whatever else is.
LEARNING_RATE = "learning_rate"

#: Share of a range, on its logarithmic scale, at each end that counts as its edge.
EDGE = 0.1

_SCALARS = (str, int, float, bool)


class Tuning(Settings):
    """Trials that choose options of every method, on the selection set."""

    trials: dict[str, Annotated[int, Field(ge=2)]] = Field(
        default_factory=dict,
        description="label of a budget → trials that every method gets with it; the first one has "
        "the method's own options. A budget that is not named takes the choice of main_budget, or "
        "else of the first one named",
    )
    seed: int = Field(
        default=0, ge=0, description="seed of the trials and of their draw; none of 'seeds'"
    )
    factor: float = Field(
        default=10.0,
        gt=1,
        description="the learning rate is searched from the method's own divided by this to it "
        "times this, unless 'search' says otherwise",
    )
    search: dict[str, dict[str, list[Any]]] = Field(
        default_factory=dict,
        description="label of a method → option → where to search: [low, high] of a real number, "
        "on a logarithmic scale; of anything else, or with more than two entries, the values",
    )

    def decides(self, budget: str, main_budget: str) -> str | None:
        """The budget whose trials choose the options of runs with ``budget``, or None."""
        for label in (budget, main_budget, *self.trials):
            if label in self.trials:
                return label
        return None


@dataclass(frozen=True)
class Range:
    """Real numbers from ``low`` to ``high``, searched on a logarithmic scale."""

    low: float
    high: float

    @property
    def shown(self) -> list[Any]:
        """As the ledger has it."""
        return [self.low, self.high]

    def holds(self, value: Any) -> bool:
        """Whether ``value`` is inside."""
        return bool(self.low <= value <= self.high)

    def edge(self, value: float) -> str | None:
        """Whether ``value`` lies at the low or the high edge."""
        place = math.log(value / self.low) / math.log(self.high / self.low)
        return "low" if place <= EDGE else "high" if place >= 1 - EDGE else None


@dataclass(frozen=True)
class Choices:
    """Some values."""

    values: tuple[Any, ...]

    @property
    def shown(self) -> list[Any]:
        """As the ledger has it."""
        return list(self.values)

    def holds(self, value: Any) -> bool:
        """Whether ``value`` is one of them."""
        return value in self.values

    def edge(self, value: Any) -> str | None:
        """Whether ``value`` is the lowest or the highest of numbers."""
        if any(isinstance(v, str | bool) for v in self.values):
            return None
        return {min(self.values): "low", max(self.values): "high"}.get(value)


#: Option → where to search it.
Space = dict[str, Range | Choices]


def space_of(
    name: str,
    method: methods.Method,
    wanted: Mapping[str, list[Any]],
    factor: float,
    where: str,
) -> Space:
    """The space of one method, its learning rate included.

    Args:
        name: Name of the method.
        method: With its own options, which the first trial has.
        wanted: Option → where to search it, as ``params.yaml`` says.
        factor: How far from the method's own a learning rate is searched by default.
        where: File and key, for messages.

    Raises:
        TuneTrailError: An option that the method does not have, a value that it does not allow, an
            empty range, or one without the method's own value.
    """
    own = method.learning_rate
    space: Space = {LEARNING_RATE: Range(rounded(own / factor), rounded(own * factor))}
    for option, values in wanted.items():
        if option not in type(method).model_fields:
            raise unknown("option", option, type(method).model_fields, where)
        space[option] = _parsed(name, method, option, values, where)
    return space


def _parsed(
    name: str, method: methods.Method, option: str, values: list[Any], where: str
) -> Range | Choices:
    key = f"{where}: '{option}' is {values!r}"
    if len(values) < 2 or not all(isinstance(value, _SCALARS) for value in values):
        raise TuneTrailError(
            f"{key}: there must be two or more single values",
            f"give [low, high] or a list of values, or remove '{option}': it is not searched then",
        )
    dumped = method.model_dump(mode="json")
    read = [
        getattr(methods.resolve(name, {**dumped, option: value}, where), option) for value in values
    ]
    own = getattr(method, option)
    found: Range | Choices = Choices(tuple(read))
    if isinstance(own, float) and len(read) == 2:
        low, high = read
        if low >= high:
            raise TuneTrailError(
                f"{key}: low must be less than high", "give [low, high], or more than two values"
            )
        if low <= 0:
            raise TuneTrailError(
                f"{key}: a range is searched on a logarithmic scale, so low must be above 0",
                "raise low, or list three values or more, which are tried as they are",
            )
        found = Range(low, high)
    elif len(set(read)) < len(read):
        raise TuneTrailError(f"{key}: a value is there twice", "remove it")
    if not found.holds(own):
        raise TuneTrailError(
            f"{key}: the method's own value {own!r}, which the first trial has, is not in it",
            f"add {own!r}, or give the method another {option} under 'methods'",
        )
    return found


def single_changes(space: Space) -> Iterator[dict[str, Any]]:
    """Every value to be tried that is known beforehand, by itself."""
    for option, where in space.items():
        if isinstance(where, Choices):
            yield from ({option: value} for value in where.values)


def edges(space: Space, chosen: Mapping[str, Any]) -> dict[str, str]:
    """Option → ``low`` or ``high``, of those whose chosen value is on the edge of its range."""
    found = {option: where.edge(chosen[option]) for option, where in space.items()}
    return {option: edge for option, edge in found.items() if edge}


def rounded(value: float) -> float:
    """Three digits, which decide enough and can be read."""
    return float(f"{value:.3g}")
