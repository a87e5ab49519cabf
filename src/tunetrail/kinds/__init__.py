"""What tasks predict: classes, a number, or spans of a text; one module each.

Everything that depends on it is here: what labels are, what the head gives, the loss, what outputs
decide, and what the exported model needs to answer. Stages and training ask the task's kind.
"""

from __future__ import annotations

import abc
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
import pandas as pd

from tunetrail.run import Answers

if TYPE_CHECKING:
    import torch

    from tunetrail.training.rows import Rows


class Declared(Protocol):
    """What a task, or a run's data, says of what is predicted: exactly one is given."""

    @property
    def labels(self) -> tuple[str, ...]: ...
    @property
    def range(self) -> tuple[float, float] | None: ...
    @property
    def answers(self) -> Answers | None: ...


class Kind(abc.ABC):
    """One way of predicting.

    Attributes:
        predicts: As metrics and messages name it.
        written_as: What canonical labels are.
        label_types: Names of their type, for Great Expectations.
        grouped_by: Columns of a task: rows whose texts there are equal do not fall into different
            sets where no group is declared.
        pooled: Whether the head reads one vector a text, instead of every token's.
        constant_title: What :meth:`constant` answers.
        labels: Class names, in index order; none where no classes are predicted.
        interval: Lowest and highest label of a number.
        checks: Those of the gate that only this kind has.
        absent: How files write that there is no label.
        outputs: What the head gives for each text (or token); 0 for one number.
    """

    predicts: ClassVar[str]
    written_as: ClassVar[str] = "numbers"
    label_types: ClassVar[tuple[str, ...]]
    grouped_by: ClassVar[tuple[str, ...]] = ("text", "text_pair")
    pooled: ClassVar[bool] = True
    constant_title: ClassVar[str]
    checks: ClassVar[tuple[str, ...]] = ()

    labels: tuple[str, ...] = ()
    interval: tuple[float, float] | None = None
    absent: frozenset[str] = frozenset(("-1", ""))
    outputs: int = 0

    # -- data -------------------------------------------------------------------------------------

    @abc.abstractmethod
    def encode(
        self,
        frame: pd.DataFrame,
        label: str,
        where: str,
        text: str,
        bins: tuple[float, ...] | None = None,
    ) -> pd.Series:
        """Canonical labels of the rows of a file; a missing one stays missing: the gate's business.

        Args:
            frame: The rows.
            label: Column of the labels.
            where: Task, file and column, for messages.
            text: Column of the texts, for messages.
            bins: Thresholds that cut a number into classes.

        Raises:
            TuneTrailError: A label that is none of this kind, with its row.
        """

    def unlabelled(self, column: pd.Series) -> bool:
        """Whether no row has a label: all are missing or blank, or -1 where that is none."""
        return {plain(value) for value in column.dropna().unique()} <= self.absent

    @abc.abstractmethod
    def card(self, labels: pd.Series) -> dict[str, Any]:
        """What a card says of labels: ``labels``, rows of each class, and what else there is."""

    @abc.abstractmethod
    def shown(self) -> str:
        """What is predicted, for reports."""

    def misplaced(self, frame: pd.DataFrame) -> pd.Series | None:
        """Whether each canonical row's label contradicts its text; None where none can."""
        return None

    def check_base(self, card: Mapping[str, Any], max_length: int, task: str) -> None:  # noqa: B027
        """Refuse a base model that cannot predict this.

        Raises:
            TuneTrailError: With the model, or the option, and the rule.
        """

    def tokens(
        self, batch: Mapping[str, list[Any]], tokenizer: Any, max_length: int
    ) -> dict[str, list[Any]]:
        """Rows to train on, of canonical rows: columns as :func:`~training.rows.read_rows` reads.

        Args:
            batch: Columns ``id``, ``label``, ``text``, ``text_pair`` (all None for single texts).
            tokenizer: transformers' fast tokenizer of the base model.
            max_length: Tokens that a row may have.
        """
        paired = batch["text_pair"][0] is not None
        encoded = tokenizer(
            batch["text"],
            batch["text_pair"] if paired else None,
            truncation=True,
            max_length=max_length,
            return_token_type_ids=True,
        )
        columns = {name: encoded[name] for name in ("input_ids", "token_type_ids")}
        return {"id": batch["id"], "label": batch["label"], **columns}

    # -- training and prediction ------------------------------------------------------------------

    @abc.abstractmethod
    def loss(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Sum of the rows' losses (a scalar) of what the model gives and rows' labels."""

    @abc.abstractmethod
    def decide(self, rows: Rows, outputs: np.ndarray) -> np.ndarray:
        """What outputs of the model predict, one for each of :meth:`truths`."""

    def truths(self, rows: Rows) -> np.ndarray:
        """What metrics compare predictions with, ``(examples,)``."""
        return rows.labels

    def details(self, rows: Rows, outputs: np.ndarray) -> dict[str, Any]:
        """Columns of the predictions besides id, label and prediction."""
        return {}

    @abc.abstractmethod
    def constant(self, train: Mapping[str, Any], rows: Rows) -> np.ndarray:
        """The answer that needs no model, for each of :meth:`truths`.

        Args:
            train: The card of the training set.
            rows: The set to predict.
        """

    def flips(self, one: np.ndarray, other: np.ndarray) -> int:
        """How many of two models' predictions of the same rows differ."""
        return int((one != other).sum())

    # -- the exported model -----------------------------------------------------------------------

    def serving(self) -> dict[str, Any]:
        """Settings of the exported model."""
        return {"labels": list(self.labels)}

    def asked(self, rows: pd.DataFrame) -> pd.DataFrame:
        """What a served model is asked, of canonical rows."""
        paired = bool(rows["text_pair"].notna().any())
        return rows[["text", "text_pair"] if paired else ["text"]]

    def accepted(self, labels: pd.Series) -> np.ndarray:
        """What metrics compare predictions with, ``(rows,)``, of canonical labels."""
        return np.asarray(labels)

    def served(self, output: pd.DataFrame) -> np.ndarray:
        """What a served model predicts, ``(rows,)``, as metrics take it, of its output."""
        return np.asarray(output["label"])


def kind_of(declared: Declared) -> Kind:
    """The kind of a task, or of a run's data."""
    from tunetrail.kinds.classes import Classes
    from tunetrail.kinds.number import Number
    from tunetrail.kinds.spans import Spans

    if declared.answers is not None:
        return Spans(declared.answers)
    if declared.range is not None:
        return Number(declared.range)
    return Classes(declared.labels)


def first(flags: pd.Series) -> int:
    """The place of the first row that is flagged."""
    return int(np.flatnonzero(flags.to_numpy())[0])


def plain(value: Any) -> str:
    """A label as text; 1.0 and 1 are the same class."""
    return re.sub(r"^(-?\d+)\.0+$", r"\1", str(value))
