"""The whole command line: importing a module of commands registers them."""

import inspect

from tunetrail.cli import changes, data, explain, project, recipe, serving, stages
from tunetrail.cli.root import app, flowing

__all__ = ["app", "changes", "data", "explain", "project", "recipe", "serving", "stages"]

for command in [*app.registered_commands, *recipe.recipe.registered_commands]:
    command.help = flowing(inspect.getdoc(command.callback) or "")
