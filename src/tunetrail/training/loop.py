"""The training loop: one model, one budget, plain PyTorch with accelerate underneath."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from tunetrail.errors import TrainingDiverged
from tunetrail.kinds import kind_of
from tunetrail.methods import Method
from tunetrail.modeling.classifier import Classifier
from tunetrail.modeling.dropout import share_noise
from tunetrail.run import RunSpec
from tunetrail.training.checkpoint import Checkpoints
from tunetrail.training.numerics import derived_seed
from tunetrail.training.predict import predict_logits, score
from tunetrail.training.processes import Team, accelerator_for, like, shard, whole
from tunetrail.training.rows import Rows, training_batches
from tunetrail.training.schedule import (
    Length,
    Progress,
    Watch,
    build_optimizer,
    rate_factor,
    silent,
    unwatched,
)

#: Where a run without a checkpoint starts.
_START: dict[str, Any] = {
    "step": 0, "loss": [], "recent": [], "selection": [], "observed": [], "spent": 0.0
}  # fmt: skip

#: Points of the loss curve that a run records, at most.
_CURVE_POINTS = 50

_NOTHING = contextlib.nullcontext()


class TrainStep:
    """One optimiser step of a run, on whatever device and precision it asks for.

    Args:
        model: With the method attached; parameters that train have ``requires_grad``.
        spec: Training settings and numerics.
        learning_rate: Peak learning rate.
        steps: Optimiser steps of the whole run, which the schedule needs; may be set anew.
        method: May act before every step and add to the loss.
    """

    def __init__(
        self,
        model: Classifier,
        spec: RunSpec,
        learning_rate: float,
        steps: int,
        method: Method | None = None,
    ) -> None:
        self._accelerator = accelerator_for(spec.numerics)
        sharded = spec.numerics.sharding == "fsdp"
        self.team = Team(self._accelerator, sharded)
        self._noise, self._seed = share_noise(model), spec.seed
        if sharded:
            layers = [model.module(path) for path in model.sites.layers()]
            shard(model, layers, self._accelerator.device)
        self._trained = [p for p in model.parameters() if p.requires_grad]
        self._training = spec.training
        self._peak = learning_rate
        self.steps = steps
        self.plain, self._method = model, method
        self._loss = kind_of(spec.data).loss
        self.device: torch.device = self._accelerator.device
        optimizer = build_optimizer(model, learning_rate, spec.training)
        # What is sharded exchanges gradients by itself.
        self.model: nn.Module = self._accelerator.prepare_model(model, evaluation_mode=sharded)
        self.optimizer = self._accelerator.prepare_optimizer(optimizer)

    def rate(self, step: int) -> float:
        """The learning rate of ``step`` (1 … all steps)."""
        return self._peak * rate_factor(step, self.steps, self._training)

    def start(self, step: int) -> None:
        """Set the learning rate and random numbers of ``step`` and let the method act."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(step)
        if self._method is not None:
            self._method.before_step(self.plain, (step - 1) / self.steps)
        # Every step has random numbers of its own, so that a resumed run draws the same ones.
        self._noise.reseed(derived_seed(self._seed, self.team.purpose(f"dropout {step}")))

    def __call__(self, rows: Rows, group: list[np.ndarray]) -> torch.Tensor:
        """Train on the batches of ``group``; returns the mean loss of their rows (a scalar).

        Of several processes each computes its share of every batch.
        """
        count = sum(len(index) for index in group)
        total = torch.zeros((), device=self.device)
        for index in group:
            own, sharing = self.team.share(len(index))
            with self._accelerator.no_sync(self.model) if index is not group[-1] else _NOTHING:
                # Padded as the whole batch is, which methods may see.
                batch = {k: v[own].to(self.device) for k, v in rows.batch(index).items()}
                labels = torch.from_numpy(rows.labels[index][own]).to(self.device)
                # Rows, not batches, weigh the same, however they were grouped; and of gradients
                # the processes take the mean.
                loss = self._loss(self.model(**batch), labels) / (count * sharing / self.team.count)
                total += loss.detach()
                penalty = self._method.penalty(self.plain) if self._method is not None else None
                if penalty is not None:
                    loss = loss + penalty * (len(index) / count)
                self._accelerator.backward(loss)
        self._accelerator.clip_grad_norm_(self._trained, self._training.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return self.team.mean(total)

    def finish(self) -> None:
        """Give the model its plain forward back."""
        self._accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)


