"""Which run is shipped: selection without the test set, certificates, receipts."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.tiny import make_rows, make_spec, write_base, write_rows
from tunetrail.errors import TuneTrailError
from tunetrail.files import file_digest, read_json, tree_digest, write_json
from tunetrail.layout import CERTIFICATE, CHOICE, HISTORY, MODEL, RUN, SERVING, TOKENIZER
from tunetrail.modeling.adapter import CARD, WEIGHTS
from tunetrail.run import PlannedRun, RunSpec, planned_runs, read_run, write_run
from tunetrail.stages.export import export
from tunetrail.stages.register import register
from tunetrail.stages.select import select
from tunetrail.stages.train import train

pytestmark = pytest.mark.usefixtures("in_empty_folder", "fresh_accelerate")
#: Label → seed → score of the first metric after the last epoch.
Scores = dict[str, dict[int, float]]


def spec_of(label: str, seed: int) -> RunSpec:
    """Labels are a method and, after a dash, a rank."""
    name, _, rank = label.partition("-")
    return make_spec(name, {"rank": int(rank)} if rank else {}, seed=seed)


def plan_run(plan: Path, label: str, seed: int, budget: str = "full") -> PlannedRun:
    """Freeze a run; with the main budget it also stands for its method."""
    run = PlannedRun(label, budget, spec_of(label, seed))
    write_run(plan / run.file, run)
    if budget == "full":
        write_run(plan / f"{label}.json", run)
    return run


def write_runs(root: Path, scores: Scores) -> tuple[Path, Path]:
    """Plan and trained runs with these scores; what must not count says the opposite."""
    plan, trained = root / "plan" / "toy", root / "runs" / "train" / "toy"
    for label, seeds in scores.items():
        for seed, score in seeds.items():
            spec = spec_of(label, seed)
            folder = trained / plan_run(plan, label, seed).place
            first, second = spec.data.metrics
            selection = [
                [5, {first: 1 - score, second: score}],
                [10, {first: score, second: 1 - score}],
            ]
            content = {"run": spec.digest, "steps": 10, "loss": [[5, score]]}
            history = {**content, "selection": selection, "kept": selection[1]}
            write_json(folder / HISTORY, history)
            write_json(folder / CARD, {"run": spec.digest})
            (folder / WEIGHTS).write_bytes(f"{label} {seed}".encode())
    return plan, trained


def choice_of(root: Path, scores: Scores) -> dict[str, Any]:
    plan, trained = write_runs(root, scores)
    select(plan, trained, root / "out")
    return read_json(root / "out" / CHOICE)


# -- select ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scores", "seeds", "winner"),
    [
        ({"head": {1: 0.6, 2: 0.8, 3: 0.7}}, {"head": 2}, "head"),
        # Ties go to the lowest seed, as a number.
        ({"head": {9: 0.8, 10: 0.8, 100: 0.8}}, {"head": 9}, "head"),
        ({"head": {3: 0.5, 2: 0.8, 7: 0.8}}, {"head": 2}, "head"),
        # The mean decides between methods, not the luckiest seed.
        (
            {"head": {1: 0.95, 2: 0.1}, "lora": {1: 0.6, 2: 0.62}},
            {"head": 1, "lora": 2},
            "lora",
        ),
        (
            {"full": {1: 0.7, 2: 0.7}, "head": {1: 0.8, 2: 0.7}, "lora": {1: 0.1, 2: 0.99}},
            {"full": 1, "head": 1, "lora": 2},
            "head",
        ),
        # Two variants of one method are two candidates.
        (
            {"lora-2": {1: 0.5, 2: 0.6}, "lora-4": {1: 0.7, 2: 0.6}},
            {"lora-2": 2, "lora-4": 1},
            "lora-4",
        ),
        # Every method as good as any other: the same choice everywhere.
        (
            {"lora": {1: 0.5}, "bitfit": {1: 0.5}, "full": {1: 0.5}},
            {"lora": 1, "bitfit": 1, "full": 1},
            "bitfit",
        ),
    ],
)
def test_the_best_seed_and_the_best_mean_are_chosen(
    scores: Scores, seeds: dict[str, int], winner: str, tmp_path: Path
) -> None:
    choice = choice_of(tmp_path, scores)
    assert choice["metric"] == "accuracy"
    assert choice["seeds"] == seeds
    assert choice["winner"] == winner
    listed = {
        label: {run["seed"]: run["selection"]["accuracy"] for run in runs}
        for label, runs in choice["runs"].items()
    }
    assert listed == scores
    for label, runs in choice["runs"].items():
        assert [run["seed"] for run in runs] == sorted(scores[label])
        assert all(run["run"] == spec_of(label, run["seed"]).digest for run in runs)
    for label, seed in seeds.items():
        folder = tmp_path / "out" / label
        assert read_run(folder / RUN) == spec_of(label, seed)
        assert (folder / "adapter" / WEIGHTS).read_bytes() == f"{label} {seed}".encode()
        assert read_json(folder / "adapter" / CARD)["run"] == spec_of(label, seed).digest
    assert {p.name for p in (tmp_path / "out").iterdir()} == {CHOICE, *seeds}


def test_test_scores_have_no_part_in_the_choice(tmp_path: Path) -> None:
    scores = {"head": {1: 0.6, 2: 0.8}, "lora": {1: 0.7, 2: 0.5}}
    without = choice_of(tmp_path / "without", scores)
    assert not (tmp_path / "without" / "runs" / "evaluate").exists()
    root = tmp_path / "with"
    for label, seeds in scores.items():
        for seed, score in seeds.items():
            for folder in (
                root / "runs" / "evaluate" / "toy" / label / "full" / str(seed),
                root / "runs" / "train" / "toy" / label / "full" / str(seed),
            ):
                write_json(folder / "metrics.json", {"accuracy": 1 - score, "f1_macro": 1 - score})
    assert choice_of(root, scores) == without


def test_the_choice_replaces_the_one_before(tmp_path: Path) -> None:
    choice_of(tmp_path, {"head": {1: 0.6}, "lora": {1: 0.7}})
    shutil.rmtree(tmp_path / "plan")
    choice = choice_of(tmp_path, {"head": {1: 0.6, 2: 0.9}})
    assert choice["winner"] == "head"
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [CHOICE, "head"]


def test_a_run_that_was_not_trained_is_named(tmp_path: Path) -> None:
    plan, trained = write_runs(tmp_path, {"head": {1: 0.6, 2: 0.7}})
    shutil.rmtree(trained / "head" / "full" / "2")
    with pytest.raises(TuneTrailError, match=r"head/full/2/history\.json does not exist"):
        select(plan, trained, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_planned_runs_come_in_order_of_label_and_seed(tmp_path: Path) -> None:
    plan, _ = write_runs(tmp_path, {"lora": {10: 0.5, 9: 0.5}, "head": {2: 0.5, 11: 0.5}})
    found = planned_runs(plan)
    assert [(r.method, r.seed) for r in found] == [
        ("head", 2), ("head", 11), ("lora", 9), ("lora", 10)
    ]  # fmt: skip
    assert all(r.spec == spec_of(r.method, r.seed) for r in found)


def test_only_runs_with_the_main_budget_are_candidates(tmp_path: Path) -> None:
    scores: Scores = {"head": {1: 0.6, 2: 0.7}, "lora": {1: 0.5, 2: 0.5}}
    expected = choice_of(tmp_path / "alone", scores)
    root = tmp_path / "with"
    write_runs(root, scores)
    plan_run(root / "plan" / "toy", "lora", 1, budget="tenth")  # never trained: not looked at
    assert choice_of(root, scores) == expected
    assert expected["budget"] == "full"


# -- export and register, on runs that were trained -----------------------------------------------


#: As much of a verdict as a receipt is made of.
VERDICT = {
    "outcome": "open",
    "not_worse": False,
    "difference": -0.02,
    "low": -0.3,
    "high": 0.26,
    "by_seed": [{"seed": 1, "difference": -0.01}, {"seed": 2, "difference": -0.03}],
}


#: And of a method's scores.
SUMMARY = {"accuracy": {"mean": 0.7, "std": 0.1, "count": 2, "low": 0.5, "high": 0.9}}


@dataclass(frozen=True)
class Trained:
    """A task's selected runs."""

    selected: Path
    base: Path
    data: Path
    specs: dict[str, list[RunSpec]]

    @property
    def choice(self) -> dict[str, Any]:
        return read_json(self.selected / CHOICE)

    def comparison(self, tasks: tuple[str, ...] = ("toy",)) -> dict[str, Any]:
        """As much of the compare stage's output as a receipt is made of."""
        winner = self.choice["winner"]
        methods: dict[str, Any] = {}
        for label, specs in self.specs.items():
            main = {"runs": [{"run": s.digest, "seed": s.seed} for s in specs], "summary": SUMMARY}
            methods[label] = {**main, "budgets": {"full": main}}
        content = {
            "methods": methods,
            "tuning": {},
            "winner": {"method": winner, "seed": self.choice["seeds"][winner]},
            "primary": "accuracy",
            "main_budget": "full",
            "verdicts": {"lora": VERDICT},
        }
        tasks_ = dict.fromkeys(tasks, content)
        return {"project": "tests", "baseline": "houlsby", "tasks": tasks_}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    root = tmp_path_factory.mktemp("trained")
    base = write_base(root / "base")
    write_rows(make_rows(40), root / "fit" / "train.parquet")
    write_rows(make_rows(12, seed=1), root / "fit" / "selection.parquet")
    write_rows(make_rows(20, seed=2), root / "test" / "test.parquet")
    plain = make_spec()
    inputs = {"fit": tree_digest(root / "fit"), "test": tree_digest(root / "test")}
    specs: dict[str, list[RunSpec]] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for label in ("houlsby", "lora"):
            for seed in (1, 2):
                spec = make_spec(
                    label,
                    base=plain.base.model_dump() | {"digest": tree_digest(base / "model")},
                    data=plain.data.model_dump() | inputs,
                    seed=seed,
                )
                run = PlannedRun(label, "full", spec)
                write_run(root / "plan" / run.file, run)
                write_run(root / "plan" / f"{label}.json", run)
                train(root / "plan" / run.file, base, root / "fit", root / "train" / run.place)
                specs.setdefault(label, []).append(spec)
        select(root / "plan", root / "train", root / "select")
    return Trained(root / "select", base, root / "test", specs)


