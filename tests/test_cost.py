"""What a run costs, with the checkpoint that it starts from: counted with a clock of our own."""

from __future__ import annotations

import time
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import MAX_LENGTH, make_rows, make_spec, write_base, write_rows
from tunetrail.files import read_json, tree_digest
from tunetrail.modeling.base import checkpoint_folder
from tunetrail.pretraining import Objective
from tunetrail.run import Numerics, PlannedRun, write_run
from tunetrail.stages.cost import cost
from tunetrail.stages.pretrain import pretrain
from tunetrail.training.masking import MaskedStep

pytestmark = pytest.mark.usefixtures("fresh_accelerate")

#: Steps of a new head alone, of the domain's checkpoint, and of the task's.
HEAD, DOMAIN, TASK = 4, 7, 3
#: Of the other domain's checkpoint.
MINUTES = 0.002


class Project:
    """A base model, and checkpoints: of two domains, of the task's text, and of that after one."""

    def __init__(self, root: Path) -> None:
        self.base = write_base(root / "models" / "base")
        self.fit = root / "data" / "prepared" / "toy" / "fit"
        write_rows(make_rows(40), self.fit / "train.parquet")
        self.out = root / "cost.json"
        self.pretrain("bio", "pretrained", {"steps": DOMAIN})
        self.pretrain("timed", "pretrained", {"minutes": MINUTES})
        self.pretrain("tapt", "pretrained", {"steps": TASK})
        self.pretrain("bio+tapt", "bio", {"steps": TASK})

    def folder(self, start: str) -> Path:
        return checkpoint_folder(start, self.base, "toy")

    def pretrain(self, start: str, after: str, budget: dict[str, Any]) -> None:
        content = {"budget": budget, "head_steps": HEAD, "training": {"batch_size": 8}}
        objective = Objective.model_validate(content)
        numerics = Numerics(precision="fp32", threads=1)
        text = self.fit / "train.parquet"
        pretrain(objective, numerics, text, self.folder(after), self.folder(start))

    def cost(self, method: str, start: str = "pretrained", **changes: Any) -> dict[str, Any]:
        digest = tree_digest(self.folder(start) / "model")
        base = {"digest": digest, "max_length": MAX_LENGTH, "pooling": "mean"}
        if start != "pretrained":
            changes["start"] = {"name": start, "digest": "d" * 64}
        run = PlannedRun(method, "full", make_spec(method, base=base, **changes))
        write_run(self.out.with_name("run.json"), run)
        cost(self.out.with_name("run.json"), self.base, self.fit, 2, self.out)
        found: dict[str, Any] = read_json(self.out)
        return found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """With checkpoints. Only their costs are written."""
    with pytest.MonkeyPatch.context() as patch:
        root = tmp_path_factory.mktemp("cost")
        patch.chdir(root)
        return Project(root)


@pytest.fixture
def ticking(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every look at the clock is a second after the one before: a step takes one."""
    ticks = count()
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(ticks)))


@pytest.mark.usefixtures("ticking")
@pytest.mark.parametrize(
    ("start", "seconds"),
    [
        ("pretrained", 0),
        ("tapt", HEAD + TASK),
        ("bio", HEAD + DOMAIN),
        ("timed", HEAD + 60 * MINUTES),
        # The head of the second is that of the first.
        ("bio+tapt", HEAD + DOMAIN + TASK),
    ],
)
def test_all_pretraining_is_counted_and_kept_apart(
    start: str, seconds: float, made: Project
) -> None:
    alone, found = made.cost("lora"), made.cost("lora", start)
    assert found["pretrain_seconds"] == pytest.approx(seconds)
    for same in ("train_seconds", "seconds_per_step", "artifact_bytes", "trainable_parameters"):
        assert found[same] == alone[same]


def test_pretraining_steps_have_as_many_tokens_as_they_had(
    made: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    step = MaskedStep.__call__

    def spied(self: MaskedStep, rows: Any, group: Any, rate: float, draw: str) -> Any:
        seen.append(sum(int(rows.lengths[index].sum()) for index in group))
        assert rate == 0
        return step(self, rows, group, rate, draw)

    monkeypatch.setattr(MaskedStep, "__call__", spied)
    made.cost("head", "tapt")
    record = read_json(made.folder("tapt") / "pretrain.json")
    assert len(seen) == 2 * (2 + 2)
    assert seen[0] == pytest.approx(record["tokens"] / record["steps"], rel=0.05)


def test_an_adapter_needs_its_checkpoint_and_full_fine_tuning_does_not(made: Project) -> None:
    weights = (made.folder("tapt") / "model" / "model.safetensors").stat().st_size
    assert made.cost("lora", "tapt")["checkpoint_bytes"] == weights
    assert made.cost("full", "tapt")["checkpoint_bytes"] == 0
    assert made.cost("lora")["checkpoint_bytes"] == 0
    assert made.cost("full", "tapt")["artifact_bytes"] > 0.8 * weights
