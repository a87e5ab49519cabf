"""What the machine refuses (space, memory, rights), as errors that say what to do about it."""

from __future__ import annotations

import contextlib
import errno
import os
import pwd
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tunetrail.errors import TuneTrailError

#: How libraries tell an error number in their text (Rust, Arrow, torch), and what says it in words.
_NUMBER = re.compile(r"(?:os error|errno|error code) (\d+)", re.IGNORECASE)
_WORDS = {
    r"no space left on device|disk is full": errno.ENOSPC,
    r"can(no|')t allocate memory|bad.?alloc|failed to map segment": errno.ENOMEM,
}
_WRONG_PATH = {
    errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP, errno.ENAMETOOLONG,
}  # fmt: skip
_WANTED = re.compile(r"allocate ([\d.]+ ?\w+)")

_MORE_ROOM = (
    "free space there (`dvc gc --workspace` drops results of earlier parameters, and earlier "
    "versions of data), or set TMPDIR to a larger folder if that is the full one; then repeat the "
    "command: what is done is kept"
)

#: What to change when memory runs out, in the order in which it helps.
LESS_MEMORY = (
    "lower training.batch_size (training.accumulate makes up for it) or base.max_length, or run "
    "fewer stages side by side (python -m pipelines.compare --workers 1); then repeat the command"
)


@contextlib.contextmanager
def machine_errors() -> Iterator[None]:
    """Let what the machine refuses inside the block come out as an error that says what to do.

    Raises:
        TuneTrailError: No space, no memory, or no right to read or write. Other errors pass.
    """
    try:
        yield
    except TuneTrailError:
        raise
    except Exception as error:
        known = from_machine(error)
        if known is None:
            raise
        raise known from error


def from_machine(error: BaseException) -> TuneTrailError | None:
    """The error to show for one that is about space, memory or rights; None for any other."""
    if isinstance(error, FileNotFoundError) and "usable temporary directory" in str(error):
        return TuneTrailError(
            f"there is no folder for temporary files: {error.strerror}",
            "free space in one of them, or set TMPDIR to a folder that you may write to",
        )
    number, path = _number(error), _path(error)
    if number in (errno.ENOSPC, errno.EDQUOT):
        return TuneTrailError(f"the disk is full: {_left(path)}", _MORE_ROOM)
    if number == errno.EFBIG:
        return TuneTrailError(
            f"a file became larger than this account may write: {_left(path)}",
            "raise the limit (`ulimit -f`) and repeat the command: what is done is kept",
        )
    if number == errno.EROFS:
        return TuneTrailError(
            f"'{path or Path.cwd()}' is on a read-only file system",
            "make it writable, or copy the project to a folder that you may write to",
        )
    if number in (errno.EACCES, errno.EPERM) and path is not None:
        return TuneTrailError(
            f"user '{_user()}' may not use '{path}' ({os.strerror(number).lower()})",
            "give the user that right (`chmod`, `chown`), or use a file or folder of their own",
        )
    if number in _WRONG_PATH and path is not None:
        return TuneTrailError(
            f"'{path}' cannot be used: {os.strerror(number).lower()}",
            "correct the path, or run the stage that writes it (`dvc repro`, `make run`)",
        )
    if number == errno.ENOMEM:
        wanted = _WANTED.search(str(error))
        return TuneTrailError(
            "the machine is out of memory" + (f" ({wanted[1]} more were wanted)" if wanted else ""),
            LESS_MEMORY,
        )
    return None if error.__cause__ is None else from_machine(error.__cause__)


def require_room(folder: Path, needed: int, purpose: str) -> None:
    """Check, before the work, that ``folder`` has room for its result.

    Args:
        folder: Where the result goes; it need not exist yet.
        needed: Bytes.
        purpose: What needs them, for the message.

    Raises:
        TuneTrailError: There is less room than that.
    """
    free = shutil.disk_usage(_existing(folder)).free
    if free < needed:
        raise TuneTrailError(
            f"'{_existing(folder)}' has {megabytes(free)} left, {purpose} needs "
            f"{megabytes(needed)}",
            _MORE_ROOM,
        )


def megabytes(count: float) -> str:
    """A number of bytes for people."""
    return f"{count / 1e6:.1f} MB" if count < 1e9 else f"{count / 1e9:.1f} GB"


def _number(error: BaseException) -> int | None:
    """The error number that an error stands for, wherever its library puts it."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch, GPU
        return errno.ENOMEM
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    text = str(error)
    if told := _NUMBER.search(text):
        return int(told[1])
    return next((n for words, n in _WORDS.items() if re.search(words, text, re.IGNORECASE)), None)


def _path(error: BaseException) -> str | None:
    name = getattr(error, "filename", None)
    return os.fsdecode(name) if isinstance(name, str | bytes) else None


def _left(path: str | None) -> str:
    """Room where the file is or, as errors seldom name one, wherever TuneTrail writes."""
    folders = [Path.cwd(), *_temporary()] if path is None else [Path(path)]
    room = {str(_existing(f)): shutil.disk_usage(_existing(f)).free for f in folders}
    return ", ".join(
        f"'{folder}' has {megabytes(free)} left"
        for folder, free in sorted(room.items(), key=lambda item: item[1])
    )


def _temporary() -> list[Path]:
    try:
        return [Path(tempfile.gettempdir())]
    except FileNotFoundError:  # there is none that can be written
        return []


def _existing(path: Path) -> Path:
    """The folder that ``path`` is, or would be made, in."""
    return next(p for p in (path.absolute(), *path.absolute().parents) if p.is_dir())


def _user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:  # an account without a name, as containers have
        return str(os.geteuid())
