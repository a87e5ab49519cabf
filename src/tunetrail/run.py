"""A run: one training, identified by the digest of everything that decides its result."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from tunetrail.errors import TuneTrailError
from tunetrail.files import digest_of, read_json, write_json
from tunetrail.settings import Settings, parse

#: The start that is the base model itself.
PRETRAINED = "pretrained"

#: What task-adaptive pretraining is called in the name of a start, and what it continues unless
#: that is another checkpoint.
TAPT, BASE = "tapt", "base"

#: Mean of the token vectors; pooled first token; last token (decoders).
Pooling = Literal["mean", "cls", "last"]


class Budget(Settings):
    """How much data a run may see and how long it may train. Exactly one limit is set."""

    epochs: int | None = Field(default=None, ge=1, description="passes over the training rows")
    steps: int | None = Field(default=None, ge=1, description="optimiser steps")
    minutes: float | None = Field(
        default=None, gt=0, description="wall-clock minutes of training steps (not reproducible)"
    )
    fraction: float = Field(default=1.0, gt=0, le=1, description="share of the training rows")
    shots: int | None = Field(default=None, ge=1, description="training rows of each class")
    patience: int | None = Field(
        default=None,
        ge=1,
        description="stop after so many epochs without a better selection score, keep the best",
    )

    @model_validator(mode="after")
    def _one_limit(self) -> Budget:
        if [self.epochs, self.steps, self.minutes].count(None) != 2:
            raise ValueError("give exactly one of 'epochs', 'steps' and 'minutes'")
        if self.shots is not None and self.fraction != 1.0:
            raise ValueError("give either 'shots' or 'fraction'")
        return self


class Training(Settings):
    """Settings of the training loop that all methods share."""

    batch_size: int = Field(default=16, ge=1, description="rows per forward pass, of all processes")
    accumulate: int = Field(default=1, ge=1, description="forward passes per optimiser step")
    schedule: Literal["linear", "cosine", "constant"] = Field(
        default="linear", description="learning rate after the warm-up"
    )
    warmup: float = Field(default=0.06, ge=0, lt=1, description="share of steps with rising rate")
    weight_decay: float = Field(default=0.01, ge=0, description="AdamW; not on biases and norms")
    clip: float = Field(default=1.0, gt=0, description="largest gradient norm")


class Start(Settings):
    """A checkpoint of continued pretraining."""

    name: str = Field(description="what params.yaml calls it")
    digest: str = Field(description="digest of everything that decides it, its text included")


class Numerics(Settings):
    """What decides the last digits."""

    precision: Literal["bf16", "fp32"] = Field(description="arithmetic of training")
    threads: int = Field(ge=1, description="CPU threads of one process")
    processes: int = Field(default=1, ge=1, description="that train one run together")
    sharding: Literal["none", "fsdp"] = Field(
        default="none", description="fsdp: each process holds a part of the weights only"
    )


class BaseModel(Settings):
    """The pretrained model that a run starts from."""

    digest: str = Field(description="sha256 over the model folder, of the start if it has one")
    max_length: int = Field(ge=4, description="tokens a text is cut to")
    pooling: Pooling | Literal["none"] = Field(
        description="what the head reads; none: every token by itself"
    )


class Answers(Settings):
    """How answers are found in a context."""

    stride: int = Field(
        default=32, ge=0, description="tokens that two windows of a long context share"
    )
    max_length: int = Field(default=30, ge=1, description="tokens that an answer may have")


class Data(Settings):
    """The task as prepared for this base model."""

    task: str
    labels: tuple[str, ...] = Field(description="class names; none where a number is predicted")
    range: tuple[float, float] | None = Field(
        default=None, description="lowest and highest label where a number is predicted"
    )
    answers: Answers | None = Field(
        default=None, description="how answers are found where spans are predicted"
    )
    metrics: tuple[str, ...]
    fit: str = Field(description="digest of the training and selection sets")
    test: str | None = Field(
        description="digest of the test set, which training never reads; none in trials of tuning"
    )


class MethodSpec(Settings):
    """A method with every option resolved."""

    name: str
    options: dict[str, Any]


class RunSpec(Settings):
    """Everything that decides the result of one training."""

    base: BaseModel
    start: Literal["pretrained"] | Start = "pretrained"
    data: Data
    method: MethodSpec
    seed: int
    budget: Budget
    training: Training
    numerics: Numerics
    code: str = Field(description="digest of the code that trains this method")

    @property
    def digest(self) -> str:
        """sha256 (hex) that names the run."""
        return digest_of(self.model_dump(mode="json"))

    @property
    def start_name(self) -> str:
        """What params.yaml calls the model that the run starts from."""
        return self.start.name if isinstance(self.start, Start) else self.start


@dataclass(frozen=True)
class PlannedRun:
    """A run and its place in the plan.

    Attributes:
        method: What ``params.yaml`` calls the method.
        budget: What ``params.yaml`` calls the budget.
        spec: The frozen run.
    """

    method: str
    budget: str
    spec: RunSpec

    @property
    def seed(self) -> int:
        """Seed of the run."""
        return self.spec.seed

    @property
    def place(self) -> Path:
        """Folder of the run's results, below that of its task."""
        return Path(self.method, self.budget, str(self.seed))

    def with_seed(self, seed: int) -> PlannedRun:
        """The same run with another seed."""
        return replace(self, spec=with_seed(self.spec, seed))

    @property
    def file(self) -> Path:
        """The frozen run, below the folder of its task's plan."""
        return self.place.with_suffix(".json")


def write_run(path: Path, run: PlannedRun) -> None:
    """Freeze a run to JSON."""
    content = {"run": run.spec.digest, "method": run.method, "budget": run.budget}
    write_json(path, {**content, "spec": run.spec.model_dump(mode="json")})


def read_run(path: Path) -> RunSpec:
    """Read a frozen run.

    Raises:
        TuneTrailError: Missing, malformed, or edited by hand (the digest no longer fits).
    """
    content = read_json(path)
    spec = parse(RunSpec, content.get("spec"), str(path))
    if spec.digest != content.get("run"):
        raise TuneTrailError(
            f"{path} was changed after it was frozen\n"
            f"  recorded run {content.get('run')}\n  actual   run {spec.digest}",
            "change params.yaml and run the resolve stage instead",
        )
    return spec


def with_seed(spec: RunSpec, seed: int | None) -> RunSpec:
    """The run with another seed, or the run itself (None)."""
    return spec if seed is None else spec.model_copy(update={"seed": seed})


def planned_runs(plan: Path) -> list[PlannedRun]:
    """Every run in one task's folder of the plan, ``METHOD/BUDGET/SEED.json``."""
    files = sorted(plan.glob("*/*/*.json"), key=lambda p: (*p.parts[-3:-1], int(p.stem)))
    return [PlannedRun(p.parts[-3], p.parts[-2], read_run(p)) for p in files]


def planned_run(plan: Path, method: str, budget: str, seed: int) -> tuple[Path, PlannedRun]:
    """A run of one task's plan and its file; with a further seed, the run that stands for it."""
    path = plan / method / budget / f"{seed}.json"
    if path.exists():
        return path, PlannedRun(method, budget, read_run(path))
    path = plan / f"{method}.json"
    return path, PlannedRun(method, budget, read_run(path)).with_seed(seed)


def representatives(plan: Path) -> dict[str, PlannedRun]:
    """Method → the run that stands for it: main budget, first seed (``METHOD.json``)."""
    found = {}
    for path in sorted(plan.glob("*.json")):
        found[path.stem] = PlannedRun(path.stem, read_json(path)["budget"], read_run(path))
    return found
