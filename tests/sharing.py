"""What the tests of remotes do: publish a project's results, clone it elsewhere, look at MLflow."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path
from typing import Any

from tests.conftest import Project


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


def publish(project: Project, url: str, **options: str) -> None:
    """Push results to a DVC remote and commit what names them (as docs/how-it-works.md says)."""
    commands = [["dvc", "remote", "add", "--default", "shared", url]]
    options = {"verify": "true", **options}
    commands += [
        ["dvc", "remote", "modify", "shared", key, value] for key, value in options.items()
    ]
    for command in [*commands, ["dvc", "push", "--run-cache"]]:
        done = project.command(*command)
        assert done.returncode == 0, done.stderr
    git(project.root, "add", "dvc.lock", ".dvc/config", "params.yaml")
    git(project.root, "commit", "-q", "-m", "results")


def clone(project: Project, target: Path) -> Project:
    git(target.parent, "clone", "-q", str(project.root), str(target))
    return Project(target)


def flip(path: Path, *, keep_time: bool = False) -> None:
    """Change four bytes in the middle of a file, as a failing disk does."""
    before = path.stat()
    path.chmod(0o644)
    with path.open("r+b") as handle:
        handle.seek(before.st_size // 2)
        damaged = bytes(byte ^ 0xFF for byte in handle.read(4))
        handle.seek(before.st_size // 2)
        handle.write(damaged)
    path.chmod(before.st_mode)
    if keep_time:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def stored(folder: Path, content: Path) -> Path:
    """Where a DVC cache or remote keeps the bytes of a file."""
    md5 = hashlib.md5(content.read_bytes()).hexdigest()
    return folder / "files" / "md5" / md5[:2] / md5[2:]


def in_mlflow(uri: str, experiment: str = "sentiment") -> dict[str, Any]:
    """What MLflow has: runs by their digest, versions with their aliases, without times and ids."""
    import mlflow

    client = mlflow.MlflowClient(uri)
    found = client.get_experiment_by_name(experiment)
    runs = client.search_runs([found.experiment_id])
    tags = [run.data.tags["tunetrail.run"] for run in runs]
    assert len(tags) == len(set(tags)), "a run is there twice"
    versions = client.search_model_versions("")
    return {
        "runs": {
            run.data.tags["tunetrail.run"]: (run.data.params, run.data.metrics, run.info.status)
            for run in runs
        },
        "versions": sorted(
            (
                version.name,
                version.tags["tunetrail.run"],
                version.tags["tunetrail.onnx_sha256"],
                sorted(client.get_model_version(version.name, version.version).aliases),
            )
            for version in versions
        ),
    }


def project_mlflow(project: Project) -> str:
    return f"sqlite:///{project.root / '.tunetrail' / 'mlflow' / 'mlflow.db'}"
