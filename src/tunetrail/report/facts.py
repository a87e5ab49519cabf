"""What is known of a task's data, and what a comparison was made with, as named lines of text."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from tunetrail.report import text
from tunetrail.report.text import Json


class Fact(NamedTuple):
    """A named value, or several.

    Attributes:
        name: What it is.
        values: Plain texts.
        exact: Whether the values are to be copied, character by character.
    """

    name: str
    values: list[str]
    exact: bool = False


def data_facts(task: Json) -> list[Fact]:
    """The data of a task and what its validation found."""
    checked = task["validation"]
    missing = checked["classes_missing"]
    lines = [
        ("Rows", [", ".join(f"{name} {text.count(rows)}" for name, rows in task["rows"].items())]),
        ("Predicts", [task["predicts"]]),
        ("Domain", [task["domain"]]),
        ("Dropped as leaking", [text.plural(checked["dropped"], "row")]),
        ("Waived checks", [f"{check}: {why}" for check, why in checked["waived"].items()]),
        ("Tolerated", checked["tolerated"]),
        ("Classes without rows", [f"{s}: {', '.join(f)}" for s, f in missing.items() if f]),
        ("Licence", [task["data"]["licence"]]),
        ("Source", _source(task["data"]["source"])),
    ]
    facts = [Fact(name, [value for value in values if value] or ["none"]) for name, values in lines]
    return [*facts, Fact("Digest of the sets", [task["data"]["digest"]], exact=True)]


def provenance_facts(comparison: Json, provenance: Json) -> list[Fact]:
    """What to compare with when another run gives other figures."""
    machine, base = provenance["machine"], comparison["base"]
    state = {True: "with uncommitted changes", False: "clean", None: "not under git"}
    checkout = state[provenance["git_dirty"]]
    hardware = [
        machine["processor"],
        text.plural(machine["cores"], "core"),
        f"{text.size(machine['memory_bytes'])} memory",
        f"GPU: {machine['gpu'] or 'none'}",
    ]
    tasks = comparison["tasks"].items()
    commit = provenance["git_commit"]
    return [
        Fact("Git commit", [commit or checkout], exact=bool(commit)),
        *([Fact("Checkout", [checkout])] if commit else []),
        Fact("Base model", [*_source(base["source"]), f"licence: {base['source']['licence']}"]),
        Fact("Digest of the base", [base["digest"]], exact=True),
        *(Fact(f"Digest of {name}", [task["data"]["digest"]], exact=True) for name, task in tasks),
        Fact("Seeds", [", ".join(str(seed) for seed in provenance["seeds"])]),
        Fact("Budgets", [f"{k}: {pairs(budget)}" for k, budget in provenance["budgets"].items()]),
        Fact("Numerics", [pairs(provenance["numerics"])]),
        Fact("Hardware", [", ".join(hardware)]),
        Fact("Python", [provenance["python"]]),
        Fact("Versions", [pairs(provenance["versions"])]),
    ]


def reproduce(provenance: Json) -> str:
    """Commands that make the comparison again, from the commit it was made from."""
    commit = provenance["git_commit"]
    return f"git checkout {commit}\nmake run" if commit else "make run"


def as_json(comparison: Json, provenance: Json) -> str:
    """Provenance and every digest of the comparison, for another program or a ticket."""
    tasks = comparison["tasks"].items()
    runs = {
        name: {
            label: {str(run["seed"]): run["run"] for run in method["runs"]}
            for label, method in task["methods"].items()
        }
        for name, task in tasks
    }
    known = {
        "project": comparison["project"],
        "base": comparison["base"],
        "data": {name: task["data"] for name, task in tasks},
        "runs": runs,
        **provenance,
    }
    return json.dumps(known, indent=2, ensure_ascii=False)


def pairs(values: Json) -> str:
    """``rank 8, sites query + value``."""

    def shown(value: Any) -> str:
        return " + ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)

    return ", ".join(f"{key} {shown(value)}" for key, value in values.items())


def _source(source: Json) -> list[str]:
    """Every field of a source but its licence, which is shown beside it."""
    return [f"{key}: {value}" for key, value in source.items() if value and key != "licence"]
