"""The registered model: raw text in, class and scores (or an answer) out, by ONNX Runtime.

MLflow stores this file with the model ("models from code"), so it imports nothing of TuneTrail and
the model loads where TuneTrail is not installed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import onnxruntime
import pandas as pd
from tokenizers import Tokenizer

_BATCH = 32

onnxruntime.disable_telemetry_events()


class TextModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """Columns ``text`` and, for pairs, ``text_pair`` to ``label`` and ``score_<label>``.

    Where the model predicts a number there are no scores, and ``label`` is the number. A model that
    answers questions reads ``question`` and ``context`` and gives ``answer``, ``start`` (its place
    in the context, in characters) and ``score``.
    """

    def load_context(self, context: Any) -> None:
        """Open the exported model, its tokenizer and its settings."""
        folder = Path(context.artifacts["export"])
        settings = json.loads((folder / "serving.json").read_text(encoding="utf-8"))
        self._labels: list[str] = settings["labels"]
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._max_length: int = settings["max_length"]
        self._answers: dict[str, int] | None = settings.get("answers")
        if self._answers is None:
            self._tokenizer.enable_truncation(self._max_length)
        self._session = onnxruntime.InferenceSession(
            str(folder / "model.onnx"), providers=["CPUExecutionProvider"]
        )

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:
        """One row of output a row of input, in order."""
        if self._answers is not None:
            return self._found(model_input, **self._answers)
        texts = model_input["text"].astype(str).tolist()
        if "text_pair" in model_input:
            inputs: list[Any] = list(
                zip(texts, model_input["text_pair"].astype(str).tolist(), strict=True)
            )
        else:
            inputs = texts
        encodings = self._tokenizer.encode_batch(inputs)
        outputs = np.array(self._outputs(encodings))
        if not self._labels:
            return pd.DataFrame({"label": outputs[:, 0]}, index=model_input.index)
        shifted = np.exp(outputs - outputs.max(axis=1, keepdims=True))
        scores = shifted / shifted.sum(axis=1, keepdims=True)
        columns = {f"score_{label}": scores[:, i] for i, label in enumerate(self._labels)}
        best = [self._labels[i] for i in scores.argmax(axis=1)]
        return pd.DataFrame({"label": best, **columns}, index=model_input.index)

    def _found(self, rows: pd.DataFrame, stride: int, max_length: int) -> pd.DataFrame:
        """The best span of each row's context, over its windows, as in the test of the model."""
        half = self._max_length // 2
        self._tokenizer.no_truncation()
        pairs = []
        for question, context in zip(rows["question"], rows["context"], strict=True):
            offsets = self._tokenizer.encode(str(question), add_special_tokens=False).offsets
            cut = str(question)[: offsets[half - 1][1]] if len(offsets) > half else str(question)
            pairs.append((cut, str(context)))
        self._tokenizer.enable_truncation(self._max_length, stride=stride, strategy="only_second")
        encoded = self._tokenizer.encode_batch(pairs)
        windows = [[first, *first.overflowing] for first in encoded]
        outputs = iter(self._outputs([window for each in windows for window in each]))
        found = []
        for (_, context), each in zip(pairs, windows, strict=True):
            spans = [_best_span(next(outputs), window, max_length) for window in each]
            start, end, score = max(spans, key=lambda span: span[2])
            found.append((context[start:end], start, score))
        return pd.DataFrame(found, columns=["answer", "start", "score"], index=rows.index)

    def _outputs(self, encodings: list[Any]) -> list[np.ndarray]:
        """What the model gives for each text, ``(classes or 1,)`` or ``(tokens or more, 2)``."""
        order = np.argsort([-len(e.ids) for e in encodings], kind="stable")
        outputs: list[Any] = [None] * len(encodings)
        for start in range(0, len(order), _BATCH):
            index = order[start : start + _BATCH]
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
        outputs: np.ndarray = self._session.run(["logits"], feeds)[0]
        return outputs


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


mlflow.models.set_model(TextModel())
