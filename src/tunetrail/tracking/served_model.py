"""Raw text in, class and scores (or a number, or an answer) out, by ONNX Runtime.

The one place where an exported model is asked. MLflow stores this file with a registered model
("models from code"), so it imports nothing of TuneTrail and loads where TuneTrail is not installed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import onnxruntime
import pandas as pd
from tokenizers import Tokenizer

onnxruntime.disable_telemetry_events()


class Predictor:
    """An exported model, ready to be asked, by one thread at a time.

    Args:
        settings: Of ``serving.json``.
        tokenizer: Of the base model.
        session: Computes.
        adapter: What the session takes with each call, where several models share it.
        batch: Texts, or windows of a context, that the model is given at once.

    Attributes:
        labels: Class names, in the order of the scores; none where no classes are predicted.
        answers: Options of windows and spans, of a model that answers questions.
        max_length: Tokens of a text (or of a window) that the model reads.
    """

    def __init__(
        self,
        settings: dict[str, Any],
        tokenizer: Tokenizer,
        session: onnxruntime.InferenceSession,
        adapter: onnxruntime.LoraAdapter | None = None,
        batch: int = 32,
    ) -> None:
        self.labels: list[str] = settings["labels"]
        self.answers: dict[str, int] | None = settings.get("answers")
        self.max_length: int = settings["max_length"]
        self._tokenizer, self._session = tokenizer, session
        self._most = batch
        self._adapter = adapter  # kept: the options below only point to it
        self._options = onnxruntime.RunOptions()
        if adapter is not None:
            self._options.add_active_adapter(adapter)

    @classmethod
    def of_export(
        cls, folder: Path, model: bytes | None = None, threads: int = 0, batch: int = 32
    ) -> Predictor:
        """What the export stage wrote to a folder.

        Args:
            folder: Of the export stage.
            model: The bytes of ``model.onnx``, where they were read already.
            threads: That compute an operator (0: one a core).
            batch: Texts that the model is given at once.
        """
        content = str(folder / "model.onnx") if model is None else model
        return cls(_settings(folder), _tokenizer(folder), _session(content, threads), None, batch)

    @classmethod
    def of_shared(
        cls, folder: Path, model: bytes, names: Sequence[str], threads: int = 0, batch: int = 32
    ) -> list[Predictor]:
        """The models of a folder in which they share session and tokenizer.

        One thread at a time may ask them all.

        Args:
            folder: Has ``tokenizer.json``, and ``serving.json`` and ``adapter.onnx_adapter`` of
                each model in a folder of its name.
            model: The bytes of ``model.onnx``, whose inputs the adapters are.
            names: Of the models.
            threads: That compute an operator (0: one a core).
            batch: Texts that a model is given at once.
        """
        tokenizer, session = _tokenizer(folder), _session(model, threads)
        found = []
        for name in names:
            adapter = onnxruntime.LoraAdapter()
            adapter.Load(str(folder / name / "adapter.onnx_adapter"))
            found.append(cls(_settings(folder / name), tokenizer, session, adapter, batch))
        return found

    def __call__(self, rows: Sequence[Any]) -> dict[str, Any]:
        """What is predicted for each row, in order, by name of the column.

        ``label`` and ``score_<label>``; where the model predicts a number there are no scores, and
        ``label`` is the number. A model that answers questions gives ``answer``, ``start`` (its
        place in the context, in characters) and ``score`` (minus infinity, and an empty answer,
        where a context has nothing that the tokenizer keeps).

        Args:
            rows: Texts, pairs of texts, or pairs of question and context; at least one.
        """
        if self.answers is not None:
            return self._found(rows, **self.answers)
        self._tokenizer.enable_truncation(self.max_length)
        outputs = np.array(self._outputs(self._tokenizer.encode_batch(list(rows))))
        if not self.labels:
            return {"label": outputs[:, 0]}
        shifted = np.exp(outputs - outputs.max(axis=1, keepdims=True))
        scores = shifted / shifted.sum(axis=1, keepdims=True)
        columns = {f"score_{label}": scores[:, i] for i, label in enumerate(self.labels)}
        return {"label": [self.labels[i] for i in scores.argmax(axis=1)], **columns}

    def _found(self, rows: Sequence[Any], stride: int, max_length: int) -> dict[str, Any]:
        """The best span of each row's context, over its windows, as in the test of the model."""
        half = self.max_length // 2
        self._tokenizer.no_truncation()
        pairs = []
        for question, context in rows:
            offsets = self._tokenizer.encode(question, add_special_tokens=False).offsets
            cut = question[: offsets[half - 1][1]] if len(offsets) > half else question
            pairs.append((cut, context))
        self._tokenizer.enable_truncation(self.max_length, stride=stride, strategy="only_second")
        encoded = self._tokenizer.encode_batch(pairs)
        windows = [[first, *first.overflowing] for first in encoded]
        outputs = iter(self._outputs([window for each in windows for window in each]))
        found = []
        for (_, context), each in zip(pairs, windows, strict=True):
            spans = [_best_span(next(outputs), window, max_length) for window in each]
            start, end, score = max(spans, key=lambda span: span[2])
            found.append((context[start:end], start, score))
        columns = zip(*found, strict=True)
        return dict(zip(("answer", "start", "score"), map(list, columns), strict=True))

    def _outputs(self, encodings: list[Any]) -> list[np.ndarray]:
        """What the model gives for each text, ``(classes or 1,)`` or ``(tokens or more, 2)``."""
        order = np.argsort([-len(e.ids) for e in encodings], kind="stable")
        outputs: list[Any] = [None] * len(encodings)
        for start in range(0, len(order), self._most):
            index = order[start : start + self._most]
            batch = self._batch([encodings[i] for i in index])
            for i, output in zip(index, batch, strict=True):
                outputs[i] = output
        return outputs

    def _batch(self, encodings: list[Any]) -> np.ndarray:
        longest = max(len(e.ids) for e in encodings)
        feeds = {
            name: np.zeros((len(encodings), longest), dtype=np.int64)
            for name in ("input_ids", "attention_mask", "token_type_ids")
        }
        for row, encoding in enumerate(encodings):
            size = len(encoding.ids)
            feeds["input_ids"][row, :size] = encoding.ids
            feeds["attention_mask"][row, :size] = 1
            feeds["token_type_ids"][row, :size] = encoding.type_ids
        outputs: np.ndarray = self._session.run(["logits"], feeds, self._options)[0]
        wanted = len(self.labels) or (1 if self.answers is None else 2)
        if outputs.shape[-1] != wanted:
            raise ValueError(
                f"the model gives {outputs.shape[-1]} outputs, its settings are for {wanted}"
            )
        return outputs


