"""Kind ``files``: a CSV, JSON Lines or Parquet file, or a folder of them, on this machine."""

from __future__ import annotations

from pathlib import Path

from tunetrail.files import file_digest, tree_digest
from tunetrail.settings import Settings


class FilesSource(Settings):
    """Local data, read where it is. Its digest is computed whenever it is ingested."""

    kind: str = "files"
    path: Path

    def fetch(self, scratch: Path) -> Path:
        """The path itself; nothing is copied."""
        return self.path

    def provenance(self) -> dict[str, str]:
        """Path (as given) and the digest of the bytes now there."""
        digest = tree_digest if self.path.is_dir() else file_digest
        return {"kind": "files", "path": self.path.as_posix(), "sha256": digest(self.path)}
