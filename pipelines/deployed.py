"""The flows that prefect.yaml deploys: this module imports Prefect at once, as its workers do."""

from __future__ import annotations

import os
from datetime import datetime
from typing import Any

from prefect import flow
from prefect.runtime import flow_run

from pipelines import retrain as retraining


def _name() -> str:
    """When it was due, so that a list of them can be read."""
    due: datetime = flow_run.scheduled_start_time
    return f"{due:%Y-%m-%d %H:%M:%S}"


@flow(name="retrain", flow_run_name=_name, persist_result=False)
def retrain(folder: str = ".", workers: int = 0, console: Any = None) -> retraining.Report:
    """Take in new data, train what follows from it, promote, and keep the results.

    Args:
        folder: The project.
        workers: Stages side by side; 0: as many as the cores allow.
        console: For the command line.
    """
    os.chdir(folder)
    return retraining.retrain(workers, console)
