"""Python, packages and their versions."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shlex
import shutil
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from tunetrail.doctor.finding import Finding, ok, problem, warning

_PACKAGE = Path(__file__).parent.parent
_CHECKOUT = _PACKAGE.parent.parent

#: Package, its versions, and what they break: distributions that install side by side and fail.
_CLASHES = (
    ("fastapi", ">=0.151", "prefect", "", "every flow and the server end with a TypeError"),
    ("sqlalchemy", ">=2.1", "prefect", "", "scheduled flows never start, without a message"),
    ("prefect", ">=3.9", "tunetrail", "", "it was never run with TuneTrail"),
    ("adapters", "", "transformers", ">=5", "'adapters' patches classes that are gone"),
    ("optimum-onnx", "", "transformers", ">=5", "it pins transformers 4"),
    ("rliable", "", "pandas", ">=3", "it cannot be imported"),
)


def check() -> Iterator[Finding]:
    """Python, required packages, known clashes, and the commands on the path."""
    yield ok(f"Python {platform.python_version()} in {sys.prefix}")
    yield from _commands()
    yield from _required()
    yield from _clashes()
    yield from _pinned()


def _required() -> Iterator[Finding]:
    declared, where = _declared()
    # Without the package that reads requirements, at least what is missing can be said.
    names = {text: re.split(r"[^\w.-]", text, maxsplit=1)[0] for text in declared}
    missing = [text for text, name in names.items() if installed(name) is None]
    if missing:
        yield problem(
            f"{len(missing)} required packages are not installed: "
            f"{', '.join(names[text] for text in missing)}",
            _install(missing),
        )
    from packaging.requirements import Requirement

    wrong = 0
    for requirement in map(Requirement, declared):
        found = installed(requirement.name)
        if found is not None and not requirement.specifier.contains(found, prereleases=True):
            wrong += 1
            yield problem(
                f"{requirement.name} {found} is installed; TuneTrail needs {requirement.specifier}",
                _install([str(requirement)]),
            )
    if not missing and not wrong:
        yield ok(f"all {len(declared)} required packages are in the ranges of {where}")


def _declared() -> tuple[list[str], str]:
    """What TuneTrail requires, and where that is written."""
    path = _CHECKOUT / "pyproject.toml"
    if path.is_file():
        project = tomllib.loads(path.read_text(encoding="utf-8")).get("project", {})
        if project.get("name") == "tunetrail":
            extra = project.get("optional-dependencies", {}).get("pipeline", [])
            return [*project["dependencies"], *extra], "pyproject.toml"
    wanted = importlib.metadata.requires("tunetrail") or []
    kept = [
        text.partition(";")[0].strip()
        for text in wanted
        if "extra" not in text or "pipeline" in text.partition(";")[2]
    ]
    return kept, "the installed TuneTrail"


def _clashes() -> Iterator[Finding]:
    from packaging.specifiers import SpecifierSet

    for name, versions, other, other_versions, why in _CLASHES:
        found, beside = installed(name), installed(other)
        if found is None or beside is None:
            continue
        if SpecifierSet(versions).contains(found, prereleases=True) and SpecifierSet(
            other_versions
        ).contains(beside, prereleases=True):
            yield problem(
                f"{name} {found} with {other} {beside}: {why}",
                f"pip install '{name}<{versions.removeprefix('>=')}'"
                if versions
                else f"pip uninstall {name}",
            )


def _pinned() -> Iterator[Finding]:
    """What differs from the versions that were run together."""
    path = _CHECKOUT / "requirements.lock"
    if not path.is_file():
        return
    from packaging.version import Version

    pins = dict(
        line.split("==") for line in path.read_text(encoding="utf-8").split("\n") if "==" in line
    )
    differing = [
        f"{name} {found}"
        for name, pin in pins.items()
        if (found := installed(name)) and Version(found).public != Version(pin).public
    ]
    if differing:
        more = f" and {len(differing) - 4} more" if len(differing) > 4 else ""
        yield warning(
            f"{len(differing)} packages are not of the version in requirements.lock: "
            f"{', '.join(differing[:4])}{more}",
            "fine if it works; what was run together: pip install -r requirements.lock",
        )


def _commands() -> Iterator[Finding]:
    found = shutil.which("tunetrail")
    if found is None:
        activate = Path(sys.executable).parent / "activate"
        yield warning(
            "the command 'tunetrail' is not on the path: `dvc repro` needs it there "
            "(`make run` and `tunetrail run` do not)",
            f"source {activate}" if activate.exists() else "add its folder to PATH",
        )
    elif not os.path.samefile(Path(found).parent, Path(sys.executable).parent):
        yield warning(
            f"the command on the path is another installation: {found}",
            f"source {Path(sys.executable).parent / 'activate'}",
        )


def installed(name: str) -> str | None:
    """Installed version of a distribution."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _install(requirements: list[str]) -> str:
    lock = _CHECKOUT / "requirements.lock"
    if lock.is_file():
        return f"pip install -r {lock}"
    return f"pip install {' '.join(shlex.quote(text) for text in requirements)}"
