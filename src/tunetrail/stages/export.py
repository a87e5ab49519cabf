"""export: the chosen run of a method as ONNX, certified to predict the same."""

from __future__ import annotations

import os
import shutil
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from tunetrail.files import file_digest, replacing, write_json
from tunetrail.kinds import kind_of
from tunetrail.layout import CERTIFICATE, MODEL, RUN, SERVING, TOKENIZER
from tunetrail.machine import require_room
from tunetrail.methods import resolve
from tunetrail.modeling.classifier import Classifier
from tunetrail.run import RunSpec, read_run
from tunetrail.stages.evaluate import read_test, trained_model
from tunetrail.training import numerics
from tunetrail.training.predict import outputs, predict_logits, score
from tunetrail.training.rows import Rows

_OPSET = 18
_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
#: (batch, length) shapes of the sweep; lengths beyond the run's max_length are left out.
_SWEEP = ((1, 2), (1, 7), (1, 64), (2, 33), (3, 128), (4, 16), (8, 64), (2, 256), (1, 512))
_LATENCY_REPEATS = 40


def export(selected: Path, base: Path, data: Path, tolerance: float, out: Path) -> None:
    """Write ``model.onnx``, what serving needs beside it, and ``certificate.json`` to ``out``.

    The certificate compares ONNX Runtime with the trained model as it was evaluated (adapters not
    merged): the largest logit difference over a sweep of shapes and over the whole test set,
    predictions (classes, or the texts of answers) that flip, and both sets of metrics. A failed
    certificate is written, not raised: the register stage refuses the model.

    Args:
        selected: The method's folder that the select stage wrote.
        base: What the base stage wrote.
        data: The ``test`` output of the prepare stage.
        tolerance: Largest logit difference that passes.
        out: Folder to write.
    """
    spec = read_run(selected / RUN)
    # Predictions use every core, latency is then measured with the threads of the run.
    cores = os.cpu_count() or 1
    numerics.apply(spec.numerics.model_copy(update={"threads": cores}))
    model = trained_model(spec, base, selected / "adapter")
    require_room(out, sum(p.nbytes for p in model.parameters()), "the exported model")
    rows = read_test(spec, data)
    sweep = sweep_inputs(spec, rows)
    with torch.inference_mode():
        sweep_logits = [model(**inputs).numpy() for inputs in sweep]
    logits = predict_logits(model, rows)

    method = resolve(spec.method.name, spec.method.options, "run")
    obstacle = method.merge_obstacle()
    if obstacle is None:
        method.merge(model)
    with replacing(out) as folder:
        write_onnx(model, folder / MODEL)
        session = open_session(folder / MODEL, cores)
        onnx_sweep = [ask(session, inputs) for inputs in sweep]
        onnx_logits = outputs(rows, lambda batch: ask(session, batch))
        difference = largest_difference([*sweep_logits, logits], [*onnx_sweep, onnx_logits])
        numerics.apply(spec.numerics)
        latency = _latency(model, open_session(folder / MODEL, spec.numerics.threads), rows)
        kind = kind_of(spec.data)
        flips = kind.flips(kind.decide(rows, logits), kind.decide(rows, onnx_logits))
        certificate: dict[str, Any] = {
            "run": spec.digest,
            "tolerance": tolerance,
            "largest_logit_difference": difference,
            "sweep": [list(inputs["input_ids"].shape) for inputs in sweep],
            "rows": len(rows),
            "prediction_flips": flips,
            "metrics_torch": score(spec.data, rows, logits),
            "metrics_onnx": score(spec.data, rows, onnx_logits),
            "passed": difference <= tolerance and flips == 0,
            "merged": obstacle is None,
            "not_merged_because": obstacle,
            "opset": _OPSET,
            "onnx_bytes": (folder / MODEL).stat().st_size,
            "onnx_sha256": file_digest(folder / MODEL),
            "latency": latency,
        }
        write_json(folder / CERTIFICATE, certificate)
        shutil.copyfile(base / "model" / TOKENIZER, folder / TOKENIZER)
        write_json(folder / SERVING, kind.serving() | {"max_length": spec.base.max_length})


def write_onnx(model: Classifier, path: Path, fold: bool = True) -> None:
    """Write a model as ONNX.

    Args:
        model: Is set to eval.
        path: File to write.
        fold: Whether weights may be computed with beforehand, and then lose their names.
    """
    example = {name: torch.ones(2, 8, dtype=torch.int64) for name in _INPUTS}
    each = {0: "batch", 1: "length"}
    axes = {name: each for name in _INPUTS}
    with warnings.catch_warnings():
        # The tracing exporter is deprecated; it is seven times faster than its successor and, with
        # eager attention, its graph is the faster one. The certificate catches a wrong trace.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model.eval(),
            (example,),
            str(path),
            input_names=list(_INPUTS),
            output_names=["logits"],
            dynamic_axes={**axes, "logits": each if model.pooling == "none" else {0: "batch"}},
            opset_version=_OPSET,
            dynamo=False,
            do_constant_folding=fold,
        )


def open_session(model: Path | bytes, threads: int) -> Any:
    """A session of ONNX Runtime that computes an operator with so many threads."""
    import onnxruntime

    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    content = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def ask(session: Any, inputs: dict[str, torch.Tensor], options: Any = None) -> np.ndarray:
    """Logits of a batch; ``options`` are those of ONNX Runtime for a call."""
    feeds = {name: tensor.numpy() for name, tensor in inputs.items()}
    logits: np.ndarray = session.run(["logits"], feeds, options)[0]
    return logits


def largest_difference(ones: Sequence[np.ndarray], others: Sequence[np.ndarray]) -> float:
    """Between arrays of two lists, in pairs; NaN where a value is."""
    return float(np.max([np.abs(a - b).max() for a, b in zip(ones, others, strict=True)]))


def sweep_inputs(spec: RunSpec, rows: Rows) -> list[dict[str, torch.Tensor]]:
    """Random tokens of every shape, the last rows padded, drawn from tokens of the test set."""
    generator = np.random.default_rng(0)
    vocabulary = np.unique(np.concatenate(rows.tokens))
    inputs = []
    for batch, length in _SWEEP:
        if length > spec.base.max_length:
            continue
        mask = np.ones((batch, length), dtype=np.int64)
        for row in range(1, batch):
            mask[row, generator.integers(1, length + 1) :] = 0
        ids = generator.choice(vocabulary, size=(batch, length)) * mask
        inputs.append(
            {
                "input_ids": torch.from_numpy(ids.astype(np.int64)),
                "attention_mask": torch.from_numpy(mask),
                "token_type_ids": torch.zeros((batch, length), dtype=torch.int64),
            }
        )
    return inputs


def _latency(model: nn.Module, session: Any, rows: Rows) -> dict[str, float]:
    """Milliseconds for one text of median length, torch and ONNX Runtime taking turns."""
    middle = np.argsort(rows.lengths, kind="stable")[len(rows) // 2]
    inputs = rows.batch(np.array([middle]))
    seconds: dict[str, list[float]] = {"torch": [], "onnx": []}
    with torch.inference_mode():
        for _ in range(_LATENCY_REPEATS):
            for name, call in (
                ("torch", lambda: model(**inputs)),
                ("onnx", lambda: ask(session, inputs)),
            ):
                started = time.perf_counter()
                call()
                seconds[name].append(time.perf_counter() - started)
    return {
        f"{name}_p{q}_ms": float(np.percentile(values[5:], q)) * 1000
        for name, values in seconds.items()
        for q in (50, 95)
    }
