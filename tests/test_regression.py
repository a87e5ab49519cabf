"""Tasks that predict a number: labels, loss, metrics, certificate."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.tiny import make_rows, make_spec, run_model, write_rows
from tunetrail import metrics
from tunetrail.errors import TuneTrailError
from tunetrail.files import read_json, tree_digest
from tunetrail.layout import CARD, CERTIFICATE, DATA, PREDICTIONS, RESULT, RUN
from tunetrail.run import PlannedRun, RunSpec, write_run
from tunetrail.stages.evaluate import evaluate
from tunetrail.stages.export import export
from tunetrail.stages.ingest import ingest
from tunetrail.stages.train import train
from tunetrail.stages.validate import validate
from tunetrail.task import load_task
from tunetrail.training.loop import TrainStep, fit
from tunetrail.training.rows import Rows, read_rows

pytestmark = pytest.mark.usefixtures("in_empty_folder", "fresh_accelerate")
NUMBER = {"labels": [], "range": [-4, 4], "metrics": ["pearson", "spearman"]}


def number_spec(**changes: object) -> RunSpec:
    data = make_spec().data.model_dump() | NUMBER | changes.pop("data", {})
    return make_spec("lora", data=data, **changes)


def number_rows(count: int, seed: int = 0) -> Rows:
    """Rows whose class, shifted and scaled, is the number to predict."""
    rows = make_rows(count, seed)
    return Rows(rows.ids, (rows.labels * 3.0 - 3.0).astype(np.float32), rows.tokens, rows.segments)


# -- labels ---------------------------------------------------------------------------------------


def ingested(folder: Path, numbers: list[object], name: str = "data.csv") -> Path:
    frame = pd.DataFrame({"t": [f"text number {i}" for i in range(len(numbers))], "l": numbers})
    frame.to_csv(name, index=False) if name.endswith(".csv") else frame.to_parquet(name)
    columns = {"text": "t", "label": "l"}
    task = load_task("own", {"source": name, "columns": columns, "range": [-4, 4]}, "test")
    ingest(task, folder / "canonical")
    return folder / "canonical"


def test_labels_stay_the_numbers_that_they_are(tmp_path: Path) -> None:
    canonical = ingested(tmp_path, [-4, 0.25, 4, "3e0", 1] * 8)
    frame = pd.read_parquet(canonical / DATA)
    assert frame["label"].tolist()[:5] == [-4.0, 0.25, 4.0, 3.0, 1.0]
    card = read_json(canonical / CARD)
    assert card["numbers"]["highest"] == 4.0
    assert card["numbers"]["mean"] == pytest.approx(0.85)
    validate(canonical, tmp_path / "validated")
    checks = {c["check"]: c for c in read_json(tmp_path / "validated" / RESULT)["checks"]}
    assert checks["labels"]["meaning"] == "labels are from -4 to 4"
    assert checks["labels"]["outcome"] == "passed"


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ([1, 2, 4.5], r"row 3 is 4\.5: 1 of 3 rows are outside the range -4 to 4\n.*'range'"),
        ([1, "good", 2], r"row 2 is 'good', not a number\n.*give 'labels'"),
    ],
)
def test_labels_that_are_no_number_of_the_range_are_refused(
    numbers: list[object], message: str, tmp_path: Path
) -> None:
    with pytest.raises(TuneTrailError, match=message):
        ingested(tmp_path, numbers)


def test_a_missing_number_fails_the_gate(tmp_path: Path) -> None:
    canonical = ingested(tmp_path, [1.0, None, 2.0, 3.0, -1.0] * 5, "data.parquet")
    with pytest.raises(TuneTrailError, match="nulls in label: 'label' is never missing; 5 rows"):
        validate(canonical, tmp_path / "validated")


# -- loss and metrics -----------------------------------------------------------------------------


@pytest.mark.parametrize("interval", [(-4.0, 4.0), (0.0, 5.0)])
def test_the_loss_is_the_squared_error_in_units_of_half_the_range(
    interval: tuple[float, float], base: Path
) -> None:
    spec = number_spec(data={"range": interval})
    model = run_model(spec, base)
    rows = number_rows(8)
    step = TrainStep(model, spec, 1e-3, 10)
    step.start(1)
    model.eval()
    index = np.arange(8)
    with torch.inference_mode():
        outputs = model(**rows.batch(index))
    assert outputs.shape == (8, 1)
    expected = torch.nn.functional.mse_loss(outputs[:, 0], torch.from_numpy(rows.labels))
    unit = (interval[1] - interval[0]) / 2
    assert float(step(rows, [index])) == pytest.approx(float(expected) / unit**2, rel=1e-5)


def test_an_untrained_head_answers_near_the_middle_of_the_range(base: Path) -> None:
    model = run_model(number_spec(data={"range": [100.0, 200.0]}), base).eval()
    with torch.inference_mode():
        outputs = model(**number_rows(8).batch(np.arange(8)))
    assert ((outputs > 120) & (outputs < 180)).all()


def test_numbers_are_learnt(base: Path) -> None:
    spec = number_spec(budget={"epochs": 12})
    model = run_model(spec, base)
    history = fit(model, spec, 1e-2, number_rows(80), number_rows(30, seed=1))
    assert history["kept"][1]["pearson"] > 0.7


numbers = st.lists(st.integers(-40, 40), min_size=3, max_size=30)


@given(numbers, st.randoms(use_true_random=False))
def test_correlations_are_those_of_numpy_and_pandas(labels: list[int], random) -> None:
    guesses = [x + random.randint(-20, 20) for x in labels]
    one, two = np.array(labels, dtype=np.float32), np.array(guesses, dtype=np.float32)
    pearson, spearman = (metrics.find(m).score(one, two, 0) for m in ("pearson", "spearman"))
    if np.ptp(one) == 0 or np.ptp(two) == 0:
        assert pearson == spearman == 0.0
        return
    assert pearson == pytest.approx(np.corrcoef(one, two)[0, 1], abs=1e-5)
    ranks = pd.Series(one).rank().corr(pd.Series(two).rank())
    assert spearman == pytest.approx(ranks, abs=1e-5)


# -- to the certificate ---------------------------------------------------------------------------


def test_a_number_goes_through_to_a_certificate(base: Path, tmp_path: Path) -> None:
    write_rows(number_rows(40), tmp_path / "fit" / "train.parquet")
    write_rows(number_rows(12, seed=1), tmp_path / "fit" / "selection.parquet")
    write_rows(number_rows(20, seed=2), tmp_path / "test" / "test.parquet")
    assert read_rows(tmp_path / "test" / "test.parquet").labels.dtype == np.float32
    spec = number_spec(
        base=make_spec().base.model_dump() | {"digest": tree_digest(base / "model")},
        data={"fit": tree_digest(tmp_path / "fit"), "test": tree_digest(tmp_path / "test")},
        budget={"epochs": 3},
    )
    write_run(tmp_path / RUN, PlannedRun("lora", "full", spec))
    train(tmp_path / RUN, base, tmp_path / "fit", tmp_path / "adapter")
    evaluate(tmp_path / RUN, base, tmp_path / "adapter", tmp_path / "test", tmp_path / "scores")
    predictions = pd.read_parquet(tmp_path / "scores" / PREDICTIONS)
    assert list(predictions) == ["id", "label", "prediction"]
    assert predictions["prediction"].nunique() == 20
    export(tmp_path, base, tmp_path / "test", 1e-4, tmp_path / "onnx")
    certificate = read_json(tmp_path / "onnx" / CERTIFICATE)
    assert certificate["passed"] is True
    assert certificate["metrics_onnx"]["pearson"] == pytest.approx(
        certificate["metrics_torch"]["pearson"], abs=1e-4
    )
