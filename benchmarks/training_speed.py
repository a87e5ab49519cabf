"""Training speed against HF Trainer + peft as shipped, on the same work.

LoRA on query and value, rank 8, batch 16, all dropout kept (0.1 in the trunk, on LoRA input and
before the head), one epoch over the same rows. Trainer runs with its default settings; TuneTrail
with its own (buckets of similar length, bf16 where the hardware has it). The two take turns; the
figure is the ratio of medians.

    python -m benchmarks.training_speed                      # built-in movie reviews
    python -m benchmarks.training_speed --data FOLDER        # MRPC as Parquet
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.tasks import TASKS, prepared_task
from tunetrail.files import tree_digest
from tunetrail.methods import resolve
from tunetrail.provenance import provenance
from tunetrail.run import BaseModel, Budget, Data, MethodSpec, Numerics, RunSpec, Training
from tunetrail.stages.train import build_run_model
from tunetrail.task import load_task
from tunetrail.training import numerics
from tunetrail.training.checkpoint import forget
from tunetrail.training.loop import fit
from tunetrail.training.rows import Rows, read_rows

_LORA = {"rank": 8, "alpha": 16.0, "dropout": 0.1, "learning_rate": 1e-3}


def _fresh_accelerate() -> None:
    """accelerate keeps the first precision of a process for good; the two here differ."""
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)


def ours(rows: Rows, weights: Path, spec: RunSpec) -> float:
    """Seconds of one epoch in TuneTrail's loop; loading the model is not counted."""
    _fresh_accelerate()
    model, method = build_run_model(spec, weights)
    started = time.perf_counter()
    fit(model, spec, method.learning_rate, rows, rows.take(np.arange(2)))
    seconds = time.perf_counter() - started
    forget(spec.digest)
    return seconds


def trainer(rows: Rows, weights: Path, labels: int, folder: Path) -> float:
    """Seconds of one epoch with Trainer + peft; loading the model is not counted."""
    from peft import LoraConfig, TaskType, get_peft_model
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
    )

    _fresh_accelerate()
    model = AutoModelForSequenceClassification.from_pretrained(weights, num_labels=labels)
    config = LoraConfig(
        task_type=TaskType.SEQ_CLS,
        r=_LORA["rank"],
        lora_alpha=_LORA["alpha"],
        lora_dropout=_LORA["dropout"],
        target_modules=["query", "value"],
    )
    data = [
        {"input_ids": t.tolist(), "token_type_ids": s.tolist(), "label": int(y)}
        for t, s, y in zip(rows.tokens, rows.segments, rows.labels, strict=True)
    ]
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=16,
        num_train_epochs=1,
        learning_rate=_LORA["learning_rate"],
        save_strategy="no",
        disable_tqdm=True,
    )
    run = Trainer(
        model=get_peft_model(model, config),
        args=arguments,
        train_dataset=data,
        data_collator=DataCollatorWithPadding(AutoTokenizer.from_pretrained(weights)),
    )
    started = time.perf_counter()
    run.train()
    return time.perf_counter() - started


def main() -> None:
    """Measure, print and write the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder of MRPC's Parquet files")
    parser.add_argument("--rows", type=int, default=480)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="write the result here as JSON")
    options = parser.parse_args()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    os.environ["HF_HUB_OFFLINE"] = "1"

    with tempfile.TemporaryDirectory() as scratch:
        task = (
            load_task("mrpc", {**TASKS["mrpc"], "source": options.data}, "benchmark")
            if options.data
            else load_task("movie", {"source": Path("data/hutto.yaml")}, "benchmark")
        )
        weights, fit_folder = prepared_task(task, Path(scratch))
        rows = read_rows(fit_folder / "train.parquet")
        rows = rows.take(np.arange(min(options.rows, len(rows))))
        spec = RunSpec(
            base=BaseModel(digest=tree_digest(weights), max_length=128, pooling="cls"),
            data=Data(task=task.name, labels=task.labels, metrics=task.metrics, fit="", test=""),
            method=MethodSpec(
                name="lora", options=resolve("lora", _LORA, "benchmark").model_dump(mode="json")
            ),
            seed=1,
            budget=Budget(epochs=1),
            training=Training(batch_size=16),
            numerics=Numerics(precision=numerics.best_precision(), threads=options.threads),
            code="benchmark",
        )
        seconds: dict[str, list[float]] = {"trainer": [], "tunetrail": []}
        for repeat in range(options.repeats + 1):  # the first is a warm-up
            torch.set_float32_matmul_precision("highest")  # as torch ships it
            torch.set_num_threads(options.threads)
            theirs = trainer(rows, weights, len(task.labels), Path(scratch) / "trainer")
            numerics.apply(spec.numerics)
            mine = ours(rows, weights, spec)
            print(f"{repeat}: trainer {theirs:.1f} s, tunetrail {mine:.1f} s, {theirs / mine:.2f}x")
            if repeat:
                seconds["trainer"].append(theirs)
                seconds["tunetrail"].append(mine)

    medians = {name: statistics.median(values) for name, values in seconds.items()}
    result: dict[str, Any] = {
        "task": task.name,
        "rows": len(rows),
        "mean_tokens": round(float(rows.lengths.mean()), 1),
        "precision": spec.numerics.precision,
        "threads": options.threads,
        "seconds": seconds,
        "ratio_of_medians": round(medians["trainer"] / medians["tunetrail"], 2),
        "samples_per_second": {n: round(len(rows) / s, 1) for n, s in medians.items()},
        "cpu_flags": sorted(
            name for name, on in torch.cpu.get_capabilities().items() if on is True
        ),
        **provenance(),
    }
    print(json.dumps({k: v for k, v in result.items() if k != "cpu_flags"}, indent=2))
    if options.out:
        options.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
