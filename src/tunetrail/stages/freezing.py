"""How a label of ``params.yaml`` becomes a frozen run, the same for the plan and for tuning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tunetrail import methods
from tunetrail.code import code_digest
from tunetrail.errors import TuneTrailError
from tunetrail.files import read_json, tree_digest
from tunetrail.kinds import kind_of
from tunetrail.layout import CARD, PRETRAIN
from tunetrail.methods._count import trained_parameters
from tunetrail.modeling.base import check_base, checkpoint_folder, read_base
from tunetrail.params import Params, method_name, start_of
from tunetrail.run import PRETRAINED, BaseModel, Budget, Data, MethodSpec, RunSpec, Start
from tunetrail.task import TaskSpec
from tunetrail.training.numerics import settled
from tunetrail.training.processes import check_devices


class Freezer:
    """Freezes runs of one task.

    Args:
        params: The parameters.
        path: Where they were read, for messages.
        task: The frozen task.
        base: What the base stage wrote.
        fit: The ``fit`` output of the prepare stage.
        test: Its ``test`` output; None for runs that must not depend on it.

    Raises:
        TuneTrailError: The base model cannot be used, a budget does not fit the data, or there are
            fewer GPUs than processes.
    """

    def __init__(
        self, params: Params, path: Path, task: TaskSpec, base: Path, fit: Path, test: Path | None
    ) -> None:
        self._params, self._path, self._base = params, path, base
        weights, self._card = read_base(base)
        self._config = check_base(weights)
        self._data = Data(
            task=task.name,
            labels=task.labels,
            range=task.range,
            answers=task.answers,
            metrics=task.metrics,
            fit=tree_digest(fit),
            test=None if test is None else tree_digest(test),
        )
        self._pooling = params.base.pooling if kind_of(task).pooled else "none"
        self._numerics = settled(**params.numerics.model_dump())
        check_devices(self._numerics)
        for label, budget in params.budgets.items():
            _check_shots(budget, read_json(fit / CARD)["sets"]["train"], label, path)

    def check(self, method: methods.Method) -> None:
        """Refuse a method that the base model cannot hold.

        Raises:
            TuneTrailError: With the option, its value and the rule.
        """
        method.check(self._card, self._params.base.max_length)
        trained_parameters(method, self._config, self._pooling)  # attaches it, without numbers

    def run(self, label: str, method: methods.Method, budget: str, seed: int) -> RunSpec:
        """The frozen run of a label, budget and seed, with the options that ``method`` has.

        Raises:
            TuneTrailError: The checkpoint that the label starts from is not there.
        """
        name = method_name(self._params, label)
        return RunSpec.model_validate(
            {
                **self._started(label),
                "data": self._data,
                "method": MethodSpec(name=name, options=method.model_dump(mode="json")),
                "seed": seed,
                "budget": self._params.budgets[budget],
                "training": self._params.training,
                "numerics": self._numerics,
                "code": training_code(name, self._data.metrics),
            }
        )

    def _started(self, label: str) -> dict[str, Any]:
        """The parts of a run that say what it starts from."""
        start = start_of(self._params, label, self._path)
        folder = checkpoint_folder(start, self._base, self._data.task)
        model = BaseModel(
            digest=read_base(folder)[1]["digest"],
            max_length=self._params.base.max_length,
            pooling=self._pooling,
        )
        if start == PRETRAINED:
            return {"base": model}
        pretraining = read_json(folder / PRETRAIN)["pretraining"]
        return {"base": model, "start": Start(name=start, digest=pretraining)}


def _check_shots(budget: Budget, train: dict[str, Any], label: str, path: Path) -> None:
    for name, rows in train["labels"].items():
        if budget.shots is not None and 0 < rows < budget.shots:
            raise TuneTrailError(
                f"{path}: budgets.{label}: shots is {budget.shots}, "
                f"but the training set has {rows} rows of '{name}'",
                f"lower shots to {rows} or less, or raise the task's limits.train",
            )


def training_code(method: str, metrics: tuple[str, ...]) -> str:
    """Digest of all source code that decides what training this method gives."""
    return code_digest(
        "tunetrail.stages.train",
        f"{methods.__name__}.{method}",
        *(f"tunetrail.metrics.{name}" for name in metrics),
    )
