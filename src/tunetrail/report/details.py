"""Tables below a leaderboard: pairs, costs, every run, options, ONNX certificates."""

from __future__ import annotations

from tunetrail.report import text
from tunetrail.report.facts import pairs
from tunetrail.report.leaderboard import cost_cells
from tunetrail.report.page import Cell, table
from tunetrail.report.text import ABSENT, Json

_DIGEST = 12  # characters of a digest in a table: enough to find it, few enough to read


def runs_table(task: Json) -> str:
    """A row a run: budget and seed, scores on selection and test, whether it was chosen, digest."""
    metrics, names = task["metrics"], text.titles(task)
    scored = [(which, metric) for which in ("selection", "test") for metric in metrics]
    several = len(task["budgets"]) > 1
    header = ["Method", *(["Budget"] if several else []), "Seed"]
    header += [f"{which} {task['metric_titles'][m]}" for which, m in scored]

    def chosen(entry: Json) -> tuple[str, int]:
        return task["main_budget"], entry["selected_seed"]

    rows = [
        (
            label,
            [
                Cell(names[label]),
                *([Cell(budget)] if several else []),
                Cell(str(run["seed"]), value=run["seed"]),
                *(Cell(text.score(run[w][m]), value=run[w][m]) for w, m in scored),
                Cell("yes" if (budget, run["seed"]) == chosen(entry) else ""),
                Cell(run["run"][:_DIGEST], copy=run["run"]),
            ],
        )
        for label, entry in task["methods"].items()
        for budget, result in entry["budgets"].items()
        for run in result["runs"]
    ]
    first = 2 if several else 1
    return table(
        f"Every run: {task['title']}",
        [*header, "Chosen", "Run"],
        [cells for _, cells in rows],
        numeric=set(range(first, first + 1 + len(scored))),
        methods=[label for label, _ in rows],
    )


def pairs_table(task: Json, baseline: str) -> str:
    """A row a pair of methods with its verdict; nothing where there is one method.

    Args:
        task: One task of the comparison.
        baseline: A label, or empty.
    """
    names = text.titles(task)
    rows = [
        [
            *(Cell(names[label]) for label in record["of"]),
            Cell(text.difference(record), value=record["difference"]),
            Cell(text.level(record), value=record["level"]),
            Cell(text.p_value(record), value=record["p"]),
            Cell(text.outcome(record), text.short_needs(record)),
        ]
        for record in text.every_pair(task, baseline)
    ]
    if not rows:
        return ""
    header = ["First", "Second", "Difference", "Level", "p", "Verdict"]
    return table(f"All pairs: {task['title']}", header, rows, numeric={2, 3, 4})


def across_table(comparison: Json) -> str:
    """A row a method over all tasks; nothing where there is one task."""
    if len(comparison["tasks"]) < 2:
        return ""
    entries, shown = comparison["across"]["methods"], text.across_rows(comparison)
    kinds = ("iqm", "rank", "improvement")
    rows = [
        [
            Cell(name),
            *(
                Cell(cell, value=entries[label][kind]["value"] if kind in entries[label] else None)
                for cell, kind in zip(cells, kinds, strict=True)
            ),
        ]
        for label, name, cells in shown
    ]
    return table(
        "All tasks together",
        ["Method", "Interquartile mean", "Mean rank", "Probability of improvement"],
        rows,
        numeric={1, 2, 3},
        methods=[label for label, *_ in shown],
    )


def options_table(task: Json) -> str:
    """A row a method: paper, start, options, whether its weights can be merged."""
    names = text.titles(task)
    rows = [
        [
            names[label],
            entry["paper"],
            entry["start"],
            pairs(entry["options"]),
            "yes" if entry["mergeable"] else "no",
        ]
        for label, entry in task["methods"].items()
    ]
    return table(
        f"Options of the methods: {task['title']}",
        ["Method", "Paper", "Starts from", "Options", "Mergeable"],
        rows,
        methods=list(task["methods"]),
    )


def pretraining_table(task: Json) -> str:
    """A row a checkpoint that a method starts from; nothing where all start from the base model."""
    if not task["pretraining"]:
        return ""
    rows = [
        [
            Cell(start),
            Cell(found["head"]),
            *(
                Cell(text.count(n), value=n)
                for n in (found["texts"]["train"], found["texts"]["held_out"], found["tokens"])
            ),
            Cell(text.count(found["steps"]), value=found["steps"]),
            *(
                Cell(text.score(found["held_out_loss"][when]), value=found["held_out_loss"][when])
                for when in ("before", "after")
            ),
            Cell(found["pretraining"][:_DIGEST], copy=found["pretraining"]),
        ]
        for start, found in task["pretraining"].items()
    ]
    header = ["Start", "Head", "Texts", "Held-out texts", "Tokens seen", "Steps", "Loss before"]
    return table(
        f"Continued pretraining: {task['title']}",
        [*header, "Loss after", "Checkpoint"],
        rows,
        numeric=set(range(2, 8)),
    )


