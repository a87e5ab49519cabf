"""Several models of one base in one folder: the base once, and what each trained as an adapter.

The base is written as ONNX without what was trained, which becomes inputs. ONNX Runtime takes them
from an adapter with each call, so one session answers for every model.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import numpy_helper
from tqdm import tqdm

from tunetrail.errors import TuneTrailError
from tunetrail.files import file_digest, read_json, replacing, write_json
from tunetrail.kinds import kind_of
from tunetrail.layout import ADAPTER, CERTIFICATE, MODEL, RUN, SERVING, SHARED, TOKENIZER
from tunetrail.machine import require_room
from tunetrail.modeling.classifier import Classifier
from tunetrail.run import RunSpec, read_run
from tunetrail.serving.models import DAMAGED_EXPORT, Shared, SharedModel, verified
from tunetrail.stages import export
from tunetrail.stages.evaluate import read_test, trained_model
from tunetrail.tracking import registry
from tunetrail.training.predict import outputs

#: Of a model, where it is a part of a path of HTTP and the name of a folder.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

_ALONE = "serve it by itself: tunetrail serve "


@dataclass(frozen=True)
class Part:
    """A model that is to share its base.

    Attributes:
        name: To ask it by.
        version: Number of the registered version; None for a folder of the export stage.
        export: What the export stage wrote.
        selected: The method's folder that the select stage wrote.
        data: The ``test`` output of the prepare stage.
        base: What the base stage wrote.
    """

    name: str
    version: str | None
    export: Path
    selected: Path
    data: Path
    base: Path


def part_of(reference: str) -> Part:
    """What a project has of a model.

    Args:
        reference: A folder of the export stage, in its project, or ``models:/NAME@ALIAS`` or
            ``models:/NAME/VERSION``, of the project in the current folder.

    Raises:
        TuneTrailError: There is no such version, or no export of it in the project.
    """
    if not reference.startswith(registry.PREFIX):
        folder = Path(reference).resolve()
        if not (folder / CERTIFICATE).is_file() or folder.parent.parent.name != "export":
            raise TuneTrailError(
                f"'{reference}' is not a folder of the export stage in its project",
                "name runs/export/TASK/METHOD, or models:/NAME@champion",
            )
        return _part(f"{folder.parent.name}-{folder.name}", None, folder)
    version = registry.find(reference)
    for file in sorted(Path("runs/export").glob(f"*/*/{CERTIFICATE}")):
        found = read_json(file)
        if (found["run"], found["onnx_sha256"]) == (version.run, version.onnx_sha256):
            return _part(version.name, version.number, file.parent.resolve())
    raise TuneTrailError(
        f"version {version.number} of '{version.name}' is run {version.run[:12]}, of which there "
        "is no export in runs/export",
        "go to the project that registered it, as it was then: what it trained is not in MLflow",
    )


def _part(name: str, version: str | None, folder: Path) -> Part:
    task, method, root = folder.parent.name, folder.name, folder.parents[3]
    return Part(
        name,
        version,
        folder,
        root / "runs" / "select" / task / method,
        root / "data" / "prepared" / task / "test",
        root / "models" / "base",
    )


def share(parts: Sequence[Part], out: Path) -> Shared:
    """Write the base, and what each model trained, to ``out``; what was written.

    Every model is computed from base and adapter on a sweep of shapes and on its whole test set,
    and compared with its certified ONNX file: all logits within the tolerance of its certificate,
    no prediction flips. Nothing is written unless all pass.

    Args:
        parts: The models.
        out: Folder to write.

    Raises:
        TuneTrailError: ``out`` holds something else, a name is no part of a path or is there twice,
            an export is not what was certified, two models are not of one base and form, one
            trains most of its base, or one is computed differently from the base.
    """
    if out.exists() and not (out / SHARED).is_file():
        raise TuneTrailError(
            f"--out is '{out}', which is there and was not written by `tunetrail share`",
            "name a new folder",
        )
    parts = sorted(parts, key=lambda part: part.name)
    _check_names(parts)
    specs = [_checked(part) for part in parts]
    for part, spec in zip(parts, specs, strict=True):
        _check_kin(parts[0], specs[0], part, spec)
    with replacing(out) as folder:
        base = b""
        session: Any = None
        found = []
        for part, spec in tqdm(
            list(zip(parts, specs, strict=True)), unit="model", desc="share", disable=None
        ):
            model = trained_model(spec, part.base, part.selected / "adapter")
            trained = {k: v.detach().numpy() for k, v in model.trained().items()}
            _check_share(part, model)
            own = _without(model, trained, part, folder)
            if session is None:
                base = own
                require_room(out, len(base), "the base of the models")
                (folder / MODEL).write_bytes(base)
                session = export.open_session(base, os.cpu_count() or 1)
                shutil.copyfile(part.export / TOKENIZER, folder / TOKENIZER)
            elif own != base:
                raise _unlike(parts[0], specs[0], part, spec)
            (folder / part.name).mkdir()
            adapter = folder / part.name / ADAPTER
            _write_adapter(trained, adapter)
            shutil.copyfile(part.export / SERVING, folder / part.name / SERVING)
            found.append(_compared(part, spec, session, adapter))
        names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
        shared = Shared(
            base=specs[0].base.digest,
            files={name: file_digest(folder / name) for name in names},
            models=tuple(found),
        )
        write_json(folder / SHARED, shared.model_dump(mode="json"))
    return shared


def _check_names(parts: Sequence[Part]) -> None:
    for place, part in enumerate(parts):
        if not _NAME.fullmatch(part.name):
            raise TuneTrailError(
                f"the model '{part.name}' cannot be a part of a path: letters, digits, and ._- can",
                "register it under another name (project in params.yaml), or name its folder",
            )
        if place and part.name == parts[place - 1].name:
            raise TuneTrailError(f"two models are called '{part.name}'", "name each of them once")


def _checked(part: Part) -> RunSpec:
    """The run of a part, whose exported file is the one that was certified."""
    certificate, _ = verified(part.export, DAMAGED_EXPORT)
    spec = read_run(part.selected / RUN)
    if spec.digest != certificate.run:
        raise TuneTrailError(
            f"{part.selected} and {part.export} are of different runs\n"
            f"  selected  {spec.digest}\n  exported  {certificate.run}",
            "run the pipeline: it exports what was selected",
        )
    return spec


def _facts(spec: RunSpec) -> dict[str, Any]:
    """What decides a model besides what was trained, as far as a run says it."""
    return {
        "base": spec.base.digest[:12],
        "start": spec.start_name,
        "pooling": spec.base.pooling,
        "range": spec.data.range,
        "method": spec.method.name,
    }


def _check_kin(first: Part, wanted: RunSpec, part: Part, spec: RunSpec) -> None:
    """Before anything is computed: two models are of one base and method."""
    if _facts(wanted) != _facts(spec):
        raise _unlike(first, wanted, part, spec)


def _unlike(first: Part, wanted: RunSpec, part: Part, spec: RunSpec) -> TuneTrailError:
    one, other = _facts(wanted), _facts(spec)
    if one == other:
        one, other = wanted.method.options, spec.method.options
    different = [
        f"{key} {value} and {other[key]}"
        for key, value in one.items()
        if value != other[key] and key != "learning_rate"  # which decides the training alone
    ]
    reason = "; ".join(different) or f"{spec.method.name} keeps more than what it trains"
    return TuneTrailError(
        f"'{first.name}' and '{part.name}' cannot share a base: {reason}",
        "share models of one base, method and shape; put the others into a folder of their own",
    )


def _check_share(part: Part, model: Classifier) -> None:
    trained = sum(tensor.numel() for tensor in model.trained().values())
    whole = sum(tensor.numel() for tensor in model.parameters())
    if 2 * trained > whole:
        raise TuneTrailError(
            f"'{part.name}' trained {trained:,} of its {whole:,} parameters: there is no base to "
            "share",
            _ALONE + str(part.export),
        )


def _without(model: Classifier, trained: dict[str, np.ndarray], part: Part, folder: Path) -> bytes:
    """The model as ONNX without what was trained: inputs, by their names, take its place.

    The same bytes for every model that can share them. An input may be left out, as an adapter
    fills it; its default is empty, so that without an adapter nothing is computed.
    """
    traced = folder / "traced.onnx"
    export.write_onnx(model, traced, fold=False)
    whole = onnx.load(traced)
    traced.unlink()
    weights = {tensor.name: tensor for tensor in whole.graph.initializer}
    for name, value in trained.items():
        if name not in weights:
            raise TuneTrailError(
                f"'{part.name}' cannot be computed from an adapter: its graph has no '{name}'",
                _ALONE + str(part.export),
            )
        tensor = weights[name]
        # Heads differ in classes; a size without a name would also forbid the empty default.
        shape = [f"{name}:0", *value.shape[1:]]
        whole.graph.input.append(onnx.helper.make_tensor_value_info(name, tensor.data_type, shape))
        empty = np.zeros((0, *value.shape[1:]), dtype=value.dtype)
        tensor.CopyFrom(numpy_helper.from_array(empty, name))
    logits = whole.graph.output[0].type.tensor_type.shape.dim[-1]
    logits.Clear()
    logits.dim_param = "outputs"
    content: bytes = whole.SerializeToString()
    return content


def _write_adapter(trained: dict[str, np.ndarray], path: Path) -> None:
    written = onnxruntime.AdapterFormat()
    written.set_adapter_version(1)
    written.set_model_version(1)
    # The values point into the arrays, which have to be there until the file is.
    values = {k: onnxruntime.OrtValue.ortvalue_from_numpy(v) for k, v in trained.items()}
    written.set_parameters(values)
    written.export_adapter(str(path))


def _compared(part: Part, spec: RunSpec, session: Any, adapter: Path) -> SharedModel:
    """Compute a model from base and adapter, and from its certified file.

    Raises:
        TuneTrailError: It cannot be, or gives other logits or predictions.
    """
    certificate, content = verified(part.export, DAMAGED_EXPORT)
    own = export.open_session(content, os.cpu_count() or 1)
    loaded = onnxruntime.LoraAdapter()
    loaded.Load(str(adapter))
    options = onnxruntime.RunOptions()
    options.add_active_adapter(loaded)

    def shared(batch: dict[str, torch.Tensor]) -> np.ndarray:
        return export.ask(session, batch, options)

    rows = read_test(spec, part.data)
    sweep = export.sweep_inputs(spec, rows)
    wanted = [export.ask(own, batch) for batch in sweep]
    logits = outputs(rows, lambda batch: export.ask(own, batch))
    try:
        found = [shared(batch) for batch in sweep]
        found_logits = outputs(rows, shared)
    except Exception as error:  # those of ONNX Runtime have no class in common
        raise TuneTrailError(
            f"'{part.name}' cannot be computed from an adapter: {str(error).splitlines()[0]}",
            _ALONE + str(part.export),
        ) from error
    difference = export.largest_difference([*wanted, logits], [*found, found_logits])
    kind = kind_of(spec.data)
    flips = kind.flips(kind.decide(rows, logits), kind.decide(rows, found_logits))
    if not difference <= certificate.tolerance or flips:  # NaN is no small difference
        raise TuneTrailError(
            f"'{part.name}' on a shared base is not the model that was certified: logits differ "
            f"by {difference:.2g} (tolerance {certificate.tolerance:g}), {flips} of {len(rows)} "
            "predictions flip",
            _ALONE + str(part.export),
        )
    return SharedModel(
        name=part.name,
        version=part.version,
        run=spec.digest,
        onnx_sha256=certificate.onnx_sha256,
        adapter_bytes=adapter.stat().st_size,
        rows=len(rows),
        largest_logit_difference=difference,
        tolerance=certificate.tolerance,
    )
