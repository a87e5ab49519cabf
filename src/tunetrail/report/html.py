"""The report of a comparison as one HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tunetrail.report import details, facts, text
from tunetrail.report.figures import ALL_TASKS
from tunetrail.report.leaderboard import leaderboard
from tunetrail.report.page import page
from tunetrail.report.recommended import limits_in_words, recommended, sentences
from tunetrail.report.style import shape, styles
from tunetrail.report.templates import fill
from tunetrail.report.text import Json
from tunetrail.verdicts.costs import costs_of

SCRIPT = Path(__file__).with_name("report.js")


def render(
    comparison: Json,
    costs: Json,
    certificates: Json,
    provenance: Json,
    figures: dict[str, list[Json]],
    failures: Sequence[Json] = (),
) -> str:
    """The whole report, a self-contained document.

    Args:
        comparison: Scores of all runs, their summaries and verdicts, by task and label. Its
            baseline's training time is 1; where that was not measured, the slowest method's is.
        costs: Costs by task and label; either may lack an entry.
        certificates: ONNX certificates by task and label; either may lack an entry.
        provenance: Commit, versions, machine and settings of the comparison, with the limits
            that recommendations keep to.
        figures: What ``figures.inline`` returned; tasks may be missing.
        failures: ``stage`` and ``reason`` of what failed, where only a part could be compared.
    """
    baseline = comparison["baseline"]
    tasks = [
        {
            "name": name,
            "task": task,
            "tile": _tile(task),
            "verdicts": text.verdict_sentence(task, baseline, comparison["margin"]),
            "board": leaderboard(task, costs.get(name, {}), baseline),
            "figures": figures.get(name, []),
            "edges": text.edge_sentence(task),
            "pairs": details.pairs_table(task, baseline),
            "tuned": any("tuning" in cost for cost in costs.get(name, {}).values()),
            "times": text.times_sentence(task, costs.get(name, {})),
            "take": _take(
                task,
                costs.get(name, {}),
                certificates.get(name, {}),
                comparison,
                provenance["limits"],
            ),
            "costs": details.costs_table(
                task, costs.get(name, {}), certificates.get(name, {}), baseline
            ),
            "data": facts.data_facts(task),
            "runs": details.runs_table(task),
            "options": details.options_table(task),
            "pretraining": details.pretraining_table(task),
            "certificates": details.certificates_table(task, certificates.get(name, {})),
        }
        for name, task in comparison["tasks"].items()
    ]
    body = fill(
        "report.html.j2",
        tasks=tasks,
        failures=failures,
        shape=shape,
        methods=_methods(comparison),
        explained=f"{text.EXPLAINED} The margin is {comparison['margin']:g}.",
        pairs_explained=text.PAIRS,
        across_explained=text.ACROSS,
        across=details.across_table(comparison),
        across_figures=figures.get(ALL_TASKS, []),
        provenance=facts.provenance_facts(comparison, provenance),
        limits=limits_in_words(provenance["limits"]) if provenance["limits"] else "",
        changed=bool(provenance["git_dirty"]),
        reproduce=facts.reproduce(provenance),
        record=facts.as_json(comparison, provenance),
    )
    return page(
        comparison["project"],
        body,
        subtitle=text.summary_sentence(comparison),
        note=_subject(comparison),
        navigation=fill("navigation.html.j2", tasks=tasks),
        script=SCRIPT.read_text(encoding="utf-8"),
    )


def _subject(comparison: Json) -> str:
    tasks, base = comparison["tasks"], comparison["base"]
    methods = {label for task in tasks.values() for label in task["methods"]}
    return (
        f"{text.plural(len(methods), 'fine-tuning method')} compared on "
        f"{text.plural(len(tasks), 'task')} with {text.seeds(comparison)} "
        f"each, from one base model: {base['architecture']}, {base['layers']} layers of width "
        f"{base['hidden_size']}."
    )


def _tile(task: Json) -> Json:
    label = task["winner"]["method"]
    summary = task["methods"][label]["summary"][task["primary"]]
    several = summary["low"] is not None
    return {
        "metric": task["metric_titles"][task["primary"]],
        "method": text.titles(task)[label],
        "look": styles(list(task["methods"]))[label],
        "value": text.score(summary["mean"]),
        "interval": text.interval(summary) if several else "",
        "seeds": f"mean of {text.plural(summary['count'], 'seed')} and 95% interval"
        if several
        else "one seed, so without an interval",
    }


def _take(task: Json, costs: Json, certificates: Json, comparison: Json, limits: Json) -> Json:
    """What the command ``recommend`` says of a task: the pick in a line, and the rest."""
    measured = {
        label: costs_of(costs.get(label), certificates.get(label)) for label in task["methods"]
    }
    baseline, margin = comparison["baseline"], comparison["margin"]
    first, *more = sentences(recommended(task, measured, baseline, margin, limits))
    return {"first": first[:1].upper() + first[1:], "more": more}


def _methods(comparison: Json) -> list[Json]:
    """Label, title and look of every method, as its first task has them."""
    found: dict[str, Json] = {}
    for task in comparison["tasks"].values():
        names, looks = text.titles(task), styles(list(task["methods"]))
        for label, title in names.items():
            found.setdefault(label, {"label": label, "title": title, "look": looks[label]})
    return list(found.values())
