"""The whole command line: importing a module of commands registers them."""

import inspect

from tunetrail.cli import explain, project, recipe, stages
from tunetrail.cli.root import app, flowing

__all__ = ["app", "explain", "project", "recipe", "stages"]

for command in [*app.registered_commands, *recipe.recipe.registered_commands]:
    command.help = flowing(inspect.getdoc(command.callback) or "")
