"""Free space and write permission where TuneTrail works."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tunetrail.doctor.finding import Finding, ok, problem, warning

#: Bytes of the base model where it is not fetched yet.
_USUAL_MODEL = 100e6

#: What a download and unpacking it take, beside the model.
_LEAST = 0.5e9


def check_space(root: Path | None) -> Iterator[Finding]:
    """Free space against what a plan of this size needs."""
    from tunetrail.sources.package import cache_folder

    places = {"the cache folder": cache_folder(), "the temporary folder": _temporary()}
    needs = dict.fromkeys(places, (_LEAST, "a download and its content"))
    if root is not None:
        places = {"the project": root, **places}
        needs["the project"] = _needed(root)
    for name, folder in places.items():
        need, why = needs[name]
        free = shutil.disk_usage(_existing(folder)).free
        text = f"{_gb(free)} free in {name} {folder}"
        if free >= need:
            yield ok(f"{text}; at most {_gb(need)} needed: {why}")
        elif free >= _LEAST:
            yield warning(f"{text}; it may need {_gb(need)}: {why}", "free some space")
        else:
            yield problem(f"{text}; it needs {_gb(need)}: {why}", "free some space")


def _needed(root: Path) -> tuple[float, str]:
    """Bytes that a plan may take, if every method trained and exported a whole base model."""
    import yaml

    path = root / "params.yaml"
    content: Any = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}
    counts = {key: max(1, len(content.get(key) or ())) for key in ("tasks", "methods", "seeds")}
    counts["budgets"] = max(1, len(content.get("budgets") or ()))
    model = root / "models" / "base"
    size = sum(p.stat().st_size for p in model.rglob("*") if p.is_file()) or _USUAL_MODEL
    exports = counts["tasks"] * counts["methods"]
    runs = exports * counts["seeds"] * counts["budgets"]
    # Weights and two moments of the optimiser for each run that is under way, and one winner a
    # task in MLflow.
    copies = runs + exports + 3 * (os.cpu_count() or 1) + counts["tasks"]
    return copies * size, f"{runs} runs and {exports} exports of a model of {_gb(size)}"


def check_permissions(root: Path | None) -> Iterator[Finding]:
    """Whether files can be made where they have to be."""
    from tunetrail.files import STATE_DIR
    from tunetrail.sources.package import cache_folder

    folders = {"the cache folder": cache_folder(), "the temporary folder": _temporary()}
    if root is not None:
        folders = {"the project": root, "its own state": root / STATE_DIR, **folders}
    refused = False
    for name, folder in folders.items():
        try:
            with tempfile.TemporaryFile(dir=_existing(folder)):
                continue
        except OSError as error:
            refused = True
            yield problem(
                f"{name} {folder} cannot be written: {error.strerror}",
                "give your user the right to (chown, chmod), or choose another: TUNETRAIL_CACHE, "
                "TMPDIR",
            )
    if not refused:
        yield ok(f"{', '.join(folders)} can be written")


def _temporary() -> Path:
    # ``tempfile.gettempdir`` would silently take another one if this cannot be written.
    return Path(os.environ.get("TMPDIR") or "/tmp")


def _existing(folder: Path) -> Path:
    """The folder itself or the nearest one above that is there."""
    folder = folder.absolute()
    return next(place for place in (folder, *folder.parents) if place.is_dir())


def _gb(size: float) -> str:
    return f"{size / 1e9:.1f} GB"
