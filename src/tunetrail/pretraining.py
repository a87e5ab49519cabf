"""Continued pretraining: what can be asked for, and what identifies a checkpoint.

*Domain* text gives one checkpoint for all tasks (DAPT), the unlabelled training text of a task one
for that task (TAPT), after Gururangan et al. (arXiv 2004.10964). A method starts from a checkpoint
by its name: the label of the domain, ``tapt``, or both joined by ``+``.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator, model_validator

from tunetrail.files import digest_of
from tunetrail.run import BASE, PRETRAINED, TAPT, Numerics, Training
from tunetrail.settings import Settings
from tunetrail.task import Format

_RESERVED = (BASE, TAPT, PRETRAINED)


class Duration(Settings):
    """How long to pretrain. Exactly one limit is set."""

    epochs: int | None = Field(default=None, ge=1, description="passes over the text")
    steps: int | None = Field(default=None, ge=1, description="optimiser steps")
    minutes: float | None = Field(
        default=None, gt=0, description="wall-clock minutes of training steps (not reproducible)"
    )

    @model_validator(mode="after")
    def _one_limit(self) -> Duration:
        if [self.epochs, self.steps, self.minutes].count(None) != 2:
            raise ValueError("give exactly one of 'epochs', 'steps' and 'minutes'")
        return self


class Objective(Settings):
    """Masked-language modelling: BERT's masks, drawn anew in every step."""

    budget: Duration
    learning_rate: float = Field(default=1e-4, gt=0, description="peak learning rate")
    training: Training = Training()
    mask: float = Field(default=0.15, gt=0, lt=1, description="share of tokens to predict")
    held_out: float = Field(
        default=0.1, gt=0, lt=1, description="share of the texts set aside to measure the loss"
    )
    head_steps: int = Field(
        default=200, ge=1, description="steps of a new masked-LM head alone, before all else"
    )
    head_learning_rate: float = Field(default=1e-3, gt=0, description="peak rate of those steps")
    seed: int = Field(default=0, ge=0)


class DomainText(Objective):
    """Text of a domain and how to pretrain on it."""

    text: Path = Field(description="file, folder, or pointer file with unlabelled text")
    files: tuple[str, ...] | None = Field(
        default=None, min_length=1, description="paths inside the source; default: all data files"
    )
    column: str = Field(default="text", description="column with the text")
    format: Format | None = Field(
        default=None, description="how to read CSV; without it a .txt file has a text a line"
    )
    limit: int | None = Field(default=None, ge=2, description="upper limit on texts")
    near_duplicate: float = Field(
        default=0.8, ge=0.5, le=1, description="similarity to a held-out text that drops a text"
    )


class Pretraining(Settings):
    """Every checkpoint that can be started from, besides the base model."""

    domain: dict[str, DomainText] = Field(
        default_factory=dict, description="label → text; one checkpoint for all tasks"
    )
    task: dict[str, Objective] = Field(
        default_factory=dict,
        description="what it continues (base, or a label of domain) → settings; one checkpoint "
        "for each task, on the unlabelled text of its training set",
    )

    @field_validator("domain")
    @classmethod
    def _not_reserved(cls, value: dict[str, DomainText]) -> dict[str, DomainText]:
        for label in value:
            if label in _RESERVED:
                raise ValueError(f"'{label}' has a meaning of its own: choose another label")
        return value

    def starts(self) -> list[str]:
        """The names that a method may start from."""
        return [PRETRAINED, *self.domain, *(adapted(after) for after in self.task)]

    def objectives(self) -> dict[str, Objective]:
        """Name of a start → how it is made; without the base model."""
        found: dict[str, Objective] = {**self.domain}
        return found | {adapted(after): how for after, how in self.task.items()}


def adapted(after: str) -> str:
    """The name of task-adaptive pretraining that continues ``after``."""
    return TAPT if after == BASE else f"{after}+{TAPT}"


class PretrainSpec(Settings):
    """Everything that decides the weights of a checkpoint."""

    base: str = Field(description="sha256 over the model folder that it continues")
    text: str = Field(description="sha256 of the tokenised text")
    objective: Objective
    numerics: Numerics
    code: str = Field(description="digest of the code that pretrains")

    @property
    def digest(self) -> str:
        """sha256 (hex) that names the checkpoint."""
        return digest_of(self.model_dump(mode="json"))
