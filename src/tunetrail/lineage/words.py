"""Sentences and cells that the model card and ``tunetrail explain`` share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunetrail.report import text
from tunetrail.splits import SETS

Json = dict[str, Any]

#: Test rows of a label below which its score says little.
FEW_ROWS = 30


def title(lineage: Mapping[str, Any]) -> str:
    """The method of the shipped run, as the report calls it."""
    task = lineage["comparison"]["task"]
    return text.titles(task)[lineage["model"]["label"]]


def selection_means(lineage: Mapping[str, Any]) -> dict[str, float]:
    """Label → mean selection score over its seeds, highest first."""
    choice = lineage["choice"]
    means = {
        label: sum(run["selection"][choice["metric"]] for run in runs) / len(runs)
        for label, runs in choice["runs"].items()
    }
    return dict(sorted(means.items(), key=lambda item: -item[1]))


def why_not(label: str, lineage: Mapping[str, Any]) -> str:
    """Why a method was not chosen, beside its score on the selection set."""
    means, chosen = selection_means(lineage), lineage["choice"]["winner"]
    if means[label] == means[chosen]:
        return "equal: first by name"
    return f"{text.score(means[chosen] - means[label])} lower"


def how_selected(lineage: Mapping[str, Any]) -> str:
    """The rule that chose method and seed, with the scores that it looked at."""
    choice, task = lineage["choice"], lineage["comparison"]["task"]
    label, metric = choice["winner"], task["metric_titles"][choice["metric"]]
    seeds = {run["seed"]: run["selection"][choice["metric"]] for run in choice["runs"][label]}
    of, seed = text.plural(len(seeds), "seed"), choice["seeds"][label]
    return (
        f"{title(lineage)} has the highest mean {metric} on the selection set "
        f"({text.score(selection_means(lineage)[label])} over {of}), and seed {seed} the highest "
        f"of them ({text.score(seeds[seed])}). "
        "The test set had no part in it."
    )


def scored(summary: Json) -> str:
    """Mean over seeds with its interval, ``0.771 [0.752, 0.790] over 3 seeds``."""
    if summary["low"] is None:
        return f"{text.score(summary['mean'])}, one seed, so without an interval"
    over = text.plural(summary["count"], "seed")
    return f"{text.score(summary['mean'])} {text.interval(summary)} over {over}"


def verdict(lineage: Mapping[str, Any]) -> str:
    """The comparison's verdict on the shipped method, in one sentence."""
    compared, label = lineage["comparison"], lineage["model"]["label"]
    task, baseline = compared["task"], compared["baseline"]
    names = text.titles(task)
    if not task["verdicts"]:
        return "There is no verdict: no baseline was named, or it is the only method."
    if label == baseline:
        return text.verdict_sentence(task, baseline, compared["margin"])
    record = task["verdicts"][label]
    needs = text.needs(record)
    settled = {
        "win": "has a higher score",
        "lose": "has a lower score",
        "tie": f"ties within ±{compared['margin']:g}",
        "open": "is not told apart" + (f" (needs {needs})" if needs else ""),
    }
    metric = task["metric_titles"][task["primary"]]
    return (
        f"Against {names[baseline]}, {names[label]} {settled[record['outcome']]}: test {metric} "
        f"differs by {text.difference(record)}"
        + (", one seed, so without an interval." if record["low"] is None else ".")
    )


def sets(lineage: Mapping[str, Any]) -> dict[str, Json]:
    """Set → card of its rows, train first."""
    cards = lineage["data"]["sets"]
    return {name: cards[name] for name in SETS}


def rows_by_label(card: Json) -> str:
    """``bad 90, good 90``, or what else a card says of labels."""
    if card["labels"]:
        return ", ".join(f"{name} {text.count(rows)}" for name, rows in card["labels"].items())
    if "numbers" in card:
        of = card["numbers"]
        return (
            f"mean {of['mean']:.3g}, deviation {of['std']:.3g}, from {of['lowest']:g} to "
            f"{of['highest']:g}"
        )
    return f"{card['answers']['mean']:.3g} answers a question, {card['answers']['most']} at most"


def validation(lineage: Mapping[str, Any]) -> list[str]:
    """What the data gate found: checks in all, then what was tolerated, waived and dropped."""
    gate = lineage["validation"]
    outcomes = [check["outcome"] for check in gate["checks"]]
    found = [f"{outcomes.count('passed')} of {len(outcomes)} checks passed"]
    found += [
        f"tolerated: {c['check']}, {text.plural(c['count'], 'row')}, {c['share']:.2%} "
        f"(limit {c['limit']:.2%})"
        for c in gate["checks"]
        if c["outcome"] == "tolerated"
    ]
    failed = {c["check"]: c for c in gate["checks"] if c["outcome"] == "waived"}
    found += [
        f"waived: {check}, {text.plural(failed[check]['count'], 'row')}: {why}"
        if check in failed
        else f"waived, but passed: {check}: {why}"
        for check, why in gate["waived"].items()
    ]
    if gate["dropped"]:
        found += [f"dropped from train and selection: {text.plural(gate['dropped'], 'row')}"]
    found += [
        f"classes without a row in {name}: {', '.join(labels)}"
        for name, labels in gate["classes_missing"].items()
    ]
    return found


def origin(source: Mapping[str, str]) -> str:
    """Where data or a model comes from, without digest and licence."""
    shown = {k: v for k, v in source.items() if k not in ("sha256", "licence", "kind")}
    return ", ".join([source["kind"], *(f"{key} {value}" for key, value in shown.items())])


def budget(lineage: Mapping[str, Any]) -> str:
    """``full: epochs 2``."""
    run = lineage["run"]
    given = {k: v for k, v in run["spec"]["budget"].items() if v is not None}
    settings = ", ".join(f"{key} {value:g}" for key, value in given.items())
    return f"{run['budget']}: {settings}"


def options(values: Mapping[str, Any]) -> str:
    """``learning_rate 0.002, sites query value``."""
    shown = (
        f"{key} {' '.join(map(str, value)) if isinstance(value, list) else value}"
        for key, value in values.items()
    )
    return ", ".join(shown) or "none"


def certificate(lineage: Mapping[str, Any]) -> str:
    """What was measured of the exported file against the trained model."""
    found = lineage["certificate"]
    shapes, rows = text.plural(len(found["sweep"]), "shape"), text.plural(found["rows"], "test row")
    return (
        f"{'passed' if found['passed'] else 'FAILED'}: logits differ by at most "
        f"{text.small(found['largest_logit_difference'])} (limit {text.small(found['tolerance'])}) "
        f"over {shapes} and {rows}; {text.count(found['prediction_flips'])} predictions flip"
    )


def small_samples(lineage: Mapping[str, Any]) -> list[str]:
    """What is too small to say much."""
    task, records = lineage["comparison"]["task"], lineage["slices"]
    seeds = task["methods"][lineage["model"]["label"]]["summary"][task["primary"]]["count"]
    found = []
    if seeds < 3:
        what = "there is no interval" if seeds == 1 else "the interval is wide"
        found += [f"Only {text.plural(seeds, 'seed')}: {what}."]
    few = [record for record in records if record["rows"] < FEW_ROWS]
    if few:
        of = ", ".join(f"{record['of']} ({text.count(record['rows'])})" for record in few)
        found += [f"Fewer than {FEW_ROWS} test rows: {of}. Scores of these say little."]
    return found
