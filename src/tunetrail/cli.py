"""The command line. Every stage is a subcommand; DVC and the flow run exactly these commands."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import typer

from tunetrail.errors import TuneTrailError
from tunetrail.files import read_json

PARAMS = Path("params.yaml")

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="""
Which fine-tuning method should we use on our data, how sure are we, and how do we ship it?

[bold]params.yaml[/bold] names tasks, base model, methods, seeds and budget: the
[italic]plan[/italic], a list of [italic]runs[/italic]. Stages turn it into a
[italic]comparison[/italic]:

base, ingest → validate → prepare → resolve → train, cost → evaluate, select → export → compare →
register

Run them all with [bold]make run[/bold] (in parallel, through Prefect) or
[bold]dvc repro[/bold]; both run the subcommands below and leave the same files.

Examples:

  tunetrail plan                  what params.yaml asks for, and what is stale

  tunetrail methods lora          options and defaults of a method

  tunetrail tasks                 tasks that come with TuneTrail

  tunetrail sync                  bring MLflow up to the results on disk

  tunetrail verify                compare every result's bytes with what was recorded
""",
)

ParamsOption = Annotated[Path, typer.Option("--params", help="The parameters.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code (2 for bad input, without a traceback)."""
    if "DVC_STAGE" in os.environ:
        _end_with_parent()
    try:
        app(args=None if arguments is None else list(arguments))
    except TuneTrailError as error:
        typer.echo(f"error: {error}", err=True)
        return 2
    return 0


def execute(arguments: Sequence[str], progress: Any = None) -> None:
    """Run one command in this process; errors are raised.

    Args:
        arguments: As on the command line.
        progress: Called by the train stage instead of drawing a bar (``training.loop.Progress``).
    """
    app(args=list(arguments), standalone_mode=False, obj=progress)


def _end_with_parent() -> None:
    """End this process when the ``dvc repro`` that started it is gone.

    DVC leaves the command of a stage running when it is killed; the repeated one would write beside
    it.
    """
    parent = os.getppid()
    if os.getsid(parent) != os.getsid(0):  # it is gone already, and this is whoever adopts orphans
        os.kill(os.getpid(), signal.SIGKILL)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


# Inspecting ------------------------------------------------------------------------------------


