"""The whole command line: importing a module of commands registers them."""

from tunetrail.cli import project, stages
from tunetrail.cli.root import app

__all__ = ["app", "project", "stages"]