def costs_table(task: Json, costs: Json, certificates: Json, baseline: str) -> str:
    """A row a method: what it costs to train, to keep and to serve; nothing if none was measured.

    Args:
        task: One task of the comparison.
        costs: That task's costs, by label.
        certificates: That task's certificates, by label.
        baseline: See ``text.reference``.
    """
    names, unit = text.titles(task), text.reference(task, costs, baseline)
    shown = [label for label in text.ranked(task) if label in costs or label in certificates]
    if not shown:
        return ""
    header = ["Method", "Trainable parameters", "Time of a run", "Samples/s", "Peak memory"]
    header += ["Artifact", "ONNX file", "ONNX p50, ms", "torch p50, ms"]
    tuned = any("tuning" in cost for cost in costs.values())
    header += ["Tuning"] if tuned else []
    rows = [
        [
            Cell(names[label]),
            *cost_cells(costs.get(label), costs.get(unit or ""), text.at_most(task)),
            *_training(costs.get(label)),
            *_serving(certificates.get(label)),
            *([_tuning(costs.get(label, {}).get("tuning"))] if tuned else []),
        ]
        for label in shown
    ]
    numeric = set(range(1, len(header)))
    return table(f"Costs: {task['title']}", header, rows, numeric=numeric, methods=shown)


def _training(cost: Json | None) -> list[Cell]:
    if cost is None:
        return [Cell(ABSENT)] * 3
    speed, memory, artifact, checkpoint = (
        cost[key]
        for key in (
            "samples_per_second", "peak_memory_bytes", "artifact_bytes", "checkpoint_bytes",
        )
    )  # fmt: skip
    of_it = f"{text.size(checkpoint)} of it the checkpoint" if checkpoint else ""
    return [
        Cell(text.three_digits(speed), value=speed),
        Cell(text.size(memory), value=memory),
        Cell(text.size(artifact + checkpoint), of_it, artifact + checkpoint),
    ]


def _tuning(tuning: Json | None) -> Cell:
    """How long all trials took together."""
    if tuning is None:
        return Cell(ABSENT)
    seconds = tuning["seconds"]
    return Cell(text.seconds(seconds), text.plural(tuning["trials"], "trial"), seconds)


def _serving(certificate: Json | None) -> list[Cell]:
    if certificate is None:
        return [Cell(ABSENT)] * 3
    size = certificate["onnx_bytes"]
    latency = certificate.get("latency") or {}
    speeds = [latency.get(f"{side}_p50_ms") for side in ("onnx", "torch")]
    return [
        Cell(text.size(size), value=size),
        *(Cell(ABSENT if v is None else text.three_digits(v), value=v) for v in speeds),
    ]


def certificates_table(task: Json, certificates: Json) -> str:
    """A row an exported method, or nothing where none was exported."""
    names, metric = text.titles(task), task["metric_titles"][task["primary"]]
    shown = {label: found for label, found in certificates.items() if label in names}
    header = ["Method", "Outcome", "Largest logit difference", "Limit", "Flipped predictions"]
    header += [f"torch {metric}", f"ONNX {metric}", "torch p50 / p95, ms", "ONNX p50 / p95, ms"]
    header += ["Opset", "File size", "Merged", "SHA-256"]
    if not shown:
        return ""
    return table(
        f"ONNX certificates: {task['title']}",
        header,
        [_certificate(names[label], task["primary"], found) for label, found in shown.items()],
        numeric=set(range(2, 11)),
        methods=list(shown),
    )


def _certificate(name: str, metric: str, found: Json) -> list[Cell]:
    difference, flips = found["largest_logit_difference"], found["prediction_flips"]
    scores = (found[f"metrics_{side}"][metric] for side in ("torch", "onnx"))
    return [
        Cell(name),
        Cell("passed", badge="good") if found["passed"] else Cell("failed", badge="bad"),
        Cell(text.small(difference), value=difference),
        Cell(text.small(found["tolerance"]), value=found["tolerance"]),
        Cell(f"{text.count(flips)} of {text.count(found['rows'])}", value=flips),
        *(Cell(text.score(score), value=score) for score in scores),
        *(_latency(found, side) for side in ("torch", "onnx")),
        Cell(str(found["opset"]), value=found["opset"]),
        Cell(text.size(found["onnx_bytes"]), value=found["onnx_bytes"]),
        Cell("yes" if found["merged"] else "no"),
        Cell(found["onnx_sha256"][:_DIGEST], copy=found["onnx_sha256"]),
    ]


def _latency(certificate: Json, side: str) -> Cell:
    latency = certificate.get("latency")
    if not latency:
        return Cell(ABSENT)
    ranks = [latency[f"{side}_{rank}_ms"] for rank in ("p50", "p95")]
    return Cell(" / ".join(text.three_digits(value) for value in ranks), value=ranks[0])
