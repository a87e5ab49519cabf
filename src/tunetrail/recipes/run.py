"""Run a recipe: its comparisons one after the other, then the claims."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from tunetrail.code import code_digest
from tunetrail.files import digest_of
from tunetrail.recipes import Scale
from tunetrail.recipes.observed import Observed
from tunetrail.recipes.projects import check_data, run_flow, write_project
from tunetrail.recipes.recipe import plan_files, plans_of, read_recipe, runs_of
from tunetrail.recipes.results import judge, read_results, write_results

#: Folder of what a recipe found, beside those of its comparisons.
RESULTS = "results"


def run(
    name: str, scale: Scale, data: Path | None, folder: Path, workers: int = 0, quiet: bool = False
) -> dict[str, Any]:
    """Make the projects in ``folder``, run the shipped flow in each, and judge the claims.

    Args:
        name: Id of the recipe.
        scale: Which of its two sizes.
        data: Folder of the local datasets.
        folder: Where to work; what an earlier run left there is gone on with.
        workers: Stages side by side; 0: as the flow decides.
        quiet: Whether what the flow prints goes to standard error.

    Returns:
        What ``results/claims.json`` has.

    Raises:
        TuneTrailError: Unknown recipe, missing data, or some stage failed.
    """
    recipe = read_recipe(name)
    files = plan_files(recipe, name, scale)
    check_data(list(files.values()), data)
    plans = plans_of(recipe, name, scale)
    out = sys.stderr if quiet else sys.stdout
    total = sum(map(runs_of, plans.values()))
    took = recipe.stage_minutes.get(scale)
    estimate = f"about {took} minutes of stages" if took else "not measured yet how long"
    out.write(f"{recipe.title} ({recipe.paper}), {scale}: {total} runs, {estimate}\n")
    for number, (label, about) in enumerate(recipe.comparisons.items(), 1):
        out.write(
            f"\n[{number}/{len(plans)}] {label}: {about}; {runs_of(plans[label])} runs in "
            f"{folder / label}\n"
        )
        out.flush()
        write_project(folder / label, files[label], data)
        run_flow(folder / label, workers, out)
    found = {label: Observed(label, folder / label) for label in recipe.comparisons}
    inputs = digest_of(
        {
            "recipe": recipe.model_dump(mode="json"),
            "comparisons": {label: observed.content for label, observed in found.items()},
            "code": code_digest(__name__),
        }
    )
    if before := read_results(folder / RESULTS, recipe, inputs):
        return before
    judged = judge(recipe, name, scale, found) | {"inputs": inputs}
    write_results(judged, found, folder / RESULTS)
    return judged
