"""Names that a shell can complete. Nothing heavy is imported: an answer has to come at once."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parent.parent


def methods(incomplete: str) -> list[str]:
    """Fine-tuning methods."""
    return _stems("methods/*.py", incomplete)


def built_in_tasks(incomplete: str) -> list[str]:
    """Tasks that come with TuneTrail."""
    return _stems("tasks/*.yaml", incomplete)


def recipes(incomplete: str) -> list[str]:
    """Recipes that come with TuneTrail."""
    found = sorted(path.parent.name for path in _PACKAGE.glob("template/recipes/*/recipe.yaml"))
    return [name for name in found if name.startswith(incomplete)]


def planned_tasks(incomplete: str) -> list[str]:
    """Tasks of the project's params.yaml."""
    import yaml

    try:
        content = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
        names = list(content["tasks"])
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError):
        return []  # there is no plan to complete from; the command itself says what is wrong
    return [name for name in names if name.startswith(incomplete)]


def _stems(pattern: str, incomplete: str) -> list[str]:
    stems = sorted(path.stem for path in _PACKAGE.glob(pattern))
    return [stem for stem in stems if stem.startswith(incomplete) and not stem.startswith("_")]
