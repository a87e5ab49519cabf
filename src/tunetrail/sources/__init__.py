"""Where datasets and base models come from.

A source is named by a path. A path that ends in ``.yaml`` is a *pointer*: a small file that pins
something elsewhere; its ``kind`` is the name of a module here. Any other path is the data itself.
Either way it is a path that DVC can depend on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from tunetrail.discovery import load, modules
from tunetrail.errors import TuneTrailError, unknown
from tunetrail.settings import Settings, parse, read_yaml
from tunetrail.sources.files import LocalFiles


class Source(Protocol):
    """What every kind of source offers."""

    @property
    def kind(self) -> str:
        """Name of the kind."""
        ...

    def fetch(self, scratch: Path) -> Path:
        """Make the content available and return its path (a file or a folder).

        Args:
            scratch: An empty folder that this source may fill.

        Raises:
            TuneTrailError: Not reachable, missing, or not the bytes that were pinned.
        """
        ...

    def provenance(self) -> dict[str, str]:
        """Where the content comes from, for cards and reports; complete once it was fetched."""
        ...


def read_source(path: Path) -> Source:
    """The source that ``path`` names.

    Raises:
        TuneTrailError: The path is missing, or the pointer is malformed or of an unknown kind.
    """
    if not path.exists():
        raise TuneTrailError(
            f"source '{path}' does not exist",
            "give a data file, a folder, or a pointer file (.yaml) that exists",
        )
    if path.suffix not in {".yaml", ".yml"}:
        return LocalFiles(path)
    content = read_yaml(path)
    kind = str(content.pop("kind", None))
    if kind not in modules(__name__):
        raise unknown("source kind", kind, modules(__name__), str(path))
    pointer: type[Settings] = load(__name__, kind, Settings)
    return parse(pointer, content, str(path))  # type: ignore[return-value]
