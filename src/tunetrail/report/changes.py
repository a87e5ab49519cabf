"""Changes between two comparisons (``tunetrail.changes``) in words: for a terminal, for GitHub."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from tunetrail.report import text
from tunetrail.report.markdown import aligned
from tunetrail.report.text import ABSENT, Json
from tunetrail.report.tradeoffs import SHOWN

#: Titles of the columns of :func:`rows`; all but the first hold numbers or what is said of them.
HEADER = ("method", "before", "after", "difference", "interval", "supported")

#: What a reader of the table has to know.
EXPLAINED = (
    "Differences are after minus before, of runs with the same seeds on the same test rows, with "
    "the interval that decides: it covers with 95%, or more where several methods changed (Holm). "
    "Better, worse: it excludes zero; equal: it lies within the margin; open: neither is shown."
)
_SEEDS_ALONE = (
    "Where it says “these rows” there were no predictions to compare: the interval is over seeds "
    "alone and says nothing of other texts."
)
_COSTS = "Times, memory and latency are measured: other machines and neighbours change them, too."
_TOLD = {"win": "better", "lose": "worse", "tie": "equal", "open": "open"}


def markdown(found: Json) -> str:
    """All changes as Markdown, to be read in a pull request."""
    parts = [f"## Changes from `{found['before']}` to `{found['after']}`", summary(found)]
    parts += sentences(found)
    for task in found["tasks"].values():
        table, told = rows(task), about(task, found["margin"])
        if table or told:
            parts.append(f"### {task['title']}, {task['metric']}")
        parts += [aligned(list(HEADER), table)] if table else []
        parts += ["\n".join(f"- {line}" for line in told)] if told else []
    return "\n\n".join([*parts, *explained(found)]) + "\n"


def summary(found: Json) -> str:
    """What came of all methods on all tasks, in one sentence."""
    methods = [method for task in found["tasks"].values() for method in task["methods"].values()]
    if not methods:
        return "No task is in both."
    judged = (method["difference"] for method in methods if method["status"] == "judged")
    outcomes = Counter(record["outcome"] for record in judged)
    others = Counter(method["status"] for method in methods)
    named = {**_TOLD, "open": "not settled"}
    told = [f"{outcomes[key]} {name}" for key, name in named.items() if outcomes[key]]
    named = {"incomparable": "not comparable", "new": "new", "removed": "removed"}
    named["same"] = "with the same runs"
    told += [f"{others[key]} {name}" for key, name in named.items() if others[key]]
    pairs = f"{len(methods)} pair{'s' if len(methods) > 1 else ''} of a task and a method"
    return f"Of {pairs}: {', '.join(told)}."


def sentences(found: Json) -> list[str]:
    """What differs beyond single tasks."""
    told = [f"New task: {name}." for name in found["new_tasks"]]
    told += [f"Removed task: {name}." for name in found["removed_tasks"]]
    settings = "; ".join(_values(found["settings"]))
    return [*told, f"Settings: {settings}."] if settings else told


def rows(task: Json) -> list[list[str]]:
    """A row for each method whose runs are others, by :data:`HEADER`."""
    return [
        [method["title"], *_cells(method)]
        for method in task["methods"].values()
        if method["status"] != "same"
    ]


def about(task: Json, margin: float) -> list[str]:
    """What else differs on a task, a line each.

    Args:
        task: One task of the changes.
        margin: Difference, in raw units, that does not matter.
    """
    names = {label: method["title"] for label, method in task["methods"].items()}
    lines = list(_values(task["differs"]))
    for label, method in task["methods"].items():
        if changed := list(_values(method.get("options", {}))):
            lines.append(f"{names[label]}: {', '.join(changed)}")
        if method["status"] == "incomparable":
            lines.append(f"{names[label]} is not compared: {method['why']}")
    if task["winner"]:
        moved = (names[task["winner"][side]] for side in ("before", "after"))
        lines.append(f"Chosen on the selection set: {' → '.join(moved)}")
    for label, record in task["verdicts"].items():
        moved = (f"{text.outcome(r)} ({text.difference(r)})" for r in record.values())
        lines.append(f"Verdict on {names[label]} against the baseline: {' → '.join(moved)}")
    for label, costs in task["costs"].items():
        moved = (f"{SHOWN[name].title.lower()} {_cost(name, c)}" for name, c in costs.items())
        lines.append(f"Cost of {names[label]}: {'; '.join(moved)}")
    same = [names[label] for label, m in task["methods"].items() if m["status"] == "same"]
    if same and len(same) < len(names):
        lines.append(f"The same runs: {', '.join(same)}")
    if any(m["status"] == "judged" for m in task["methods"].values()):
        lines.append(f"The margin is {margin:g}")
    return lines


def explained(found: Json) -> list[str]:
    """What has to be known to read the tables, as far as they have it."""
    methods = [method for task in found["tasks"].values() for method in task["methods"].values()]
    bases = {method.get("basis") for method in methods}
    told = [EXPLAINED] if bases - {None} else []
    told += [_SEEDS_ALONE] if "seeds" in bases else []
    return told + ([_COSTS] if any(task["costs"] for task in found["tasks"].values()) else [])


def outcome(method: Json) -> str:
    """What the evidence says of a method's change: ``worse``, ``open, not worse``, …"""
    record = method["difference"]
    if record["low"] is None:
        return "one seed: no interval"
    found = _TOLD[record["outcome"]]
    if record["outcome"] == "open" and record["not_worse"]:
        found += ", not worse"
    return f"{found} (these rows)" if method["basis"] == "seeds" else found


def _cells(method: Json) -> Sequence[str]:
    means = [ABSENT if m is None else text.spread(m) for m in (method["before"], method["after"])]
    if method["status"] != "judged":
        told = "not compared" if method["status"] == "incomparable" else method["status"]
        return [*means, ABSENT, ABSENT, told]
    record = method["difference"]
    interval = text.difference(record).partition(" ")[2] or ABSENT
    told = outcome(method)
    if record["low"] is not None and record["needs"]:
        told += f", {text.short_needs(record)}"
    return [*means, text.signed(record["difference"]), interval, told]


def _values(differing: Json) -> Iterator[str]:
    """``margin 0.01 → 0.02``; what is named by a digest only changed."""
    for key, values in differing.items():
        before, after = (values[side] for side in ("before", "after"))
        if key in ("data", "base model"):
            yield f"{key} changed"
        else:
            yield f"{key} {_shown(before)} → {_shown(after)}"


def _shown(value: object) -> str:
    if value is None or value == "":
        return "none"
    if isinstance(value, dict):
        return " ".join(f"{key} {_shown(inner)}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_shown, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _cost(name: str, values: Json) -> str:
    def shown(value: float) -> str:
        if name == "trainable_parameters":
            return text.count(value)
        if name == "train_seconds":
            return text.seconds(value)
        if name == "latency_ms":
            return f"{text.three_digits(value)} ms"
        return text.size(value * 2**20)

    before, after = values["before"], values["after"]
    return f"{shown(before)} → {shown(after)} ({text.ratio(after, before)})"
