"""compare: every run's result in one comparison: table, JSON, plots and the report."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tunetrail import methods, metrics
from tunetrail.files import read_json, replacing, write_json, write_text
from tunetrail.kinds import Kind, kind_of
from tunetrail.layout import (
    CARD,
    CERTIFICATE,
    CHOICE,
    COMPARISON,
    HISTORY,
    LEDGER,
    MEANS,
    METRICS,
    PREDICTIONS,
    PRETRAIN,
    REPORT,
    RESULT,
    SCORES,
    TABLE,
    TUNED,
)
from tunetrail.modeling.base import checkpoint_folder
from tunetrail.params import MoreSeeds, Params
from tunetrail.provenance import provenance
from tunetrail.report import figures, html, markdown, text
from tunetrail.run import PRETRAINED, Budget, PlannedRun, planned_runs, representatives
from tunetrail.splits import SETS
from tunetrail.stages.select import choose, main_budget
from tunetrail.task import TaskSpec, read_task
from tunetrail.training.rows import read_rows
from tunetrail.verdicts import across
from tunetrail.verdicts.influence import row_values
from tunetrail.verdicts.judge import judge
from tunetrail.verdicts.looks import Looks
from tunetrail.verdicts.scores import summarise


def compare(params: Params, plan: Path, data: Path, runs: Path, base: Path, out: Path) -> None:
    """Write the comparison to ``out``.

    ``comparison.json`` holds every score and no time, so equal plans give equal files;
    ``scores.json`` is its summary for ``dvc metrics``, ``means.json`` the one for ``dvc plots``.
    ``table.md``, ``plots/``, ``png/`` and ``report.html`` also show costs and certificates.

    Args:
        params: The parameters (tasks and methods in the order to show them).
        plan: The plan.
        data: Folder of the canonical, validated and prepared data.
        runs: Folder of the trained, evaluated, selected, exported runs and their costs.
        base: What the base stage wrote.
        out: Folder to write.
    """
    choices = {task: read_json(runs / "select" / task / CHOICE) for task in params.tasks}
    certificates = {
        task: {
            label: read_json(runs / "export" / task / label / CERTIFICATE)
            for label in params.methods
        }
        for task in params.tasks
    }
    _write(params, plan, data, runs, base, out, choices, certificates)


def compare_finished(
    params: Params,
    failed: Mapping[str, str],
    waiting: Collection[str],
    plan: Path,
    data: Path,
    runs: Path,
    base: Path,
    out: Path,
) -> bool:
    """Compare the methods of which every run is finished, where others failed.

    What is exported may be of an earlier plan, so there are no certificates; seeds beyond the
    declared ones are left out.

    Args:
        params: All that is to be compared.
        failed: Stage of the pipeline → why it failed. The report says it.
        waiting: Stages that could not run because of those.
        plan: As of :func:`compare`, and so are ``data``, ``runs``, ``base`` and ``out``.

    Returns:
        Whether there was anything to compare.
    """
    missing = {*failed, *waiting}

    def finished(task: str, label: str) -> bool:
        needed = {f"cost@{task}-{label}"} | {
            f"{stage}@{task}-{label}-{budget}-{seed}"
            for stage in ("train", "evaluate")
            for budget, seed in product(params.budgets, params.seeds)
        }
        return not needed & missing

    tasks = [t for t in params.tasks if any(finished(t, label) for label in params.methods)]
    labels = [label for label in params.methods if all(finished(t, label) for t in tasks)]
    if not tasks or not labels:
        return False
    part = params.model_copy(
        update={
            "tasks": {name: params.tasks[name] for name in tasks},
            "methods": {label: params.methods[label] for label in labels},
            "baseline": params.baseline if params.baseline in labels else "",
            "more_seeds": MoreSeeds(),
        }
    )
    choices = {
        task: choose(_planned(part, task, plan), main_budget(plan / task), runs / "train" / task)[0]
        for task in tasks
    }
    failures = [{"stage": stage, "reason": reason} for stage, reason in failed.items()]
    _write(part, plan, data, runs, base, out, choices, {}, failures)
    return True


def _write(
    params: Params,
    plan: Path,
    data: Path,
    runs: Path,
    base: Path,
    out: Path,
    choices: Mapping[str, dict[str, Any]],
    certificates: dict[str, Any],
    failures: Sequence[dict[str, str]] = (),
) -> None:
    comparison: dict[str, Any] = {
        "project": params.project,
        "base": read_json(base / "card.json"),
        "baseline": params.baseline,
        "margin": params.margin,
        "tasks": {
            name: _task(name, params, plan, data, runs, base, choices[name])
            for name in params.tasks
        },
    }
    comparison["across"] = across_tasks(comparison)
    costs = {
        task: {
            label: read_json(runs / "cost" / task / f"{label}.json")
            | _tuning_cost(data / "prepared" / task / TUNED / label, params)
            for label in params.methods
        }
        for task in params.tasks
    }
    histories = {task: _histories(comparison["tasks"][task], task, runs) for task in params.tasks}
    first = planned_runs(plan / next(iter(params.tasks)))[0].spec
    made_with = provenance() | {
        "numerics": first.numerics.model_dump(),
        "budgets": {label: _shown(budget) for label, budget in params.budgets.items()},
        "seeds": list(params.seeds),
        "limits": params.limits.model_dump(exclude_none=True),
    }
    with replacing(out) as folder:
        write_json(folder / COMPARISON, comparison)
        write_json(folder / SCORES, _scores(comparison))
        write_json(folder / MEANS, _means(comparison))
        pictures = figures.draw(comparison, costs, certificates, histories)
        figures.write(pictures, folder / "plots", folder / "png")
        write_text(folder / TABLE, markdown.markdown_table(comparison, costs))
        shown = figures.inline(pictures)
        report = html.render(comparison, costs, certificates, made_with, shown, failures)
        write_text(folder / REPORT, report)


def _task(
    name: str,
    params: Params,
    plan: Path,
    data: Path,
    runs: Path,
    base: Path,
    choice: dict[str, Any],
) -> dict[str, Any]:
    task = read_task(data / "canonical" / name)
    kind = kind_of(task)
    card = read_json(data / "canonical" / name / CARD)
    gate = read_json(data / "validated" / name / RESULT)
    sets = {
        **read_json(data / "prepared" / name / "fit" / CARD)["sets"],
        **read_json(data / "prepared" / name / "test" / CARD)["sets"],
    }
    planned: dict[str, list[PlannedRun]] = {label: [] for label in params.methods}
    for run in [*_planned(params, name, plan), *_added(params, name, plan)]:
        planned[run.method].append(run)
    compared = {label: _method(planned[label], choice, runs, name) for label in params.methods}
    return {
        "title": task.title or name,
        "domain": task.domain,
        "labels": list(task.labels),
        "range": list(task.range) if task.range else None,
        "metrics": list(task.metrics),
        "metric_titles": {m: metrics.find(m).title for m in task.metrics},
        "primary": task.primary_metric,
        "rows": {s: sets[s]["rows"] for s in SETS},
        "budgets": {label: _shown(budget) for label, budget in params.budgets.items()},
        "main_budget": choice["budget"],
        "predicts": kind.shown(),
        "majority": _constant(data / "prepared" / name, kind, task.metrics),
        "majority_title": kind.constant_title,
        "data": {"source": card["source"], "licence": card["licence"], "digest": card["digest"]},
        "validation": {
            "dropped": len(gate["dropped"]),
            "waived": gate["waived"],
            "tolerated": [
                f"{c['check']}: {c['count']} rows, {c['share']:.2%} (limit {c['limit']:.2%})"
                for c in gate["checks"]
                if c["outcome"] == "tolerated"
            ],
            "classes_missing": gate["classes_missing"],
        },
        "pretraining": _pretraining(name, planned, base),
        "tuning": _tuning(data / "prepared" / name / TUNED, params),
        "methods": compared,
        **_judged(name, task, compared, choice["budget"], params, runs),
        "winner": {"method": choice["winner"], "seed": choice["seeds"][choice["winner"]]},
    }


def _planned(params: Params, task: str, plan: Path) -> list[PlannedRun]:
    """The runs of the methods that are compared."""
    return [run for run in planned_runs(plan / task) if run.method in params.methods]


def _added(params: Params, task: str, plan: Path) -> list[PlannedRun]:
    """The runs with seeds that open verdicts were given."""
    alike = representatives(plan / task)
    return [
        alike[run.method].with_seed(run.seed)
        for run in params.more_seeds.added.values()
        if run.task == task
    ]


def _pretraining(
    task: str, planned: dict[str, list[PlannedRun]], base: Path
) -> dict[str, dict[str, Any]]:
    """Start → what its pretraining saw and gained, of every start but the base model."""
    starts = {run.spec.start_name: None for runs in planned.values() for run in runs}
    kept = ("pretraining", "head", "texts", "steps", "tokens", "held_out_loss")
    found = {}
    for start in starts:
        if start != PRETRAINED:
            history = read_json(checkpoint_folder(start, base, task) / PRETRAIN)
            found[start] = {key: history[key] for key in kept}
    return found


def _tuning(tuned: Path, params: Params) -> dict[str, dict[str, Any]]:
    """Method → budget → its ledger without times; empty where nothing is tuned."""
    if not params.tuning.trials:
        return {}
    found: dict[str, dict[str, Any]] = {}
    for label, budget in product(params.methods, params.tuning.trials):
        ledger = read_json(tuned / label / budget / LEDGER)
        for entry in (ledger, *ledger["trials"]):
            del entry["seconds"]
        found.setdefault(label, {})[budget] = ledger
    return found


def _tuning_cost(tuned: Path, params: Params) -> dict[str, Any]:
    """What the tuning of a method took, over all budgets; empty where nothing is tuned."""
    ledgers = [read_json(tuned / budget / LEDGER) for budget in params.tuning.trials]
    if not ledgers:
        return {}
    trials = sum(len(ledger["trials"]) for ledger in ledgers)
    return {"tuning": {"trials": trials, "seconds": sum(found["seconds"] for found in ledgers)}}


def _shown(budget: Budget) -> dict[str, Any]:
    """The settings of a budget that are not their defaults."""
    return budget.model_dump(exclude_none=True, exclude_defaults=True)


def _method(
    planned: list[PlannedRun], choice: dict[str, Any], runs: Path, task: str
) -> dict[str, Any]:
    # Budgets may differ in options that were tuned: those of the main one are shown.
    main = next(run for run in planned if run.budget == choice["budget"])
    label, spec = main.method, main.spec
    kind = methods.method_class(spec.method.name)
    method = methods.resolve(spec.method.name, spec.method.options, "run")
    budgets: dict[str, dict[str, Any]] = {}
    for run in planned:
        history = read_json(runs / "train" / task / run.place / HISTORY)
        step, selection = history["kept"]
        budgets.setdefault(run.budget, {"runs": []})["runs"].append(
            {
                "run": run.spec.digest,
                "seed": run.seed,
                "selection": selection,
                "test": read_json(runs / "evaluate" / task / run.place / METRICS),
                "observed": dict(history.get("observed", [])).get(step, {}),
            }
        )
    for result in budgets.values():
        result["summary"] = {
            m: summarise([r["test"][m] for r in result["runs"]]) for m in spec.data.metrics
        }
    return {
        "name": spec.method.name,
        "title": kind.title if label == spec.method.name else f"{kind.title} ({label})",
        "paper": kind.paper,
        "start": spec.start_name,
        "options": spec.method.options,
        "mergeable": method.merge_obstacle() is None,
        **budgets[choice["budget"]],
        "selected_seed": choice["seeds"][label],
        "budgets": budgets,
    }


def _judged(
    name: str,
    task: TaskSpec,
    compared: dict[str, Any],
    budget: str,
    params: Params,
    runs: Path,
) -> dict[str, Any]:
    """Verdicts, pairs and letters of a task, from every prediction of its main budget."""
    rows = 0

    def values(label: str, seed: int) -> np.ndarray:
        nonlocal rows
        place = runs / "evaluate" / name / label / budget / str(seed)
        found = pd.read_parquet(place / PREDICTIONS)
        rows = len(found)
        return row_scores(found, task.primary_metric, len(task.labels))

    means = {label: m["summary"][task.primary_metric]["mean"] for label, m in compared.items()}
    order = sorted(compared, key=lambda label: -means[label])
    of_rows = {
        label: {run["seed"]: values(label, run["seed"]) for run in compared[label]["runs"]}
        for label in order
    }
    most = params.more_seeds.most
    looks = Looks(len(params.seeds), most) if most else None
    return judge(of_rows, params.baseline, params.margin, rows, looks)


def row_scores(predictions: pd.DataFrame, metric: str, classes: int) -> np.ndarray:
    """Values of a run's test rows (or blocks of them) whose mean is its score, shape ``(rows,)``.

    Args:
        predictions: What the evaluate stage wrote of it.
        metric: The task's primary metric.
        classes: Number of classes; 0 where none are predicted.
    """
    if metric in predictions:  # it scores every example by itself
        scores: np.ndarray = predictions[metric].to_numpy(dtype=float)
        return scores
    scorer = metrics.find(metric)
    return row_values(
        lambda labels, predicted: scorer.score(labels, predicted, classes),
        predictions["label"].to_numpy(),
        predictions["prediction"].to_numpy(),
    )


def across_tasks(comparison: dict[str, Any]) -> dict[str, Any]:
    """Views over all tasks: primary scores as the share of the way from the constant answer to 1.

    Every metric is at most 1, and what a constant answer reaches differs between tasks. Only seeds
    that all methods have on all tasks are used.
    """
    tasks = comparison["tasks"].values()
    everywhere = set.intersection(
        *({r["seed"] for r in m["runs"]} for task in tasks for m in task["methods"].values())
    )
    scores = {}
    for label in next(iter(tasks))["methods"]:
        columns = []
        for task in tasks:
            floor = task["majority"][task["primary"]]
            runs = task["methods"][label]["runs"]
            reached = [r["test"][task["primary"]] for r in runs if r["seed"] in everywhere]
            # Where the constant answer is perfect there is no way left.
            columns.append([(s - floor) / (1 - floor) if floor < 1 else 1.0 for s in reached])
        scores[label] = np.array(columns).T
    return across.record(scores, comparison["baseline"])


def _constant(prepared: Path, kind: Kind, names: tuple[str, ...]) -> dict[str, float]:
    """Scores on test of the answer that needs no model."""
    train = read_json(prepared / "fit" / CARD)["sets"]["train"]
    rows = read_rows(prepared / "test" / f"{SETS[-1]}.parquet")
    predictions = kind.constant(train, rows)
    return metrics.score_all(names, kind.truths(rows), predictions, len(kind.labels))


def _histories(task: dict[str, Any], name: str, runs: Path) -> list[dict[str, Any]]:
    return [
        {
            "label": label,
            "title": method["title"],
            "seed": run["seed"],
            "loss": read_json(
                runs / "train" / name / label / task["main_budget"] / str(run["seed"]) / HISTORY
            )["loss"],
        }
        for label, method in task["methods"].items()
        for run in method["runs"]
    ]


def _scores(comparison: dict[str, Any]) -> dict[str, Any]:
    """Task → method → metric → mean, as ``dvc metrics`` shows and compares it."""
    return {
        task: {
            label: {metric: entry["mean"] for metric, entry in method["summary"].items()}
            for label, method in content["methods"].items()
        }
        for task, content in comparison["tasks"].items()
    }


def _means(comparison: dict[str, Any]) -> list[dict[str, Any]]:
    """A row a task and method: mean and interval, as ``dvc plots`` draws and compares them."""
    rows = []
    for name, task in comparison["tasks"].items():
        for label, title in text.titles(task).items():
            summary = task["methods"][label]["summary"][task["primary"]]
            ends = {"low": summary["low"], "high": summary["high"]}
            row = {"of": f"{name}, {title}", "score": summary["mean"], **ends}
            rows.append({**row, "metric": task["primary"]})
    return rows
