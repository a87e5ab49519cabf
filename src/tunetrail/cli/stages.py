"""The stages, as the commands that DVC and the flow run."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from tunetrail.cli import names
from tunetrail.cli.root import PARAMS, ParamsOption, app
from tunetrail.files import read_json

_STAGES = "Stages (run by DVC and by the flow)"

#: The share of a training between two log lines.
_LOGGED_SHARE = 0.1

#: As ``training.schedule.Progress``, which takes seconds to import.
Progress = Callable[[int, int, float], None]

#: A run of ``more_seeds`` is that of the plan with another seed.
SeedOption = Annotated[
    int | None, typer.Option(min=0, help="Seed of the training, if not that of the run.")
]

#: What params.yaml may leave out is written into commands: nothing else tells DVC that it is gone.
OptionalPart = Annotated[str, typer.Option(hidden=True)]

_log = logging.getLogger("tunetrail.train")


@app.command(rich_help_panel=_STAGES)
def base(source: Path, out: Path) -> None:
    """Fetch and check the base model.

    Example: tunetrail base data/minilm.yaml models/base
    """
    from tunetrail.stages.base import fetch_base

    fetch_base(source, out)


@app.command(rich_help_panel=_STAGES)
def ingest(
    task: Annotated[str, typer.Argument(autocompletion=names.planned_tasks)],
    out: Path,
    params: ParamsOption = PARAMS,
) -> None:
    """Read a task's source into canonical Parquet and write its dataset card.

    Example: tunetrail ingest movie data/canonical/movie
    """
    from tunetrail.errors import unknown
    from tunetrail.params import read_params, task_of
    from tunetrail.stages.ingest import ingest as stage

    wanted = read_params(params)
    if task not in wanted.tasks:
        raise unknown("task", task, wanted.tasks, str(params))
    stage(task_of(wanted, task, params), out)


@app.command(rich_help_panel=_STAGES)
def validate(
    canonical: Path,
    out: Path,
    data_docs: Annotated[
        Path | None, typer.Option(help="Also write Great Expectations' HTML page here.")
    ] = None,
) -> None:
    """Check the data; stop when it fails beyond the task's declared shares.

    Example: tunetrail validate data/canonical/movie data/validated/movie
    """
    from tunetrail.stages.validate import validate as stage

    stage(canonical, out, data_docs)


@app.command(rich_help_panel=_STAGES)
def prepare(
    canonical: Path,
    validated: Path,
    base_model: Path,
    out: Path,
    max_length: Annotated[int, typer.Option(help="Tokens a text is cut to.")] = 128,
) -> None:
    """Split and tokenise; the test set goes to a folder of its own."""
    from tunetrail.stages.prepare import prepare as stage

    stage(canonical, validated, base_model, max_length, out)


@app.command(rich_help_panel=_STAGES)
def tune(
    context: typer.Context,
    label: Annotated[str, typer.Argument(help="Label under methods.")],
    budget: Annotated[str, typer.Argument(help="Label under tuning.trials.")],
    base_model: Path,
    data: Path,
    task: Annotated[Path, typer.Argument(help="Folder of the frozen task.")],
    out: Path,
    params: ParamsOption = PARAMS,
) -> None:
    """Choose a method's options by trials on the selection set.

    Example: tunetrail tune lora full models/base data/prepared/movie/{fit,tapt} out/
    """
    from tunetrail.errors import unknown
    from tunetrail.params import read_params
    from tunetrail.stages.tune import tune as stage

    wanted = read_params(params)
    if label not in wanted.methods:
        raise unknown("method", label, wanted.methods, str(params))
    if budget not in wanted.tuning.trials:
        raise unknown("budget", budget, wanted.tuning.trials, f"{params}: tuning.trials")

    def work(progress: Progress) -> None:
        stage(wanted, params, label, budget, base_model, data, task, out, _logged(progress))

    _with_progress(context, f"{label}, trials", work)


@app.command(rich_help_panel=_STAGES)
def resolve(
    canonical: Path,
    base_model: Path,
    prepared: Path,
    out: Path,
    tuned: OptionalPart = "",
    params: ParamsOption = PARAMS,
) -> None:
    """Freeze every run of a task to one JSON file."""
    from tunetrail.params import read_params
    from tunetrail.stages.resolve import resolve as stage

    stage(read_params(params), params, canonical, base_model, prepared, out)


@app.command(rich_help_panel=_STAGES)
def corpus(
    label: Annotated[str, typer.Argument(help="Label under pretraining.domain.")],
    canonical: Path,
    base_model: Path,
    out: Path,
    max_length: Annotated[int, typer.Option(help="Tokens of a window.")] = 128,
    params: ParamsOption = PARAMS,
) -> None:
    """Prepare a domain's text for pretraining, without what tasks hold out.

    Example: tunetrail corpus biomed data/canonical models/base data/corpus/biomed
    """
    from tunetrail.errors import unknown
    from tunetrail.params import read_params
    from tunetrail.stages.corpus import corpus as stage

    domains = read_params(params).pretraining.domain
    if label not in domains:
        raise unknown("domain", label, domains, str(params))
    stage(domains[label], canonical, base_model, max_length, out)


@app.command(rich_help_panel=_STAGES)
def pretrain(
    context: typer.Context,
    text: Path,
    base_model: Path,
    out: Path,
    domain: Annotated[str, typer.Option(help="Label under pretraining.domain.")] = "",
    after: Annotated[str, typer.Option(help="Key under pretraining.task.")] = "",
    params: ParamsOption = PARAMS,
) -> None:
    """Continue the pretraining of a base model by masked-language modelling.

    Example: tunetrail pretrain --domain biomed data/corpus/biomed/text.parquet models/base out/
    """
    from tunetrail.errors import TuneTrailError, unknown
    from tunetrail.params import read_params
    from tunetrail.pretraining import adapted
    from tunetrail.stages.pretrain import pretrain as stage
    from tunetrail.training.numerics import settled

    wanted = read_params(params)
    numerics = settled(**wanted.numerics.model_dump())
    if bool(domain) == bool(after):
        raise TuneTrailError("neither a domain nor a task's text, or both", "--domain or --after")
    objectives = wanted.pretraining.objectives()
    start = domain or adapted(after)
    if start not in objectives:
        raise unknown("start", start, objectives, str(params))

    def work(progress: Progress) -> None:
        stage(objectives[start], numerics, text, base_model, out, _logged(progress))

    _with_progress(context, start, work)


@app.command(rich_help_panel=_STAGES)
def train(
    context: typer.Context,
    run: Path,
    base_model: Path,
    data: Path,
    out: Path,
    seed: SeedOption = None,
) -> None:
    """Train one frozen run.

    Example: tunetrail train plan/movie/lora/1.json models/base data/prepared/movie/fit out/
    """
    from tunetrail.stages.train import train as stage

    def work(progress: Progress) -> None:
        stage(run, base_model, data, out, _logged(progress), seed)

    _with_progress(context, read_json(run).get("method", "run"), work)


def _with_progress(context: typer.Context, name: str, work: Callable[[Progress], None]) -> None:
    """Do ``work``, which tells of its steps: to the flow that started it, or on a bar."""
    if context.obj is not None:
        work(context.obj)
        return
    from tqdm import tqdm

    with tqdm(disable=None, unit="step", desc=name) as bar:

        def show(step: int, steps: int, loss: float) -> None:
            bar.total = steps
            bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
            bar.update(step - bar.n)

        work(show)


def _logged(show: Progress) -> Progress:
    """The same, with a log line now and then."""

    logged = 0.0

    def report(step: int, steps: int, loss: float) -> None:
        nonlocal logged
        if step / steps >= logged:
            _log.info("step %d of %d, loss %.4f", step, steps, loss)
            logged = step / steps + _LOGGED_SHARE
        show(step, steps, loss)

    return report


@app.command(rich_help_panel=_STAGES)
def cost(
    run: Path,
    base_model: Path,
    data: Path,
    out: Path,
    steps: Annotated[int, typer.Option(min=1, help="Measured steps.")] = 10,
) -> None:
    """Measure speed, memory and size of a run's method, alone on the machine."""
    from tunetrail.stages.cost import cost as stage

    stage(run, base_model, data, steps, out)


