"""Tokenised rows: reading them, and cutting them into batches of similar length."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

#: Batches that are sorted by length together: large enough to pad little, small enough to mix.
_CHUNK_BATCHES = 50


@dataclass(frozen=True)
class Window:
    """What a row holds of a text that may be too long for one row.

    Attributes:
        context: The whole text.
        answers: The texts that are right.
        offsets: First character and end of what each token of the row stands for in the text,
            ``(tokens, 2)``, -1 for tokens that are not of it.
    """

    context: str
    answers: tuple[str, ...]
    offsets: np.ndarray


@dataclass(frozen=True)
class Rows:
    """Tokenised rows of one set.

    Attributes:
        ids: Names of the examples, ``(rows,)``: those of rows, unless an example has windows.
        labels: Class indices (int64), or numbers (float32), ``(rows,)``; first and last token of
            the answer, ``(rows, 2)``.
        tokens: Token ids of each row, ragged.
        segments: Segment ids of each row (zeros where the tokenizer makes none), ragged.
        windows: Where rows are windows of examples, those of one example following each other.
    """

    ids: list[str]
    labels: np.ndarray
    tokens: list[np.ndarray]
    segments: list[np.ndarray]
    windows: list[Window] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens in each row, ``(rows,)``."""
        return np.array([len(t) for t in self.tokens])

    def take(self, index: np.ndarray) -> Rows:
        """Rows ``index``, in that order."""
        return Rows(
            [self.ids[i] for i in index],
            self.labels[index],
            [self.tokens[i] for i in index],
            [self.segments[i] for i in index],
            None if self.windows is None else [self.windows[i] for i in index],
        )

    def batch(self, index: np.ndarray) -> dict[str, torch.Tensor]:
        """Rows ``index``, padded to the longest of them: tensors ``(batch, length)``."""
        longest = max(len(self.tokens[i]) for i in index)
        shape = (len(index), longest)
        ids, mask, segments = (np.zeros(shape, dtype=np.int64) for _ in range(3))
        for row, i in enumerate(index):
            size = len(self.tokens[i])
            ids[row, :size] = self.tokens[i]
            segments[row, :size] = self.segments[i]
            mask[row, :size] = 1
        return {
            "input_ids": torch.from_numpy(ids),
            "attention_mask": torch.from_numpy(mask),
            "token_type_ids": torch.from_numpy(segments),
        }


def read_rows(path: Path) -> Rows:
    """Read a set that the prepare stage wrote."""
    table = pq.read_table(path)
    return Rows(
        ids=table["id"].to_pylist(),
        labels=_labels(table["label"]),
        tokens=_ragged(table["input_ids"]),
        segments=_ragged(table["token_type_ids"]),
        windows=_windows(table) if "context" in table.column_names else None,
    )


def _labels(column: pa.ChunkedArray) -> np.ndarray:
    if pa.types.is_list(column.type):
        return np.stack(_ragged(column)).astype(np.int64)
    labels: np.ndarray = column.to_numpy()
    classes = np.issubdtype(labels.dtype, np.integer)
    return labels.astype(np.int64 if classes else np.float32)


def _windows(table: pa.Table) -> list[Window]:
    offsets = zip(_ragged(table["starts"]), _ragged(table["ends"]), strict=True)
    columns = (table["context"].to_pylist(), table["answers"].to_pylist(), offsets)
    return [
        Window(context, tuple(answers), np.stack(ends, axis=1))
        for context, answers, ends in zip(*columns, strict=True)
    ]


def _ragged(column: pa.ChunkedArray) -> list[np.ndarray]:
    merged = column.combine_chunks()
    values = merged.values.to_numpy()
    offsets = merged.offsets.to_numpy()
    return [values[a:b] for a, b in itertools.pairwise(offsets)]


def training_batches(
    lengths: np.ndarray, batch_size: int, generator: np.random.Generator
) -> list[np.ndarray]:
    """One epoch: every row once, in random order, batches of similar length in random order.

    Args:
        lengths: Tokens in each row, ``(rows,)``.
        batch_size: Rows in a batch; the last batch of the epoch may be smaller.
        generator: Decides the order.
    """
    order = generator.permutation(len(lengths))
    chunk = batch_size * _CHUNK_BATCHES
    batches: list[np.ndarray] = []
    for start in range(0, len(order), chunk):
        part = order[start : start + chunk]
        part = part[np.argsort(lengths[part], kind="stable")]
        batches += [part[i : i + batch_size] for i in range(0, len(part), batch_size)]
    return [batches[i] for i in generator.permutation(len(batches))]


def sorted_batches(lengths: np.ndarray, batch_size: int) -> Iterator[np.ndarray]:
    """Every row once, longest first, for prediction."""
    order = np.argsort(-lengths, kind="stable")
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]
