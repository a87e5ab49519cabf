"""Digests, canonical JSON and writes that a kill cannot leave half done."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from tunetrail.errors import TuneTrailError

#: Everything TuneTrail keeps for itself in a project: downloads, checkpoints, logs, databases.
STATE_DIR = Path(".tunetrail")


def canonical_json(value: Any) -> str:
    """One text for one value: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest_of(value: Any) -> str:
    """sha256 (hex) of a JSON-serialisable value."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """sha256 (hex) of a file's bytes."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def tree_digest(folder: Path) -> str:
    """sha256 (hex) over the relative names and bytes of every file below ``folder``.

    Raises:
        TuneTrailError: There is no such folder.
    """
    if not folder.is_dir():
        raise TuneTrailError(
            f"folder '{folder}' does not exist", "run the stage that writes it (`dvc repro`)"
        )
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return digest_of({p.relative_to(folder).as_posix(): file_digest(p) for p in files})


def check_file(path: Path, name: str, expected: str) -> None:
    """Compare the bytes of a pinned file, which the source calls ``name``, with its sha256.

    Raises:
        TuneTrailError: It is missing, or its digest is another one (both are shown).
    """
    if not path.is_file():
        raise TuneTrailError(f"'{name}' is not in the source", "correct the source file")
    check_digest(name, expected, file_digest(path))


def check_digest(name: str, expected: str, actual: str) -> None:
    """Stop when the digest of ``name`` is not the pinned one.

    Raises:
        TuneTrailError: They differ (both are shown).
    """
    if actual != expected:
        raise TuneTrailError(
            f"{name} has the wrong digest\n"
            f"  required sha256 {expected}\n  actual   sha256 {actual}",
            "these are not the bytes that were pinned: check where they come from",
        )


def stays_inside(name: str) -> bool:
    """Whether a relative path that somebody else chose stays below the folder it is joined to."""
    parts = PurePosixPath(name).parts
    return bool(parts) and not name.startswith("/") and ".." not in parts and "\\" not in name


def read_json(path: Path) -> Any:
    """Parse a JSON file.

    Raises:
        TuneTrailError: The file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise TuneTrailError(
            f"{path} does not exist", "run the stage that writes it (`dvc repro`, `make run`)"
        ) from None
    except ValueError as error:  # not JSON, or not even text
        raise TuneTrailError(
            f"{path} is not valid JSON ({error})", "delete it and run the stage again"
        ) from None


def write_json(path: Path, value: Any) -> None:
    """Write readable JSON in one step (a reader sees the old file or the new one)."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write text in one step."""
    with replacing_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def copy_bytes(source: Path, target: Path) -> None:
    """Give ``target`` the bytes of ``source`` in one step."""
    with replacing_file(target) as temporary:
        shutil.copyfile(source, temporary)


@contextmanager
def replacing_file(target: Path) -> Iterator[Path]:
    """A temporary file that becomes ``target`` when the block succeeds, and vanishes when not."""
    target.parent.mkdir(parents=True, exist_ok=True)
    _drop_leftovers(target)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A temporary folder that becomes ``target`` when the block succeeds, and vanishes when not."""
    with _temporary_folder(target) as temporary:
        yield temporary
        temporary.chmod(0o755)
        if target.exists():
            shutil.rmtree(target)
        os.replace(temporary, target)


@contextmanager
def scratch() -> Iterator[Path]:
    """A temporary folder that vanishes with the block (after a kill: with the next one)."""
    with _temporary_folder(STATE_DIR / "tmp" / "scratch") as temporary:
        yield temporary


@contextmanager
def _temporary_folder(target: Path) -> Iterator[Path]:
    """A folder beside ``target``; what killed processes left there is removed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    _drop_leftovers(target)
    # DVC does not see names like this (.dvcignore): a stage whose input is the whole folder above
    # must not become stale by what a kill left.
    prefix = f".{target.name}.{os.getpid()}."
    temporary = Path(tempfile.mkdtemp(prefix=prefix, suffix=".tmp", dir=target.parent))
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _drop_leftovers(target: Path) -> None:
    """Remove what processes that are no more left while they wrote ``target``."""
    name = re.compile(re.escape(f".{target.name}.") + r"(\d+)(\.\w{8})?\.tmp")
    for left in target.parent.glob(".*.tmp"):
        found = name.fullmatch(left.name)
        if found is None or _is_running(int(found[1])):
            continue
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True
