"""Registered models: the version that a reference means, and its files.

Nothing of a version is executed: MLflow stores code with a model, and that stays where it is.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunetrail.errors import TuneTrailError, Unreachable, unknown
from tunetrail.tracking.connection import settle, tracking_uri
from tunetrail.tracking.tags import ONNX_TAG, RUN_TAG

if TYPE_CHECKING:
    from tunetrail.tracking.served_model import Predictor

PREFIX = "models:/"
_REFERENCE = re.compile(r"models:/(?P<name>[^/@']+)(?:@(?P<alias>[^/@]+)|/(?P<number>\d+))")


@dataclass(frozen=True)
class Version:
    """A version of a registered model.

    Attributes:
        name: Of the registered model.
        number: Of the version.
        run: Digest of the run that was exported.
        onnx_sha256: Digest (hex) of the ONNX file that was registered.
    """

    name: str
    number: str
    run: str
    onnx_sha256: str


def follows(reference: str) -> bool:
    """Whether a reference means whatever version its alias is on."""
    found = _REFERENCE.fullmatch(reference)
    return found is not None and found["alias"] is not None


def find(reference: str) -> Version:
    """The version that ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION`` means now.

    Raises:
        TuneTrailError: MLflow cannot be used, has no such version, or one that TuneTrail did not
            register.
    """
    parts = _REFERENCE.fullmatch(reference)
    if parts is None:
        raise TuneTrailError(
            f"'{reference}' does not say which version of a registered model",
            "write models:/NAME@champion or models:/NAME/3",
        )
    name = parts["name"]
    with _reaching() as client:
        models = client.search_registered_models(f"name='{name}'")
        if not models:
            known = [model.name for model in client.search_registered_models()]
            raise unknown("registered model", name, known, _shown())
        aliases = models[0].aliases
        if parts["alias"] is not None and parts["alias"] not in aliases:
            raise unknown("alias", parts["alias"], aliases, f"registered model '{name}'")
        number = parts["number"] or str(aliases[parts["alias"]])
        versions = {str(v.version): v for v in client.search_model_versions(f"name='{name}'")}
        if number not in versions:
            raise unknown("version", number, versions, f"registered model '{name}'")
    found = versions[number]
    if ONNX_TAG not in found.tags or RUN_TAG not in found.tags:
        raise TuneTrailError(
            f"version {number} of '{name}' has no tag '{ONNX_TAG}': TuneTrail did not register it",
            "name a version that `tunetrail sync` made",
        )
    return Version(name, number, found.tags[RUN_TAG], found.tags[ONNX_TAG])


def fetch(version: Version, folder: Path) -> tuple[Path, tuple[str, ...]]:
    """Copy a version's files; the folder that the export stage wrote, and the columns it reads.

    Args:
        version: What :func:`find` found.
        folder: An empty folder for the copy.

    Raises:
        TuneTrailError: MLflow cannot be used, or its files are not those of an exported model.
    """
    from mlflow.artifacts import download_artifacts
    from mlflow.models import Model

    uri = f"{PREFIX}{version.name}/{version.number}"
    with _reaching():
        copy = Path(download_artifacts(uri, dst_path=str(folder)))
        try:
            described = Model.load(str(copy))
            place = described.flavors["python_function"]["artifacts"]["export"]["path"]
            columns = tuple(described.signature.inputs.input_names())
        except (KeyError, AttributeError, TypeError) as error:
            raise TuneTrailError(
                f"{uri} is not an exported model: its MLmodel file has no {error}",
                "name a version that `tunetrail sync` made",
            ) from None
    return copy / place, columns


def predictor_class() -> type[Predictor]:
    """What asks an exported model. Its file is MLflow's, too, and imports it."""
    settle()
    from tunetrail.tracking.served_model import Predictor

    return Predictor


@contextlib.contextmanager
def _reaching() -> Iterator[Any]:
    """A client; what goes wrong with MLflow inside the block is one error."""
    settle()
    import mlflow
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    uri = tracking_uri()
    database = Path(uri.removeprefix("sqlite:///"))
    if "MLFLOW_TRACKING_URI" not in os.environ and not database.is_file():
        raise TuneTrailError(
            f"there are no registered models: '{database}' does not exist",
            "run `tunetrail run` in the project first, or set MLFLOW_TRACKING_URI",
        )
    mlflow.set_tracking_uri(uri)  # what fetches artifacts would else make a database of its own
    try:
        yield mlflow.MlflowClient(uri)
    except (MlflowException, SQLAlchemyError, OSError, ImportError) as error:
        raise Unreachable(
            f"{_shown()} cannot be used: {str(error).partition(chr(10))[0]}",
            "start the server, or correct MLFLOW_TRACKING_URI or the credentials "
            "(MLFLOW_TRACKING_USERNAME and …_PASSWORD)",
        ) from None


def _shown() -> str:
    """The tracking server without what may be a password."""
    return f"MLflow at {tracking_uri().rpartition('@')[2]}"