def exported(trained: Trained, out: Path, tolerance: float) -> dict[str, Any]:
    """Export the winner to where register looks for it (once for all tests); its certificate."""
    winner = trained.choice["winner"]
    kept = trained.selected.parent / f"export-{tolerance}"
    if not kept.exists():
        export(trained.selected / winner, trained.base, trained.data, tolerance, kept)
    shutil.copytree(kept, out / winner)
    return read_json(out / winner / CERTIFICATE)


def receipt_of(comparison: dict[str, Any], exported: Path, out: Path) -> dict[str, Any]:
    write_json(out / "comparison.json", comparison)
    register(out / "comparison.json", exported, out / "receipt.json")
    return read_json(out / "receipt.json")


@pytest.mark.parametrize("label", ["houlsby", "lora"])
def test_a_certificate_holds_what_was_measured(
    label: str, trained: Trained, tmp_path: Path
) -> None:
    export(trained.selected / label, trained.base, trained.data, 1e-4, tmp_path / "out")
    certificate = read_json(tmp_path / "out" / CERTIFICATE)
    assert certificate["passed"] is True
    assert 0 < certificate["largest_logit_difference"] <= 1e-4
    assert certificate["prediction_flips"] == 0
    assert certificate["rows"] == 20
    assert certificate["metrics_torch"] == certificate["metrics_onnx"]
    assert certificate["merged"] == (label == "lora")
    assert (certificate["not_merged_because"] is None) == (label == "lora")
    assert certificate["run"] == read_run(trained.selected / label / RUN).digest
    assert certificate["onnx_sha256"] == file_digest(tmp_path / "out" / MODEL)
    assert len(certificate["sweep"]) >= 5
    assert all(length <= 64 for _, length in certificate["sweep"])
    serving = {"labels": ["class 0", "class 1", "class 2"], "max_length": 64}
    assert read_json(tmp_path / "out" / SERVING) == serving
    tokenizer = trained.base / "model" / TOKENIZER
    assert (tmp_path / "out" / TOKENIZER).read_bytes() == tokenizer.read_bytes()


