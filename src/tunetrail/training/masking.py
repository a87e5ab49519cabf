"""Masked-language modelling: what is hidden from the model, and the loop that lets it guess."""

from __future__ import annotations

import contextlib
import hashlib
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from torch import nn

from tunetrail.errors import TrainingDiverged, TuneTrailError
from tunetrail.modeling.dropout import share_noise
from tunetrail.modeling.masked_lm import MaskedLM
from tunetrail.pretraining import Duration, PretrainSpec
from tunetrail.run import Training
from tunetrail.training.checkpoint import Checkpoints
from tunetrail.training.numerics import derived_seed
from tunetrail.training.processes import Team, accelerator_for
from tunetrail.training.rows import Rows, sorted_batches, training_batches
from tunetrail.training.schedule import Length, Progress, build_optimizer, rate_factor, silent

#: Of the tokens to predict: shares that the model sees as the mask, and as a random token.
_AS_MASK, _AS_RANDOM = 0.8, 0.1

#: Held-out texts that are scored, at most, and how often before the end.
_HELD_OUT, _LOOKS = 512, 5

#: Points of the loss curve that are recorded, at most.
_CURVE_POINTS = 50

_BATCH = 32


@dataclass(frozen=True)
class Vocabulary:
    """What masking needs to know of a tokenizer.

    Attributes:
        size: Tokens there are.
        mask: Id of the mask.
        special: Ids that are never hidden.
    """

    size: int
    mask: int
    special: frozenset[int]


