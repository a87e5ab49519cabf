"""What differs between two finished comparisons, and which of it the evidence supports.

Not a stage of the pipeline. Each side is a project's folder, a revision of one whose ``dvc.lock``
is committed, or a ``comparison.json`` alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.local import LocalFileSystem

from tunetrail.errors import TuneTrailError
from tunetrail.files import read_json
from tunetrail.layout import CERTIFICATE, COMPARISON, PREDICTIONS
from tunetrail.place import project_root
from tunetrail.repository import at_revision
from tunetrail.stages.compare import row_scores
from tunetrail.verdicts.costs import costs_of
from tunetrail.verdicts.decision import Verdict, as_record, decide
from tunetrail.verdicts.difference import Difference, paired_difference, seeds_alone
from tunetrail.verdicts.recommend import SAME_COST

Json = dict[str, Any]

#: Costs that are counted, not measured: any difference is one.
_COUNTED = ("trainable_parameters", "artifact_mb", "model_mb")
#: How far the mean over rows may be from the score that was recorded for a run.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Side:
    """One of the two comparisons.

    Attributes:
        name: What it is called in the output.
        comparison: What the compare stage wrote.
        files: The project's files, or None where there is the comparison alone.
    """

    name: str
    comparison: Json
    files: Any

    def json(self, path: str) -> Any:
        """A JSON file of the project, or None where it is not there."""
        if self.files is None:
            return None
        try:
            with self.files.open(path, "rb") as handle:
                return json.load(handle)
        except FileNotFoundError:
            return None

    def predictions(self, task: str, label: str, seed: int) -> pd.DataFrame | None:
        """Every prediction of a run with the main budget, or None where they are not there."""
        if self.files is None:
            return None
        budget = self.comparison["tasks"][task]["main_budget"]
        path = f"runs/evaluate/{task}/{label}/{budget}/{seed}/{PREDICTIONS}"
        try:
            with self.files.open(path, "rb") as handle:
                return pd.read_parquet(handle)
        except FileNotFoundError:
            return None


def side(given: str) -> Side:
    """Find a comparison.

    Args:
        given: A ``comparison.json``, the folder of a project or of its comparison, or a revision of
            the project that this is called in.

    Raises:
        TuneTrailError: It is none of them, or has no comparison.
    """
    path = Path(given)
    if path.is_dir() and (path / COMPARISON).is_file():
        path = path / COMPARISON
    elif path.is_dir():
        path = path / "comparison" / COMPARISON
        if not path.is_file():
            raise TuneTrailError(f"'{path}' is not there", f"run `tunetrail run` in '{given}'")
    if path.is_file():
        root = path.absolute().parent.parent
        whole = (root / "dvc.yaml").is_file()
        files = DirFileSystem(path=str(root), fs=LocalFileSystem()) if whole else None
        return Side(given, read_json(path), files)
    try:
        root = project_root(Path.cwd())
    except TuneTrailError:
        raise TuneTrailError(
            f"'{given}' is not there",
            "name a comparison.json or a project's folder; revisions are those of the project that "
            "you are in",
        ) from None
    files = at_revision(root, given)
    try:
        with files.open(f"comparison/{COMPARISON}", "rb") as handle:
            return Side(given, json.load(handle), files)
    except FileNotFoundError:
        raise TuneTrailError(
            f"the comparison of revision '{given}' is neither in DVC's cache nor in its remote",
            "commit dvc.lock with the results and `dvc push` them, or name a folder in which they "
            "are",
        ) from None


def changes(before: Side, after: Side) -> Json:
    """Everything that differs, from ``before`` to ``after``.

    A method's runs are compared seed by seed on the test rows that both sides have, where these are
    the same; all such comparisons of a task are one family of Holm's procedure. Runs with the same
    identity and scores are not compared: they are the same.

    Returns:
        ``settings``: key → before and after; ``new_tasks``, ``removed_tasks``; ``tasks``: what
        :func:`_task` returns; ``worse``: tasks and labels with a settled loss.

    Raises:
        TuneTrailError: A side was written by another version of TuneTrail, or its predictions are
            not those of its comparison.
    """
    try:
        return _changes(before, after)
    except KeyError as missing:
        raise TuneTrailError(
            f"'{before.name}' or '{after.name}' is of another version of TuneTrail: {missing} is "
            "missing",
            "`tunetrail run` brings a comparison up to date; nothing is trained again for that",
        ) from missing


def _changes(before: Side, after: Side) -> Json:
    old, new = before.comparison, after.comparison
    tasks = {name: _task(name, before, after) for name in new["tasks"] if name in old["tasks"]}
    return {
        "before": before.name,
        "after": after.name,
        "margin": new["margin"],
        "settings": _differing(_settings(old), _settings(new)),
        "new_tasks": [name for name in new["tasks"] if name not in old["tasks"]],
        "removed_tasks": [name for name in old["tasks"] if name not in new["tasks"]],
        "tasks": tasks,
        "worse": [
            [name, label]
            for name, task in tasks.items()
            for label, method in task["methods"].items()
            if method["status"] == "judged" and method["difference"]["outcome"] == "lose"
        ],
    }


def _settings(comparison: Json) -> Json:
    """What concerns all tasks."""
    kept = {key: comparison[key] for key in ("project", "baseline", "margin")}
    return kept | {"base model": comparison["base"]["digest"]}


def _about(task: Json) -> Json:
    """What a task's scores rest on, besides its methods."""
    return {
        "first metric": task["primary"],
        "data": task["data"]["digest"],
        **{f"{name} rows": rows for name, rows in task["rows"].items()},
        "budget": task["budgets"][task["main_budget"]],
    }


