"""Opening a model to be asked: only the file that was certified, and registered, is opened."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ConfigDict, Field

from tunetrail.errors import TuneTrailError
from tunetrail.files import read_json, stays_inside
from tunetrail.layout import ADAPTER, CERTIFICATE, MODEL, SERVING, SHARED, TOKENIZER
from tunetrail.run import Answers
from tunetrail.settings import Settings, parse
from tunetrail.tracking import registry
from tunetrail.tracking.registry import Version

if TYPE_CHECKING:
    from tunetrail.tracking.served_model import Predictor

DAMAGED_EXPORT = "`tunetrail verify --discard` removes damaged files; then run the pipeline again"


class _Serving(Settings):
    """What the export stage writes for whoever serves the model."""

    labels: tuple[str, ...]
    max_length: int = Field(ge=1)
    answers: Answers | None = None


class Certificate(Settings):
    """What counts of a certificate for whoever uses the model."""

    model_config = ConfigDict(extra="ignore")

    run: str
    passed: bool
    largest_logit_difference: float
    tolerance: float
    prediction_flips: int
    onnx_sha256: str


class SharedModel(Settings):
    """A model on a base that others share, as ``shared.json`` has it.

    Attributes:
        name: That it is asked by.
        version: Number of the registered version; None for a folder of the export stage.
        run: Digest of the run.
        onnx_sha256: Digest (hex) of the certified ONNX file, which it computes the same as.
        adapter_bytes: Size of its adapter.
        rows: Of the test set, on which both were compared.
        largest_logit_difference: From the certified file.
        tolerance: Largest difference that passes.
    """

    name: str
    version: str | None
    run: str
    onnx_sha256: str
    adapter_bytes: int
    rows: int
    largest_logit_difference: float
    tolerance: float


class Shared(Settings):
    """What is in a folder of models on one base.

    Attributes:
        base: Digest of the base model.
        files: Name → digest (hex) of every other file.
        models: In order of their names.
    """

    base: str
    files: dict[str, str]
    models: tuple[SharedModel, ...] = Field(min_length=1)


@dataclass(frozen=True)
class Model:
    """An open model.

    Attributes:
        name: Of the registered model, or the folder.
        version: Number of the registered version; None for a folder.
        run: Digest of the run that was exported.
        sha256: Digest (hex) of the certified ONNX file.
        adapter: Digest (hex) of its adapter; None for a model with a session of its own.
        columns: What a row has to have, by name.
        optional: What it may have besides.
        predictor: Computes; one thread at a time.
    """

    name: str
    version: str | None
    run: str
    sha256: str
    adapter: str | None
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


def open_models(reference: str, threads: int = 0, batch: int = 32) -> list[Model]:
    """Open everything that a reference, or a folder, stands for.

    Args:
        reference: ``models:/NAME@ALIAS``, ``models:/NAME/VERSION``, a folder of the export stage,
            or one of models that share a base.
        threads: That compute an operator (0: one a core).
        batch: Texts that a model is given at once.

    Raises:
        TuneTrailError: There is no such model, its certificate did not pass, or its bytes are not
            those that were certified or registered.
    """
    if reference.startswith(registry.PREFIX):
        return [open_version(registry.find(reference), threads, batch)]
    folder = Path(reference)
    if not folder.is_dir():
        raise TuneTrailError(
            f"there is no model '{reference}'",
            "name a registered one (models:/NAME@champion), or a folder of the export stage "
            "(runs/export/TASK/METHOD)",
        )
    if (folder / SHARED).is_file():
        return _open_shared(folder, threads, batch)
    certificate, content = verified(folder, DAMAGED_EXPORT)
    predictor = _predictor(folder, content, threads, batch)
    columns, optional = _columns_of_folder(predictor)
    sha256 = certificate.onnx_sha256
    return [Model(str(folder), None, certificate.run, sha256, None, columns, optional, predictor)]


def open_model(reference: str, threads: int = 0, batch: int = 32) -> Model:
    """Open the one model of a reference; arguments and errors as of :func:`open_models`."""
    found = open_models(reference, threads, batch)
    if len(found) > 1:
        names = ", ".join(model.name for model in found)
        raise TuneTrailError(
            f"'{reference}' has {len(found)} models: {names}",
            "name the folder of the export stage, or the registered version, of one of them",
        )
    return found[0]


def open_version(version: Version, threads: int = 0, batch: int = 32) -> Model:
    """Open a registered version; arguments and errors as of :func:`open_model`."""
    what = f"version {version.number} of '{version.name}'"
    again = f"delete {what} in MLflow; `tunetrail sync` registers it again from the results"
    with tempfile.TemporaryDirectory(prefix="tunetrail-") as scratch:
        folder, columns = registry.fetch(version, Path(scratch))
        certificate, content = verified(folder, again, what)
        if certificate.onnx_sha256 != version.onnx_sha256:
            raise _other_bytes(
                what, "registered", version.onnx_sha256, certificate.onnx_sha256, again
            )
        predictor = _predictor(folder, content, threads, batch)
    sha256 = version.onnx_sha256
    return Model(version.name, version.number, version.run, sha256, None, columns, (), predictor)


def _open_shared(folder: Path, threads: int, batch: int) -> list[Model]:
    """Every model of a folder in which they share a base."""
    again = f"`tunetrail share --out {folder}` writes it anew"
    shared = parse(Shared, read_json(folder / SHARED), str(folder / SHARED))
    # Adapters are opened by name of their file: only the bytes that were checked are there.
    with tempfile.TemporaryDirectory(prefix="tunetrail-") as scratch:
        checked = Path(scratch)
        for name, wanted in shared.files.items():
            if not stays_inside(name) or not (folder / name).is_file():
                raise TuneTrailError(f"'{folder}' is not whole: {name} is missing", again)
            content = (folder / name).read_bytes()
            actual = hashlib.sha256(content).hexdigest()
            if actual != wanted:
                raise _other_bytes(str(folder / name), "compared", wanted, actual, again)
            (checked / name).parent.mkdir(parents=True, exist_ok=True)
            (checked / name).write_bytes(content)
        names = [model.name for model in shared.models]
        base = (checked / MODEL).read_bytes()
        predictors = _tried(
            folder,
            lambda: registry.predictor_class().of_shared(checked, base, names, threads, batch),
        )
    return [
        Model(
            one.name,
            one.version,
            one.run,
            one.onnx_sha256,
            shared.files[f"{one.name}/{ADAPTER}"],
            *_columns_of_folder(predictor),
            predictor,
        )
        for one, predictor in zip(shared.models, predictors, strict=True)
    ]


def _columns_of_folder(predictor: Predictor) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What a row has to have, and may have: a folder does not say whether it was pairs."""
    asked = predictor.answers is not None
    return (("question", "context"), ()) if asked else (("text",), ("text_pair",))