def read_vocabulary(base: Path) -> Vocabulary:
    """The vocabulary of a model folder.

    Raises:
        TuneTrailError: Its tokenizer names no mask.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
    if tokenizer.mask_token_id is None:
        raise TuneTrailError(
            f"base model: the tokenizer in {base} names no mask token, which masked-language "
            "modelling needs",
            "use a base model that was pretrained so, or remove 'pretraining' from params.yaml",
        )
    special = frozenset(tokenizer.all_special_ids)
    return Vocabulary(len(tokenizer), tokenizer.mask_token_id, special)


def hide(
    tokens: np.ndarray,
    real: np.ndarray,
    share: float,
    vocabulary: Vocabulary,
    generator: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """BERT's masks (arXiv 1810.04805): each token is chosen with probability ``share``.

    Of those chosen, 80 % are replaced by the mask, 10 % by any token, and 10 % stay. Special tokens
    and padding are never chosen.

    Args:
        tokens: Ids, any shape.
        real: Which of them are not padding.
        share: Probability of being chosen.
        vocabulary: Of the tokenizer.
        generator: Decides it all.

    Returns:
        What the model sees, and which tokens it has to predict.
    """
    allowed = real & ~np.isin(tokens, list(vocabulary.special))
    chosen = allowed & (generator.random(tokens.shape) < share)
    fate = generator.random(tokens.shape)
    anything = generator.integers(vocabulary.size, size=tokens.shape)
    seen = np.where(chosen & (fate < _AS_MASK), vocabulary.mask, tokens)
    at_random = chosen & (fate >= _AS_MASK) & (fate < _AS_MASK + _AS_RANDOM)
    return np.where(at_random, anything, seen), chosen


def read_text(path: Path) -> Rows:
    """Tokens of a text file of the corpus stage, or of a set of the prepare stage without labels.

    Rows are named by the text that they are of: a digest of the tokens where the file names none.
    """
    names = pq.read_schema(path).names
    columns = ["input_ids", "token_type_ids", *(["text"] if "text" in names else [])]
    table = pq.read_table(path, columns=columns)
    tokens, segments = (
        [np.array(row, dtype=np.int64) for row in table[name].to_pylist()]
        for name in ("input_ids", "token_type_ids")
    )
    ids = (
        table["text"].to_pylist()
        if "text" in names
        else [hashlib.sha256(row.tobytes()).hexdigest() for row in tokens]
    )
    return Rows(ids, np.zeros(len(ids), dtype=np.int64), tokens, segments)


def set_aside(rows: Rows, share: float, seed: int) -> tuple[Rows, Rows]:
    """Text to train on and held-out text: by whole texts, equal ones on the same side.

    Raises:
        TuneTrailError: There are too few texts.
    """
    texts = sorted(set(rows.ids))
    count = math.ceil(share * len(texts))
    if count >= len(texts):
        raise TuneTrailError(
            f"there are {len(texts)} different texts to pretrain on, too few to set {share:.0%} "
            "aside",
            "add text, or lower held_out",
        )
    generator = np.random.default_rng(derived_seed(seed, "held out"))
    held = {texts[i] for i in generator.permutation(len(texts))[:count]}
    inside = np.array([i in held for i in rows.ids])
    kept = np.flatnonzero(inside)
    kept = kept[generator.permutation(len(kept))[:_HELD_OUT]]
    return rows.take(np.flatnonzero(~inside)), rows.take(np.sort(kept))


class MaskedStep:
    """Optimiser steps and held-out losses of a masked-language model; see ``loop.TrainStep``.

    Args:
        model: Everything in it that trains has ``requires_grad``.
        spec: Objective and numerics.
        vocabulary: Of the tokenizer.
    """

    def __init__(self, model: MaskedLM, spec: PretrainSpec, vocabulary: Vocabulary) -> None:
        self._accelerator = accelerator_for(spec.numerics)
        self.team = Team(self._accelerator)
        self._noise = share_noise(model)
        self.trained: dict[str, torch.Tensor] = {
            name: p for name, p in model.named_parameters() if p.requires_grad
        }
        self._objective, self._vocabulary = spec.objective, vocabulary
        self._device: torch.device = self._accelerator.device
        optimizer = build_optimizer(model, spec.objective.learning_rate, spec.objective.training)
        self._plain = model
        self._model: nn.Module
        self._model, self.optimizer = self._accelerator.prepare(model, optimizer)

    def __call__(self, rows: Rows, group: list[np.ndarray], rate: float, draw: str) -> torch.Tensor:
        """Train on the batches of ``group``; returns the mean loss of their hidden tokens.

        Args:
            rows: Text to train on.
            group: Rows of each forward pass.
            rate: Learning rate of this step.
            draw: What the random numbers of this step are drawn from, so that a resumed step draws
                the same.
        """
        for options in self.optimizer.param_groups:
            options["lr"] = rate
        dropout = self.team.purpose(f"dropout {draw}")
        self._noise.reseed(derived_seed(self._objective.seed, dropout))
        generator = np.random.default_rng(derived_seed(self._objective.seed, f"masks {draw}"))
        # Every process hides the same tokens of all rows, and predicts those of its own.
        batches = [self._hidden(rows.batch(index), generator) for index in group]
        # Tokens, not batches, weigh the same; and of gradients the processes take the mean.
        count = max(1, sum(len(wanted) for _, wanted in batches))
        total = torch.zeros((), device=self._device)
        for number, batch in enumerate(batches, 1):
            inputs, wanted, sharing = self._own(*batch)
            last = number == len(batches)
            with contextlib.nullcontext() if last else self._accelerator.no_sync(self._model):
                loss = self._loss(self._model, inputs, wanted)
                loss = loss / (count * sharing / self.team.count)
                total += loss.detach()
                self._accelerator.backward(loss)
        clip = self._objective.training.clip
        self._accelerator.clip_grad_norm_(list(self.trained.values()), clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return self.team.mean(total)

    @torch.no_grad()
    def held_out_loss(self, rows: Rows) -> float:
        """Mean loss of the hidden tokens of held-out text, with the same masks every time.

        Raises:
            TuneTrailError: No token was hidden.
        """
        seed = derived_seed(self._objective.seed, "held out masks")
        generator = np.random.default_rng(seed)
        self._plain.eval()
        total, count = 0.0, 0
        for index in sorted_batches(rows.lengths, _BATCH):
            inputs, wanted = self._hidden(rows.batch(index), generator)
            total += float(self._loss(self._plain, inputs, wanted))
            count += len(wanted)
        self._plain.train()
        if count == 0:
            raise TuneTrailError(
                "no token of the held-out text was hidden", "add text, or raise held_out or mask"
            )
        return total / count

    def _hidden(
        self, batch: dict[str, torch.Tensor], generator: np.random.Generator
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Inputs of the model, and the tokens that it has to predict."""
        tokens, real = batch["input_ids"].numpy(), batch["attention_mask"].numpy() == 1
        seen, chosen = hide(tokens, real, self._objective.mask, self._vocabulary, generator)
        inputs = {**batch, "input_ids": torch.from_numpy(seen), "chosen": torch.from_numpy(chosen)}
        wanted = torch.from_numpy(tokens[chosen]).to(self._device)
        return {name: tensor.to(self._device) for name, tensor in inputs.items()}, wanted

    def _own(
        self, inputs: dict[str, torch.Tensor], wanted: torch.Tensor
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor, int]:
        """This process's part of a batch, and how many processes compute that same part."""
        if self.team.count == 1:
            return inputs, wanted, 1
        chosen = inputs["chosen"]
        own, sharing = self.team.share(len(chosen))
        ours = torch.zeros_like(chosen)
        ours[own] = True
        part = {name: tensor[own] for name, tensor in inputs.items()}
        return part, wanted[ours[chosen]], sharing

    @staticmethod
    def _loss(
        model: nn.Module, inputs: dict[str, torch.Tensor], wanted: torch.Tensor
    ) -> torch.Tensor:
        logits = model(**inputs)
        return nn.functional.cross_entropy(logits.float(), wanted, reduction="sum")

    def finish(self) -> None:
        """Give the model its plain forward back."""
        self._accelerator.unwrap_model(self._model, keep_fp32_wrapper=False)


