"""Commands around a change: try it in small, and say what it changed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tunetrail.cli.output import print_json, print_table
from tunetrail.cli.root import PARAMS, JsonOption, ParamsOption, app
from tunetrail.errors import TuneTrailError


@app.command()
def changes(
    before: Annotated[
        str,
        typer.Argument(help="A revision of this project, a project's folder or a comparison.json."),
    ],
    after: Annotated[str, typer.Argument(help="The same of what to hold against it.")] = ".",
    as_markdown: Annotated[
        bool, typer.Option("--markdown", help="Print Markdown, for a pull request.")
    ] = False,
    fail_on_worse: Annotated[
        bool, typer.Option("--fail-on-worse", help="Exit 1 if a method is worse by its interval.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show how the scores differ between two comparisons, and which differences are supported.

    Runs of one method are compared by seed and test row, with the rule of all verdicts. A revision
    needs a committed dvc.lock, and its results in DVC's cache or remote. From a comparison.json
    without its project the interval is over seeds alone, and there are no costs.

    Example: tunetrail changes main

    Example: tunetrail changes before/comparison.json after/comparison.json --markdown
    """
    from tunetrail import changes as found_by
    from tunetrail.report import changes as words
    from tunetrail.report import text

    if as_json and as_markdown:
        raise TuneTrailError("--json and --markdown were both given", "give one of them")
    found = found_by.changes(found_by.side(before), found_by.side(after))
    if as_json:
        print_json(found)
    elif as_markdown:
        typer.echo(words.markdown(found), nl=False)
    else:
        typer.echo(text.wrapped("\n".join([words.summary(found), *words.sentences(found)])))
        for name, task in found["tasks"].items():
            table, told = words.rows(task), words.about(task, found["margin"])
            if table or told:
                typer.echo(f"\n{name}, {task['metric']}")
            if table:
                print_table(words.HEADER, table, right={1, 2, 3, 4})
            if told:
                typer.echo(text.wrapped("\n".join(told), indent="  "))
        if explained := words.explained(found):
            typer.echo("\n" + text.wrapped("\n".join(explained)))
    if fail_on_worse and found["worse"]:
        raise typer.Exit(1)


@app.command()
def small(
    folder: Annotated[Path, typer.Argument(help="Folder of the small project.")],
    train: Annotated[int, typer.Option(min=2, help="Most training rows of a task.")] = 320,
    selection: Annotated[int, typer.Option(min=2, help="Most selection rows.")] = 100,
    test: Annotated[int, typer.Option(min=2, help="Most test rows.")] = 300,
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps of a run.")] = 20,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds, the first ones of the plan.")] = 3,
    cache: Annotated[
        Path | None,
        typer.Option(help="DVC's cache to share, so that nothing is executed twice."),
    ] = None,
    params: ParamsOption = PARAMS,
) -> None:
    """Make a small copy of this project: every task and method, but few rows, steps and seeds.

    It finds out in minutes whether a plan runs to its end, and what a change does roughly; which
    method to take it cannot say. Its folder gets links to the data. What is there already is kept,
    so a repeated `tunetrail run` in it executes what changed.

    Example: tunetrail small ../small && cd ../small && tunetrail run
    """
    from tunetrail.init.small import Size, write_small

    size = Size(train, selection, test, steps, seeds)
    write_small(params, folder, size, cache)
    typer.echo(f"Written to {folder}; `tunetrail run` in it executes what is stale.")
