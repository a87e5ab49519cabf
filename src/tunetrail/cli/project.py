"""Commands for a person: set up, look, run."""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import sys
import textwrap
from pathlib import Path
from typing import Annotated, Any

import typer

from tunetrail.cli import names
from tunetrail.cli.output import print_json, print_table
from tunetrail.cli.root import PARAMS, JsonOption, ParamsOption, app
from tunetrail.errors import TuneTrailError, Unreachable, joined

#: The program that executes what is stale. It lies above this layer: it is started, not imported.
_FLOW = "pipelines.compare"

WorkersOption = Annotated[
    int, typer.Option(min=0, help="Stages side by side (default: cores / threads of a run).")
]


@app.command()
def doctor(
    network: Annotated[
        bool, typer.Option("--network", help="Also try the package index and the model hub.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Examine installation, hardware, servers, disk, permissions and project.

    Exits 1 if there is a problem; warnings do not count. `python -m tunetrail.doctor` does the
    same where this command itself cannot start.

    Example: tunetrail doctor --json
    """
    from tunetrail.doctor import main

    flags = {"--network": network, "--json": as_json}
    raise typer.Exit(main([flag for flag, given in flags.items() if given]))


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="Folder of the project; made if it is missing.")],
    data: Annotated[
        Path | None, typer.Option(help="CSV, TSV, JSON Lines or Parquet file with your rows.")
    ] = None,
    text: Annotated[str | None, typer.Option(help="Column with the text.")] = None,
    pair: Annotated[str | None, typer.Option(help="Column with the second text of a pair.")] = None,
    label: Annotated[str | None, typer.Option(help="Column with the class.")] = None,
    group: Annotated[
        str | None, typer.Option(help="Column whose equal values stay in one split.")
    ] = None,
    row_id: Annotated[
        str | None, typer.Option("--id", help="Column with a unique name of each row.")
    ] = None,
    task_name: Annotated[
        str | None, typer.Option(help="Name of the task (default: the file's).")
    ] = None,
    delimiter: Annotated[str | None, typer.Option(help="Between the cells of a CSV file.")] = None,
    header: Annotated[
        bool | None,
        typer.Option("--header/--no-header", help="Whether a CSV file's first row has names."),
    ] = None,
    encoding: Annotated[str | None, typer.Option(help="Of a CSV file.")] = None,
    update: Annotated[
        bool, typer.Option("--update", help="Write dvc.yaml anew, after an upgrade of TuneTrail.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Make a project for your own data from a file of texts and their classes.

    What the file says itself is not asked: encoding, delimiter, header, which columns hold text
    (or a pair), class, row name and group. What was inferred is shown; options override it.

    Example: tunetrail init ../tickets --data tickets.csv --label queue
    """
    from tunetrail.cli import made

    if update:
        made.updated(folder)
        return
    if data is None:
        raise TuneTrailError("a project needs data", "name your file: --data tickets.csv")
    given = {"text": text, "pair": pair, "label": label, "id": row_id, "group": group}
    made.project(folder, data, given, task_name, delimiter, header, encoding, as_json)


@app.command()
def run(
    workers: WorkersOption = 0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print what was done as JSON on standard output.")
    ] = False,
) -> None:
    """Execute what is stale, in parallel, bring MLflow up to date and show the result.

    Interrupted or killed, it goes on where it was when it is repeated.

    Example: tunetrail run --workers 2
    """
    from importlib.util import find_spec

    if find_spec(_FLOW.partition(".")[0]) is None:
        raise TuneTrailError(
            f"'{_FLOW}' is not installed beside this tunetrail",
            "run `make run` once in TuneTrail's checkout, or use `dvc repro && tunetrail sync`",
        )
    arguments = ["--workers", str(workers)] if workers else []
    arguments += ["--json"] if as_json else []
    sys.stdout.flush()
    # -P: a queue.py among somebody's own files must not stand in for Python's.
    os.execv(sys.executable, [sys.executable, "-P", "-m", _FLOW, *arguments])


@app.command()
def plan(
    params: ParamsOption = PARAMS,
    workers: WorkersOption = 0,
    every: Annotated[
        bool, typer.Option("--all", help="Every stage on a line of its own, with its reasons.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show what will be executed, why, and about how long it takes. Nothing is executed.

    Runs with the same reasons are shown together, as tasks × methods × seeds:

    \b
      6 of 36 runs are stale:
        movie, amazon × lora × 1, 2, 3; about 12 s each
          parameter methods.lora.learning_rate changed: 0.001 → 0.003

    Example: tunetrail plan --json
    """
    from tunetrail.cli import planned
    from tunetrail.place import project_root

    with contextlib.chdir(project_root(Path.cwd())):
        content = planned.look(params, workers)
    if as_json:
        print_json(content)
    else:
        typer.echo(planned.every_stage(content) if every else planned.in_groups(content))


@app.command()
def methods(
    shown: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[show] [METHOD]...",
            help="Show definition and options of these methods.",
            autocompletion=names.methods,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List the fine-tuning methods, or show what one is and its options.

    Parameters are those that train besides the head, with the options' defaults, on the project's
    base model once it is there, else on the one that TuneTrail starts with.

    Example: tunetrail methods show unipelt
    """
    from tunetrail import methods as registry
    from tunetrail.cli.counts import chosen_base, counts

    wanted = [name for index, name in enumerate(shown or []) if index or name != "show"]
    kinds = {n: registry.method_class(n) for n in wanted or registry.names()}
    base = chosen_base(Path("models/base"))
    trained = counts(kinds, base)
    if as_json:
        print_json(
            {
                n: {
                    "title": kind.title,
                    "paper": kind.paper,
                    "mergeable": kind.not_mergeable is None,
                    "not_mergeable_because": kind.not_mergeable,
                    "verified_by": kind.verified,
                    "parameters": trained[n],
                    "base": base.name,
                    "options": _options(kind),
                }
                for n, kind in kinds.items()
            }
        )
    elif wanted:
        for n, kind in kinds.items():
            _show_method(kind, trained[n], base.name)
    else:
        rows = [
            [
                n,
                kind.paper,
                "yes" if kind.not_mergeable is None else "no",
                _parameters(trained[n]),
                kind.verified or "unverified",
            ]
            for n, kind in kinds.items()
        ]
        print_table(["method", "paper", "merges", "trains", "verified by"], rows, right={3})
        typer.echo(
            f"trains: parameters besides the head by default, on {base.name}\n"
            "verified by: whose code our tests compare it with\n"
            "tunetrail methods show METHOD: definition and options"
        )


def _show_method(kind: Any, trained: int | None, base: str) -> None:
    paragraphs = inspect.cleandoc(kind.__doc__ or "").split("\n\n")
    definition = "\n\n".join(textwrap.fill(paragraph, 80) for paragraph in paragraphs)
    typer.echo(f"{kind.title} ({kind.paper})\n\n{definition}\n")
    typer.echo(
        "merges into the base weights"
        if kind.not_mergeable is None
        else f"stays in the graph: {kind.not_mergeable}"
    )
    typer.echo("starts at the base model" if kind.starts_at_base else "starts off the base model")
    typer.echo(f"trains {_parameters(trained)} parameters besides the head on {base}")
    typer.echo(f"verified by {kind.verified}" if kind.verified else "unverified: no other code")
    rows = [[o["name"], json.dumps(o["default"]), o["description"]] for o in _options(kind)]
    print_table(["option", "default", "meaning"], rows)


def _parameters(count: int | None) -> str:
    return "does not fit" if count is None else f"{count:,}"


@app.command()
def tasks(
    name: Annotated[
        str | None,
        typer.Argument(help="Show this task's declaration.", autocompletion=names.built_in_tasks),
    ] = None,
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
        print_json({n: read_yaml(p) for n, p in known.items() if name in (None, n)})
    elif name:
        typer.echo(known[name].read_text(encoding="utf-8"), nl=False)
    else:
        declared = {n: read_yaml(p) for n, p in known.items()}
        rows = [
            [n, d["title"], d["domain"], _predicted(d), ", ".join(d["metrics"])]
            for n, d in declared.items()
        ]
        print_table(["task", "title", "domain", "predicts", "metrics"], rows)


def _predicted(declared: dict[str, Any]) -> str:
    if "answers" in declared:
        return "answers"
    return f"{len(declared['labels'])} classes" if "labels" in declared else "a number"


@app.command()
def recommend(
    task: Annotated[
        str, typer.Argument(help="Only this task.", autocompletion=names.planned_tasks)
    ] = "",
    max_parameters: Annotated[float | None, typer.Option(min=0, help="That train.")] = None,
    max_train_seconds: Annotated[
        float | None, typer.Option(min=0, help="Of one run and the pretraining of its start.")
    ] = None,
    max_memory_mb: Annotated[
        float | None, typer.Option(min=0, help="Of training, at its peak.")
    ] = None,
    max_artifact_mb: Annotated[
        float | None,
        typer.Option(min=0, help="What is saved of a run, and the checkpoint that it needs."),
    ] = None,
    max_model_mb: Annotated[
        float | None, typer.Option(min=0, help="The exported ONNX file.")
    ] = None,
    max_latency_ms: Annotated[
        float | None, typer.Option(min=0, help="Median of one text, ONNX Runtime.")
    ] = None,
    params: ParamsOption = PARAMS,
    as_json: JsonOption = False,
) -> None:
    """Say which method to take, under limits on what it costs, from the finished comparison.

    Limits come from `limits` in params.yaml; an option here goes before it. Left out are methods
    that another one makes pointless: one that costs no more and is better by the verdicts, or costs
    less and is shown not to be worse by more than the margin.

    Example: tunetrail recommend --max-latency-ms 5 --max-parameters 100000
    """
    from tunetrail.params import read_params
    from tunetrail.report.recommended import in_words
    from tunetrail.stages.recommend import recommendations

    given = {
        "trainable_parameters": max_parameters,
        "train_seconds": max_train_seconds,
        "memory_mb": max_memory_mb,
        "artifact_mb": max_artifact_mb,
        "model_mb": max_model_mb,
        "latency_ms": max_latency_ms,
    }
    limits = read_params(params).limits.model_dump(exclude_none=True)
    limits |= {name: most for name, most in given.items() if most is not None}
    found = recommendations(Path("comparison"), Path("runs"), limits, task)
    if as_json:
        print_json(found)
    else:
        typer.echo(in_words(found, limits))


@app.command()
def pairs(
    task: Annotated[
        str, typer.Argument(help="Only this task.", autocompletion=names.planned_tasks)
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Show the verdict on every pair of methods, from the finished comparison.

    Example: tunetrail pairs movie
    """
    from tunetrail.report import text
    from tunetrail.stages.recommend import all_pairs

    found = all_pairs(Path("comparison"), task)
    if as_json:
        print_json(found)
        return
    header = ["first", "second", "difference", "interval", "p", "verdict"]  # for 80 columns
    for name, content in found.items():
        typer.echo(f"{name}, {content['metric']}")
        rows = [
            [
                *record["of"],
                text.signed(record["difference"]),
                text.difference(record).partition(" ")[2] or text.ABSENT,
                text.p_value(record),
                ", ".join(filter(None, [text.outcome(record), text.short_needs(record)])),
            ]
            for record in content["pairs"]
        ]
        print_table(header, rows, right={2, 3, 4})
    typer.echo(text.wrapped(text.PAIRS))


@app.command()
def seeds(params: ParamsOption = PARAMS, as_json: JsonOption = False) -> None:
    """Give each pair whose verdict is open its next seed, as `more_seeds` in params.yaml allows.

    `tunetrail run` does that by itself. Here the runs are only written into params.yaml. Exits 1
    when there is nothing to add: all is settled, or the limits are reached.

    Example: while tunetrail seeds; do dvc repro; done
    """
    from tunetrail.stages.more_seeds import give_more_seeds

    added = give_more_seeds(params, Path("comparison"))
    if as_json:
        print_json([run.model_dump() for run in added])
    elif added:
        typer.echo("\n".join(run.name for run in added))
    else:
        typer.echo("Nothing to add.", err=True)
    if not added:
        raise typer.Exit(1)


@app.command()
def sync(
    receipt: Annotated[
        Path | None,
        typer.Argument(
            help="What a register stage wrote.",
            show_default="receipt.json, and those of champions/",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Hand over what waits here. Repeatable.

    MLflow is brought to what receipts say: runs, registered winners, aliases. What a retraining
    could not push goes to DVC's remote. The tracking server is MLFLOW_TRACKING_URI, or a database
    inside the project.

    Example: tunetrail sync
    """
    from tunetrail.gate.words import in_words
    from tunetrail.place import project_of
    from tunetrail.remote import push, waits
    from tunetrail.tracking.sync import bring_all_up_to_date, bring_up_to_date

    root = project_of(Path.cwd() if receipt is None else receipt.absolute().parent)
    waiting = waits(root)
    unreachable: list[Unreachable] = []
    try:
        done = bring_all_up_to_date() if receipt is None else bring_up_to_date(receipt)
    except Unreachable as error:
        unreachable.append(error)
    try:
        if waiting:
            push(root)
    except Unreachable as error:
        unreachable.append(error)
    if unreachable:
        raise joined(unreachable)
    done["pushed"] = waiting
    if as_json:
        print_json(done)
        return
    typer.echo(
        f"MLflow: {done['runs_created']} runs created, {done['runs_present']} were there; "
        f"{done['versions_created']} model versions registered, "
        f"{done['versions_present']} were there."
    )
    if waiting:
        typer.echo("DVC's remote: what a retraining could not push is there now.")
    for decision in done["decisions"]:
        typer.echo(in_words(decision))
    for refused in done["refused"]:
        typer.echo(f"NOT registered: {refused['name']}: {refused['reason']}", err=True)
    if done["refused"]:
        raise TuneTrailError(
            "a winner's certificate is beyond the tolerance", "see runs/export/*/*/certificate.json"
        )


@app.command()
def rollback(
    model: Annotated[str, typer.Argument(help="Registered model: PROJECT-TASK, or the task.")],
    reason: Annotated[str, typer.Option(help="Kept with the version that is taken back.")],
    as_json: JsonOption = False,
) -> None:
    """Make the champion before this one the champion again; the gate does not let this one back.

    Example: tunetrail rollback movie --reason "wrong on refunds since Monday"
    """
    from tunetrail.tracking.sync import take_back

    name, taken, back = take_back(model, reason)
    if as_json:
        print_json({"model": name, "rolled_back": taken, "champion": back})
    else:
        typer.echo(f"{name}: version {back} is the champion again, version {taken} is taken back.")


@app.command()
def to_peft(selected: Path, base_model: Path, out: Path) -> None:
    """Write a trained LoRA or (IA)³ for peft: `PeftModel.from_pretrained(model, OUT)` loads it.

    The head is left out: peft's format has no place for it.

    Example: tunetrail to-peft runs/select/movie/lora models/base lora-for-peft
    """
    from tunetrail.stages.to_peft import to_peft as write

    write(selected, base_model, out)
    typer.echo(f"PeftModel.from_pretrained(model, '{out}') loads it.")


@app.command()
def mend() -> None:
    """Clear away what DVC left half written when it was killed, and cannot read any more.

    `make repro` begins with it. Results and what is recorded of them stay; where dvc.lock itself
    was cut off, it is put back as the last `tunetrail mend` found it. In a fresh clone it makes the
    links that the folders of champions need.
    """
    from tunetrail.dag import Dag
    from tunetrail.init.champion import link_champions
    from tunetrail.place import project_root
    from tunetrail.repository import mend_lock_file

    root = project_root(Path.cwd())
    if mend_lock_file(root):
        typer.echo(
            "dvc.lock was cut off: put back as it last was whole; what is missing in it comes back "
            "from DVC's cache (what was there is now .tunetrail/dvc.lock.cut)"
        )
    for link in link_champions(root):
        typer.echo(f"linked {link.relative_to(root)}")
    Dag(root)  # does the rest whenever it is opened


@app.command()
def verify(
    discard: Annotated[bool, typer.Option("--discard", help="Remove what is damaged.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Read every result and its copy in DVC's cache, and name those with other bytes than recorded.

    DVC goes by the time of a file and believes its cache: a failing disk, or a remote that hands
    out damaged files, goes unnoticed otherwise. Example: tunetrail verify --discard
    """
    from tunetrail.dag import Dag
    from tunetrail.place import project_root

    root = project_root(Path.cwd())
    damaged = [(out, os.path.relpath(path, root)) for out, path in Dag(root).damaged()]
    if discard:
        for _, path in damaged:
            (root / path).unlink(missing_ok=True)  # outputs may share a copy
    if as_json:
        print_json([{"output": out, "file": path} for out, path in damaged])
    else:
        for out, path in damaged:
            typer.echo(f"{'removed' if discard else 'damaged'}: {path} (of {out})")
    again = "`dvc pull` fetches them again where they were pushed, `tunetrail run` makes them again"
    if damaged and not discard:
        raise TuneTrailError(
            f"{len(damaged)} files do not have the recorded bytes",
            f"`tunetrail verify --discard` removes them; then {again}",
        )
    if not as_json:
        typer.echo(f"Now {again}." if damaged else "Every result has the recorded bytes.")


def _options(kind: Any) -> list[dict[str, Any]]:
    return [
        {"name": name, "default": field.default, "description": field.description or ""}
        for name, field in kind.model_fields.items()
    ]