def pretrain_masked(
    model: MaskedLM,
    spec: PretrainSpec,
    vocabulary: Vocabulary,
    train: Rows,
    held_out: Rows,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Continue the pretraining of ``model`` in place and return its history.

    A new head is trained alone first: only then can it say what the trunk knows.

    Args:
        model: As it was loaded.
        spec: Objective and numerics.
        vocabulary: Of the tokenizer.
        train: Text to train on.
        held_out: Text to measure the loss on.
        progress: See :data:`tunetrail.training.schedule.Progress`.

    Returns:
        ``steps`` and ``tokens`` seen; ``loss``: step and mean loss on the text trained on, of a new
        head's own steps (``head``) and of the others (``all``); ``held_out``: step and loss, the
        first (step 0) with the trunk untouched. Holds no times, so equal specs have equal
        histories.

    Raises:
        TrainingDiverged: The loss is no longer finite.
    """
    objective, trunk = spec.objective, model.model.base_model
    if getattr(trunk, "pooler", None) is not None:
        trunk.pooler.requires_grad_(False)  # it has no part in this
    train_step = MaskedStep(model, spec, vocabulary)
    checkpoints = Checkpoints(spec.digest, train_step.trained, train_step.optimizer)
    state = checkpoints.restore() or {
        "phase": "head" if model.new_head else "all", "step": 0, "tokens": 0, "spent": 0.0,
        "recent": [], "loss": {"head": [], "all": []}, "held_out": [],
    }  # fmt: skip
    model.train()
    if state["phase"] == "head":
        of_trunk = [p for p in trunk.parameters() if p.requires_grad]
        for parameter in of_trunk:
            parameter.requires_grad_(False)
        alone = Duration(steps=objective.head_steps)
        _phase(train_step, spec, state, alone, train, None, checkpoints, progress)
        for parameter in of_trunk:
            parameter.requires_grad_(True)
        state |= {"phase": "all", "step": 0, "tokens": 0}
    _phase(train_step, spec, state, objective.budget, train, held_out, checkpoints, progress)
    train_step.finish()
    return {
        "steps": state["step"],
        "tokens": state["tokens"],
        "loss": state["loss"],
        "held_out": state["held_out"],
    }


def _phase(
    train_step: MaskedStep,
    spec: PretrainSpec,
    state: dict[str, Any],
    duration: Duration,
    train: Rows,
    held_out: Rows | None,
    checkpoints: Checkpoints,
    progress: Progress,
) -> None:
    """Train the head alone, or all, from where ``state`` is to the end, and bring it up to date."""
    phase, training, seed = state["phase"], spec.objective.training, spec.objective.seed
    peak = spec.objective.head_learning_rate if phase == "head" else spec.objective.learning_rate
    per_epoch = math.ceil(math.ceil(len(train) / training.batch_size) / training.accumulate)
    steps = duration.epochs * per_epoch if duration.epochs else duration.steps
    record_every = max(1, math.ceil((steps or per_epoch) / _CURVE_POINTS))
    look_every = None if steps is None else math.ceil(steps / _LOOKS)
    length = Length(steps, duration.minutes, state["spent"])
    losses, looks, recent = state["loss"][phase], state["held_out"], list(state["recent"])
    groups = _groups(train, training, seed, phase, per_epoch, start=state["step"])
    if held_out is not None and not looks:
        looks.append([0, train_step.held_out_loss(held_out)])
    shown, finished = 0.0, False
    while not finished:
        step = state["step"] = state["step"] + 1
        started = time.monotonic()
        group = next(groups)
        rate = peak * rate_factor(step, length.total(step - 1), training)
        loss = float(train_step(train, group, rate, f"{phase} {step}"))
        if not math.isfinite(loss):
            raise TrainingDiverged(
                f"the masked-language-model loss became {loss} at step {step} (learning rate "
                f"{rate:.3g})",
                f"lower {'head_' * (phase == 'head')}learning_rate of this entry of 'pretraining'",
            )
        length.spent += time.monotonic() - started
        recent.append(loss)
        state["tokens"] += int(sum(train.lengths[index].sum() for index in group))
        finished = length.reached(step)
        if step % record_every == 0 or finished:
            losses.append([step, sum(recent) / len(recent)])
            recent = []
        if held_out is not None and (finished or (look_every and step % look_every == 0)):
            looks.append([step, train_step.held_out_loss(held_out)])
        if time.monotonic() - shown > 0.25 or finished:
            progress(step, step if finished else length.total(step), loss)
            shown = time.monotonic()
        if not finished and train_step.team.saving(checkpoints.due()):
            state |= {"recent": recent, "spent": length.spent if duration.minutes else 0.0}
            checkpoints.save(state, {}, writes=train_step.team.first)
    state |= {"recent": [], "spent": 0.0}


def _groups(
    train: Rows, training: Training, seed: int, phase: str, per_epoch: int, start: int
) -> Iterator[list[np.ndarray]]:
    """Batches of each optimiser step, epoch after epoch without end, from step ``start`` on."""
    lengths = train.lengths
    epoch, skip = divmod(start, per_epoch)
    while True:
        generator = np.random.default_rng([derived_seed(seed, f"{phase} order"), epoch])
        batches = training_batches(lengths, training.batch_size, generator)
        size = training.accumulate
        yield from [batches[i : i + size] for i in range(0, len(batches), size)][skip:]
        epoch, skip = epoch + 1, 0
