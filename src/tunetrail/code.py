"""Which source files a module needs, so that a change in them is seen as a change of the run."""

from __future__ import annotations

import ast
import importlib.util
from functools import cache
from pathlib import Path

from tunetrail.files import digest_of, file_digest

_PACKAGE = "tunetrail"


def code_digest(*modules: str) -> str:
    """sha256 (hex) over the sources of ``modules`` and all of TuneTrail that they import."""
    return digest_of({name: file_digest(path) for name, path in sources(*modules).items()})


def package_digest(*packages: str) -> str:
    """sha256 (hex) over the names and bytes of every module of the installed ``packages``.

    Raises:
        ModuleNotFoundError: One is not installed.
    """
    found = {}
    for package in packages:
        path = _file(package)
        if path is None:
            raise ModuleNotFoundError(package)
        for module in path.parent.rglob("*.py"):
            found[f"{package}/{module.relative_to(path.parent).as_posix()}"] = file_digest(module)
    return digest_of(found)


def sources(*modules: str) -> dict[str, Path]:
    """Module name → file of ``modules`` and every TuneTrail module they import, in turn.

    Only import statements count; what is loaded by name (methods, metrics) must be passed in.
    """
    found: dict[str, Path] = {}
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        path = _file(name)
        if path is None:
            continue
        found[name] = path
        waiting += _imports(path, name)
        waiting += [name.rpartition(".")[0]] if "." in name else []
    return dict(sorted(found.items()))


@cache
def _file(name: str) -> Path | None:
    """The source file of a TuneTrail module, or None if ``name`` is not a module."""
    try:
        spec = importlib.util.find_spec(name)
    except ModuleNotFoundError:
        return None
    return Path(spec.origin) if spec is not None and spec.origin else None


def _imports(path: Path, module: str) -> list[str]:
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.append(node.module)
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return [name for name in names if name == _PACKAGE or name.startswith(f"{_PACKAGE}.")]
