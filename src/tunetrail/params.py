"""``params.yaml``: what to compare. The one place where a comparison is described."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from tunetrail import methods, metrics
from tunetrail.errors import TuneTrailError, unknown
from tunetrail.files import read_json
from tunetrail.gate.policy import Gate
from tunetrail.kinds import kind_of
from tunetrail.modeling.sites import check_masked
from tunetrail.pretraining import DomainText, Pretraining
from tunetrail.run import BASE, PRETRAINED, Budget, Pooling, Training
from tunetrail.settings import Settings, parse, read_yaml
from tunetrail.sources import read_source
from tunetrail.task import TaskSpec, load_task
from tunetrail.tuning import Space, Tuning, space_of

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_]*")


class Base(Settings):
    """The base model."""

    source: Path = Field(description="model folder or pointer file")
    max_length: int = Field(default=128, ge=4, le=8192, description="tokens a text is cut to")
    pooling: Pooling = Field(default="mean", description="what the head reads")


class RequestedNumerics(Settings):
    """Numerics as asked for; ``auto`` is settled when the plan is frozen."""

    precision: Literal["auto", "bf16", "fp32"] = "auto"
    threads: int = Field(default=1, ge=1, description="CPU threads of one process")
    processes: int = Field(
        default=1, ge=1, description="that train one run together; each has a GPU, if there are any"
    )
    sharding: Literal["none", "fsdp"] = Field(
        default="none", description="fsdp: each process holds a part of the weights only"
    )

    @property
    def width(self) -> int:
        """Runs side by side that have a core for each thread."""
        return max(1, (os.cpu_count() or 1) // (self.threads * self.processes))


class Cost(Settings):
    """The cost stage."""

    steps: int = Field(default=10, ge=1, description="measured steps of each task and method")


class Export(Settings):
    """The export stage."""

    tolerance: float = Field(
        default=1e-4, gt=0, description="largest logit difference that may be registered"
    )


class Limits(Settings):
    """Most that a method may cost, for ``tunetrail recommend``; what is left out has no limit."""

    trainable_parameters: float | None = Field(default=None, gt=0)
    train_seconds: float | None = Field(default=None, gt=0, description="of one run")
    memory_mb: float | None = Field(default=None, gt=0, description="peak of training, 2²⁰ bytes")
    artifact_mb: float | None = Field(default=None, gt=0, description="what is saved of a run")
    model_mb: float | None = Field(default=None, gt=0, description="the exported ONNX file")
    latency_ms: float | None = Field(default=None, gt=0, description="p50 of one text, ONNX")


class Retrain(Settings):
    """What follows from new data (``make retrain``)."""

    methods: Literal["champion", "all"] = Field(
        default="champion",
        description="train the champion's method of each task again, or the whole comparison",
    )
    push: bool = Field(
        default=False, description="send data, results and run cache to DVC's remote"
    )
    branch: str | None = Field(
        default=None, description="branch of git that gets dvc.lock and the versions of the data"
    )
    notify: tuple[str, ...] = Field(
        default=(), description="command that is given the report as JSON on standard input"
    )


class Runner(Settings):
    """Where the flow executes trainings and what needs no timing. It decides no result."""

    kind: Literal["local", "ray"] = Field(
        default="local", description="processes of this machine, or a Ray cluster"
    )
    address: str = Field(
        default="auto", description="of the cluster: auto, host:port or ray://host:port"
    )
    cpus: float = Field(default=1, gt=0, description="that a stage reserves on its node")
    gpus: float = Field(default=0, ge=0, description="that a stage reserves: 0.25 lets four share")
    width: int | None = Field(
        default=None, ge=1, description="stages side by side (default: as nodes have room)"
    )

    @field_validator("address")
    @classmethod
    def _an_address(cls, value: str) -> str:
        if value != "auto" and not re.fullmatch(r"(ray://)?[^/\s:@]+:\d{1,5}", value):
            raise ValueError("give 'auto', 'host:port' or 'ray://host:port'")
        return value

    @field_validator("gpus")
    @classmethod
    def _a_share(cls, value: float) -> float:
        if value > 1 and value != int(value):
            raise ValueError("more than one GPU must be a whole number")
        return value

    @model_validator(mode="after")
    def _only_of_ray(self) -> Runner:
        given = self.model_fields_set - {"kind"}
        if self.kind == "local" and given:
            raise ValueError(f"'{min(given)}' is only for `kind: ray`")
        return self


class AddedRun(Settings):
    """A run beyond ``seeds``, with the main budget."""

    task: str
    method: str = Field(description="its label")
    seed: int = Field(ge=0)

    @property
    def name(self) -> str:
        """What the run is called in ``more_seeds.added``."""
        return f"{self.task}-{self.method}-{self.seed}"


class MoreSeeds(Settings):
    """Further seeds for open verdicts; they narrow intervals and choose nothing."""

    most: int = Field(default=0, ge=0, description="seeds that a method may have in all; 0: none")
    runs: int | None = Field(default=None, ge=1, description="upper limit on further runs")
    added: dict[str, AddedRun] = Field(
        default_factory=dict, description="runs so far, written by the flow and `tunetrail seeds`"
    )


class Params(Settings):
    """Everything in ``params.yaml``. Top-level keys have no defaults: DVC tracks them by name."""

    project: str = Field(description="name of the comparison, and of the MLflow experiment")
    base: Base
    tasks: dict[str, dict[str, Any]] = Field(min_length=1)
    methods: dict[str, dict[str, Any]] = Field(min_length=1)
    baseline: str = Field(description="method that the others are judged against, or empty")
    margin: float = Field(
        gt=0,
        lt=1,
        description="difference of the first metric, in raw units, that does not matter",
        examples=[0.01],
    )
    seeds: tuple[int, ...] = Field(min_length=1)
    budgets: dict[str, Budget] = Field(min_length=1, description="label → data and time of a run")
    main_budget: str = Field(description="label of the budget that chooses the winner and ships")
    training: Training
    numerics: RequestedNumerics
    cost: Cost
    export: Export
    pretraining: Pretraining = Field(
        default=Pretraining(), description="checkpoints to start from (dvc.yaml has the default)"
    )
    tuning: Tuning = Field(
        default=Tuning(), description="trials that choose options (dvc.yaml has the default)"
    )
    more_seeds: MoreSeeds = Field(
        default=MoreSeeds(), description="beyond `seeds` (dvc.yaml has the default)"
    )
    limits: Limits = Limits()  # dvc.yaml has the default
    gate: Gate = Field(default=Gate(), description="between champion and challenger")

    retrain: Retrain = Retrain()
    runner: Runner = Field(default=Runner(), description="where the flow executes stages")

    @field_validator("project")
    @classmethod
    def _plain(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", value):
            raise ValueError("use letters, digits, '_', '-' and '.'")
        return value

    @field_validator("tasks", "methods", "budgets")
    @classmethod
    def _plain_names(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name in value:
            if not _NAME.fullmatch(name):
                raise ValueError(f"'{name}' names a folder: use letters, digits and '_'")
        return value

    @field_validator("pretraining")
    @classmethod
    def _plain_domains(cls, value: Pretraining) -> Pretraining:
        cls._plain_names(value.domain)
        return value

    @field_validator("seeds")
    @classmethod
    def _different(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(value)) != len(value):
            raise ValueError("seeds must be different from each other")
        if min(value) < 0:
            raise ValueError("seeds must not be negative")
        return value


def read_params(path: Path) -> Params:
    """Read ``params.yaml`` and check everything that can be known before any work.

    Raises:
        TuneTrailError: The first thing that is wrong.
    """
    params = parse(Params, read_yaml(path), str(path))
    for name in params.tasks:
        task_of(params, name, path)
    _check_pretraining(params, path)
    for name in params.methods:
        method_of(params, name, path)
        start_of(params, name, path)
    if params.main_budget not in params.budgets:
        raise unknown("main_budget", params.main_budget, params.budgets, str(path))
    if params.baseline and params.baseline not in params.methods:
        raise unknown("baseline", params.baseline, params.methods, str(path))
    _check_tuning(params, path)
    _check_more_seeds(params, path)
    _check_gate(params, path)
    _check_processes(params, path)
    return params


def sources(params: Params, path: Path) -> dict[str, Path]:
    """Every source that the parameters name, by its key."""
    named = {"base.source": params.base.source}
    named |= {f"tasks.{n}.source": task_of(params, n, path).source for n in params.tasks}
    domains = params.pretraining.domain.items()
    return named | {f"pretraining.domain.{n}.text": domain.text for n, domain in domains}


def check_sources(params: Params, path: Path) -> None:
    """Check that every source is there and, if it is a pointer, well formed.

    Raises:
        TuneTrailError: Names the key of the first one that is not; or a base model that lies here
            cannot be pretrained as asked.
    """
    for key, source in sources(params, path).items():
        try:
            read_source(source)
        except TuneTrailError as error:
            raise TuneTrailError(f"{path}: {key}: {error.problem}", error.fix) from None
    config = params.base.source / "config.json"
    if params.pretraining.objectives() and config.is_file():  # else the pretrain stage says it
        check_masked(read_json(config).get("model_type", ""))


def task_of(params: Params, name: str, path: Path) -> TaskSpec:
    """Task ``name`` of the plan, built-in declaration and overrides together."""
    where = f"{path}: tasks.{name}"
    task = load_task(name, params.tasks[name], where)
    predicts = kind_of(task).predicts
    for metric in task.metrics:
        metrics.find(metric, where).check(predicts, len(task.labels), where)
    for label, budget in params.budgets.items():
        if budget.shots is not None and not task.labels:
            raise TuneTrailError(
                f"{path}: budgets.{label}: shots are rows of each class, "
                f"but task '{name}' predicts {predicts}",
                "use 'fraction', or remove the task",
            )
    return task


def method_of(params: Params, label: str, path: Path) -> methods.Method:
    """The method that ``params.yaml`` calls ``label``, every option resolved.

    The key ``method`` says which method it is; without it the label is the method's name. The key
    ``start`` is no option of the method: see :func:`start_of`.
    """
    options = dict(params.methods[label])
    options.pop("start", None)
    name = options.pop("method", label)
    if not isinstance(name, str):
        raise TuneTrailError(
            f"{path}: methods.{label}: 'method' is {name!r}, not a name", "give a method's name"
        )
    return methods.resolve(name, options, f"{path}: methods.{label}")


def method_name(params: Params, label: str) -> str:
    """Name of the method behind ``label``."""
    return str(params.methods[label].get("method", label))


def start_of(params: Params, label: str, path: Path) -> str:
    """Name of the model that ``label`` starts from: its key ``start``, or the base model.

    Raises:
        TuneTrailError: ``pretraining`` has no such start.
    """
    start = params.methods[label].get("start", PRETRAINED)
    known = params.pretraining.starts()
    if start not in known:
        raise unknown("start", str(start), known, f"{path}: methods.{label}")
    return str(start)


def search_space(params: Params, label: str, path: Path) -> Space:
    """Where tuning searches the options of ``label``.

    Raises:
        TuneTrailError: What ``tuning.search`` says of it does not fit the method.
    """
    return space_of(
        method_name(params, label),
        method_of(params, label, path),
        params.tuning.search.get(label, {}),
        params.tuning.factor,
        f"{path}: tuning.search.{label}",
    )


def _check_tuning(params: Params, path: Path) -> None:
    """Check what is tuned, and where every method is searched.

    Raises:
        TuneTrailError: The first thing that is wrong.
    """
    tuning = params.tuning
    for label in tuning.trials:
        if label not in params.budgets:
            raise unknown("budget", label, params.budgets, f"{path}: tuning.trials")
        if params.budgets[label].minutes is not None:
            raise TuneTrailError(
                f"{path}: tuning.trials.{label}: budgets.{label} is a number of minutes: its "
                "trials could not be repeated, and the choice neither",
                "tune with a budget of epochs or steps; the others take its choice",
            )
    for label in tuning.search:
        if label not in params.methods:
            raise unknown("method", label, params.methods, f"{path}: tuning.search")
    if tuning.trials and tuning.seed in params.seeds:
        raise TuneTrailError(
            f"{path}: tuning.seed is {tuning.seed}, one of 'seeds': options would be chosen for a "
            "seed that is then compared",
            f"give tuning.seed another number than {', '.join(map(str, params.seeds))}",
        )
    for label in params.methods:
        search_space(params, label, path)


def _check_pretraining(params: Params, path: Path) -> None:
    """Check what ``pretraining`` continues, and that no task's own data passes for domain text.

    Raises:
        TuneTrailError: The first thing that is wrong.
    """
    domains = params.pretraining.domain
    for after in params.pretraining.task:
        if after != BASE and after not in domains:
            raise unknown("model", after, [BASE, *domains], f"{path}: pretraining.task")
    for label, domain in domains.items():
        for name in params.tasks:
            if _same_data(domain, task_of(params, name, path)):
                raise TuneTrailError(
                    f"{path}: pretraining.domain.{label}: '{domain.text}' is the data of task "
                    f"'{name}', its test set included",
                    "pretrain on the training text of each task with pretraining.task.base, or "
                    "name other text",
                )


def _check_more_seeds(params: Params, path: Path) -> None:
    """Check that further seeds go beyond those of all, and that pairs stay pairs.

    Raises:
        TuneTrailError: The first thing that is wrong.
    """
    more, where = params.more_seeds, f"{path}: more_seeds"
    if not more.most:
        if more.added:
            raise TuneTrailError(
                f"{where}: there are runs under 'added', but no 'most'",
                "remove 'added', or give 'most': how many seeds a method may have",
            )
        return
    if not params.baseline:
        raise TuneTrailError(f"{where}: without a baseline no verdict is open", "give a baseline")
    if len(params.seeds) < 2 or more.most <= len(params.seeds):
        raise TuneTrailError(
            f"{where}: most is {more.most}, with {len(params.seeds)} seeds for all",
            "start with at least two seeds, and let 'most' be larger than their number",
        )
    for name, run in more.added.items():
        wrong = (
            name != run.name
            or run.task not in params.tasks
            or run.method not in params.methods
            or run.seed in params.seeds
            or run.model_copy(update={"method": params.baseline}).name not in more.added
        )
        if wrong:
            raise TuneTrailError(
                f"{where}.added.{name}: not a further seed of a method and the baseline "
                f"'{params.baseline}' on a task of this file",
                "remove what is under 'added': what is still open gets its seeds again",
            )


def _check_processes(params: Params, path: Path) -> None:
    """Check that several processes can share every training.

    Raises:
        TuneTrailError: The first thing that is wrong.
    """
    processes, sharded = params.numerics.processes, params.numerics.sharding == "fsdp"
    if processes == 1:
        if sharded:
            raise TuneTrailError(
                f"{path}: numerics.sharding is fsdp, which divides weights among processes, and "
                "numerics.processes is 1",
                "raise numerics.processes, or remove sharding",
            )
        return
    made = {f"the pretraining '{n}'": how for n, how in params.pretraining.objectives().items()}
    rows = {"training": params.training.batch_size}
    rows |= {name: how.training.batch_size for name, how in made.items()}
    for name, batch_size in rows.items():
        if batch_size < processes:
            raise TuneTrailError(
                f"{path}: numerics.processes is {processes}, and the batch_size of {name} is "
                f"{batch_size}: each process takes its share of every batch",
                f"lower processes to {batch_size} or less, or raise batch_size",
            )
    minutes = {f"budgets.{label}": budget.minutes for label, budget in params.budgets.items()}
    minutes |= {name: how.budget.minutes for name, how in made.items()}
    for name, limit in minutes.items():
        if limit is not None:
            raise TuneTrailError(
                f"{path}: {name} has {limit:g} minutes, which the {processes} processes of a "
                "training would count each by its own clock",
                "give epochs or steps, or set numerics.processes to 1",
            )
    if not sharded:
        return
    for name in made:
        raise TuneTrailError(
            f"{path}: numerics.sharding is fsdp, and {name} cannot be sharded",
            "set sharding to none, or remove 'pretraining'",
        )
    for label in params.methods:
        obstacle = method_of(params, label, path).shard_obstacle()
        if obstacle is not None:
            raise TuneTrailError(
                f"{path}: numerics.sharding is fsdp, and methods.{label} cannot be sharded: "
                f"{obstacle}",
                f"set sharding to none, or leave out '{label}'",
            )


def _check_gate(params: Params, path: Path) -> None:
    """Check that what the gate slices by is there.

    Raises:
        TuneTrailError: A task has no column of the domain.
    """
    if "domain" not in params.gate.slices:
        return
    for name in params.tasks:
        task = task_of(params, name, path)
        if task.split.gate and task.columns.domain is None:
            raise TuneTrailError(
                f"{path}: gate.slices.domain: task '{name}' does not say which column holds the "
                "domain of a row",
                f"name it in tasks.{name}.columns.domain, or remove the slice",
            )


def _same_data(domain: DomainText, task: TaskSpec) -> bool:
    """Whether some file of the domain's text is, as far as names tell, one of the task's."""
    text, source = domain.text.resolve(), task.source.resolve()
    if text != source:
        return text.is_relative_to(source) or source.is_relative_to(text)
    if domain.files is None or task.files is None:
        return True
    return bool(set(domain.files) & set(task.files.values()))