def _settings(folder: Path) -> dict[str, Any]:
    settings: dict[str, Any] = json.loads((folder / "serving.json").read_text(encoding="utf-8"))
    return settings


def _tokenizer(folder: Path) -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    return tokenizer


def _session(model: str | bytes, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # that adapters are inputs is meant, not a warning
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _best_span(logits: np.ndarray, window: Any, longest: int) -> tuple[int, int, float]:
    """First and last character of the best span of up to ``longest`` tokens, and its score."""
    inside = np.array([i for i, part in enumerate(window.sequence_ids) if part == 1], dtype=int)
    if not len(inside):
        return 0, 0, float("-inf")
    begin, end = logits[inside, 0].astype(np.float64), logits[inside, 1].astype(np.float64)
    sums = begin[:, None] + end[None, :]
    distance = np.arange(len(inside))[None, :] - np.arange(len(inside))[:, None]
    sums[(distance < 0) | (distance >= longest)] = -np.inf
    first, last = np.unravel_index(sums.argmax(), sums.shape)
    offsets = window.offsets
    return offsets[inside[first]][0], offsets[inside[last]][1], float(sums[first, last])


class TextModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """The registered model: columns ``text`` and, for pairs, ``text_pair``, or ``question`` and
    ``context``, to those of :class:`Predictor`.
    """

    def load_context(self, context: Any) -> None:
        """Open the exported model, its tokenizer and its settings."""
        self._predictor = Predictor.of_export(Path(context.artifacts["export"]))

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:
        """One row of output a row of input, in order."""
        asked = self._predictor.answers is not None
        names = ("question", "context") if asked else ("text", "text_pair")
        texts = [model_input[n].astype(str).tolist() for n in names if n in model_input]
        rows = list(zip(*texts, strict=True)) if len(texts) > 1 else texts[0]
        return pd.DataFrame(self._predictor(rows), index=model_input.index)


mlflow.models.set_model(TextModel())