def test_an_exported_file_predicts_from_its_folder_alone(trained: Trained, tmp_path: Path) -> None:
    """With onnxruntime and tokenizers only, as a server does."""
    import onnxruntime
    from tokenizers import Tokenizer

    exported(trained, tmp_path, 1e-4)
    folder = tmp_path / trained.choice["winner"]
    encoded = Tokenizer.from_file(str(folder / TOKENIZER)).encode("good film")
    inputs = {
        "input_ids": np.array([encoded.ids]),
        "attention_mask": np.array([encoded.attention_mask]),
        "token_type_ids": np.array([encoded.type_ids]),
    }
    session = onnxruntime.InferenceSession(folder / MODEL, providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], inputs)
    assert logits.shape == (1, len(read_json(folder / SERVING)["labels"]))
    assert np.isfinite(logits).all()


def test_a_winner_with_a_certificate_is_registered(trained: Trained, tmp_path: Path) -> None:
    certificate = exported(trained, tmp_path / "export" / "toy", 1e-4)
    receipt = receipt_of(trained.comparison(), tmp_path / "export", tmp_path)
    winner = trained.choice["winner"]
    assert receipt["refused"] == []
    assert receipt["models"] == [
        {
            "name": "tests-toy",
            "task": "toy",
            "label": winner,
            "seed": trained.choice["seeds"][winner],
            "run": certificate["run"],
            "onnx_sha256": file_digest(tmp_path / "export" / "toy" / winner / MODEL),
        }
    ]
    assert receipt["comparison"] == file_digest(tmp_path / "comparison.json")
    assert receipt["project"] == "tests"