def verified(folder: Path, again: str, what: str | None = None) -> tuple[Certificate, bytes]:
    """The certificate and the bytes of the model, which are then opened: no others can come between
    the check and the use.

    Raises:
        TuneTrailError: The export is not whole, its certificate did not pass, or its bytes are not
            those that were certified.
    """
    for name in (CERTIFICATE, MODEL, TOKENIZER, SERVING):
        if not (folder / name).is_file():
            whole = what or f"'{folder}'"
            raise TuneTrailError(f"{whole} is not a whole exported model: {name} is missing", again)
    what = what or str(folder / MODEL)
    certificate = parse(Certificate, read_json(folder / CERTIFICATE), str(folder / CERTIFICATE))
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
    parse(_Serving, read_json(folder / SERVING), str(folder / SERVING))
    return certificate, content


def _other_bytes(what: str, by: str, wanted: str, actual: str, fix: str) -> TuneTrailError:
    return TuneTrailError(
        f"{what} is not the file that was {by}\n"
        f"  {by:<10} sha256 {wanted}\n  {'actual':<10} sha256 {actual}",
        fix,
    )


def _predictor(folder: Path, content: bytes, threads: int, batch: int) -> Predictor:
    kind = registry.predictor_class()
    return _tried(folder, lambda: [kind.of_export(folder, content, threads, batch)])[0]


def _tried(folder: Path, opened: Callable[[], list[Predictor]]) -> list[Predictor]:
    """Predictors that were asked once: the first call is slow, and shows what cannot be asked."""
    try:
        predictors = opened()
        for predictor in predictors:
            predictor(["a text" if predictor.answers is None else ("a question", "a context")])
    except Exception as error:  # neither tokenizers nor ONNX Runtime has a class of its own
        raise TuneTrailError(
            f"the model in {folder} cannot be asked: {str(error).splitlines()[0]}",
            "its tokenizer.json or serving.json is not of this model, or damaged: export it again",
        ) from error
    return predictors
