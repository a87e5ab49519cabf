"""The registered model: raw text in, class and scores out, by ONNX Runtime.

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


class TextClassifier(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """Columns ``text`` and, for pairs, ``text_pair`` to ``label`` and ``score_<label>``.

    Where the model predicts a number there are no scores, and ``label`` is the number.
    """

    def load_context(self, context: Any) -> None:
        """Open the exported model, its tokenizer and its settings."""
        folder = Path(context.artifacts["export"])
        settings = json.loads((folder / "serving.json").read_text(encoding="utf-8"))
        self._labels: list[str] = settings["labels"]
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(settings["max_length"])
        self._session = onnxruntime.InferenceSession(
            str(folder / "model.onnx"), providers=["CPUExecutionProvider"]
        )

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:
        """One row of output a row of input, in order."""
        texts = model_input["text"].astype(str).tolist()
        if "text_pair" in model_input:
            inputs: list[Any] = list(
                zip(texts, model_input["text_pair"].astype(str).tolist(), strict=True)
            )
        else:
            inputs = texts
        encodings = self._tokenizer.encode_batch(inputs)
        order = np.argsort([-len(e.ids) for e in encodings], kind="stable")
        outputs = np.empty((len(encodings), len(self._labels) or 1), dtype=np.float32)
        for start in range(0, len(order), _BATCH):
            index = order[start : start + _BATCH]
            outputs[index] = self._outputs([encodings[i] for i in index])
        if not self._labels:
            return pd.DataFrame({"label": outputs[:, 0]}, index=model_input.index)
        shifted = np.exp(outputs - outputs.max(axis=1, keepdims=True))
        scores = shifted / shifted.sum(axis=1, keepdims=True)
        columns = {f"score_{label}": scores[:, i] for i, label in enumerate(self._labels)}
        best = [self._labels[i] for i in scores.argmax(axis=1)]
        return pd.DataFrame({"label": best, **columns}, index=model_input.index)

    def _outputs(self, encodings: list[Any]) -> np.ndarray:
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


mlflow.models.set_model(TextClassifier())
