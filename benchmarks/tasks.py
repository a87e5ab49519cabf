"""Tasks that benchmarks share, prepared in a scratch folder by the pipeline's own stages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tunetrail.stages.base import fetch_base
from tunetrail.stages.ingest import ingest
from tunetrail.stages.prepare import prepare
from tunetrail.stages.validate import validate
from tunetrail.task import TaskSpec

#: MRPC, from a folder with train, validation and test as Parquet.
MRPC: dict[str, Any] = {
    "title": "MRPC, paraphrase pairs",
    "columns": {"text": "sentence1", "text_pair": "sentence2", "label": "label"},
    "labels": ["different", "paraphrase"],
    "metrics": ["accuracy", "f1"],
}

#: STS-B, scored on its public dev set, as most publications do.
STSB: dict[str, Any] = {
    "title": "STS-B, similarity of pairs",
    "files": {"train": "train.parquet", "validation": "validation.parquet"},
    "columns": {"text": "sentence1", "text_pair": "sentence2", "label": "label"},
    "range": [0, 5],
    "metrics": ["spearman", "pearson"],
}


def prepared_task(task: TaskSpec, folder: Path) -> tuple[Path, Path]:
    """The base model's folder, and the folder of the task's training and selection sets."""
    fetch_base(Path("data/minilm.yaml"), folder / "base")
    ingest(task, folder / "canonical")
    validate(folder / "canonical", folder / "validated")
    prepare(folder / "canonical", folder / "validated", folder / "base", 128, folder / "prepared")
    return folder / "base" / "model", folder / "prepared" / "fit"
