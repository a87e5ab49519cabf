"""The claims of a paper, declared, and what finished comparisons say about each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from tunetrail.recipes import rules
from tunetrail.recipes.observed import Observed
from tunetrail.recipes.rules import Interval, Verdict
from tunetrail.recipes.vocabulary import overlaps, training_texts
from tunetrail.settings import Settings
from tunetrail.verdicts.difference import Difference

Found = Mapping[str, Observed]


class _Part(Settings):
    """A statement about one method and another.

    Where no comparison is named, it is about all that have both methods; without budgets, about
    all budgets.
    """

    method: str
    than: str
    comparison: str | None = None
    budgets: tuple[str, ...] | None = None

    def named_budgets(self) -> tuple[str, ...]:
        """Every budget that it names."""
        return self.budgets or ()

    def cells(self, found: Found) -> list[tuple[Observed, str, str]]:
        """Comparison, task and budget of each cell."""
        chosen = [found[self.comparison]] if self.comparison else list(found.values())
        return [
            (observed, task, budget)
            for observed in chosen
            if observed.has(self.method, self.than)
            for task in observed.tasks
            for budget in self.budgets or observed.budgets()
        ]

    def differences(self, found: Found) -> list[tuple[dict[str, Any], Difference, float]]:
        """What each cell is called, its difference, and its margin."""
        return [
            (
                _cell(observed, task, budget),
                self._difference(observed, task, budget),
                observed.margin,
            )
            for observed, task, budget in self.cells(found)
        ]

    def _difference(self, observed: Observed, task: str, budget: str) -> Difference:
        return observed.difference(task, self.method, self.than, budget)


class NotWorse(_Part):
    """The method is not worse than the other by more than the margin, in every cell."""

    kind: Literal["not_worse"]

    def judge(self, found: Found) -> dict[str, Any]:
        """Verdict and cells."""
        return _not_worse(self.differences(found))


class KeepsUp(_Part):
    """From one budget to another, the method does not lose more than the other does."""

    kind: Literal["keeps_up"]
    budget: str
    start: str = Field(alias="from", description="budget that the change is counted from")

    def judge(self, found: Found) -> dict[str, Any]:
        """Verdict and cells, whose differences are those of the changes."""
        return _not_worse(self.differences(found))

    def named_budgets(self) -> tuple[str, ...]:
        """Both ends of the change."""
        return self.start, self.budget

    def cells(self, found: Found) -> list[tuple[Observed, str, str]]:
        """A cell a task."""
        return [cell for cell in super().cells(found) if cell[2] == self.budget]

    def _difference(self, observed: Observed, task: str, budget: str) -> Difference:
        return observed.change(task, self.method, self.than, budget, self.start)


class Better(_Part):
    """The method is better than the other, on the mean of the tasks."""

    kind: Literal["better"]

    def judge(self, found: Found) -> dict[str, Any]:
        """Verdict, mean and cells."""
        cells = self.differences(found)
        mean = rules.mean_over([difference for _, difference, _ in cells])
        verdict = rules.better(mean, min(margin for _, _, margin in cells))
        return _record(verdict, cells) | {"mean": mean._asdict()}


class _Spread(_Part):
    def ratio(self, found: Found) -> tuple[Interval | None, list[dict[str, Any]]]:
        """The ratio of the spreads over seeds, and the scores of each cell."""
        tasks: dict[str, list[tuple[list[float], list[float]]]] = {}
        cells = []
        for observed, task, budget in self.cells(found):
            of, than = (observed.scores(task, m, budget) for m in (self.method, self.than))
            tasks.setdefault(f"{observed.name}/{task}", []).append((of, than))
            cells.append(_cell(observed, task, budget) | {"of": of, "than": than})
        try:
            return rules.spread_ratio(tasks), cells
        except ValueError:
            return None, cells


class VariesMore(_Spread):
    """The method's scores vary more over seeds than the other's."""

    kind: Literal["varies_more"]

    def judge(self, found: Found) -> dict[str, Any]:
        """Verdict, ratio of the spreads, and the scores."""
        ratio, cells = self.ratio(found)
        return _spread_record(rules.varies_more(ratio) if ratio else "open", ratio, cells)


class VariesNoMore(_Spread):
    """They vary less, or no more than ``factor`` times as much."""

    kind: Literal["varies_no_more"]
    factor: float = Field(default=1.0, ge=1)

    def judge(self, found: Found) -> dict[str, Any]:
        """Verdict, ratio of the spreads, and the scores."""
        ratio, cells = self.ratio(found)
        verdict = rules.varies_no_more(ratio, self.factor) if ratio else "open"
        return _spread_record(verdict, ratio, cells) | {"factor": self.factor}


class FewerParameters(_Part):
    """The method trains fewer parameters than the other, on every task."""

    kind: Literal["fewer_parameters"]

    def judge(self, found: Found) -> dict[str, Any]:
        """Verdict, and both counts of each task."""
        cells, fewer = [], True
        for observed in found.values():
            for task in observed.tasks if observed.has(self.method, self.than) else ():
                of, than = (observed.parameters(task, m) for m in (self.method, self.than))
                cells.append({"comparison": observed.name, "task": task, "of": of, "than": than})
                fewer &= of < than
        return {"verdict": "supported" if fewer else "not supported", "cells": cells}


class Reference(Settings):
    """Text as the base model was pretrained on."""

    comparison: str
    task: str
    column: Literal["text", "text_pair"] | None = None


class MoreWhereUnfamiliar(_Part):
    """The method gains more on the other where the task's vocabulary is less the base model's."""

    kind: Literal["more_where_unfamiliar"]
    domains: tuple[str, ...] = Field(min_length=1, description="comparisons")
    reference: Reference
    top: int = Field(default=10_000, ge=1, description="most frequent words that are compared")

    def cells(self, found: Found) -> list[tuple[Observed, str, str]]:
        """A cell a task of the domains, with its main budget."""
        return [
            (found[name], task, about["main_budget"])
            for name in self.domains
            for task, about in found[name].tasks.items()
        ]

    def judge(self, found: Found) -> dict[str, Any]:
        """Verdict, rank correlation, and overlap and difference of each task."""
        cells = self.differences(found)
        canonical = found[self.reference.comparison].folder / "data/canonical"
        texts = {"": training_texts(canonical / self.reference.task, self.reference.column)}
        for observed, task, _ in self.cells(found):
            texts[task] = training_texts(observed.folder / "data/canonical" / task)
        shares = overlaps(texts, "", self.top)
        named = [cell | {"overlap": shares[cell["task"]]} for cell, _, _ in cells]
        record = _record("open", [(n, d, m) for n, (_, d, m) in zip(named, cells, strict=True)])
        overlap = [cell["overlap"] for cell in named]
        trend = rules.trend(overlap, [difference.mean for _, difference, _ in cells])
        return record | {"verdict": rules.falls(trend), "trend": trend._asdict()}


def _kind(part: Any) -> str | None:
    """Of a part as it is declared, or as it is parsed."""
    return part.get("kind") if isinstance(part, Mapping) else getattr(part, "kind", None)


Part = Annotated[
    Annotated[NotWorse, Tag("not_worse")]
    | Annotated[KeepsUp, Tag("keeps_up")]
    | Annotated[Better, Tag("better")]
    | Annotated[VariesMore, Tag("varies_more")]
    | Annotated[VariesNoMore, Tag("varies_no_more")]
    | Annotated[FewerParameters, Tag("fewer_parameters")]
    | Annotated[MoreWhereUnfamiliar, Tag("more_where_unfamiliar")],
    Discriminator(_kind),
]


class Claim(Settings):
    """What a paper says, in parts that must all hold."""

    says: str
    parts: tuple[Part, ...] = Field(min_length=1)

    def judge(self, found: Found) -> dict[str, Any]:
        """The verdict on the claim and on each part, with the numbers that it rests on."""
        parts = [
            part.model_dump(exclude_none=True, by_alias=True) | part.judge(found)
            for part in self.parts
        ]
        verdicts: list[Verdict] = [part["verdict"] for part in parts]
        return {"says": self.says, "verdict": rules.together(verdicts), "parts": parts}


def _cell(observed: Observed, task: str, budget: str) -> dict[str, Any]:
    return {"comparison": observed.name, "task": task, "budget": budget}


def _not_worse(cells: Sequence[tuple[dict[str, Any], Difference, float]]) -> dict[str, Any]:
    margins = {margin for _, _, margin in cells}
    # Every comparison of a recipe has its margin; the strictest one counts.
    verdict = rules.not_worse([difference for _, difference, _ in cells], min(margins))
    return _record(verdict, cells)


def _record(
    verdict: Verdict, cells: Sequence[tuple[dict[str, Any], Difference, float]]
) -> dict[str, Any]:
    shown = []
    for cell, difference, margin in cells:
        value, low, high = rules.interval(difference)
        shown.append(cell | {"difference": value, "low": low, "high": high, "margin": margin})
    return {"verdict": verdict, "cells": shown}


def _spread_record(
    verdict: Verdict, ratio: Interval | None, cells: list[dict[str, Any]]
) -> dict[str, Any]:
    return {"verdict": verdict, "ratio": ratio._asdict() if ratio else None, "cells": cells}