def fit(
    model: Classifier,
    spec: RunSpec,
    learning_rate: float,
    train: Rows,
    selection: Rows,
    progress: Progress = silent,
    method: Method | None = None,
    watch: Watch = unwatched,
) -> dict[str, Any]:
    """Train ``model`` in place and return its history.

    Args:
        model: With the method attached; parameters that train have ``requires_grad``.
        spec: Budget, training settings, seed and numerics.
        learning_rate: Peak learning rate.
        train: Training rows, already cut to what the run's budget allows.
        selection: Rows that are scored after every epoch; never the test set.
        progress: Called after steps, a few times a second at most.
        method: The method that is attached, for what it does during training.
        watch: See :data:`tunetrail.training.schedule.Watch`.

    Returns:
        ``steps``, the loss curve (``loss``: step and mean loss), ``selection``: step and metrics
        after every epoch, ``observed``: step and what the method observes then, if it does, and
        ``kept``: step and metrics of the weights that the model now has: the last, or with patience
        the best. Holds no times, so equal runs have equal histories.

    Raises:
        TrainingDiverged: The loss is no longer finite.
    """
    all_steps, steps_per_epoch = count_steps(spec, len(train))
    record_every = max(1, math.ceil((all_steps or 5 * steps_per_epoch) / _CURVE_POINTS))
    train_step = TrainStep(model, spec, learning_rate, all_steps or 1, method)
    team = train_step.team
    checkpoints = Checkpoints(spec.digest, model.trained(), train_step.optimizer)
    state = checkpoints.restore() or _START
    losses, scores, step = list(state["loss"]), list(state["selection"]), state["step"]
    observed = list(state["observed"])
    recent: list[torch.Tensor] = [torch.tensor(x) for x in state["recent"]]
    length = Length(all_steps, spec.budget.minutes, state["spent"])
    best = Best(model.trained(), spec, checkpoints.best())
    shown, finished = 0.0, False
    batches = groups_of_batches(train, spec, start=step)
    model.train()
    while not finished:
        step += 1
        started = time.monotonic()
        train_step.steps = length.total(step - 1)
        train_step.start(step)
        recent.append(train_step(train, next(batches)))
        if spec.budget.minutes is not None:
            float(recent[-1])  # waits for a GPU
            length.spent += time.monotonic() - started
        finished = length.reached(step)
        if step % record_every == 0 or finished:
            losses.append([step, _mean_loss(recent, step, train_step)])
            recent = []
        if step % steps_per_epoch == 0 or finished:
            if recent:
                _mean_loss(recent, step, train_step)  # a loss says better where it diverged
            scores.append([step, _selection_scores(train_step, selection, spec, step)])
            if method is not None and (seen := method.observe(model)):
                observed.append([step, seen])
            finished = best.look(scores) or finished
            if not finished:
                watch(scores)
            model.train()
        if time.monotonic() - shown > 0.25 or finished:
            steps = step if finished else length.total(step)
            progress(step, steps, float(recent[-1]) if recent else losses[-1][1])
            shown = time.monotonic()
        if not finished and team.saving(checkpoints.due()):
            if recent:
                _mean_loss(recent, step, train_step)  # a diverged state is never kept
            state = {"step": step, "loss": losses, "selection": scores, "observed": observed}
            state |= {"spent": length.spent, "recent": [float(x) for x in recent]}
            checkpoints.save(state, best.weights, writes=team.first)
    if recent:
        losses.append([step, _mean_loss(recent, step, train_step)])
    train_step.finish()
    kept = best.restore(scores)
    history = {"steps": step, "loss": losses, "selection": scores, "kept": kept}
    return history | ({"observed": observed} if observed else {})


