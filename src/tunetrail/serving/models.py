"""Opening a model to be asked: only the file that was certified, and registered, is opened."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ConfigDict, Field

from tunetrail.errors import TuneTrailError
from tunetrail.files import read_json
from tunetrail.layout import CERTIFICATE, MODEL, SERVING, TOKENIZER
from tunetrail.run import Answers
from tunetrail.settings import Settings, parse
from tunetrail.tracking import registry
from tunetrail.tracking.registry import Version

if TYPE_CHECKING:
    from tunetrail.tracking.served_model import Predictor

_DAMAGED_EXPORT = "`tunetrail verify --discard` removes damaged files; then run the pipeline again"


class _Serving(Settings):
    """What the export stage writes for whoever serves the model."""

    labels: tuple[str, ...]
    max_length: int = Field(ge=1)
    answers: Answers | None = None


class _Certificate(Settings):
    """What counts here of a certificate."""

    model_config = ConfigDict(extra="ignore")

    run: str
    passed: bool
    largest_logit_difference: float
    tolerance: float
    prediction_flips: int
    onnx_sha256: str


@dataclass(frozen=True)
class Model:
    """An open model.

    Attributes:
        name: Of the registered model, or the folder.
        version: Number of the registered version; None for a folder.
        run: Digest of the run that was exported.
        sha256: Digest (hex) of the ONNX file.
        columns: What a row has to have, by name.
        optional: What it may have besides.
        predictor: Computes; one thread at a time.
    """

    name: str
    version: str | None
    run: str
    sha256: str
    columns: tuple[str, ...]
    optional: tuple[str, ...]
    predictor: Predictor

    @property
    def predicts(self) -> str:
        """``classes``, ``a number`` or ``answers``."""
        if self.predictor.answers is not None:
            return "answers"
        return "classes" if self.predictor.labels else "a number"

    @property
    def shown(self) -> str:
        """Name and version, for people."""
        return self.name if self.version is None else f"{self.name} version {self.version}"


def open_model(reference: str, threads: int = 0, batch: int = 32) -> Model:
    """Open what a reference, or a folder of the export stage, stands for.

    Args:
        reference: ``models:/NAME@ALIAS``, ``models:/NAME/VERSION`` or a folder.
        threads: That compute an operator (0: one a core).
        batch: Texts that the model is given at once.

    Raises:
        TuneTrailError: There is no such model, its certificate did not pass, or its bytes are not
            those that were certified or registered.
    """
    if reference.startswith(registry.PREFIX):
        return open_version(registry.find(reference), threads, batch)
    folder = Path(reference)
    if not folder.is_dir():
        raise TuneTrailError(
            f"there is no model '{reference}'",
            "name a registered one (models:/NAME@champion), or a folder of the export stage "
            "(runs/export/TASK/METHOD)",
        )
    certificate, content = _verified(folder, _DAMAGED_EXPORT)
    predictor = _predictor(folder, content, threads, batch)
    # The folder does not say whether the model was trained on pairs.
    asked = predictor.answers is not None
    columns, optional = (("question", "context"), ()) if asked else (("text",), ("text_pair",))
    return Model(
        str(folder), None, certificate.run, certificate.onnx_sha256, columns, optional, predictor
    )


def open_version(version: Version, threads: int = 0, batch: int = 32) -> Model:
    """Open a registered version; arguments and errors as of :func:`open_model`."""
    what = f"version {version.number} of '{version.name}'"
    again = f"delete {what} in MLflow; `tunetrail sync` registers it again from the results"
    with tempfile.TemporaryDirectory(prefix="tunetrail-") as scratch:
        folder, columns = registry.fetch(version, Path(scratch))
        certificate, content = _verified(folder, again, what)
        if certificate.onnx_sha256 != version.onnx_sha256:
            raise _other_bytes(
                what, "registered", version.onnx_sha256, certificate.onnx_sha256, again
            )
        predictor = _predictor(folder, content, threads, batch)
    sha256 = version.onnx_sha256
    return Model(version.name, version.number, version.run, sha256, columns, (), predictor)


def _verified(folder: Path, again: str, what: str | None = None) -> tuple[_Certificate, bytes]:
    """The certificate and the bytes of the model, which are then opened: no others can come between
    the check and the use.
    """
    for name in (CERTIFICATE, MODEL, TOKENIZER, SERVING):
        if not (folder / name).is_file():
            whole = what or f"'{folder}'"
            raise TuneTrailError(f"{whole} is not a whole exported model: {name} is missing", again)
    what = what or str(folder / MODEL)
    certificate = parse(_Certificate, read_json(folder / CERTIFICATE), str(folder / CERTIFICATE))
    if not certificate.passed:
        raise TuneTrailError(
            f"the certificate of {what} did not pass: ONNX logits differ by "
            f"{certificate.largest_logit_difference:.2g} (tolerance {certificate.tolerance:g}), "
            f"{certificate.prediction_flips} predictions flip",
            "serve another model, or raise export.tolerance in params.yaml and export it again",
        )
    content = (folder / MODEL).read_bytes()
    actual = hashlib.sha256(content).hexdigest()
    if actual != certificate.onnx_sha256:
        raise _other_bytes(what, "certified", certificate.onnx_sha256, actual, again)
    return certificate, content


def _other_bytes(what: str, by: str, wanted: str, actual: str, fix: str) -> TuneTrailError:
    return TuneTrailError(
        f"{what} is not the file that was {by}\n"
        f"  {by:<10} sha256 {wanted}\n  {'actual':<10} sha256 {actual}",
        fix,
    )


def _predictor(folder: Path, content: bytes, threads: int, batch: int) -> Predictor:
    settings = parse(_Serving, read_json(folder / SERVING), str(folder / SERVING))
    try:
        predictor = registry.predictor_class()(folder, content, threads, batch)
        example: Any = "a text" if settings.answers is None else ("a question", "a context")
        predictor([example])  # the first call is slow, and shows a model that cannot be asked
    except Exception as error:  # tokenizers has no class of its own
        raise TuneTrailError(
            f"the model in {folder} cannot be asked: {str(error).splitlines()[0]}",
            "its tokenizer.json or serving.json is not of this model, or damaged: export it again",
        ) from error
    return predictor