def test_a_run_carries_the_verdict_on_its_method(trained: Trained, tmp_path: Path) -> None:
    exported(trained, tmp_path / "export" / "toy", 1e-4)
    receipt = receipt_of(trained.comparison(), tmp_path / "export", tmp_path)
    against = {(entry["label"], entry["seed"]): entry["against"] for entry in receipt["runs"]}
    assert against["houlsby", 1] is against["houlsby", 2] is None
    assert against["lora", 2] == {
        "baseline": "houlsby",
        "metric": "accuracy",
        "difference": -0.03,
        "mean": -0.02,
        "outcome": "open",
        "not_worse": False,
        "low": -0.3,
        "high": 0.26,
    }
    content = trained.comparison()
    content["tasks"]["toy"]["main_budget"] = "another"
    receipt = receipt_of(content, tmp_path / "export", tmp_path)
    assert {entry["against"] for entry in receipt["runs"]} == {None}


def test_the_runs_of_a_method_are_a_group_with_their_mean(trained: Trained, tmp_path: Path) -> None:
    exported(trained, tmp_path / "export" / "toy", 1e-4)
    receipt = receipt_of(trained.comparison(), tmp_path / "export", tmp_path)
    groups = {group["label"]: group for group in receipt["groups"]}
    assert list(groups) == ["houlsby", "lora"]
    for label, group in groups.items():
        assert (group["task"], group["seeds"], group["summary"]) == ("toy", [1, 2], SUMMARY)
        assert group["chosen"] == (label == trained.choice["winner"])
    assert groups["houlsby"]["against"] is None
    assert groups["lora"]["against"] == {
        "baseline": "houlsby", "metric": "accuracy", "mean": -0.02, "outcome": "open",
        "not_worse": False, "low": -0.3, "high": 0.26,
    }  # fmt: skip


def test_a_winner_whose_certificate_failed_is_refused(trained: Trained, tmp_path: Path) -> None:
    certificate = exported(trained, tmp_path / "export" / "toy", 0.0)
    assert certificate["passed"] is False
    receipt = receipt_of(trained.comparison(), tmp_path / "export", tmp_path)
    assert receipt["models"] == []
    (refused,) = receipt["refused"]
    assert refused["run"] == certificate["run"]
    assert refused["reason"] == (
        f"ONNX logits differ by {certificate['largest_logit_difference']:.2g} "
        "(tolerance 0), 0 of 20 predictions flip"
    )


def test_flipped_predictions_alone_are_a_reason(trained: Trained, tmp_path: Path) -> None:
    certificate = exported(trained, tmp_path / "export" / "toy", 1e-4)
    spoilt = certificate | {"passed": False, "prediction_flips": 3}
    write_json(tmp_path / "export" / "toy" / trained.choice["winner"] / CERTIFICATE, spoilt)
    receipt = receipt_of(trained.comparison(), tmp_path / "export", tmp_path)
    assert receipt["models"] == []
    assert "3 of 20 predictions flip" in receipt["refused"][0]["reason"]


def test_every_task_is_judged_for_itself(trained: Trained, tmp_path: Path) -> None:
    exported(trained, tmp_path / "export" / "good", 1e-4)
    exported(trained, tmp_path / "export" / "bad", 0.0)
    comparison = trained.comparison(("good", "bad"))
    receipt = receipt_of(comparison, tmp_path / "export", tmp_path)
    assert [model["name"] for model in receipt["models"]] == ["tests-good"]
    assert [model["name"] for model in receipt["refused"]] == ["tests-bad"]
    listed = [(r["task"], r["label"], r["seed"], r["run"]) for r in receipt["runs"]]
    assert sorted(listed) == sorted(
        (task, label, spec.seed, spec.digest)
        for task in ("good", "bad")
        for label, specs in trained.specs.items()
        for spec in specs
    )
    assert len(listed) == 8


def test_equal_inputs_give_equal_receipts(trained: Trained, tmp_path: Path) -> None:
    exported(trained, tmp_path / "export" / "toy", 1e-4)
    first = receipt_of(trained.comparison(), tmp_path / "export", tmp_path / "one")
    second = receipt_of(trained.comparison(), tmp_path / "export", tmp_path / "two")
    assert json.dumps(first) == json.dumps(second)


def test_a_missing_certificate_is_named(trained: Trained, tmp_path: Path) -> None:
    with pytest.raises(TuneTrailError, match=r"certificate\.json does not exist"):
        receipt_of(trained.comparison(), tmp_path / "export", tmp_path)
    assert not (tmp_path / "receipt.json").exists()
