"""Lineage and model card of a registered version: stored beside its model, and read from there."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunetrail.errors import TuneTrailError
from tunetrail.files import file_digest, read_json
from tunetrail.layout import LINEAGE, MODEL_CARD
from tunetrail.lineage.chain import FORMAT
from tunetrail.tracking.connection import quiet, reached, tracking_uri
from tunetrail.tracking.tags import ONNX_TAG, RUN_TAG

#: Tags of a version with the digests of what is stored beside its model.
TAGS = {LINEAGE: "tunetrail.lineage_sha256", MODEL_CARD: "tunetrail.model_card_sha256"}

#: Most characters that MLflow's databases take for the description of a version.
_DESCRIPTION = 5000

_URI = re.compile(r"models:/(?P<name>[^/@]+)(/(?P<version>\d+)|@(?P<alias>[^/@]+))")


@dataclass(frozen=True)
class Version:
    """A registered version.

    Attributes:
        name: Of the registered model.
        number: Of the version.
        aliases: Those that it has now.
        digests: File beside the model → sha256 that the registry has of it.
        folder: Where the files lie, for as long as they are :func:`opened`.
    """

    name: str
    number: str
    aliases: tuple[str, ...]
    digests: dict[str, str]
    folder: Path


def bring(client: Any, folder: Path, model: dict[str, Any]) -> None:
    """Store lineage and card beside the model of a version, where others are, or none.

    A version that is chosen again, by a comparison with further methods, gets the lineage of that.

    Args:
        client: MLflow's.
        folder: What the register stage wrote for the task.
        model: Entry of the receipt.

    Raises:
        TuneTrailError: The register stage has not written them.
    """
    for file in TAGS:
        if not (folder / file).is_file():
            raise TuneTrailError(
                f"{folder / file} does not exist", "`dvc repro register` writes it"
            )
    wanted = {tag: file_digest(folder / file) for file, tag in TAGS.items()}
    for version in client.search_model_versions(f"name='{model['name']}'"):
        tags = version.tags
        if (tags.get(ONNX_TAG), tags.get(RUN_TAG)) != (model["onnx_sha256"], model["run"]):
            continue
        if wanted.items() <= tags.items():
            continue
        client.log_model_artifacts(_model_id(version), str(folder))
        card = _short((folder / MODEL_CARD).read_text(encoding="utf-8"))
        client.update_model_version(version.name, version.version, description=card)
        for tag, digest in wanted.items():  # last: a killed sync is seen by their absence
            client.set_model_version_tag(version.name, version.version, tag, digest)


def _model_id(version: Any) -> str:
    """The model of a version; where MLflow keeps an id for that, it stays empty."""
    return str(version.source.removeprefix("models:/"))


def _short(card: str) -> str:
    """As many sections of a card as a description may have."""
    if len(card) <= _DESCRIPTION:
        return card
    rest = f"\n\nThe rest is in {MODEL_CARD}, beside the model.\n"
    kept = card[: _DESCRIPTION - len(rest)]
    return kept[: kept.rindex("\n## ")].rstrip() + rest


@contextmanager
def opened(uri: str, whole: bool) -> Iterator[Version]:
    """A registered version, and the files of it.

    Args:
        uri: ``models:/NAME/VERSION`` or ``models:/NAME@ALIAS``.
        whole: Whether model and card are wanted as well, not only the lineage.

    Raises:
        TuneTrailError: Malformed, no such version, one without a lineage, or a server that does not
            answer.
    """
    parts = _URI.fullmatch(uri)
    if parts is None:
        raise TuneTrailError(
            f"'{uri}' does not name a registered version",
            "models:/NAME/VERSION or models:/NAME@ALIAS, such as models:/sentiment-movie@champion",
        )
    where = tracking_uri()
    database = Path(where.removeprefix("sqlite:///"))
    if where.startswith("sqlite:///") and not database.is_file():
        raise TuneTrailError(
            f"there is no registry here: '{database}' does not exist",
            "change into the project, or set MLFLOW_TRACKING_URI; `tunetrail sync` fills it from "
            "results",
        )
    with quiet(), tempfile.TemporaryDirectory(prefix="tunetrail-") as scratch:
        with reached(where) as client:
            found = _find(client, parts)
            digests = {file: found.tags.get(tag, "") for file, tag in TAGS.items()}
            if not all(digests.values()):
                raise TuneTrailError(
                    f"version {found.version} of '{found.name}' has no lineage",
                    "an earlier TuneTrail registered it, or a sync was killed: `tunetrail run` in "
                    "the project stores it, if that is still what the comparison chooses",
                )
            folder = _fetched(client, found, Path(scratch), whole)
        aliases = tuple(sorted(found.aliases))
        yield Version(found.name, str(found.version), aliases, digests, folder)


def _find(client: Any, parts: re.Match[str]) -> Any:
    from mlflow.exceptions import MlflowException

    name, number = parts["name"], parts["version"]
    try:
        found = number or client.get_model_version_by_alias(name, parts["alias"]).version
        return client.get_model_version(name, str(found))  # only this has the aliases
    except MlflowException as error:
        if error.error_code not in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}:
            raise
    if not client.search_registered_models(f"name='{name}'"):
        known = sorted(model.name for model in client.search_registered_models())
        raise TuneTrailError(
            f"there is no registered model '{name}'",
            f"registered: {', '.join(known) or 'none'}; `tunetrail sync` registers winners",
        )
    versions = client.search_model_versions(f"name='{name}'")
    there = ", ".join(sorted((str(version.version) for version in versions), key=int)) or "none"
    wanted = f"version {number}" if number else f"alias '{parts['alias']}'"
    raise TuneTrailError(f"'{name}' has no {wanted}", f"its versions: {there}")


def _fetched(client: Any, version: Any, scratch: Path, whole: bool) -> Path:
    from mlflow.artifacts import download_artifacts

    location = client.get_logged_model(_model_id(version)).artifact_location.rstrip("/")
    wanted = location if whole else f"{location}/{LINEAGE}"
    fetched = Path(download_artifacts(artifact_uri=wanted, dst_path=str(scratch)))
    return fetched if whole else fetched.parent


def exported_files(version: Version, lineage: dict[str, Any]) -> list[tuple[str, Path, str]]:
    """Path below the model's folder, where it lies, and expected sha256 of the export's copy."""
    inside = f"artifacts/{lineage['model']['label']}"  # where MLflow puts a folder of that name
    return [
        (f"{inside}/{name}", version.folder / inside / name, link["sha256"])
        for link in lineage["links"]
        if link["step"] == "export"
        for name in [Path(link["path"]).name]
    ]


def stored_files(version: Version) -> list[tuple[str, Path, str]]:
    """The same of what is stored beside the model, the lineage first."""
    return [(file, version.folder / file, digest) for file, digest in version.digests.items()]


def read_lineage(version: Version) -> dict[str, Any]:
    """What is stored of a version.

    Raises:
        TuneTrailError: It is of another version of TuneTrail.
    """
    found: dict[str, Any] = read_json(version.folder / LINEAGE)
    if found["format"] != FORMAT:
        raise TuneTrailError(
            f"the lineage of version {version.number} of '{version.name}' is of another version of "
            "TuneTrail",
            "use that one, or `tunetrail run` in the project if the version is still chosen there",
        )
    return found
