"""Dataset versions: new data for a task, kept by DVC, with a record and a gate before it."""

from tunetrail.intake.record import Version, examples, versions
from tunetrail.intake.take import intake, restore

__all__ = ["Version", "examples", "intake", "restore", "versions"]
