"""Classes: a logit each, cross-entropy, the largest decides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tunetrail.errors import TuneTrailError, unknown
from tunetrail.kinds import Kind, first, plain
from tunetrail.kinds.number import numbers_of

if TYPE_CHECKING:
    import torch

    from tunetrail.training.rows import Rows

#: How programs write that there is no label.
_MISSING = {"", "nan", "none", "null", "na", "n/a", "<na>"}


class Classes(Kind):
    """Labels are indices of ``labels``."""

    predicts = "classes"
    label_types = ("int64", "Int64Dtype")
    constant_title = "majority class"

    def __init__(self, labels: tuple[str, ...]) -> None:
        self.labels = labels
        self.outputs = len(labels)
        self.absent = Kind.absent - set(labels)

    def encode(
        self,
        frame: pd.DataFrame,
        label: str,
        where: str,
        text: str,
        bins: tuple[float, ...] | None = None,
    ) -> pd.Series:
        """Class indices, of names, of indices, or of numbers that the task's ``bins`` cut."""
        column = frame[label]
        if bins is not None:
            numbers = numbers_of(column, where)
            binned = pd.Series(np.digitize(numbers.fillna(0.0), bins)).astype("Int64")
            return binned.mask(numbers.isna().to_numpy())
        mapped = _mapped(column, {name: i for i, name in enumerate(self.labels)})
        if mapped.isna().all():
            # Class indices instead of names, as public benchmarks publish them.
            mapped = _mapped(column, {str(i): i for i in range(len(self.labels))})
        bad = mapped.isna() & column.notna()
        if bad.any():
            row = first(bad)
            error = unknown("label", str(column.iloc[row]), self.labels, f"{where}, row {row + 1}")
            raise TuneTrailError(
                f"{error.problem}: {int(bad.sum())} of {len(column)} rows are outside the declared "
                "set",
                f"{self._hint(frame, bad, label, text)}{error.fix}; correct the data or 'labels'",
            )
        return pd.Series(mapped.to_numpy()).astype("Int64")

    def _hint(self, frame: pd.DataFrame, bad: pd.Series, label: str, text: str) -> str:
        """What is probably wrong with labels outside the declared set; empty if nobody can tell."""
        outside = frame.loc[bad.to_numpy(), label].astype(str)
        value, distinct = str(outside.iloc[0]), outside.nunique()
        folded = {name.casefold(): name for name in self.labels}
        for name, column in frame.items():
            if name != label and column.isin(self.labels).all():
                swapped = " 'columns.text' and" if name == text else ""
                return f"'{name}' holds the labels: correct{swapped} 'columns.label'; "
        if value.strip().casefold() in _MISSING:
            return "give these rows a label, or remove them; "
        if value == label:
            return "this row repeats the header: remove it; "
        if value.strip() in self.labels:
            return "labels count as they are written: remove the blanks around it; "
        if value.casefold() in folded:
            return f"case counts: write it '{folded[value.casefold()]}', as declared; "
        if outside.str.fullmatch(r"\d+").all():
            last = len(self.labels) - 1
            return (
                f"numbers stand for the labels from 0 to {last}; declare them if they are names; "
            )
        if distinct > max(20, len(self.labels)):
            return (
                f"there are {distinct} different ones: name another column, or cut numbers by "
                "'bins'; "
            )
        return ""

    def card(self, labels: pd.Series) -> dict[str, Any]:
        """Rows of each class."""
        counts = labels.dropna().astype(int).value_counts()
        return {"labels": {name: int(counts.get(i, 0)) for i, name in enumerate(self.labels)}}

    def shown(self) -> str:
        """The names."""
        return ", ".join(self.labels)

    def loss(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Cross-entropy."""
        from torch.nn.functional import cross_entropy

        return cross_entropy(outputs, labels, reduction="sum")

    def decide(self, rows: Rows, outputs: np.ndarray) -> np.ndarray:
        """Class indices, ``(rows,)``."""
        indices: np.ndarray = outputs.argmax(axis=1)
        return indices

    def details(self, rows: Rows, outputs: np.ndarray) -> dict[str, Any]:
        """``scores``, the probabilities of all classes."""
        return {"scores": list(softmax(outputs))}

    def constant(self, train: Mapping[str, Any], rows: Rows) -> np.ndarray:
        """The class most frequent in train."""
        counts = train["labels"]  # as a card has them: in the order of the alphabet
        most = max(self.labels, key=lambda name: counts[name])
        return np.full_like(rows.labels, self.labels.index(most))

    def accepted(self, labels: pd.Series) -> np.ndarray:
        """Class indices."""
        return np.asarray(labels, dtype=np.int64)

    def served(self, output: pd.DataFrame) -> np.ndarray:
        """Class indices of the names."""
        index = {name: i for i, name in enumerate(self.labels)}
        return np.asarray(output["label"].map(index), dtype=np.int64)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Class probabilities of logits, ``(rows, classes)``."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    scores: np.ndarray = shifted / shifted.sum(axis=1, keepdims=True)
    return scores


def _mapped(column: pd.Series, index: dict[str, int]) -> pd.Series:
    """Indices of labels; missing where there is none."""
    return column.astype("object").map(
        lambda value: index.get(str(value), index.get(plain(value))), na_action="ignore"
    )
