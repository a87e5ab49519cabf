"""Find the one class that each module of a package defines, so that nothing is listed twice."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from types import ModuleType
from typing import Any


@cache
def modules(package: str) -> dict[str, str]:
    """Module name → dotted path of every public module in ``package`` (nothing is imported)."""
    found: ModuleType = importlib.import_module(package)
    return {
        info.name: f"{package}.{info.name}"
        for info in pkgutil.iter_modules(found.__path__)
        if not info.name.startswith("_")
    }


def load(package: str, name: str, base: type) -> Any:
    """Import module ``name`` of ``package`` and return the subclass of ``base`` it defines."""
    path = modules(package)[name]
    module = importlib.import_module(path)
    own = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, base) and value.__module__ == path
    ]
    if len(own) != 1:
        raise TypeError(f"{path} must define exactly one {base.__name__}, it defines {len(own)}")
    return own[0]
