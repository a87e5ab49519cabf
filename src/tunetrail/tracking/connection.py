"""The tracking server: where it is, reaching it, and what it may say."""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator
from typing import Any

from tunetrail.errors import Unreachable
from tunetrail.files import STATE_DIR
from tunetrail.machine import from_machine

_DATABASE_SERVERS = ("postgresql", "mysql", "mssql")

#: MLflow reads these when it is imported. By itself it would try for minutes to reach a server.
_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
}


def settle() -> None:
    """Give MLflow the settings that the environment does not have, before it is imported."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)


def tracking_uri() -> str:
    """The tracking server: MLFLOW_TRACKING_URI, or a database inside the project."""
    chosen = os.environ.get("MLFLOW_TRACKING_URI")
    return chosen or f"sqlite:///{(STATE_DIR / 'mlflow' / 'mlflow.db').absolute()}"


@contextlib.contextmanager
def reached(uri: str) -> Iterator[Any]:
    """MLflow's client of a tracking server, which also becomes that of MLflow's functions.

    Raises:
        Unreachable: The server does not answer, or cannot do what the block asks for.
    """
    settle()
    import mlflow
    from mlflow.exceptions import MlflowException
    from sqlalchemy import create_engine
    from sqlalchemy.exc import SQLAlchemyError

    mlflow.set_tracking_uri(uri)
    try:
        if uri.startswith(_DATABASE_SERVERS):
            create_engine(uri).connect().close()  # MLflow itself would try for two minutes
        yield mlflow.MlflowClient(uri)
    except (MlflowException, SQLAlchemyError, ImportError) as error:  # they may quote the URI
        full_disk = from_machine(error)
        if full_disk is not None:
            raise full_disk from None
        raise Unreachable(
            f"MLflow at {uri.rpartition('@')[2]} cannot be used: {_first_line(error)}",
            "start the server, or correct MLFLOW_TRACKING_URI or the credentials "
            "(MLFLOW_TRACKING_USERNAME and …_PASSWORD); then run `tunetrail sync`: results are "
            "safe on disk",
        ) from None


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hold back MLflow's and its database's chatter; errors are raised, not logged."""
    settle()
    # It would print the address of each run, with user and password of the server.
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
    logging.getLogger("alembic").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
