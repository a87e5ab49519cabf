"""tune: trials that choose a method's options for a task and budget, on its selection set.

A trial is a run, frozen and trained as those of the plan are. Optuna draws the options (TPE) and
stops what is worse than the median of the trials before it. It keeps nothing: for every trial its
study is made anew from the trials so far, with random numbers of the trial's own, so that the same
inputs give the same trials however often the stage was killed. The test set has no part in it.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

from filelock import FileLock

from tunetrail import methods, tuning
from tunetrail.errors import TrainingDiverged, TuneTrailError
from tunetrail.files import STATE_DIR, digest_of, file_digest, read_json, replacing, write_json
from tunetrail.layout import LEDGER, TRIALS
from tunetrail.params import Params, method_name, method_of, search_space
from tunetrail.run import RunSpec
from tunetrail.stages.freezing import Freezer
from tunetrail.stages.train import trained
from tunetrail.task import read_task
from tunetrail.training.checkpoint import forget
from tunetrail.training.numerics import derived_seed
from tunetrail.training.schedule import Progress, silent
from tunetrail.tuning import Choices, Space, edges, rounded, single_changes

#: Trials before the first that TPE draws and the first that may be pruned: half of them, at most
#: what Optuna has for TPE.
_MOST_STARTING = 10

_log = logging.getLogger("tunetrail.tune")


class _Pruned(Exception):
    """The trial is worse than the median of those before it."""


def tune(
    params: Params,
    path: Path,
    label: str,
    budget: str,
    base: Path,
    fit: Path,
    task: Path,
    out: Path,
    progress: Progress = silent,
) -> None:
    """Choose the options of one method for runs with one budget.

    ``out/ledger.json`` has every trial, the space, and the choice; ``out/trials/RUN.json`` the
    frozen run and the curves of each. Killed and started again, it repeats no finished trial.

    Args:
        params: The parameters.
        path: Where they were read, for messages.
        label: Label of the method.
        budget: Label of the budget.
        base: What the base stage wrote; checkpoints of continued pretraining lie beside it.
        fit: The ``fit`` output of the prepare stage.
        task: Folder of the frozen task.
        out: Folder to write.
        progress: See :data:`tunetrail.training.schedule.Progress`; over all trials.

    Raises:
        TuneTrailError: The space does not fit the base model, or every trial diverged.
    """
    study = _Study(params, path, label, budget, base, fit, task)
    started = time.monotonic()
    records: list[dict[str, Any]] = []
    count = params.tuning.trials[budget]
    for number in range(count):

        def show(step: int, steps: int, loss: float, before: int = number) -> None:
            progress(before * steps + step, count * steps, loss)

        records.append(study.trial(records, out, show))
        last = records[-1]
        _log.info("trial %d of %d: %s, %s", number + 1, count, last["options"], last["state"])
    _log.info("%d trials in %.1f s", count, time.monotonic() - started)
    ledger = study.ledger(records)
    with replacing(out) as folder:
        write_json(folder / LEDGER, ledger)
        for record in records:
            kept = ("run", "spec", "state", "loss", "selection")
            content = {key: record[key] for key in kept}
            write_json(folder / TRIALS / f"{record['run']}.json", content)


def study_digest(
    params: Params, path: Path, label: str, budget: str, base: Path, fit: Path, task: Path
) -> str:
    """sha256 (hex) of everything that decides what trials :func:`tune` makes, and their results."""
    return _Study(params, path, label, budget, base, fit, task).digest


class _Study:
    """The trials of a method, task and budget."""

    def __init__(
        self,
        params: Params,
        path: Path,
        label: str,
        budget: str,
        base: Path,
        fit: Path,
        task: Path,
    ) -> None:
        self._label, self._budget = label, budget
        self._base, self._fit = base, fit
        self._name, self._method = method_name(params, label), method_of(params, label, path)
        self._where = f"{path}: tuning.search.{label}"
        self._seed, self._count = params.tuning.seed, params.tuning.trials[budget]
        self._starting = max(2, min(_MOST_STARTING, self._count // 2))
        self._space: Space = search_space(params, label, path)
        self._task = read_task(task)
        self._metric = self._task.primary_metric
        self._freezer = Freezer(params, path, self._task, base, fit, None)
        for options in ({}, *single_changes(self._space)):
            self._freezer.check(self._with(options))
        code = {file: file_digest(Path(file)) for file in (__file__, tuning.__file__)}
        self.digest = digest_of(
            {
                "first": self._frozen({}).digest,
                "space": {option: where.shown for option, where in self._space.items()},
                "seed": self._seed,
                "trials": self._count,
                "code": sorted(code.values()),
            }
        )

    def trial(self, before: list[dict[str, Any]], out: Path, progress: Progress) -> dict[str, Any]:
        """The trial after those ``before``: as it was kept, or trained now."""
        trial = self._asked(before)
        options = {k: rounded(v) if isinstance(v, float) else v for k, v in trial.params.items()}
        if not before:  # the method's own, digit for digit
            options = {option: getattr(self._method, option) for option in self._space}
        for option, where in self._space.items():
            if not isinstance(where, Choices):
                options[option] = min(max(options[option], where.low), where.high)
        spec = self._frozen(options)
        file = STATE_DIR / TRIALS / f"{spec.digest}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        # Two labels may come to the same trial at the same time.
        with FileLock(file.with_suffix(".lock")):
            record = self._judged(self._kept(file, spec), trial)
            if record is None:
                trial = self._asked(before)
                record = self._trained(spec, trial, out, progress)
                write_json(file, record)
                forget(spec.digest)
        return {**record, "options": options, "spec": spec.model_dump(mode="json")}

    def ledger(self, records: list[dict[str, Any]]) -> dict[str, Any]:
        """Every trial in short, and the choice: the best score, the earliest of equal ones.

        Raises:
            TuneTrailError: No trial came to its end.
        """
        trials = [
            {
                "options": record["options"],
                "score": self._score(record),
                "state": record["state"],
                "steps": record["selection"][-1][0] if record["selection"] else 0,
                "seconds": record["seconds"],
                "run": record["run"],
            }
            for record in records
        ]
        complete = [trial for trial in trials if trial["state"] == "complete"]
        if not complete:
            raise TuneTrailError(
                f"all {len(trials)} trials of '{self._label}' on task '{self._task.name}' diverged",
                f"lower the method's learning_rate, or that of tuning.search.{self._label}",
            )
        chosen = max(complete, key=lambda trial: trial["score"])["options"]
        return {
            "task": self._task.name,
            "method": self._label,
            "budget": self._budget,
            "metric": self._metric,
            "study": self.digest,
            "trials": trials,
            "range": {option: where.shown for option, where in self._space.items()},
            "chosen": chosen,
            "edge": edges(self._space, chosen),
            "default_score": trials[0]["score"],
            "seconds": round(sum(trial["seconds"] for trial in trials), 2),
        }

    def _score(self, record: dict[str, Any]) -> float | None:
        """Of the weights that a run would keep; of a pruned trial the last one, of no use else."""
        if record["state"] == "failed":
            return None
        _, scores = record["kept"] if record["state"] == "complete" else record["selection"][-1]
        return float(scores[self._metric])

    def _with(self, options: dict[str, Any]) -> methods.Method:
        dumped = self._method.model_dump(mode="json")
        return methods.resolve(self._name, dumped | options, self._where)

    def _frozen(self, options: dict[str, Any]) -> RunSpec:
        return self._freezer.run(self._label, self._with(options), self._budget, self._seed)

    def _asked(self, before: list[dict[str, Any]]) -> Any:
        """Optuna's next trial after those ``before``."""
        import optuna
        from optuna.distributions import CategoricalDistribution, FloatDistribution
        from optuna.trial import TrialState, create_trial

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(
            direction="maximize",
            sampler=optuna.samplers.TPESampler(
                n_startup_trials=self._starting,
                seed=derived_seed(self._seed, f"trial {len(before)}"),
            ),
            pruner=optuna.pruners.MedianPruner(n_startup_trials=self._starting),
        )
        distributions = {
            option: CategoricalDistribution(where.values)
            if isinstance(where, Choices)
            else FloatDistribution(where.low, where.high, log=True)
            for option, where in self._space.items()
        }
        for record in before:
            complete = record["state"] == "complete"
            # TPE leaves failed trials out, but takes a pruned one without any score for the worst.
            seen = record["selection"] if record["state"] != "failed" else []
            study.add_trial(
                create_trial(
                    params=record["options"],
                    distributions=distributions,
                    value=self._score(record) if complete else None,
                    state=TrialState.COMPLETE if complete else TrialState.PRUNED,
                    intermediate_values={step: scores[self._metric] for step, scores in seen},
                )
            )
        if not before:
            study.enqueue_trial({option: getattr(self._method, option) for option in self._space})
        return study.ask(distributions)

    def _watching(self, trial: Any, seen: list[Any]) -> Any:
        """What tells Optuna of every new score, and ends the trial when it says so."""

        def watch(scores: list[Any]) -> None:
            for step, values in scores[len(seen) :]:
                seen.append([step, values])
                trial.report(values[self._metric], step)
                if trial.should_prune():
                    raise _Pruned

        return watch

    def _trained(self, spec: RunSpec, trial: Any, out: Path, progress: Progress) -> dict[str, Any]:
        """Train a trial; its weights are not kept."""
        seen: list[Any] = []
        began = time.monotonic()
        record: dict[str, Any] = {"run": spec.digest, "loss": []}
        try:
            watch = self._watching(trial, seen)
            _, history = trained(spec, self._base, self._fit, out, progress, watch)
        except _Pruned:
            record |= {"state": "pruned", "selection": seen}
        except TrainingDiverged:
            record |= {"state": "failed", "selection": seen}
        else:
            record |= {"state": "complete"}
            record |= {key: history[key] for key in ("loss", "selection", "kept")}
        return record | {"seconds": round(time.monotonic() - began, 2)}

    @staticmethod
    def _kept(file: Path, spec: RunSpec) -> dict[str, Any] | None:
        """The result of a trial that was finished before; None where there is none."""
        try:
            record: dict[str, Any] = read_json(file)
        except TuneTrailError:  # none, or cut off by a crash of the machine
            return None
        return record if record.get("run") == spec.digest else None

    def _judged(self, record: dict[str, Any] | None, trial: Any) -> dict[str, Any] | None:
        """What a finished trial is among those before it now; None where it was ended too early.

        Whether a trial is pruned depends on others, which may not be those of the time before.
        """
        if record is None:
            return None
        # After the last score of a whole training nothing is left to prune.
        points = record["selection"][: -1 if record["state"] == "complete" else None]
        seen: list[Any] = []
        try:
            self._watching(trial, seen)(points)
        except _Pruned:
            return {**record, "state": "pruned", "selection": seen}
        return None if record["state"] == "pruned" else record
