"""Answers that are spans of a text: a logit each for first and last token, the best span decides.

Extractive question answering as in SQuAD 1.1 (arXiv 1606.05250): ``text`` is the question and
``text_pair`` the context. A context that is too long for the model is seen through windows.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tunetrail.errors import TuneTrailError
from tunetrail.kinds import Kind
from tunetrail.run import Answers

if TYPE_CHECKING:
    import torch

    from tunetrail.training.rows import Rows, Window

_FORM = '{"text": ["…"], "answer_start": [0]}'


class Spans(Kind):
    """Labels are all accepted answers of a question, with their places, as JSON."""

    predicts = "answers"
    written_as = "texts"
    label_types = ("str",)
    grouped_by = ("text_pair",)  # all questions about a context
    pooled = False
    checks = ("spans",)
    constant_title = "the whole context"
    outputs = 2

    def __init__(self, options: Answers) -> None:
        self._options = options

    # -- data -------------------------------------------------------------------------------------

    def encode(
        self,
        frame: pd.DataFrame,
        label: str,
        where: str,
        text: str,
        bins: tuple[float, ...] | None = None,
    ) -> pd.Series:
        """Answers as ``{"text": […], "answer_start": […]}``; missing where a question has none."""
        column = frame[label]
        found = []
        for row, value in enumerate(column, start=1):
            try:
                answers = _answers(value)
            except (ValueError, TypeError, KeyError):
                raise TuneTrailError(
                    f"{where}: row {row} is {str(value)[:80]!r}, not answers with their places",
                    f"write {_FORM}, as SQuAD does (in CSV as JSON text): every answer, and the "
                    "character of the context that it starts at, counted from 0",
                ) from None
            found.append(answers)
        kept = [_as_json(answers) if answers else None for answers in found]
        return pd.Series(kept, dtype="str")

    def unlabelled(self, column: pd.Series) -> bool:
        """Whether no row has an answer."""
        try:
            return not any(_answers(value) for value in column)
        except (ValueError, TypeError, KeyError):
            return False  # said with its row when it is encoded

    def card(self, labels: pd.Series) -> dict[str, Any]:
        """How many answers questions have."""
        counts = labels.dropna().map(lambda label: len(json.loads(label)["text"]))
        return {"labels": {}, "answers": {"mean": float(counts.mean()), "most": int(counts.max())}}

    def shown(self) -> str:
        """As people call it."""
        return "answers, as spans of the context"

    def misplaced(self, frame: pd.DataFrame) -> pd.Series:
        """Rows with an answer that its context does not have at its place."""
        rows = zip(frame["label"], frame["text_pair"], strict=True)
        return pd.Series(
            [pd.notna(label) and not _in_place(label, str(context)) for label, context in rows],
            index=frame.index,
        )

    def check_base(self, card: Mapping[str, Any], max_length: int, task: str) -> None:
        """Tokens must see what follows them, and windows have room for more than their overlap."""
        from tunetrail.modeling.sites import family_of

        if family_of(card["architecture"]).causal:
            raise TuneTrailError(
                f"task '{task}' marks answers in a text, and in '{card['architecture']}', a "
                "decoder, no token sees what follows it",
                "use an encoder as base model, or remove the task",
            )
        room = max_length - question_length(max_length) - _SPECIAL
        if self._options.stride >= room:
            raise TuneTrailError(
                f"task '{task}': answers.stride is {self._options.stride}: with base.max_length "
                f"{max_length} a window may have only {room} tokens of the context",
                f"lower it to {room // 2} or less, or raise base.max_length",
            )

    def tokens(
        self, batch: Mapping[str, list[Any]], tokenizer: Any, max_length: int
    ) -> dict[str, list[Any]]:
        """One row a window: ``label`` is first and last token of the answer (0, 0 without it).

        ``starts`` and ``ends`` are the characters of the context that each token stands for, -1 for
        tokens that are not of it. Trained is the answer that most annotators gave, of equals the
        first.
        """
        encoded = tokenizer(
            _cut(batch["text"], tokenizer, question_length(max_length)),
            batch["text_pair"],
            truncation="only_second",
            max_length=max_length,
            stride=self._options.stride,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
            return_token_type_ids=True,
        )
        columns: dict[str, list[Any]] = {
            name: [] for name in ("id", "label", "starts", "ends", "context", "answers")
        }
        for window, source in enumerate(encoded["overflow_to_sample_mapping"]):
            label, context = json.loads(batch["label"][source]), batch["text_pair"][source]
            offsets = np.array(encoded["offset_mapping"][window])
            offsets[[part != 1 for part in encoded.sequence_ids(window)]] = -1
            given = Counter(zip(label["answer_start"], label["text"], strict=True))
            start, text = given.most_common(1)[0][0]
            columns["id"].append(batch["id"][source])
            columns["label"].append(_tokens_of(start, start + len(text), offsets))
            columns["starts"].append(offsets[:, 0].tolist())
            columns["ends"].append(offsets[:, 1].tolist())
            columns["context"].append(context)
            columns["answers"].append(label["text"])
        return columns | {name: encoded[name] for name in ("input_ids", "token_type_ids")}

    # -- training and prediction ------------------------------------------------------------------

    def loss(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Mean of the cross-entropies of first and last token, over the tokens of each row."""
        from torch.nn.functional import cross_entropy

        # (batch, tokens, 2): the tokens are the classes, of two questions.
        return cross_entropy(outputs, labels, reduction="sum") / 2

    def decide(self, rows: Rows, outputs: np.ndarray) -> np.ndarray:
        """The text of the best span of each question's windows, ``(questions,)``."""
        return np.array([text for text, _ in self._best(rows, outputs)], dtype=object)

    def truths(self, rows: Rows) -> np.ndarray:
        """The accepted answers of each question."""
        return _objects([windows[0].answers for windows in _questions(rows).values()])

    def details(self, rows: Rows, outputs: np.ndarray) -> dict[str, Any]:
        """``score``, the sum of the logits of first and last token."""
        return {"score": np.array([score for _, score in self._best(rows, outputs)], np.float32)}

    def constant(self, train: Mapping[str, Any], rows: Rows) -> np.ndarray:
        """All of the context, which has every answer in it."""
        return _objects([windows[0].context for windows in _questions(rows).values()])

    def serving(self) -> dict[str, Any]:
        """With the options of windows and spans."""
        return {**super().serving(), "answers": self._options.model_dump()}

    def asked(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Questions and contexts."""
        return rows[["text", "text_pair"]].set_axis(["question", "context"], axis=1)

    def accepted(self, labels: pd.Series) -> np.ndarray:
        """The texts of all accepted answers of each question."""
        return _objects([json.loads(label)["text"] for label in labels])

    def served(self, output: pd.DataFrame) -> np.ndarray:
        """The texts found."""
        return np.asarray(output["answer"], dtype=object)

    def _best(self, rows: Rows, outputs: np.ndarray) -> Iterator[tuple[str, float]]:
        place = 0
        for windows in _questions(rows).values():
            spans = [
                (window, *best_span(outputs[place + i], window.offsets, self._options.max_length))
                for i, window in enumerate(windows)
            ]
            place += len(windows)
            window, begin, end, score = max(spans, key=lambda span: span[3])
            yield window.context[begin:end], score


#: Special tokens around a pair, at most.
_SPECIAL = 4


def question_length(max_length: int) -> int:
    """Tokens that a question is cut to, so that the context has the other half."""
    return max_length // 2


def best_span(logits: np.ndarray, offsets: np.ndarray, longest: int) -> tuple[int, int, float]:
    """First and last character of the span with the largest sum of logits, and that sum.

    Every span of up to ``longest`` tokens of the context is considered; of equals the first counts.

    Args:
        logits: ``(tokens or more, 2)``.
        offsets: Characters that each token stands for, ``(tokens, 2)``, -1 outside of the context.
        longest: Tokens that an answer may have.
    """
    (inside,) = np.nonzero(offsets[:, 0] >= 0)
    if not len(inside):
        return 0, 0, float("-inf")
    begin, end = logits[inside, 0].astype(np.float64), logits[inside, 1].astype(np.float64)
    sums = begin[:, None] + end[None, :]
    distance = np.arange(len(inside))[None, :] - np.arange(len(inside))[:, None]
    sums[(distance < 0) | (distance >= longest)] = -np.inf
    first_token, last_token = np.unravel_index(sums.argmax(), sums.shape)
    return (
        int(offsets[inside[first_token], 0]),
        int(offsets[inside[last_token], 1]),
        float(sums[first_token, last_token]),
    )


def _questions(rows: Rows) -> dict[str, list[Window]]:
    """The windows of each question, which lie one after the other."""
    found: dict[str, list[Window]] = {}
    for name, window in zip(rows.ids, rows.windows or (), strict=True):
        found.setdefault(name, []).append(window)
    return found


def _objects(values: Sequence[Any]) -> np.ndarray:
    """An array of whatever objects, ``(values,)``."""
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def _answers(value: Any) -> list[tuple[str, int]]:
    """Text and place of each answer, of what a cell holds.

    Raises:
        ValueError, TypeError, KeyError: It holds something else.
    """
    if value is None or (isinstance(value, float) and np.isnan(value)) or value is pd.NA:
        return []
    if isinstance(value, str):
        if not value.strip():
            return []
        value = json.loads(value)
    if isinstance(value, Mapping):
        texts, places = list(value["text"]), list(value["answer_start"])
        if isinstance(value["text"], str):
            raise TypeError("one text where a list is expected")
    else:
        texts, places = [a["text"] for a in value], [a["answer_start"] for a in value]
    if not all(isinstance(text, str) and text.strip() for text in texts):
        raise TypeError("an answer that is no text")
    return [(text, int(place)) for text, place in zip(texts, places, strict=True)]


def _as_json(answers: list[tuple[str, int]]) -> str:
    texts, places = zip(*answers, strict=True)
    return json.dumps({"text": texts, "answer_start": places}, ensure_ascii=False)


def _in_place(label: str, context: str) -> bool:
    answers = json.loads(label)
    return all(
        place >= 0 and context[place : place + len(text)] == text
        for text, place in zip(answers["text"], answers["answer_start"], strict=True)
    )


def _cut(questions: list[str], tokenizer: Any, longest: int) -> list[str]:
    """Questions of at most ``longest`` tokens."""
    encoded = tokenizer(questions, add_special_tokens=False, return_offsets_mapping=True)
    return [
        question[: offsets[longest - 1][1]] if len(offsets) > longest else question
        for question, offsets in zip(questions, encoded["offset_mapping"], strict=True)
    ]


def _tokens_of(start: int, end: int, offsets: np.ndarray) -> list[int]:
    """First and last token of the characters ``start`` to ``end``; 0, 0 if not all are there."""
    (inside,) = np.nonzero(offsets[:, 0] >= 0)
    if not len(inside) or start < offsets[inside[0], 0] or end > offsets[inside[-1], 1]:
        return [0, 0]
    (within,) = np.nonzero((offsets[:, 0] >= 0) & (offsets[:, 1] > start) & (offsets[:, 0] < end))
    return [int(within[0]), int(within[-1])] if len(within) else [0, 0]