class Best:
    """The weights with the best selection score, where the budget has patience.

    Args:
        parameters: Name → parameter of what trains.
        spec: Its budget's patience, and the metric that decides.
        weights: The best weights so far, from a checkpoint.
    """

    def __init__(
        self,
        parameters: dict[str, torch.Tensor],
        spec: RunSpec,
        weights: dict[str, torch.Tensor],
    ) -> None:
        self._parameters = parameters
        self._patience = spec.budget.patience
        self._metric = spec.data.metrics[0]
        self.weights = weights

    def look(self, scores: list[Any]) -> bool:
        """Look at the newest score; True when patience is at its end."""
        if self._patience is None:
            return False
        best = self._index(scores)
        if best == len(scores) - 1:
            self.weights = {k: whole(v).clone() for k, v in self._parameters.items()}
        return len(scores) - 1 - best >= self._patience

    def restore(self, scores: list[Any]) -> list[Any]:
        """Give the model the weights to keep, and return their step and scores."""
        if self._patience is None:
            return list(scores[-1])
        with torch.no_grad():
            for name, parameter in self._parameters.items():
                parameter.copy_(like(self.weights[name], parameter))
        return list(scores[self._index(scores)])

    def _index(self, scores: list[Any]) -> int:
        """The first of the best scores."""
        values = [entry[1][self._metric] for entry in scores]
        return values.index(max(values))


def _selection_scores(
    train_step: TrainStep, rows: Rows, spec: RunSpec, step: int
) -> dict[str, float]:
    logits = predict_logits(train_step.plain, rows, train_step.device, train_step.team)
    if not np.isfinite(logits).all():  # the last step's damage shows in no loss any more
        raise _diverged("nan", step, train_step)
    return train_step.team.told(lambda: score(spec.data, rows, logits))


def groups_of_batches(train: Rows, spec: RunSpec, start: int) -> Iterator[list[np.ndarray]]:
    """Batches of each optimiser step, epoch after epoch without end, from step ``start`` on.

    The order depends on the seed and the data alone: runs of one seed see the same rows in the same
    order whatever the method.
    """
    size = spec.training.batch_size
    per_step = spec.training.accumulate
    lengths = train.lengths
    _, steps_per_epoch = count_steps(spec, len(train))
    epoch, skip = divmod(start, steps_per_epoch)
    while True:
        generator = np.random.default_rng([derived_seed(spec.seed, "order"), epoch])
        batches = training_batches(lengths, size, generator)
        groups = [batches[i : i + per_step] for i in range(0, len(batches), per_step)]
        yield from groups[skip:]
        epoch, skip = epoch + 1, 0


def count_steps(spec: RunSpec, rows: int) -> tuple[int | None, int]:
    """Optimiser steps of the whole run (None under a time limit), and of one epoch."""
    batches = math.ceil(rows / spec.training.batch_size)
    per_epoch = math.ceil(batches / spec.training.accumulate)
    if spec.budget.epochs is not None:
        return spec.budget.epochs * per_epoch, per_epoch
    return spec.budget.steps, per_epoch


def _mean_loss(recent: list[torch.Tensor], step: int, train_step: TrainStep) -> float:
    """Mean of the losses of the last steps, the last of them ``step``, checked one by one."""
    values = torch.stack([x.cpu() for x in recent]).tolist()
    for offset, value in enumerate(values):
        if not math.isfinite(value):
            raise _diverged(value, step - len(values) + 1 + offset, train_step)
    return float(sum(values) / len(values))


def _diverged(value: object, step: int, train_step: TrainStep) -> TrainingDiverged:
    return TrainingDiverged(
        f"the loss became {value} at step {step} (learning rate {train_step.rate(step):.3g})",
        "lower the method's learning_rate, or raise training.warmup",
    )
