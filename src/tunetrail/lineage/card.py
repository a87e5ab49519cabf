"""The model card of a registered version, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tunetrail.lineage import words
from tunetrail.report import text
from tunetrail.report.markdown import aligned

Json = dict[str, Any]


def model_card(lineage: Mapping[str, Any]) -> str:
    """The card, from what ``lineage.json`` holds. Scores have intervals, or say why not."""
    model, task = lineage["model"], lineage["comparison"]["task"]
    sections = {
        "Intended use": _use(lineage),
        "Out of scope": _scope(lineage),
        "Scores": _scores(lineage),
        "Scores by label": _slices(lineage),
        "Limits": _limits(lineage),
        "Data": _data(lineage),
        "Training": _training(lineage),
        "Size and speed": _size(lineage),
        "Load and serve": _serve(lineage),
        "Where it comes from": _provenance(lineage),
    }
    found = [f"# {model['name']}: {task['title']}", _summary(lineage)]
    if "reason" in model:
        found += [f"**Not registered:** {model['reason']}."]
    for heading, content in sections.items():
        if content:
            found += [f"## {heading}", *content]
    return "\n\n".join(found) + "\n"


def _summary(lineage: Mapping[str, Any]) -> str:
    task, base = lineage["comparison"]["task"], lineage["comparison"]["base"]
    method = task["methods"][lineage["model"]["label"]]
    return (
        f"{words.title(lineage)} ({method['paper']}) on {base['architecture']} "
        f"{base['layers']}×{base['hidden_size']}, seed {lineage['model']['seed']}; "
        f"predicts {task['predicts']}."
    )


def _use(lineage: Mapping[str, Any]) -> list[str]:
    task, data = lineage["comparison"]["task"], lineage["data"]
    texts = "pairs of texts" if data["paired"] else "texts"
    if task["labels"]:
        does = f"Sorting {texts} into {len(task['labels'])} classes: {task['predicts']}."
    elif task["range"]:
        does = f"Predicting {task['predicts']} for {texts}."
    else:
        does = "Finding the answer to a question in a context that has one."
    domain = f" (domain: {data['domain']})" if data["domain"] else ""
    return [f"{does} Texts like those of the data below{domain}."]


def _scope(lineage: Mapping[str, Any]) -> list[str]:
    task = lineage["comparison"]["task"]
    points = [
        "Texts of another kind, domain or language than the data below: none were tested.",
        "Decisions about people without a person who looks: nothing was tested on differences "
        "between groups of people.",
    ]
    if task["labels"]:
        points += ["Texts that belong to no class: one of the classes is always the answer."]
    if not task["labels"] and not task["range"]:
        points += ["Questions that the context does not answer: it always gives a span."]
    return [_bullets(points)]


def _scores(lineage: Mapping[str, Any]) -> list[str]:
    task, label = lineage["comparison"]["task"], lineage["model"]["label"]
    method, certified = task["methods"][label], lineage["certificate"]["metrics_onnx"]
    summary = {metric: method["summary"][metric] for metric in task["metrics"]}
    rows = [
        [
            task["metric_titles"][metric],
            text.spread(found),
            text.interval(found),
            str(found["count"]),
            text.score(certified[metric]),
            text.score(task["majority"][metric]),
        ]
        for metric, found in summary.items()
    ]
    seed, constant = lineage["model"]["seed"], task["majority_title"]
    header = ["test metric", "mean of seeds", "95% interval", "seeds", f"this file (seed {seed})"]
    primary = task["metric_titles"][task["primary"]]
    told = f"Test {primary} of the method: {words.scored(summary[task['primary']])}."
    if summary[task["primary"]]["low"] is not None:
        told += (
            " The interval is Student's t over seeds; this file is one of those seeds, chosen on "
            "the selection set."
        )
    return [
        aligned([*header, constant], rows),
        told,
        words.verdict(lineage),
    ]


def _slices(lineage: Mapping[str, Any]) -> list[str]:
    records = lineage["slices"]
    if not records:
        return []
    rows = [
        [
            record["of"],
            text.count(record["rows"]),
            text.ABSENT if record["score"] is None else text.score(record["score"]),
            text.interval(record),
        ]
        for record in records
    ]
    measure = records[0]["measure"]
    what = (
        "Found: share of the label's test rows that this file predicts so, with Wilson's 95% "
        "interval."
        if measure == "found"
        else "The mean absolute error of this file, by true number."
    )
    return [aligned(["label", "test rows", measure, "95% interval"], rows), what]


def _limits(lineage: Mapping[str, Any]) -> list[str]:
    task, sets = lineage["comparison"]["task"], lineage["data"]["sets"]
    length = lineage["run"]["spec"]["base"]["max_length"]
    cut = sets["test"]["at_max_length"]
    points = ["Languages: those of the data; none is declared, and no other was tested."]
    if task["labels"] or task["range"]:
        points += [
            f"Texts are cut to {length} tokens; {cut:.1%} of the test rows are that long or longer."
        ]
    else:
        points += [f"A context beyond {length} tokens is read through overlapping windows."]
    points += [
        f"Classes without a row in {name}: {', '.join(labels)}."
        for name, labels in lineage["validation"]["classes_missing"].items()
    ]
    return [_bullets(points + words.small_samples(lineage))]


def _data(lineage: Mapping[str, Any]) -> list[str]:
    data = lineage["data"]
    rows = [
        [name, text.count(card["rows"]), words.rows_by_label(card)]
        for name, card in words.sets(lineage).items()
    ]
    checked = words.validation(lineage)
    return [
        f"{words.origin(data['source'])}. Licence: {data['licence']}. "
        f"{text.plural(data['rows'], 'row')} in all, of which were used:",
        aligned(["set", "rows", "labels"], rows),
        f"Validation: {'; '.join(checked)}.",
    ]


def _training(lineage: Mapping[str, Any]) -> list[str]:
    run, compared = lineage["run"], lineage["comparison"]
    spec = run["spec"]
    start = spec["start"] if isinstance(spec["start"], str) else spec["start"]["name"]
    licence = compared["base"]["source"].get("licence", "unknown")
    facts = {
        "base model": f"{words.origin(compared['base']['source'])} (licence: {licence})",
        "starts from": start,
        "method": f"{spec['method']['name']}, {words.options(spec['method']['options'])}",
        "parameters trained": text.count(run["parameters"]),
        "budget": words.budget(lineage),
        "training": words.options(spec["training"]),
        "numerics": words.options(spec["numerics"]),
        "seed": str(spec["seed"]),
    }
    return [_facts(facts)]


def _size(lineage: Mapping[str, Any]) -> list[str]:
    certificate = lineage["certificate"]
    threads = text.plural(lineage["run"]["spec"]["numerics"]["threads"], "thread")
    latency = certificate["latency"]
    middle, slow = (text.three_digits(latency[f"onnx_{rank}_ms"]) for rank in ("p50", "p95"))
    return [
        f"ONNX file {text.size(certificate['onnx_bytes'])}, opset {certificate['opset']}. One text "
        f"of median length takes {middle} ms (median; 95th percentile {slow} ms) in ONNX Runtime "
        f"with {threads}, on the machine that exported it.",
        f"Certificate {words.certificate(lineage)}.",
    ]


def _serve(lineage: Mapping[str, Any]) -> list[str]:
    task, name = lineage["comparison"]["task"], lineage["model"]["name"]
    columns = ["text", "text_pair"] if lineage["data"]["paired"] else ["text"]
    if not task["labels"] and not task["range"]:
        columns = ["question", "context"]
    row = ", ".join(f'"{column}": ["…"]' for column in columns)
    return [
        "```python\n"
        "import mlflow, pandas as pd\n\n"
        f'model = mlflow.pyfunc.load_model("models:/{name}@champion")\n'
        f"model.predict(pd.DataFrame({{{row}}}))\n"
        "```",
        "As a server on this machine: "
        f"`mlflow models serve -m models:/{name}@champion --env-manager local`.",
    ]


def _provenance(lineage: Mapping[str, Any]) -> list[str]:
    git, environment = lineage["git"], lineage["environment"]
    digests = {link["step"]: link["sha256"] for link in lineage["links"]}
    commit = git["git_commit"] or "none (no git)"
    dirty = ", with changes that are not in it" if git["git_dirty"] else ""
    facts = {
        "data": f"sha256 {lineage['data']['digest']}",
        "run": lineage["run"]["digest"],
        "ONNX file": f"sha256 {lineage['certificate']['onnx_sha256']}",
        "comparison": f"sha256 {digests['comparison']}",
        "git commit": f"{commit}{dirty}",
        "Python": environment["python"],
        "packages": ", ".join(f"{name} {of}" for name, of in environment["versions"].items()),
    }
    name = lineage["model"]["name"]
    return [
        _facts(facts),
        f"`tunetrail explain models:/{name}@champion` shows the whole chain and the commands that "
        "repeat it; with `--check` it compares every digest.",
    ]


def _bullets(points: Sequence[str]) -> str:
    return "\n".join(f"- {point}" for point in points)


def _facts(pairs: Mapping[str, str]) -> str:
    return _bullets([f"{name}: {value}" for name, value in pairs.items()])
