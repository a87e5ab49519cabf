"""The application object, and what every subcommand shares."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Annotated

import typer

from tunetrail import __version__, logs

PARAMS = Path("params.yaml")

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

ParamsOption = Annotated[Path, typer.Option("--params", help="The parameters.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"tunetrail {__version__}")
        raise typer.Exit


def flowing(text: str) -> str:
    """Paragraphs without line breaks, which the help would keep in the middle of its own lines.

    Those that click is told to leave alone, by a backspace, stay as they are.
    """
    parts = text.split("\n\n")
    return "\n\n".join(p if p.startswith("\b") else p.replace("\n", " ") for p in parts)


@app.callback(
    help=flowing("""
Which fine-tuning method should we use on our data, how sure are we, and how do we ship it?

[bold]params.yaml[/bold] names tasks, base model, methods, seeds and budget: the
[italic]plan[/italic], a list of [italic]runs[/italic]. Stages turn it into a
[italic]comparison[/italic]:

base, ingest → validate → prepare → resolve → train, cost → evaluate, select → export → compare →
register

Run them all with [bold]tunetrail run[/bold] (in parallel, through Prefect) or
[bold]dvc repro[/bold]; both run the subcommands below and leave the same files.

Examples:

  tunetrail doctor                is this machine ready?

  tunetrail init ../tickets --data tickets.csv   a project for your own data

  tunetrail plan                  what is stale, why, and how long it takes

  tunetrail run                   execute that

  tunetrail intake tickets        new rows become a version of the data

  tunetrail recommend             which method to take, under your limits

  tunetrail pairs                 every pair of methods, told apart or not

  tunetrail serve models:/tickets@champion   its predictions by HTTP

  tunetrail predict rows.csv      predictions for a file

  tunetrail changes main          what a change did to scores and costs

  tunetrail methods lora          options and defaults of a method

  tunetrail recipe list           experiments of papers, ready to run

  tunetrail explain movie         where the registered model comes from

  tunetrail verify                are all results as they were recorded?
""")
)
def start(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print it and leave."),
    ] = False,
    verbose: Annotated[
        int,
        typer.Option(
            "-v",
            "--verbose",
            count=True,
            envvar=logs.VERBOSE,
            show_default=False,
            help="Log what is done to standard error; -vv: what libraries do, too.",
        ),
    ] = 0,
) -> None:
    """Set up logging, and log the subcommand and its seconds."""
    logs.configure(verbose)
    log = logging.getLogger(f"tunetrail.{context.invoked_subcommand}")
    started = time.monotonic()
    log.debug("begins")
    context.call_on_close(lambda: log.info("took %.1f s", time.monotonic() - started))
