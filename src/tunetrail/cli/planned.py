"""What ``tunetrail plan`` shows."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence
from math import prod
from pathlib import Path
from typing import Any

_WIDTH = 80

#: Reasons of a group that are shown.
_SHOWN = 4


def look(path: Path, workers: int) -> dict[str, Any]:
    """What has to be expected to run in the project in this folder, why, and for how long.

    Args:
        path: The parameters.
        workers: Stages side by side (0: as many as `tunetrail run` would take).

    Raises:
        TuneTrailError: The parameters are wrong.
    """
    from tunetrail.cli import execute
    from tunetrail.dag import Dag
    from tunetrail.estimate import Estimator, known_durations
    from tunetrail.params import check_sources, read_params
    from tunetrail.staleness import expected, planned_runs

    params = read_params(path)
    check_sources(params, path)
    dag = Dag(Path.cwd())
    why = expected(dag, execute)
    estimator = Estimator(known_durations(Path.cwd(), params))
    width = workers or params.numerics.width
    alone = {name for name, cell in dag.cells.items() if cell.alone}
    return {
        "runs": [
            {"cell": name, **place, "stale": why.get(name, [])}
            for name, place in planned_runs(dag).items()
        ],
        "stages": len(dag.cells),
        "stale": why,
        "estimate": {
            "seconds": round(estimator.left(why, {}, alone, width), 1),
            "workers": width,
            "stages": {
                name: {"seconds": round(estimator.seconds(name), 1), "basis": estimator.basis(name)}
                for name in why
            },
        },
    }


def in_groups(content: dict[str, Any]) -> str:
    """Stages with the same reasons together."""
    stale, runs = content["stale"], {run["cell"]: run for run in content["runs"]}
    if not stale:
        return f"All {len(runs)} runs and everything after them are up to date."
    waiting = [name for name in runs if name in stale]
    others = [name for name in stale if name not in runs]
    lines = [f"{len(waiting)} of {len(runs)} runs are stale{':' if waiting else '.'}"]
    for reasons, names in _by_reasons(stale, waiting):
        each = _each([content["estimate"]["stages"][name]["seconds"] for name in names])
        lines += _group(f"{_product([runs[name] for name in names])}; {each}", reasons)
    if others:
        lines.append(f"{'and ' if waiting else ''}up to {len(others)} other stages:")
    for reasons, names in _by_reasons(stale, others):
        lines += _group(_counted(names), reasons)
    return "\n".join([*lines, _time(content["estimate"])])


def every_stage(content: dict[str, Any]) -> str:
    """Every stage that is stale, with all its reasons."""
    if not content["stale"]:
        return in_groups(content)
    lines = []
    for name, reasons in content["stale"].items():
        about = duration(content["estimate"]["stages"][name]["seconds"])
        lines += [f"{name}; about {about}", *(f"    {reason}" for reason in reasons)]
    return "\n".join([*lines, _time(content["estimate"])])


def _by_reasons(
    stale: dict[str, list[str]], names: Iterable[str]
) -> list[tuple[tuple[str, ...], list[str]]]:
    """Reasons and the stages that have exactly these, most stages first."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for name in names:
        groups.setdefault(tuple(stale[name]), []).append(name)
    return sorted(groups.items(), key=lambda item: -len(item[1]))


def _group(title: str, reasons: Sequence[str]) -> list[str]:
    shown = list(reasons[:_SHOWN])
    if len(reasons) > _SHOWN:
        shown[-1:] = [f"and {len(reasons) - _SHOWN + 1} more (--all shows them)"]
    return [*_wrapped(title, 2), *(line for reason in shown for line in _wrapped(reason, 6))]


def _wrapped(text: str, indent: int) -> list[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=" " * indent,
        subsequent_indent=" " * (indent + 2),
        break_on_hyphens=False,
    )


def _product(runs: Sequence[dict[str, Any]]) -> str:
    """Runs by what they have in common: ``movie, amazon × lora × 1, 2, 3``."""
    parts = [tuple(v for k, v in run.items() if k not in {"cell", "stale"}) for run in runs]
    columns = [list(dict.fromkeys(values)) for values in zip(*parts, strict=True)]
    if prod(len(column) for column in columns) == len(parts):
        return " × ".join(", ".join(map(str, column)) for column in columns)
    return ", ".join("-".join(map(str, part)) for part in parts)


def _counted(names: Sequence[str]) -> str:
    """``evaluate (12), compare``; the full names where there are few."""
    if len(names) <= 3:
        return ", ".join(names)
    counts = Counter(name.partition("@")[0] for name in names)
    return ", ".join(f"{stage} ({n})" if n > 1 else stage for stage, n in counts.items())


def _each(seconds: Sequence[float]) -> str:
    low, high = duration(min(seconds)), duration(max(seconds))
    each = " each" if len(seconds) > 1 else ""
    return f"about {low}{each}" if low == high else f"{low} to {high}{each}"


def duration(seconds: float) -> str:
    """Seconds, as a person would say them."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _time(estimate: dict[str, Any]) -> str:
    workers = estimate["workers"]
    side_by_side = f"{workers} workers" if workers > 1 else "1 worker"
    bases = Counter(stage["basis"] for stage in estimate["stages"].values())
    if bases["guess"] == bases.total():
        source = "first guess; nothing was measured here yet"
    else:
        source = "learned from the cost stage and from earlier executions here"
        if bases["guess"]:
            source += f"; {bases['guess']} of {bases.total()} stages guessed"
    text = f"About {duration(estimate['seconds'])} with {side_by_side} ({source})."
    return "\n".join(_wrapped(text, 0))
