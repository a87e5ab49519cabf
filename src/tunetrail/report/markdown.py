"""The comparison as Markdown tables, for a terminal and for GitHub."""

from __future__ import annotations

from tunetrail.report import text
from tunetrail.report.text import ABSENT, Json
from tunetrail.verdicts.costs import run_seconds


def markdown_table(comparison: Json, costs: Json) -> str:
    """A heading, a table and sentences for each task; columns are padded to read well as text.

    Args:
        comparison: Scores of all runs, their summaries and verdicts, by task and label. Its
            baseline's training time is 1; where that was not measured, the slowest method's is.
        costs: Costs by task and label; either may lack an entry.
    """
    baseline, parts = comparison["baseline"], []
    for name, task in comparison["tasks"].items():
        header, rows = _cells(task, costs.get(name, {}), baseline)
        sentences = [
            text.chosen_sentence(name, task),
            text.verdict_sentence(task, baseline, comparison["margin"]),
            text.edge_sentence(task),
            text.times_sentence(task, costs.get(name, {})),
        ]
        paragraphs = [f"## {task['title']}", aligned(header, rows), *filter(None, sentences)]
        parts += paragraphs
    if any(task["verdicts"] for task in comparison["tasks"].values()):
        parts.append(f"{text.EXPLAINED} The margin is {comparison['margin']:g}.")
    if len(comparison["tasks"]) > 1:
        parts += ["## All tasks together", _across(comparison), text.ACROSS]
    return "\n\n".join(parts) + "\n"


def _across(comparison: Json) -> str:
    """The views over all tasks, a row a method, by interquartile mean."""
    header = ["method", "interquartile mean", "mean rank", "probability of improvement"]
    return aligned(header, [[name, *cells] for _, name, cells in text.across_rows(comparison)])


def _cells(task: Json, costs: Json, baseline: str) -> tuple[list[str], list[list[str]]]:
    primary, names = task["primary"], text.titles(task)
    others = [metric for metric in task["metrics"] if metric != primary]
    unit = text.reference(task, costs, baseline)
    header = ["method", task["metric_titles"][primary], "95% interval", "n"]
    if task["verdicts"]:
        header += [f"against {names[baseline]}", "verdict"]
    header += ["group", *(task["metric_titles"][metric] for metric in others)]
    header += ["trainable", "time" if unit is None else f"time ({names[unit]} = 1)"]
    rows = []
    for label in text.ranked(task):
        summary, cost = task["methods"][label]["summary"], costs.get(label)
        chosen = " (chosen)" if label == task["winner"]["method"] else ""
        row = [
            names[label] + chosen,
            text.spread(summary[primary]),
            text.interval(summary[primary]),
            str(summary[primary]["count"]),
            *(_verdict(task["verdicts"].get(label)) if task["verdicts"] else []),
            task["letters"][label],
            *(text.score(summary[metric]["mean"]) for metric in others),
        ]
        if cost is None or unit is None:
            row += [ABSENT, ABSENT]
        else:
            ratio = text.ratio(run_seconds(cost), run_seconds(costs[unit]))
            row += [text.count(cost["trainable_parameters"]), ratio]
        rows.append(row)
    return header, rows


def _verdict(record: Json | None) -> list[str]:
    if record is None:
        return [ABSENT, "baseline"]
    return [text.difference(record), text.outcome(record)]


def aligned(header: list[str], rows: list[list[str]]) -> str:
    """A GitHub table: the first column to the left, the others to the right."""
    cells = [[cell.replace("|", "\\|") for cell in row] for row in (header, *rows)]
    widths = [max(3, *(len(row[i]) for row in cells)) for i in range(len(header))]
    rule = [f":{'-' * (widths[0] - 1)}", *(f"{'-' * (width - 1)}:" for width in widths[1:])]
    lines = [
        [row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]
        for row in cells
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in [lines[0], rule, *lines[1:]])
