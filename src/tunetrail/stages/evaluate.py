"""evaluate: metrics and every single prediction of a run on the test set."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import torch

from tunetrail.errors import TuneTrailError
from tunetrail.files import replacing, tree_digest, write_json
from tunetrail.kinds import kind_of
from tunetrail.layout import METRICS, PREDICTIONS
from tunetrail.metrics import score_each
from tunetrail.modeling.adapter import load_adapter
from tunetrail.modeling.base import verified_start
from tunetrail.modeling.classifier import Classifier
from tunetrail.run import RunSpec, read_run, with_seed
from tunetrail.stages.train import build_run_model
from tunetrail.training import numerics
from tunetrail.training.predict import predict_logits, score
from tunetrail.training.rows import Rows, read_rows


def evaluate(
    run: Path, base: Path, adapter: Path, data: Path, out: Path, seed: int | None = None
) -> None:
    """Score a trained run on the test set, in float32, and write metrics and predictions.

    Predictions have the columns ``id``, ``label``, ``prediction`` (class indices, numbers, or the
    accepted answers and the text found) and, for classes, ``scores`` (their probabilities), in the
    order of the test set. A metric that scores every example by itself has a column of its name.
    ``seed`` is that of the training, where it is not that of ``run``.
    """
    spec = with_seed(read_run(run), seed)
    model = trained_model(spec, base, adapter)
    rows = read_test(spec, data)
    numerics.apply(spec.numerics)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    logits = predict_logits(model.to(device), rows, device)
    kind = kind_of(spec.data)
    labels, predictions = kind.truths(rows), kind.decide(rows, logits)
    content = {
        "id": list(dict.fromkeys(rows.ids)),
        "label": labels,
        "prediction": predictions,
        **kind.details(rows, logits),
        **score_each(spec.data.metrics, labels, predictions),
    }
    with replacing(out) as folder:
        write_json(folder / METRICS, score(spec.data, rows, logits))
        pd.DataFrame(content).to_parquet(folder / PREDICTIONS, index=False)


def trained_model(spec: RunSpec, base: Path, adapter: Path) -> Classifier:
    """The model of a run with its trained tensors, in eval mode."""
    model, method = build_run_model(spec, verified_start(spec, base))
    method.fold(model)
    load_adapter(model, adapter, run=spec.digest, base=spec.base.digest)
    return model.eval()


def read_test(spec: RunSpec, data: Path) -> Rows:
    """The test set of a run.

    Raises:
        TuneTrailError: It is not the set that the run names.
    """
    if tree_digest(data) != spec.data.test:
        raise TuneTrailError(
            f"{data} is not the test set of this run", "run the prepare and resolve stages again"
        )
    return read_rows(data / "test.parquet")
