"""dvc.lock as text, a piece a stage: to record one does not parse and format all the others.

DVC reads and writes the whole file for every stage, which makes a pipeline's cost quadratic in its
stages. What is written here is byte for byte what DVC writes: it formats the piece.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tunetrail.files import write_text

_HEAD = "schema: '2.0'\nstages:\n"

#: Where a stage begins: its key, not the value of a key so long that it has a line of its own.
_BEGIN = re.compile(r"^  (?! |: )", re.MULTILINE)


class LockFile:
    """The lock file at ``path``; what is put into it is there with the next :meth:`write`.

    Who calls holds DVC's lock.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._head, self._pieces = _HEAD, dict[str, str]()
        #: What tells whether somebody else wrote the file since.
        self._seen: tuple[int, int, int] | None = None
        self._unwritten: dict[str, str] = {}

    @property
    def is_written(self) -> bool:
        """Whether the file has all that was put."""
        return not self._unwritten

    def put(self, stage: Any) -> None:
        """Record a stage of DVC as it is now."""
        from dvc.stage.serialize import to_lockfile

        self._unwritten |= _keyed([_formatted(to_lockfile(stage))])

    def write(self) -> None:
        """Replace the file in one step, which DVC does not do.

        Raises:
            OSError: It cannot be written; what was put is kept for the next time.
        """
        if self._state() != self._seen:
            self._head, self._pieces = self._read()
        pieces = self._pieces | self._unwritten
        write_text(self._path, self._head + "".join(pieces.values()))
        self._pieces, self._unwritten, self._seen = pieces, {}, self._state()

    def _state(self) -> tuple[int, int, int] | None:
        if not self._path.exists():
            return None
        found = self._path.stat()
        return found.st_ino, found.st_mtime_ns, found.st_size

    def _read(self) -> tuple[str, dict[str, str]]:
        """What comes before the stages, and their pieces, by their first lines."""
        from dvc.utils.serialize import dumps_yaml, parse_yaml_for_update

        text = self._path.read_text(encoding="utf-8") if self._path.exists() else ""
        body = text.removeprefix(_HEAD)
        if text.startswith(f"{_HEAD}  ") and not re.search(r"^\S", body, re.MULTILINE):
            begins = [found.start() for found in _BEGIN.finditer(body)]
            if begins[:1] == [0] and body.endswith("\n"):
                ends = [*begins[1:], len(body)]
                return _HEAD, _keyed([body[a:b] for a, b in zip(begins, ends, strict=True)])
        # Somebody wrote it by hand, or it holds more than stages, or it is not there yet.
        content = parse_yaml_for_update(text, str(self._path))
        stages = content.pop("stages", None) or {}
        head = dumps_yaml({"schema": "2.0", **content}) + "stages:\n"
        return head, _keyed([_formatted({name: entry}) for name, entry in stages.items()])


def _formatted(stage: dict[str, Any]) -> str:
    """The piece of one stage. Where its lines break depends on how far they are indented."""
    from dvc.utils.serialize import dumps_yaml

    text: str = dumps_yaml({"stages": stage})
    return text.removeprefix("stages:\n")


def _keyed(pieces: list[str]) -> dict[str, str]:
    return {piece.partition("\n")[0]: piece for piece in pieces}
