"""The project folder of one comparison of a recipe."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TextIO

from tunetrail.errors import TuneTrailError
from tunetrail.files import write_text
from tunetrail.init.project import write_pipeline
from tunetrail.params import read_params, sources
from tunetrail.place import CODE, PIPELINE, link_code, link_to
from tunetrail.repository import allow_missing_git

#: Where a recipe's parameters look for the datasets of this machine.
LOCAL = Path("data/local")

_TEMPLATE = PIPELINE.parent
_FLOW = "pipelines.compare"


def check_data(files: list[Path], data: Path | None) -> None:
    """Check that every local dataset that the comparisons read is there.

    Raises:
        TuneTrailError: No folder was given and one is needed, or it lacks some of them.
    """
    needed = {
        source.relative_to(LOCAL).as_posix()
        for path in files
        for source in sources(read_params(path), path).values()
        if source.is_relative_to(LOCAL)
    }
    if not needed:
        return
    listed = ", ".join(sorted(needed))
    layout = "each a folder with train, validation and test as Parquet, corpus/ a file each"
    if data is None:
        raise TuneTrailError(
            f"this recipe reads datasets of this machine: {listed}",
            f"name the folder that they are in with --data ({layout})",
        )
    missing = sorted(name for name in needed if not (data / name).exists())
    if missing:
        raise TuneTrailError(
            f"'{data}' lacks {', '.join(missing)}",
            f"put them there, or name another folder with --data ({layout})",
        )


def write_project(folder: Path, params: Path, data: Path | None) -> None:
    """Make the project, or bring one that is there up to date; results in it are kept.

    Args:
        folder: Of the project.
        params: The comparison's parameters, copied as they are.
        data: Folder of the datasets, which ``data/local`` becomes a link to.

    Raises:
        TuneTrailError: The folder has something else in it.
    """
    present = folder / "params.yaml"
    if present.exists() and not (folder / CODE).is_symlink():
        raise TuneTrailError(
            f"'{folder}' is a project of something else", "name another folder with --folder"
        )
    write_pipeline(folder)
    for source in sources(read_params(params), params).values():
        if source.suffix == ".yaml" and not source.is_relative_to(LOCAL):
            pointer = _TEMPLATE / source.relative_to("data")
            write_text(folder / source, pointer.read_text(encoding="utf-8"))
    shutil.copyfile(params, present)
    if data is not None:
        link_to(folder / LOCAL, data.resolve())
    allow_missing_git(folder)
    link_code(folder)


def run_flow(folder: Path, workers: int, out: TextIO) -> None:
    """Execute what is stale in the project; what the flow prints goes to ``out``.

    Raises:
        TuneTrailError: The flow is not installed, or some stage failed (the flow has said why).
    """
    if find_spec(_FLOW.partition(".")[0]) is None:
        raise TuneTrailError(
            f"'{_FLOW}' is not installed beside this tunetrail",
            "run `make run` once in TuneTrail's checkout",
        )
    command = [sys.executable, "-P", "-m", _FLOW]
    command += ["--workers", str(workers)] if workers else []
    with subprocess.Popen(command, cwd=folder, stdout=out) as flow, _left_to(flow):
        code = flow.wait()
    if code:
        raise TuneTrailError(
            f"the comparison in '{folder}' is not finished (exit code {code}, the reason is above)",
            "repeat the command: what is done is kept",
        )


@contextmanager
def _left_to(flow: subprocess.Popen[bytes]) -> Iterator[None]:
    """Let the flow end in order when this process is told to stop, as it does by itself.

    A terminal sends its interrupt to both, so that one is not passed on.
    """
    handlers = {
        signal.SIGINT: lambda number, frame: None,
        signal.SIGTERM: lambda number, frame: flow.send_signal(number),
    }
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