def _differing(before: Json, after: Json) -> Json:
    return {
        key: {"before": before.get(key), "after": after.get(key)}
        for key in dict.fromkeys([*before, *after])
        if before.get(key) != after.get(key)
    }


def _task(name: str, before: Side, after: Side) -> Json:
    """What differs on a task that both have.

    Returns:
        ``differs``: what its scores rest on, before and after; ``methods``: label → ``status``
        (``same``, ``judged``, ``incomparable``, ``new``, ``removed``), scores, and what
        :func:`_method` adds; ``winner`` and ``verdicts``: before and after where they are others;
        ``costs``: label → cost → before and after.
    """
    old, new = before.comparison["tasks"][name], after.comparison["tasks"][name]
    labels = list(dict.fromkeys([*new["methods"], *old["methods"]]))
    methods: dict[str, Json] = {}
    judged: dict[str, tuple[Difference, list[int]]] = {}
    for label in labels:
        found = [task["methods"].get(label) for task in (old, new)]
        methods[label] = {
            "title": next(method["title"] for method in reversed(found) if method),
            "before": found[0] and found[0]["summary"][old["primary"]],
            "after": found[1] and found[1]["summary"][new["primary"]],
        }
        if None in found:
            methods[label]["status"] = "removed" if found[1] is None else "new"
        else:
            how = _method(name, label, before, after)
            difference = how.pop("of", None)
            methods[label] |= how
            if difference is not None:
                judged[label] = difference, how["seeds"]
    margin, rows = after.comparison["margin"], new["rows"]["test"]
    verdicts: Mapping[str, Verdict] = decide(
        {label: difference for label, (difference, _) in judged.items()}, margin, rows
    )
    for label, (difference, seeds) in judged.items():
        methods[label]["difference"] = as_record(difference, verdicts[label], seeds)
    return {
        "title": new["title"],
        "metric": new["metric_titles"][new["primary"]],
        "differs": _differing(_about(old), _about(new)),
        "methods": methods,
        "winner": _differing(
            {"method": old["winner"]["method"]}, {"method": new["winner"]["method"]}
        ).get("method"),
        "verdicts": {
            label: {"before": old["verdicts"][label], "after": record}
            for label, record in new["verdicts"].items()
            if label in old["verdicts"]
            and before.comparison["baseline"] == after.comparison["baseline"]
            and old["verdicts"][label]["outcome"] != record["outcome"]
        },
        "costs": {
            label: costs
            for label in labels
            if (costs := _dearer(before, after, name, label, methods[label]["status"] == "same"))
        },
    }


