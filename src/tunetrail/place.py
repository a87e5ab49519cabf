"""A project's folder: where it is, the code and pipeline in it, and where results lie."""

from __future__ import annotations

import os
from pathlib import Path

from tunetrail.errors import TuneTrailError

#: Where dvc.yaml finds the code that its stages depend on. In a checkout it is there; in a project
#: made by ``tunetrail init`` it is a link to the installed package (see :func:`link_code`).
CODE = Path("src/tunetrail")

#: The pipeline as it comes with TuneTrail (in a checkout a link to the dvc.yaml there).
PIPELINE = Path(__file__).parent / "template" / "pipeline.yaml"

#: Folder of a project in which champions are trained again, each below it in a folder of its task.
CHAMPIONS = Path("champions")


def project_of(folder: Path) -> Path:
    """The project that results in ``folder`` are of: that folder, or the one whose champion it has.

    Args:
        folder: With a ``dvc.yaml``.
    """
    folder = folder.absolute()
    around = folder.parent.parent
    own = folder.parent.name != CHAMPIONS.name or not (around / "dvc.yaml").is_file()
    return folder if own else around


def project_root(start: Path) -> Path:
    """The folder of the project that ``start`` is in; that of a champion is a part of it.

    Raises:
        TuneTrailError: There is no ``dvc.yaml`` here or above.
    """
    for folder in (start, *start.parents):
        if (folder / "dvc.yaml").is_file():
            return project_of(folder)
    raise TuneTrailError(
        f"'{start}' is not inside a TuneTrail project (no dvc.yaml here or above)",
        "change into the project's folder",
    )


def link_code(root: Path) -> None:
    """Let ``src/tunetrail`` of a project that is not a checkout be the installed package.

    DVC hashes files through the link and records them under its own name, so that an upgrade makes
    stale what it changes, and the lock file is the same on every machine. The link itself is not:
    it is renewed whenever it points elsewhere, such as in a clone.
    """
    link, package = root / CODE, Path(__file__).resolve().parent
    if link.exists() and (not link.is_symlink() or link.resolve() == package):
        return
    if CODE.as_posix() not in (root / "dvc.yaml").read_text(encoding="utf-8"):
        return
    link_to(link, package)


def link_to(link: Path, target: Path) -> None:
    """Let ``link`` be a symbolic link to ``target``, in one step; one that is right is left."""
    if link.is_symlink() and link.resolve() == target.resolve():
        return
    link.parent.mkdir(parents=True, exist_ok=True)
    temporary = link.with_name(f".{link.name}.{os.getpid()}.tmp")
    temporary.symlink_to(target)
    os.replace(temporary, link)


def check_pipeline(root: Path) -> None:
    """Check that the pipeline of a project that is not a checkout fits the installed package.

    Raises:
        TuneTrailError: It is that of another version.
    """
    if not (root / CODE).is_symlink():
        return
    import yaml

    shipped, own = (
        yaml.safe_load(path.read_text(encoding="utf-8")).get("stages", {})
        for path in (PIPELINE, root / "dvc.yaml")
    )
    differing = [name for name in shipped if own.get(name) != shipped[name]]
    if differing:
        raise TuneTrailError(
            f"dvc.yaml of '{root}' is not the pipeline of the installed TuneTrail: "
            f"{', '.join(differing)} differ",
            f"write it anew with `tunetrail init {root} --update` (stages of your own belong in "
            "a dvc.yaml in another folder)",
        )
