"""What a recipe is: comparisons of a paper, in two sizes, and the claims they are to judge."""

from __future__ import annotations

from math import prod
from pathlib import Path

from pydantic import Field

from tunetrail.errors import TuneTrailError, unknown
from tunetrail.params import Params, read_params
from tunetrail.place import PIPELINE
from tunetrail.recipes import Scale
from tunetrail.recipes.claims import Claim, MoreWhereUnfamiliar
from tunetrail.settings import Settings, parse, read_yaml

RECIPES = PIPELINE.parent / "recipes"


class Recipe(Settings):
    """The experiment of a paper."""

    title: str
    paper: str
    comparisons: dict[str, str] = Field(
        min_length=1, description="name → what it is, in the order to run them"
    )
    stage_minutes: dict[Scale, int] = Field(
        default_factory=dict, description="what all stages took together, where it was measured"
    )
    claims: dict[str, Claim] = Field(min_length=1)


def recipe_names() -> list[str]:
    """Ids of the recipes that come with TuneTrail."""
    return sorted(path.parent.name for path in RECIPES.glob("*/recipe.yaml"))


def read_recipe(name: str) -> Recipe:
    """Read a recipe and check that its claims are about what it compares.

    Raises:
        TuneTrailError: There is no such recipe, or its file has a mistake.
    """
    if name not in recipe_names():
        raise unknown("recipe", name, recipe_names())
    path = RECIPES / name / "recipe.yaml"
    recipe = parse(Recipe, read_yaml(path), str(path))
    for scale in ("laptop", "full"):
        plans = plans_of(recipe, name, scale)
        for label, claim in recipe.claims.items():
            _check(claim, plans, f"{path}: claims.{label}, {scale}")
    return recipe


def plan_files(recipe: Recipe, name: str, scale: Scale) -> dict[str, Path]:
    """Comparison → its parameters."""
    return {label: RECIPES / name / scale / f"{label}.yaml" for label in recipe.comparisons}


def plans_of(recipe: Recipe, name: str, scale: Scale) -> dict[str, Params]:
    """Comparison → its parameters, read.

    Raises:
        TuneTrailError: One of the files has a mistake.
    """
    files = plan_files(recipe, name, scale)
    return {label: read_params(path) for label, path in files.items()}


def runs_of(params: Params) -> int:
    """Trainings that a comparison asks for, pretraining apart."""
    axes = params.tasks, params.methods, params.budgets, params.seeds
    return prod(len(axis) for axis in axes)


def _check(claim: Claim, plans: dict[str, Params], where: str) -> None:
    for part in claim.parts:
        named = [part.comparison] if part.comparison else []
        if isinstance(part, MoreWhereUnfamiliar):
            named += [*part.domains, part.reference.comparison]
        for comparison in named:
            if comparison not in plans:
                raise unknown("comparison", comparison, plans, where)
        about = [plans[part.comparison]] if part.comparison else list(plans.values())
        about = [plan for plan in about if {part.method, part.than} <= set(plan.methods)]
        if not about:
            raise TuneTrailError(
                f"{where}: no comparison has both '{part.method}' and '{part.than}'",
                "name two methods of one comparison",
            )
        budgets = {budget for plan in about for budget in plan.budgets}
        for budget in part.named_budgets():
            if budget not in budgets:
                raise unknown("budget", budget, budgets, where)