def _method(task: str, label: str, before: Side, after: Side) -> Json:
    """Whether and how a method's runs of both sides can be compared.

    Returns:
        ``status``; of other runs also ``options`` that are others. Of comparable ones ``of`` (the
        difference), ``seeds`` and ``basis`` (``seeds and rows``, or ``seeds`` where there are no
        predictions); of others ``why`` not.
    """
    old, new = (of.comparison["tasks"][task] for of in (before, after))
    runs = [{run["seed"]: run for run in of["methods"][label]["runs"]} for of in (old, new)]
    if _identities(runs[0]) == _identities(runs[1]):
        return {"status": "same"}
    options = [of["methods"][label] for of in (old, new)]
    changed: Json = {
        "options": _differing(
            *({"method": of["name"], "start": of["start"], **of["options"]} for of in options)
        )
    }
    seeds = sorted(runs[0].keys() & runs[1].keys())
    if old["primary"] != new["primary"]:
        return {"status": "incomparable", "why": "another metric", **changed}
    if not seeds:
        return {"status": "incomparable", "why": "no seed in common", **changed}
    values = [_values(of, task, label, seeds) for of in (before, after)]
    metric = new["primary"]
    if values[0] is None or values[1] is None:
        if old["data"]["digest"] != new["data"]["digest"] or old["rows"] != new["rows"]:
            why = "other data, and without the predictions nobody knows whether test rows are too"
            return {"status": "incomparable", "why": why, **changed}
        gained = [runs[1][s]["test"][metric] - runs[0][s]["test"][metric] for s in seeds]
        difference, basis = seeds_alone(np.array(gained), new["rows"]["test"]), "seeds"
    elif values[0].index != values[1].index:
        return {"status": "incomparable", "why": "other test rows", **changed}
    else:
        difference = paired_difference(values[1].scores, values[0].scores)
        basis = "seeds and rows"
    return {"status": "judged", "of": difference, "seeds": seeds, "basis": basis, **changed}


def _identities(runs: Mapping[int, Json]) -> dict[int, Any]:
    return {seed: (run["run"], run["test"]) for seed, run in runs.items()}


@dataclass(frozen=True)
class _Values:
    """Scores of test rows.

    Attributes:
        index: Name and label of each row, in order.
        scores: Shape ``(seeds, rows)`` (or blocks of rows).
    """

    index: list[tuple[str, str]]
    scores: np.ndarray


def _values(of: Side, task: str, label: str, seeds: list[int]) -> _Values | None:
    """What the predictions of runs say, or None where some of them are not there.

    Raises:
        TuneTrailError: They are not those that the comparison was made from.
    """
    about = of.comparison["tasks"][task]
    recorded = {run["seed"]: run["test"] for run in about["methods"][label]["runs"]}
    metric, found = about["primary"], []
    index: list[tuple[str, str]] = []
    for seed in seeds:
        predictions = of.predictions(task, label, seed)
        if predictions is None:
            return None
        index = list(zip(predictions["id"].astype(str), predictions["label"].map(str), strict=True))
        scores = row_scores(predictions, metric, len(about["labels"]))
        if abs(scores.mean() - recorded[seed][metric]) > _ROUNDING:
            raise TuneTrailError(
                f"'{of.name}': the predictions of {label} on {task} with seed {seed} are not those "
                "of the comparison",
                "the results are of two executions: `tunetrail run` finishes the later one",
            )
        found.append(scores)
    return _Values(index, np.stack(found))


def _costs(of: Side, task: str, label: str) -> dict[str, float]:
    measured = of.json(f"runs/cost/{task}/{label}.json")
    return costs_of(measured, of.json(f"runs/export/{task}/{label}/{CERTIFICATE}"))


def _dearer(before: Side, after: Side, task: str, label: str, same: bool) -> Json:
    """Costs that differ by more than measuring them twice does; only those known of both.

    What the same runs take is not measured twice: a difference would be the machine's.
    """
    old, new = (_costs(of, task, label) for of in (before, after))
    least = {
        name: 0.0 if name in _COUNTED else SAME_COST * cost
        for name, cost in old.items()
        if name in _COUNTED or not same
    }
    return {
        name: {"before": old[name], "after": cost}
        for name, cost in new.items()
        if name in least and abs(cost - old[name]) > least[name]
    }
