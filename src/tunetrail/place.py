"""Where in a project results lie: in its folder, or in that of a champion trained again."""

from __future__ import annotations

from pathlib import Path

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
