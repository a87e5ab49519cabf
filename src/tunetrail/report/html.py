"""The report of a comparison as one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tunetrail.report import text
from tunetrail.report.leaderboard import leaderboard
from tunetrail.report.page import page, table
from tunetrail.report.text import ABSENT, Json

_TEMPLATE = Path(__file__).with_name("report.html.j2")
_DIGEST = 12  # characters of a digest in a table: enough to find it, few enough to read

_FIGURES = (
    ("score", "Test score", "Light: every seed. Marker and bar: mean and 95% t interval over "
     "seeds. Dashed: always answering the majority class. Bold: chosen on the selection set."),
    ("parameters", "Score and size", "Test score over trainable parameters. Light: every seed. "
     "Named markers: means."),
    ("time", "Score and training time", "Test score over the estimated time of one whole run. "
     "Light: every seed. Named markers: means."),
    ("loss", "Training loss", "Mean over seeds at each step."),
)  # fmt: skip


def render(
    comparison: Json,
    costs: Json,
    certificates: Json,
    provenance: Json,
    figures: dict[str, dict[str, str]],
    *,
    baseline: str = "",
) -> str:
    """The whole report, a self-contained document.

    Args:
        comparison: Scores of all runs and their summaries, by task and label.
        costs: Costs by task and label; either may lack an entry.
        certificates: ONNX certificates by task and label; either may lack an entry.
        provenance: Commit, versions, machine and settings of the comparison.
        figures: ``<svg>`` elements by task, under ``score``, ``parameters``, ``time``, ``loss``.
        baseline: Label or name of the method whose training time is 1; where it is empty or was
            not measured, the slowest method is.
    """
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals["table"] = lambda *args, **kwargs: Markup(table(*args, **kwargs))
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    tasks = []
    for name, task in comparison["tasks"].items():
        drawn = figures.get(name, {})
        tasks.append(
            {
                "name": name,
                "task": task,
                "tile": _tile(name, task),
                "board": leaderboard(
                    task, costs.get(name, {}), certificates.get(name, {}), baseline
                ),
                "figures": [
                    (title, caption, Markup(drawn[key]))
                    for key, title, caption in _FIGURES
                    if key in drawn
                ],
                "data": _data(task),
                "runs": _runs(task),
                "options": _options(task),
                "certificates": _certificates(task, certificates.get(name, {})),
            }
        )
    body = template.render(tasks=tasks, provenance=_provenance(comparison, provenance))
    return page(comparison["project"], body, subtitle=_subtitle(comparison, provenance))


def _subtitle(comparison: Json, provenance: Json) -> str:
    tasks, base = comparison["tasks"], comparison["base"]
    methods = {label for task in tasks.values() for label in task["methods"]}
    return (
        f"{text.plural(len(methods), 'fine-tuning method')} compared on "
        f"{text.plural(len(tasks), 'task')} with {text.plural(len(provenance['seeds']), 'seed')} "
        f"each, from one base model: {base['architecture']}, {base['layers']} layers of width "
        f"{base['hidden_size']}."
    )


def _tile(name: str, task: Json) -> Json:
    summary = task["methods"][task["winner"]["method"]]["summary"][task["primary"]]
    return {
        "metric": task["metric_titles"][task["primary"]],
        "value": text.score(summary["mean"]),
        "interval": "" if summary["low"] is None else text.interval(summary),
        "sentence": text.chosen_sentence(name, task),
    }


def _data(task: Json) -> list[tuple[str, list[str]]]:
    checked = task["validation"]
    missing = checked["classes_missing"]
    lines = [
        ("Rows", [f"{name} {text.count(rows)}" for name, rows in task["rows"].items()]),
        ("Labels", [", ".join(task["labels"])]),
        ("Domain", [task["domain"]]),
        ("Dropped as leaking", [text.plural(checked["dropped"], "row")]),
        ("Waived checks", [f"{check}: {why}" for check, why in checked["waived"].items()]),
        ("Tolerated", checked["tolerated"]),
        ("Classes without rows", [f"{s}: {', '.join(f)}" for s, f in missing.items() if f]),
        ("Licence", [task["data"]["licence"]]),
        ("Source", _source(task["data"]["source"])),
        ("Digest of the sets", [task["data"]["digest"]]),
    ]
    return [(name, [value for value in values if value] or ["none"]) for name, values in lines]


def _source(source: Json) -> list[str]:
    """Every field of a source but its licence, which is shown beside it."""
    return [f"{key}: {value}" for key, value in source.items() if value and key != "licence"]


def _runs(task: Json) -> Json:
    metrics, names = task["metrics"], text.titles(task)
    header = ["Method", "Seed"]
    header += [
        f"{which} {task['metric_titles'][m]}" for which in ("selection", "test") for m in metrics
    ]
    rows = [
        [
            names[label],
            f"{run['seed']}{' (chosen)' if run['seed'] == entry['selected_seed'] else ''}",
            *(text.score(run[which][m]) for which in ("selection", "test") for m in metrics),
            run["run"][:_DIGEST],
        ]
        for label, entry in task["methods"].items()
        for run in entry["runs"]
    ]
    return {
        "header": [*header, "Run"],
        "rows": rows,
        "numeric": set(range(2, 2 + 2 * len(metrics))),
    }


def _options(task: Json) -> list[list[str]]:
    return [
        [title, entry["paper"], _pairs(entry["options"]), "yes" if entry["mergeable"] else "no"]
        for title, entry in zip(text.titles(task).values(), task["methods"].values(), strict=True)
    ]


def _certificates(task: Json, certificates: Json) -> list[Json]:
    names, metric = text.titles(task), task["primary"]
    return [
        {
            "title": names[label],
            "passed": found["passed"],
            "cells": [
                text.small(found["largest_logit_difference"]),
                text.small(found["tolerance"]),
                f"{text.count(found['prediction_flips'])} of {text.count(found['rows'])}",
                *(text.score(found[f"metrics_{side}"][metric]) for side in ("torch", "onnx")),
                *(_latency(found, side) for side in ("torch", "onnx")),
                "yes" if found["merged"] else "no",
                str(found["opset"]),
                text.size(found["onnx_bytes"]),
            ],
            "digest": found["onnx_sha256"],
        }
        for label, found in certificates.items()
        if label in names
    ]


def _latency(certificate: Json, side: str) -> str:
    latency = certificate.get("latency")
    if not latency:
        return ABSENT
    p50, p95 = (text.three_digits(latency[f"{side}_{rank}_ms"]) for rank in ("p50", "p95"))
    return f"{p50} / {p95}"


def _provenance(comparison: Json, provenance: Json) -> list[tuple[str, list[str]]]:
    machine, base = provenance["machine"], comparison["base"]
    commit = provenance["git_commit"] or "not under git"
    state = {True: " with uncommitted changes", False: " (clean)", None: ""}
    hardware = [
        machine["processor"],
        text.plural(machine["cores"], "core"),
        f"{text.size(machine['memory_bytes'])} memory",
        f"GPU: {machine['gpu'] or 'none'}",
    ]
    digests = [f"{name}: {task['data']['digest']}" for name, task in comparison["tasks"].items()]
    versions = [f"{name} {version}" for name, version in provenance["versions"].items()]
    return [
        ("Git commit", [commit + state[provenance["git_dirty"]]]),
        ("Base model", [*_source(base["source"]), f"licence: {base['source']['licence']}"]),
        ("Digest of the base", [base["digest"]]),
        ("Digests of the data", digests),
        ("Seeds", [", ".join(str(seed) for seed in provenance["seeds"])]),
        ("Budget", [_pairs(provenance["budget"])]),
        ("Numerics", [_pairs(provenance["numerics"])]),
        ("Hardware", [", ".join(hardware)]),
        ("Python", [provenance["python"]]),
        ("Versions", [", ".join(versions)]),
    ]


def _pairs(values: Json) -> str:
    def shown(value: Any) -> str:
        return " + ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)

    return ", ".join(f"{key} {shown(value)}" for key, value in values.items())
