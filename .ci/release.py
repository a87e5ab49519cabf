"""Check a release's tag against version and changelog, and cut out its section. No dependencies."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


class NotReady(Exception):
    """What is wrong with the release, and the way out."""


def check(tag: str, root: Path = ROOT) -> None:
    """Check that the tag is the version, with a dated section of its own.

    Raises:
        NotReady: It is not.
    """
    with (root / "pyproject.toml").open("rb") as file:
        version = tomllib.load(file)["project"]["version"]
    if tag != f"v{version}":
        raise NotReady(
            f"the tag is '{tag}', the version in pyproject.toml is '{version}'\n"
            f"  fix: delete the tag; set the version, or tag as 'v{version}'"
        )
    section(tag, root)


def section(tag: str, root: Path = ROOT) -> str:
    """What CHANGELOG.md says of a version, without its heading.

    Raises:
        NotReady: It has no such section with a date, or nothing in it.
    """
    version = tag.removeprefix("v")
    text = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    heading = rf"^## \[{re.escape(version)}\] - \d{{4}}-\d{{2}}-\d{{2}}$"
    found = re.search(rf"{heading}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    if found is None or not found[1].strip():
        raise NotReady(
            f"CHANGELOG.md has no section '## [{version}] - YYYY-MM-DD' with anything in it\n"
            "  fix: give what is under '## [Unreleased]' that heading, then tag again"
        )
    return found[1].strip() + "\n"


def main(what: str, tag: str) -> int:
    """Run ``check`` or ``notes``; 2 if the release is not ready."""
    try:
        if what == "check":
            check(tag)
        else:
            sys.stdout.write(section(tag))
    except NotReady as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