@app.command(rich_help_panel=_STAGES)
def evaluate(
    run: Path,
    base_model: Path,
    adapter: Path,
    data: Path,
    out: Path,
    seed: SeedOption = None,
) -> None:
    """Score a trained run on the test set and keep every prediction."""
    from tunetrail.stages.evaluate import evaluate as stage

    stage(run, base_model, adapter, data, out, seed)


@app.command(rich_help_panel=_STAGES)
def select(task_plan: Path, trained: Path, out: Path) -> None:
    """Choose, on selection scores, the seed of each method and the winner of a task."""
    from tunetrail.stages.select import select as stage

    stage(task_plan, trained, out)


@app.command(rich_help_panel=_STAGES)
def export(
    selected: Path,
    base_model: Path,
    data: Path,
    out: Path,
    tolerance: Annotated[float, typer.Option(help="Largest logit difference.")] = 1e-4,
) -> None:
    """Write a chosen run as ONNX, with a certificate that it predicts the same."""
    from tunetrail.stages.export import export as stage

    stage(selected, base_model, data, tolerance, out)


@app.command(rich_help_panel=_STAGES)
def compare(
    plan_folder: Path,
    data: Path,
    runs: Path,
    base_model: Path,
    out: Path,
    tuned: OptionalPart = "",
    more_seeds: OptionalPart = "",
    limits: OptionalPart = "",
    params: ParamsOption = PARAMS,
) -> None:
    """Put all results into a table, JSON, plots and the report."""
    from tunetrail.params import read_params
    from tunetrail.stages.compare import compare as stage

    stage(read_params(params), plan_folder, data, runs, base_model, out)


@app.command(rich_help_panel=_STAGES)
def register(
    comparison: Path, plan_folder: Path, data: Path, runs: Path, base_model: Path, out: Path
) -> None:
    """Write the receipt of what should be in MLflow, and what each winner comes from."""
    from tunetrail.lineage.trace import trace
    from tunetrail.stages.register import register as stage

    stage(comparison, runs / "export", out)
    trace(out, comparison, plan_folder, data, runs, base_model, runs / "lineage")