@app.command()
def methods(
    name: Annotated[str | None, typer.Argument(help="Show this method's options.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List the fine-tuning methods, or one method's options.

    Example: tunetrail methods lora
    """
    from tunetrail import methods as registry

    shown = [name] if name else registry.names()
    kinds = {n: registry.method_class(n) for n in shown}
    if as_json:
        _print_json(
            {
                n: {
                    "title": kind.title,
                    "paper": kind.paper,
                    "mergeable": kind.not_mergeable is None,
                    "options": _options(kind),
                }
                for n, kind in kinds.items()
            }
        )
    elif name:
        kind = kinds[name]
        typer.echo(f"{kind.title} ({kind.paper})\n{(kind.__doc__ or '').strip()}\n")
        typer.echo(
            "merges into the base weights"
            if kind.not_mergeable is None
            else f"stays in the graph: {kind.not_mergeable}"
        )
        rows = [[o["name"], json.dumps(o["default"]), o["description"]] for o in _options(kind)]
        _print_table(["option", "default", "meaning"], rows)
    else:
        rows = [
            [n, kind.title, kind.paper, "yes" if kind.not_mergeable is None else "no"]
            for n, kind in kinds.items()
        ]
        _print_table(["method", "title", "paper", "merges"], rows)


@app.command()
def tasks(
    name: Annotated[str | None, typer.Argument(help="Show this task's declaration.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List the built-in tasks, or print one's declaration (a model for your own).

    Example: tunetrail tasks amazon
    """
    from tunetrail.errors import unknown
    from tunetrail.settings import read_yaml
    from tunetrail.task import built_in_tasks

    known = built_in_tasks()
    if name is not None and name not in known:
        raise unknown("task", name, known)
    if as_json:
        _print_json({n: read_yaml(p) for n, p in known.items() if name in (None, n)})
    elif name:
        typer.echo(known[name].read_text(encoding="utf-8"), nl=False)
    else:
        declared = {n: read_yaml(p) for n, p in known.items()}
        rows = [
            [n, d["title"], d["domain"], str(len(d["labels"])), ", ".join(d["metrics"])]
            for n, d in declared.items()
        ]
        _print_table(["task", "title", "domain", "classes", "metrics"], rows)


@app.command()
def plan(params: ParamsOption = PARAMS, as_json: JsonOption = False) -> None:
    """Show the runs that params.yaml asks for, and which stages are stale and why.

    Nothing is executed. Example: tunetrail plan --json
    """
    from tunetrail.dag import Dag, project_root, stale_cells
    from tunetrail.params import check_sources, read_params

    wanted = read_params(params)
    check_sources(wanted, params)
    stale = stale_cells(Dag(project_root(Path.cwd())))
    runs: list[dict[str, Any]] = [
        {
            "task": t,
            "method": m,
            "budget": b,
            "seed": s,
            "stale": stale.get(f"train@{t}-{m}-{b}-{s}", []),
        }
        for t, m, b, s in product(wanted.tasks, wanted.methods, wanted.budgets, wanted.seeds)
    ]
    if as_json:
        _print_json({"runs": runs, "stale": stale})
        return
    rows = [
        [
            r["task"],
            r["method"],
            r["budget"],
            str(r["seed"]),
            "; ".join(r["stale"][:2]) if r["stale"] else "up to date",
        ]
        for r in runs
    ]
    _print_table(["task", "method", "budget", "seed", "state"], rows)
    others = [name for name in stale if not name.startswith("train@")]
    waiting = sum(bool(r["stale"]) for r in runs)
    typer.echo(f"{waiting} of {len(runs)} runs are stale, and {len(others)} other stages.")


@app.command()
def sync(
    receipt: Annotated[Path, typer.Argument(help="What the register stage wrote.")] = Path(
        "receipt.json"
    ),
    as_json: JsonOption = False,
) -> None:
    """Bring MLflow to what the receipt says: runs, registered winners, aliases. Repeatable.

    The tracking server is MLFLOW_TRACKING_URI, or a database inside the project.
    """
    from tunetrail.tracking.sync import bring_up_to_date

    done = bring_up_to_date(receipt)
    if as_json:
        _print_json(done)
        return
    typer.echo(
        f"MLflow: {done['runs_created']} runs created, {done['runs_present']} were there; "
        f"{done['versions_created']} model versions registered, "
        f"{done['versions_present']} were there."
    )
    for refused in done["refused"]:
        typer.echo(f"NOT registered: {refused['name']}: {refused['reason']}", err=True)
    if done["refused"]:
        raise TuneTrailError(
            "a winner's certificate is beyond the tolerance", "see runs/export/*/*/certificate.json"
        )


@app.command()
def verify(
    discard: Annotated[bool, typer.Option("--discard", help="Remove what is damaged.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Read every result and its copy in DVC's cache, and name those with other bytes than recorded.

    DVC goes by the time of a file and believes its cache: a failing disk, or a remote that hands
    out damaged files, goes unnoticed otherwise. Example: tunetrail verify --discard
    """
    from tunetrail.dag import Dag, project_root

    root = project_root(Path.cwd())
    damaged = [(out, os.path.relpath(path, root)) for out, path in Dag(root).damaged()]
    if discard:
        for _, path in damaged:
            (root / path).unlink(missing_ok=True)  # outputs may share a copy
    if as_json:
        _print_json([{"output": out, "file": path} for out, path in damaged])
    else:
        for out, path in damaged:
            typer.echo(f"{'removed' if discard else 'damaged'}: {path} (of {out})")
    again = "`dvc pull` fetches them again where they were pushed, `make run` makes them again"
    if damaged and not discard:
        raise TuneTrailError(
            f"{len(damaged)} files do not have the recorded bytes",
            f"`tunetrail verify --discard` removes them; then {again}",
        )
    if not as_json:
        typer.echo(f"Now {again}." if damaged else "Every result has the recorded bytes.")


# Stages ----------------------------------------------------------------------------------------

_STAGES = "Stages (run by DVC and by the flow)"


@app.command(rich_help_panel=_STAGES)
def base(source: Path, out: Path) -> None:
    """Fetch and check the base model.

    Example: tunetrail base data/minilm.yaml models/base
    """
    from tunetrail.stages.base import fetch_base

    fetch_base(source, out)


@app.command(rich_help_panel=_STAGES)
def ingest(task: str, out: Path, params: ParamsOption = PARAMS) -> None:
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
def resolve(
    canonical: Path, base_model: Path, prepared: Path, out: Path, params: ParamsOption = PARAMS
) -> None:
    """Freeze every run of a task to one JSON file."""
    from tunetrail.params import read_params
    from tunetrail.stages.resolve import resolve as stage

    stage(read_params(params), params, canonical, base_model, prepared, out)


@app.command(rich_help_panel=_STAGES)
def train(context: typer.Context, run: Path, base_model: Path, data: Path, out: Path) -> None:
    """Train one frozen run.

    Example: tunetrail train plan/movie/lora/1.json models/base data/prepared/movie/fit out/
    """
    from tunetrail.stages.train import train as stage

    if context.obj is not None:
        stage(run, base_model, data, out, context.obj)
        return
    from tqdm import tqdm

    with tqdm(disable=None, unit="step", desc=read_json(run).get("method", "run")) as bar:

        def show(step: int, steps: int, loss: float) -> None:
            bar.total = steps
            bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
            bar.update(step - bar.n)

        stage(run, base_model, data, out, show)


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
def evaluate(run: Path, base_model: Path, adapter: Path, data: Path, out: Path) -> None:
    """Score a trained run on the test set and keep every prediction."""
    from tunetrail.stages.evaluate import evaluate as stage

    stage(run, base_model, adapter, data, out)


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
    params: ParamsOption = PARAMS,
) -> None:
    """Put all results into a table, JSON, plots and the report."""
    from tunetrail.params import read_params
    from tunetrail.stages.compare import compare as stage

    stage(read_params(params), plan_folder, data, runs, base_model, out)


@app.command(rich_help_panel=_STAGES)
def register(comparison: Path, exported: Path, out: Path) -> None:
    """Write the receipt of what should be in MLflow."""
    from tunetrail.stages.register import register as stage

    stage(comparison, exported, out)


def _options(kind: Any) -> list[dict[str, Any]]:
    return [
        {"name": name, "default": field.default, "description": field.description or ""}
        for name, field in kind.model_fields.items()
    ]


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, default=str))


def _print_table(header: list[str], rows: list[list[str]]) -> None:
    """A table on standard output; colour and wrapping only on a terminal."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        console = Console(width=200)
    table = Table(*header, box=SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
