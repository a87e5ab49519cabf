"""A task: which columns of which data make a problem, what is predicted, and how it is judged.

Built-in tasks are the files ``tasks/*.yaml`` of this package. ``params.yaml`` may override keys of
a built-in task or declare a whole one; both are read by :func:`load_task`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from tunetrail.errors import TuneTrailError, unknown
from tunetrail.files import read_json
from tunetrail.layout import TASK
from tunetrail.run import Answers
from tunetrail.settings import Settings, parse, read_yaml

BUILT_IN = Path(__file__).parent / "tasks"

Split = Literal["train", "validation", "test"]

#: Which of these keys is there says what is predicted.
_TARGETS = ("labels", "range", "answers")

_CLASS_METRICS = ("accuracy", "f1_macro")
_NUMBER_METRICS = ("pearson", "spearman")
_ANSWER_METRICS = ("f1_squad", "exact_match")


class Columns(Settings):
    """Which column of the data holds what."""

    text: str = Field(description="the text, the first of a pair, or a question")
    text_pair: str | None = Field(
        default=None, description="the second text of a pair, or the context with the answers"
    )
    label: str = Field(description="class name, class index, a number, or answers")
    id: str | None = Field(default=None, description="unique row name; default: row number")
    group: str | None = Field(
        default=None, description="rows of one group never fall into different splits"
    )
    domain: str | None = Field(
        default=None, description="where a row comes from: a slice that the gate looks at"
    )


class Format(Settings):
    """How to read CSV files (other formats describe themselves)."""

    delimiter: str = Field(default=",", min_length=1, max_length=1)
    names: tuple[str, ...] | None = Field(
        default=None, description="column names of a file without a header row"
    )
    quoting: bool = Field(default=True, description="false: quotation marks are plain text")


class Shares(Settings):
    """Shares of the groups that become test and selection where the data has no such split.

    The share of the gate is taken in any case, from the training data where the data has splits.
    """

    test: float = Field(default=0.2, gt=0, lt=1)
    selection: float = Field(default=0.1, gt=0, lt=1)
    gate: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="kept out of all sets, to decide between a champion and its challenger",
    )


class Limits(Settings):
    """Upper limits on rows per set. The rows kept are the same on every machine."""

    train: int | None = Field(default=None, ge=2)
    selection: int | None = Field(default=None, ge=2)
    test: int | None = Field(default=None, ge=2)


class Checks(Settings):
    """The share of rows that may fail each check before the pipeline stops."""

    blank: float = Field(default=0.0, ge=0, le=1, description="texts without any character")
    length: float = Field(default=0.01, ge=0, le=1, description="texts outside `length_bounds`")
    encoding: float = Field(default=0.01, ge=0, le=1, description="texts with encoding damage")
    duplicates: float = Field(default=0.05, ge=0, le=1, description="repeated rows")
    conflicts: float = Field(default=0.01, ge=0, le=1, description="one text with two labels")
    leakage: float = Field(
        default=0.05, ge=0, le=1, description="texts also in a later split (they are dropped)"
    )
    near_leakage: float = Field(
        default=0.05, ge=0, le=1, description="texts nearly in a later split (they are dropped)"
    )
    near_duplicate: float = Field(
        default=0.8, ge=0.5, le=1, description="similarity from which texts are nearly the same"
    )
    spans: float = Field(
        default=0.0, ge=0, le=1, description="answers that the context lacks at their place"
    )
    majority: float = Field(default=0.95, gt=0, le=1, description="share of the largest class")
    length_bounds: tuple[int, int] = Field(default=(1, 20_000), description="characters")

    @field_validator("length_bounds")
    @classmethod
    def _ascending(cls, value: tuple[int, int]) -> tuple[int, int]:
        if value[0] > value[1]:
            raise ValueError("must be ascending")
        return value


class TaskSpec(Settings):
    """One task, frozen: classes with ``labels``, a number with a ``range``, or ``answers``."""

    name: str
    title: str = ""
    domain: str = ""
    source: Path = Field(description="data file, folder, or pointer file")
    files: dict[Literal["train", "validation", "test", "all"], str] | None = Field(
        default=None,
        description="paths inside the source, without ending if any will do; default: by name",
    )
    format: Format = Format()
    columns: Columns
    group_separator: str | None = Field(
        default=None, description="the group is the part of `group` before this text"
    )
    labels: tuple[str, ...] = Field(default=(), description="class names, in index order")
    bins: tuple[float, ...] | None = Field(
        default=None, description="thresholds that cut a number into `labels`, ascending"
    )
    range: tuple[float, float] | None = Field(
        default=None, description="lowest and highest label; the task then predicts the number"
    )
    answers: Answers | None = Field(
        default=None,
        description="the task then finds answers in `text_pair` to questions in `text`",
    )
    metrics: tuple[str, ...] = Field(
        min_length=1,
        description="default: accuracy and f1_macro; pearson and spearman of numbers; f1_squad and "
        "exact_match of answers",
    )
    split: Shares = Shares()
    limits: Limits = Limits()
    checks: Checks = Checks()
    waive: dict[str, str] = Field(
        default_factory=dict, description="check → why a known fault of this data is accepted"
    )

    @field_validator("waive")
    @classmethod
    def _waivers_exist(cls, value: dict[str, str]) -> dict[str, str]:
        checks = set(Checks.model_fields) - {"length_bounds", "near_duplicate"}
        for name in value:
            if name not in checks:
                raise unknown("check", name, checks, "waive")
        return value

    @model_validator(mode="before")
    @classmethod
    def _usual_metrics(cls, values: Any) -> Any:
        if not isinstance(values, dict) or "metrics" in values:
            return values
        usual = _NUMBER_METRICS if values.get("range") is not None else _CLASS_METRICS
        usual = _ANSWER_METRICS if values.get("answers") is not None else usual
        return {**values, "metrics": usual}

    @field_validator("labels", mode="before")
    @classmethod
    def _may_be_numbers(cls, value: Any) -> Any:
        """As YAML reads names like 1 and 2024."""
        if not isinstance(value, list):
            return value
        numbers = (int, float)
        return [str(v) if isinstance(v, numbers) and not isinstance(v, bool) else v for v in value]

    @field_validator("labels")
    @classmethod
    def _two_or_more(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(value) == 1:
            raise ValueError("give at least two class names")
        return value

    @field_validator("range")
    @classmethod
    def _wide(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and value[0] >= value[1]:
            raise ValueError("must be ascending")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> TaskSpec:
        given = (bool(self.labels), self.range is not None, self.answers is not None)
        if sum(given) != 1:
            raise ValueError(
                "give either 'labels' (classes) or 'range' (a number) or 'answers' (spans of the "
                "second text; {} for the usual options)"
            )
        if self.answers is not None and self.columns.text_pair is None:
            raise ValueError(
                "'answers' are found in a second text: name its column in 'columns.text_pair', and "
                "that of the question in 'columns.text'"
            )
        if len(set(self.labels)) != len(self.labels):
            raise ValueError("'labels' must be different from each other")
        if self.bins is not None:
            if not self.labels:
                raise ValueError("'bins' make classes: give 'labels' with them, not 'range'")
            if list(self.bins) != sorted(set(self.bins)):
                raise ValueError("'bins' must be ascending")
            if len(self.bins) != len(self.labels) - 1:
                raise ValueError(f"{len(self.labels)} labels need {len(self.labels) - 1} 'bins'")
        return self

    @property
    def primary_metric(self) -> str:
        """The metric that chooses the winner."""
        return self.metrics[0]


def built_in_tasks() -> dict[str, Path]:
    """Name → declaration of the tasks that come with TuneTrail."""
    return {path.stem: path for path in sorted(BUILT_IN.glob("*.yaml"))}


def load_task(name: str, overrides: Mapping[str, Any] | None, where: str) -> TaskSpec:
    """The task ``name``: its built-in declaration, if there is one, under ``overrides``.

    Args:
        name: Name of the task.
        overrides: Keys of :class:`TaskSpec`; a key replaces the built-in one. The key ``task`` says
            which built-in task it is, where the name does not.
        where: File and key of the overrides, for messages.

    Raises:
        TuneTrailError: Unknown task, unknown key, or a broken rule.
    """
    given = dict(overrides or {})
    known = built_in_tasks()
    kind = given.pop("task", name)
    if kind not in known and (kind != name or "columns" not in given):
        if kind == name and any(key in given for key in _TARGETS):
            raise TuneTrailError(
                f"{where}: 'columns' is missing", "add it: `columns: {text: …, label: …}`"
            )
        error = unknown("task", str(kind), known, where)
        raise TuneTrailError(error.problem, f"{error.fix}; a task of your own needs 'columns'")
    declared = read_yaml(known[kind]) if kind in known else {}
    if any(given.get(k) is not None and k not in declared for k in _TARGETS):
        # Something else is predicted: a number, say, of which the built-in classes are cut.
        declared = {k: v for k, v in declared.items() if k not in (*_TARGETS, "bins", "metrics")}
    return parse(TaskSpec, {**declared, **given, "name": name}, where)


def read_task(canonical: Path) -> TaskSpec:
    """The task that the ingest stage froze beside its data."""
    return parse(TaskSpec, read_json(canonical / TASK), str(canonical / TASK))
