"""What a recipe found: claims.json, a Markdown page, figures."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tunetrail.files import read_json, replacing, write_json, write_text
from tunetrail.recipes import Scale, figures
from tunetrail.recipes.observed import Observed
from tunetrail.recipes.recipe import Recipe
from tunetrail.report import text
from tunetrail.report.markdown import aligned
from tunetrail.report.output import save

CLAIMS, PAGE = "claims.json", "results.md"


def judge(recipe: Recipe, name: str, scale: Scale, found: Mapping[str, Observed]) -> dict[str, Any]:
    """All claims of a recipe, and the scores that they rest on."""
    return {
        "recipe": name,
        "scale": scale,
        "title": recipe.title,
        "paper": recipe.paper,
        "base": next(iter(found.values())).content["base"]["source"],
        "claims": {label: claim.judge(found) for label, claim in recipe.claims.items()},
        "comparisons": {label: _scores(observed) for label, observed in found.items()},
    }


def write_results(judged: dict[str, Any], found: Mapping[str, Observed], out: Path) -> None:
    """Write everything to ``out``, which is replaced."""
    with replacing(out) as folder:
        write_json(folder / CLAIMS, judged)
        drawn = _figures(judged, found, folder)
        write_text(folder / PAGE, page(judged, drawn))


def read_results(folder: Path, recipe: Recipe, inputs: str) -> dict[str, Any] | None:
    """What an earlier run found, its claims in the order of the recipe.

    None where there was none, or where it had other ``inputs`` (digest of all that decides).
    """
    if not (folder / CLAIMS).is_file():
        return None
    judged: dict[str, Any] = read_json(folder / CLAIMS)
    if judged["inputs"] != inputs:
        return None
    return judged | {"claims": {label: judged["claims"][label] for label in recipe.claims}}


def page(judged: dict[str, Any], drawn: Mapping[str, Sequence[str]]) -> str:
    """The results as Markdown.

    Args:
        judged: What :func:`judge` returned.
        drawn: Files of the figures of a part (``CLAIM-NUMBER``) or of a task (``COMPARISON-TASK``).
    """
    claims = judged["claims"]
    verdicts = [[str(claim["says"]), f"**{claim['verdict']}**"] for claim in claims.values()]
    parts = [
        f"# {judged['title']} ({judged['paper']}), {judged['scale']}",
        aligned(["claim", "verdict"], verdicts),
    ]
    for label, claim in claims.items():
        parts += [f"## {claim['says']} *{claim['verdict']}*"]
        for number, part in enumerate(claim["parts"]):
            parts += [sentence(part), aligned(*_cells(part))]
            parts += _pictures(drawn, f"{label}-{number}", part["kind"])
    parts += ["## Scores", "Mean ± standard deviation over seeds, on test."]
    for label, comparison in judged["comparisons"].items():
        for task, about in comparison["tasks"].items():
            parts += [f"### {about['title']} ({label})", aligned(*_task_table(about))]
            parts += _losses(about)
            parts += _pictures(drawn, f"{label}-{task}", about["title"])
    return "\n\n".join(parts) + "\n"


def sentence(part: dict[str, Any]) -> str:
    """What a part of a claim asks, and the answer in one line."""
    of, than = part["method"], part["than"]
    asks = {
        "not_worse": f"{of} is not worse than {than} by more than the margin, in every cell",
        "keeps_up": f"from {part.get('from')} to {part.get('budget')}, {of} loses no more than "
        f"{than} by more than the margin, in every cell",
        "better": f"{of} is better than {than} on the mean of the tasks",
        "varies_more": f"the spread of {of} over seeds is above that of {than}",
        "varies_no_more": f"the spread of {of} over seeds is at most {part.get('factor')} × "
        f"that of {than}",
        "fewer_parameters": f"{of} trains fewer parameters than {than}",
        "more_where_unfamiliar": f"the advantage of {of} over {than} falls with the overlap",
    }[part["kind"]]
    return f"*{asks}*: **{part['verdict']}**{_numbers(part)}."


def _numbers(part: dict[str, Any]) -> str:
    if "mean" in part:
        return f", mean {_of_interval(part['mean'])}"
    if "ratio" in part:
        ratio = part["ratio"]
        return f", ratio {_of_interval(ratio)}" if ratio else ", no spread to compare"
    if "trend" in part:
        trend = part["trend"]
        return (
            f", rank correlation {text.score(trend['rho'], 2)}, p = {trend['falls']:.3f} of a fall "
            f"and {trend['rises']:.3f} of a rise (exact, one-sided)"
        )
    cells = part["cells"]
    if "low" not in cells[0]:
        return ""
    held = sum(c["low"] is not None and c["low"] > -c["margin"] for c in cells)
    broken = sum(c["high"] is not None and c["high"] < -c["margin"] for c in cells)
    return f"; by 95% intervals it holds in {held} of {len(cells)} cells and fails in {broken}"


def _of_interval(found: Mapping[str, float | None]) -> str:
    value = text.score(found["value"] or 0.0)
    return value if found["low"] is None else f"{value} {text.interval(dict(found))}"


def _cells(part: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    cells = part["cells"]
    if "difference" in cells[0]:
        header = ["cell", f"{part['method']} − {part['than']}", "95% interval"]
        rows = [
            [figures.cell_name(c, cells), text.score(c["difference"]), text.interval(c)]
            for c in cells
        ]
        if "overlap" in cells[0]:
            header.append("overlap")
            rows = [[*r, text.score(c["overlap"])] for r, c in zip(rows, cells, strict=True)]
        return header, rows
    header = ["cell", part["method"], part["than"]]
    if part["kind"] == "fewer_parameters":
        return header, [[c["task"], *(text.count(c[k]) for k in ("of", "than"))] for c in cells]
    return header, [
        [figures.cell_name(c, cells), *(text.score(_std(c[key])) for key in ("of", "than"))]
        for c in cells
    ]


def _std(scores: Sequence[float]) -> float:
    from statistics import stdev

    return stdev(scores) if len(scores) > 1 else 0.0


def _task_table(about: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    budgets = list(next(iter(about["methods"].values()))["budgets"])
    rows = [
        [method["title"], text.count(method["trainable_parameters"])]
        + [text.spread(method["budgets"][budget]) for budget in budgets]
        for method in about["methods"].values()
    ]
    rows.append(["*constant answer*", "", *(text.score(about["constant"]) for _ in budgets)])
    return [f"{about['metric']}, test rows {about['rows']['test']}", "trainable", *budgets], rows


def _losses(about: dict[str, Any]) -> list[str]:
    losses = [
        f"{start} {text.score(loss['before'], 2)} → {text.score(loss['after'], 2)}"
        for start, loss in about["pretraining"].items()
    ]
    return [f"Masked-LM loss on held-out text: {', '.join(losses)}."] if losses else []


def _scores(observed: Observed) -> dict[str, Any]:
    tasks = {}
    for task, about in observed.tasks.items():
        metric = about["primary"]
        tasks[task] = {
            "title": about["title"],
            "metric": metric,
            "rows": about["rows"],
            "constant": about["majority"][metric],
            "pretraining": {
                start: entry["held_out_loss"] for start, entry in about["pretraining"].items()
            },
            "methods": {
                label: {
                    "title": method["title"] if method["name"] != "full" else _full(method),
                    "trainable_parameters": observed.parameters(task, label),
                    "budgets": {
                        budget: method["budgets"][budget]["summary"][metric]
                        | {"seeds": observed.scores(task, label, budget)}
                        for budget in about["budgets"]
                    },
                }
                for label, method in about["methods"].items()
            },
        }
    first = next(iter(observed.tasks.values()))
    return {"margin": observed.margin, "budgets": first["budgets"], "tasks": tasks}


def _full(method: dict[str, Any]) -> str:
    start = method["start"]
    return "full fine-tuning" if start == "pretrained" else f"full fine-tuning after {start}"


def _figures(
    judged: dict[str, Any], found: Mapping[str, Observed], folder: Path
) -> dict[str, list[str]]:
    drawn = {}
    for label, claim in judged["claims"].items():
        for number, part in enumerate(claim["parts"]):
            if "difference" in part["cells"][0]:
                name = f"{label}-{number}"
                plot = figures.overlap_plot if "trend" in part else figures.cells_plot
                drawn[name] = [f"{name}.svg"]
                save(plot(part), folder / f"{name}.svg")
    for label, observed in found.items():
        for task in observed.tasks:
            plots = observed.folder / "comparison" / "plots" / task
            shown = sorted(plots.glob("by-*.svg")) or [plots / "difference.svg"]  # one budget
            drawn[f"{label}-{task}"] = [f"{label}-{task}-{curve.name}" for curve in shown]
            for curve in shown:
                shutil.copyfile(curve, folder / f"{label}-{task}-{curve.name}")
    return drawn


def _pictures(drawn: Mapping[str, Sequence[str]], name: str, title: str) -> list[str]:
    return [f"![{title}]({file})" for file in drawn.get(name, ())]
