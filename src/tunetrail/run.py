"""A run: one training, identified by the digest of everything that decides its result."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from tunetrail.errors import TuneTrailError
from tunetrail.files import digest_of, read_json, write_json
from tunetrail.settings import Settings, parse


class Budget(Settings):
    """How long a run trains. Exactly one limit is set."""

    epochs: int | None = Field(default=None, ge=1, description="passes over the training rows")
    steps: int | None = Field(default=None, ge=1, description="optimiser steps")

    @model_validator(mode="after")
    def _one_limit(self) -> Budget:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("give exactly one of 'epochs' and 'steps'")
        return self


class Training(Settings):
    """Settings of the training loop that all methods share."""

    batch_size: int = Field(default=16, ge=1, description="rows per forward pass")
    accumulate: int = Field(default=1, ge=1, description="forward passes per optimiser step")
    schedule: Literal["linear", "cosine", "constant"] = Field(
        default="linear", description="learning rate after the warm-up"
    )
    warmup: float = Field(default=0.06, ge=0, lt=1, description="share of steps with rising rate")
    weight_decay: float = Field(default=0.01, ge=0, description="AdamW; not on biases and norms")
    clip: float = Field(default=1.0, gt=0, description="largest gradient norm")


class Numerics(Settings):
    """What decides the last digits."""

    precision: Literal["bf16", "fp32"] = Field(description="arithmetic of training")
    threads: int = Field(ge=1, description="CPU threads of one run")


class BaseModel(Settings):
    """The pretrained model that a run starts from."""

    digest: str = Field(description="sha256 over the model folder")
    max_length: int = Field(ge=4, description="tokens a text is cut to")
    pooling: Literal["mean", "cls"] = Field(description="what the head reads")


class Data(Settings):
    """The task as prepared for this base model."""

    task: str
    labels: tuple[str, ...]
    metrics: tuple[str, ...]
    fit: str = Field(description="digest of the training and selection sets")
    test: str = Field(description="digest of the test set; training never reads the set itself")


class MethodSpec(Settings):
    """A method with every option resolved."""

    name: str
    options: dict[str, Any]


class RunSpec(Settings):
    """Everything that decides the result of one training."""

    base: BaseModel
    start: Literal["pretrained"] = "pretrained"
    data: Data
    method: MethodSpec
    seed: int
    train_fraction: float = Field(gt=0, le=1)
    budget: Budget
    training: Training
    numerics: Numerics
    code: str = Field(description="digest of the code that trains this method")

    @property
    def digest(self) -> str:
        """sha256 (hex) that names the run."""
        return digest_of(self.model_dump(mode="json"))


def write_run(path: Path, spec: RunSpec, label: str) -> None:
    """Freeze a run to JSON. ``label`` is what ``params.yaml`` calls the method."""
    write_json(path, {"run": spec.digest, "label": label, "spec": spec.model_dump(mode="json")})


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


def planned_runs(plan: Path) -> list[tuple[str, int, RunSpec]]:
    """(label, seed, spec) of every run in one task's folder of the plan."""
    files = sorted(plan.glob("*/*.json"), key=lambda p: (p.parent.name, int(p.stem)))
    return [(p.parent.name, int(p.stem), read_run(p)) for p in files]
