"""Records of dataset versions: one small file each, for git."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from tunetrail.errors import TuneTrailError
from tunetrail.files import STATE_DIR, read_json, write_json
from tunetrail.layout import RESULT
from tunetrail.settings import Settings, parse

#: Where records are, below the project.
VERSIONS = Path("data/versions")

#: What the gate said of each version, below the project: TASK/NNNN/.
REPORTS = STATE_DIR / "versions"

Status = Literal["accepted", "rejected"]

Origin = Literal["found", "added", "replaced", "restored"]


class TakenFile(Settings):
    """A file that a version was made of."""

    name: str
    sha256: str
    rows: int


class Failed(Settings):
    """A check of the gate that stopped a version."""

    check: str
    meaning: str
    count: int = Field(description="rows that failed")
    share: float = Field(description="of all rows of the version")
    limit: float = Field(description="the largest share allowed")
    observed: str = Field(default="", description="what was found, where it is no count of rows")
    error: str | None = None
    examples: tuple[str, ...] = Field(
        default=(), description="ids of rows, with file and row where they are new"
    )

    @property
    def said(self) -> str:
        """Which check, and how far from its limit."""
        if self.error is not None:
            return f"{self.check}: {self.error}"
        found = (
            f"{self.count} rows, {self.share:.2%} (limit {self.limit:.2%})"
            if self.count
            else f"found {self.observed}"
        )
        return f"{self.check}: {self.meaning}; {found}"


class Version(Settings):
    """A dataset version, accepted or rejected."""

    path: Path = Field(exclude=True, description="the record")
    number: int = Field(ge=1)
    task: str
    status: Status
    origin: Origin = Field(
        description="found: as it was before an intake; added: with further rows; replaced: a "
        "whole new file; restored: the bytes of an earlier version"
    )
    restores: int | None = Field(default=None, description="the version that was restored")
    against: int | None = Field(description="the accepted version before, which it is compared to")
    created: str = Field(description="time (UTC); all else is the same in a repetition")
    file: str = Field(description="the data file, in the project")
    sha256: str = Field(description="of the data file")
    md5: str = Field(description="the name of its bytes in DVC's cache (if accepted)")
    rows: int
    files: tuple[TakenFile, ...] = ()
    repeated: int = Field(default=0, description="new rows that were there already, cell by cell")
    failed: tuple[Failed, ...] = ()
    card: dict[str, Any] = Field(description="rows, labels and lengths")
    difference: dict[str, Any] | None = Field(description="against that version; None without one")
    notes: tuple[str, ...] = ()

    @property
    def accepted(self) -> bool:
        """Whether it became the project's data."""
        return self.status == "accepted"

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it was rejected, a line a check with examples; none where it was accepted."""
        return tuple(
            "; such as ".join(filter(None, [failed.said, ", ".join(failed.examples)]))
            for failed in self.failed
        )

    def write(self) -> None:
        """Write the record, in one step."""
        write_json(self.path, self.model_dump(mode="json"))


def record_path(root: Path, task: str, number: int) -> Path:
    """Where the record of a version is."""
    return root / VERSIONS / task / f"{number:04d}.json"


def read_record(path: Path) -> Version:
    """A record as it was written.

    Raises:
        TuneTrailError: It is no record.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise TuneTrailError(f"{path} is not the record of a version", "restore it from git")
    return parse(Version, {**content, "path": path}, str(path))


def versions(root: Path, task: str) -> list[Version]:
    """All versions of a task's data, the first one first.

    Raises:
        TuneTrailError: A record cannot be read.
    """
    return [read_record(path) for path in sorted((root / VERSIONS / task).glob("*.json"))]


def examples(root: Path, version: Version) -> list[list[str]]:
    """For each failed check some rows that failed it, with their texts where this machine has them.

    Texts are in what the gate left under :data:`REPORTS`, not in the record, which goes to git.
    """
    result = root / REPORTS / version.task / f"{version.number:04d}" / RESULT
    if not result.is_file():
        return [list(failed.examples) for failed in version.failed]
    entries = [e for e in read_json(result)["checks"] if e["outcome"] == "failed"]
    return [
        [
            f"{place}: {row['text']!r}"
            for place, row in zip(failed.examples, entry["rows"], strict=True)
        ]
        for entry, failed in zip(entries, version.failed, strict=True)
    ]


def in_force(known: list[Version]) -> Version | None:
    """The last accepted version; None where there is none."""
    return next((version for version in reversed(known) if version.accepted), None)
