"""What a result was made with: versions, commit, machine."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path
from typing import Any

from tunetrail.files import file_digest
from tunetrail.place import project_of

#: Exact versions, where a project has them.
_LOCK = Path("requirements.lock")

_PACKAGES = (
    "tunetrail", "torch", "transformers", "accelerate", "datasets", "dvc", "great-expectations",
    "onnxruntime", "mlflow-skinny", "prefect",
)  # fmt: skip


def provenance() -> dict[str, Any]:
    """Versions, git commit and machine, JSON-serialisable."""
    return {**git_state(), "python": platform.python_version(), "versions": versions()} | {
        "machine": _machine()
    }


def git_state() -> dict[str, Any]:
    """``git_commit`` and ``git_dirty``; None outside a git checkout (a source archive)."""
    commit = _git("rev-parse", "HEAD")
    status = _git("status", "--porcelain", "--untracked-files=no")
    return {"git_commit": commit or None, "git_dirty": bool(status) if commit else None}


def git_changes() -> list[str]:
    """Tracked files that are not as in the commit; none outside a git checkout."""
    lines = (_git("status", "--porcelain", "--untracked-files=no") or "").splitlines()
    return [line.strip().split(maxsplit=1)[1] for line in lines]


def recording_commit(text: str, file: str) -> str | None:
    """The first commit whose ``file`` contains ``text``; None where there is none."""
    found = _git("log", "--format=%H", "--reverse", f"-S{text}", "--", file)
    return found.splitlines()[0] if found else None


def environment() -> dict[str, Any]:
    """Python, platform and the version of every installed package, JSON-serialisable.

    ``lock`` has name and sha256 of the project's ``requirements.lock``; None without one.
    """
    lock = project_of(Path.cwd()) / _LOCK
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": versions(),
        "packages": dict(sorted((_normal(d.name), d.version) for d in distributions())),
        "lock": {"file": lock.name, "sha256": file_digest(lock)} if lock.is_file() else None,
    }


def versions() -> dict[str, str]:
    """Installed versions of the packages that decide results."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue  # a training worker needs none of the pipeline tools
    return found


def _normal(name: str) -> str:
    """The one spelling of a distribution's name."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _git(*arguments: str) -> str | None:
    if not (project_of(Path.cwd()) / ".git").exists():
        return None
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _machine() -> dict[str, Any]:
    import torch

    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "gpu": gpu,
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
