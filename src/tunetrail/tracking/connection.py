"""The tracking server: where it is, reaching it, and what it may say."""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator
from typing import Any

from tunetrail.errors import TuneTrailError, masked
from tunetrail.files import STATE_DIR

_DATABASE_SERVERS = ("postgresql", "mysql", "mssql")


def tracking_uri() -> str:
    """The tracking server: MLFLOW_TRACKING_URI, or a database inside the project."""
    chosen = os.environ.get("MLFLOW_TRACKING_URI")
    return chosen or f"sqlite:///{(STATE_DIR / 'mlflow' / 'mlflow.db').absolute()}"


@contextlib.contextmanager
def reached(uri: str) -> Iterator[Any]:
    """MLflow's client of a tracking server, which also becomes that of MLflow's functions.

    Raises:
        TuneTrailError: The server does not answer, or cannot do what the block asks for.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
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
        raise TuneTrailError(
            f"MLflow at {masked(uri.rpartition('@')[2])} cannot be used: "
            f"{masked(str(error).splitlines()[0])}",
            "start the server or correct MLFLOW_TRACKING_URI, then run `tunetrail sync`; "
            "results are safe on disk",
        ) from None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hold back MLflow's and its database's chatter; errors are raised, not logged."""
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
    # It would print the address of each run, with user and password of the server.
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
    logging.getLogger("alembic").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
