"""What ``tunetrail recommend`` shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunetrail.report.text import wrapped


def in_words(found: Mapping[str, Mapping[str, Any]], limits: Mapping[str, float]) -> str:
    """A paragraph a task: what to take, why, what else there is and what was left out."""
    asked = ", ".join(f"{name} ≤ {most:,g}" for name, most in limits.items()) or "none"
    return "\n\n".join([f"Limits: {asked}", *(_task(name, task) for name, task in found.items())])


def _task(name: str, task: Mapping[str, Any]) -> str:
    titles = task["titles"]
    if task["pick"] is None:
        lines = [f"{name}: nothing to take. {' '.join(task['reasons'])}"]
    else:
        lines = [
            f"{name}: take {_scored(task, task['pick'])}",
            *(f"  {reason}" for reason in task["reasons"]),
        ]
        others = task["candidates"][1:]
        if others:
            lines.append(f"  Also not dominated: {'; '.join(_scored(task, m) for m in others)}")
    for label, entry in task["dominated"].items():
        lines.append(f"  Pointless: {titles[label]}: {titles[entry['by']]} is {entry['why']}")
    for label, why in task["outside"].items():
        lines.append(f"  Beyond a limit: {titles[label]}: {why}")
    return wrapped("\n".join(lines), indent="    ")


def _scored(task: Mapping[str, Any], label: str) -> str:
    score = task["scores"][label]
    ends = (
        "one seed, so without an interval"
        if score["low"] is None
        else f"[{score['low']:.3f}, {score['high']:.3f}]"
    )
    return f"{task['titles'][label]}, {task['metric']} {score['mean']:.3f} {ends}"
