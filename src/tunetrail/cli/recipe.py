"""Commands for recipes: the experiments of papers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tunetrail.cli import names
from tunetrail.cli.output import print_json, print_table
from tunetrail.cli.root import JsonOption, app
from tunetrail.recipes import Scale

recipe = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Run the experiments of published papers, and judge the papers' claims.",
)
app.add_typer(recipe, name="recipe")


@recipe.command(name="list")
def list_(as_json: JsonOption = False) -> None:
    """List the recipes, the runs that each needs, and the claims that it judges.

    Example: tunetrail recipe list
    """
    from tunetrail.recipes.recipe import read_recipe, recipe_names

    recipes = {name: read_recipe(name) for name in recipe_names()}
    content: dict[str, Any] = {
        name: {
            "title": found.title,
            "paper": found.paper,
            "comparisons": found.comparisons,
            "runs": {scale: _runs(name, scale) for scale in ("laptop", "full")},
            "stage_minutes": found.stage_minutes,
            "claims": {label: claim.says for label, claim in found.claims.items()},
        }
        for name, found in recipes.items()
    }
    if as_json:
        print_json(content)
        return
    rows = [
        [name, entry["title"], *(str(entry["runs"][scale]) for scale in ("laptop", "full"))]
        for name, entry in content.items()
    ]
    print_table(["recipe", "what it is", "runs, laptop", "runs, full"], rows, right={2, 3})
    for name, found in recipes.items():
        typer.echo(f"{name} judges:")
        for claim in found.claims.values():
            typer.echo(f"  {claim.says}")
    typer.echo("tunetrail recipe run RECIPE --data FOLDER runs one")


@recipe.command()
def run(
    name: Annotated[
        str, typer.Argument(metavar="RECIPE", help="Its id.", autocompletion=names.recipes)
    ],
    scale: Annotated[
        Scale, typer.Option(help="laptop: two cores, local data; full: a GPU, data from the Hub.")
    ] = "laptop",
    data: Annotated[
        Path | None,
        typer.Option(help="Folder with glue/, domain/, squad/ and corpus/ (Parquet)."),
    ] = None,
    folder: Annotated[
        Path | None, typer.Option(help="Where to work (default: RECIPE-SCALE here).")
    ] = None,
    workers: Annotated[
        int, typer.Option(min=0, help="Stages side by side (default: cores / threads of a run).")
    ] = 0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the verdicts as JSON on standard output.")
    ] = False,
) -> None:
    """Run a recipe's comparisons one after the other, judge its claims and write the results.

    Interrupted or killed, it goes on where it was when it is repeated. What is up to date is not
    run again. A claim that is not supported is a result, not an error: the exit code is 0.

    Example: tunetrail recipe run 2401.04051 --scale laptop --data datasets
    """
    from tunetrail.recipes import run as recipes

    work = folder or Path(f"{name}-{scale}")
    judged = recipes.run(name, scale, data, work, workers, quiet=as_json)
    if as_json:
        print_json(judged)
        return
    rows = [[claim["says"], claim["verdict"]] for claim in judged["claims"].values()]
    print_table(["claim", "verdict"], rows)
    typer.echo(f"Results     {(work / recipes.RESULTS).absolute()}")


def _runs(name: str, scale: Scale) -> int:
    from tunetrail.recipes.recipe import plans_of, read_recipe, runs_of

    return sum(map(runs_of, plans_of(read_recipe(name), name, scale).values()))
