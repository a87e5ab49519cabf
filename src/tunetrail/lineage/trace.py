"""What a registered model comes from, gathered from the files of a finished comparison."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from tunetrail.errors import TuneTrailError
from tunetrail.files import file_digest, read_json, replacing, tree_digest, write_json, write_text
from tunetrail.layout import (
    CARD,
    CERTIFICATE,
    CHOICE,
    DATA,
    HISTORY,
    LINEAGE,
    MODEL,
    MODEL_CARD,
    PREDICTIONS,
    RESULT,
    SERVING,
    TASK,
    TUNED,
)
from tunetrail.lineage.card import model_card
from tunetrail.lineage.chain import FORMAT, Link
from tunetrail.lineage.reproduction import address, commands
from tunetrail.lineage.slices import slices
from tunetrail.modeling.adapter import CARD as ADAPTER
from tunetrail.modeling.base import checkpoint_folder
from tunetrail.place import project_of
from tunetrail.provenance import environment, git_changes, git_state
from tunetrail.run import BASE, TAPT, PlannedRun, planned_run
from tunetrail.task import read_task


def trace(
    receipt: Path, comparison: Path, plan: Path, data: Path, runs: Path, base: Path, out: Path
) -> None:
    """Write ``out/TASK/lineage.json`` and ``model_card.md`` for the winner of every task.

    A winner that was refused has them as well: they say why. Paths are relative to the project,
    also where this runs in the folder of a champion.

    Args:
        receipt: What :func:`stages.register.register` wrote.
        comparison: comparison.json.
        plan: The plan.
        data: Folder of the canonical, validated and prepared data.
        runs: Folder of the trained, evaluated, selected and exported runs.
        base: What the base stage wrote.
        out: Folder to write.

    Raises:
        TuneTrailError: A file is missing, or is not the one that another result names.
    """
    written, compared = read_json(receipt), read_json(comparison)
    made_with = {
        "environment": environment(),
        "git": git_state() | {"changed": git_changes()},
    }
    last = [
        Link("comparison", comparison.as_posix(), file_digest(comparison), "compare"),
        Link("receipt", receipt.as_posix(), file_digest(receipt), "register"),
    ]
    with replacing(out) as folder:
        for entry in [*written["models"], *written["refused"]]:
            found = _lineage(entry, compared, made_with, last, plan, data, runs, base)
            write_json(folder / entry["task"] / LINEAGE, found)
            write_text(folder / entry["task"] / MODEL_CARD, model_card(found))


def _lineage(
    model: Mapping[str, Any],
    comparison: Mapping[str, Any],
    made_with: Mapping[str, Any],
    last: list[Link],
    plan: Path,
    data: Path,
    runs: Path,
    base: Path,
) -> dict[str, Any]:
    task, label = model["task"], model["label"]
    content = comparison["tasks"][task]
    compared = compared_runs(plan, task, content, (label, model["seed"]))
    chain = links(task, label, content, compared, plan, data, runs, base) + last
    shipped, prepared = compared[0].run, data / "prepared" / task
    gate = read_json(data / "validated" / task / RESULT)
    exported = runs / "export" / task / label
    here = Path.cwd()
    place = here.relative_to(project_of(here))
    predictions = pd.read_parquet(runs / "evaluate" / task / shipped.place / PREDICTIONS)
    return {
        "format": FORMAT,
        "project": comparison["project"],
        "model": dict(model),
        "data": read_json(data / "canonical" / task / CARD)
        | {
            "paired": bool(read_task(data / "canonical" / task).columns.text_pair),
            "sets": {
                **read_json(prepared / "fit" / CARD)["sets"],
                **read_json(prepared / "test" / CARD)["sets"],
            },
        },
        # Without the texts of example rows: a registry may have other readers than the data.
        "validation": gate
        | {
            "checks": [{k: v for k, v in c.items() if k != "rows"} for c in gate["checks"]],
            "dropped": len(gate["dropped"]),
        },
        "run": {
            "digest": shipped.spec.digest,
            "budget": shipped.budget,
            "spec": shipped.spec.model_dump(mode="json"),
            "parameters": read_json(runs / "train" / task / shipped.place / ADAPTER)[
                "trained_parameters"
            ],
        },
        "choice": read_json(runs / "select" / task / CHOICE),
        "comparison": {key: comparison[key] for key in ("base", "baseline", "margin")}
        | {"task": content},
        "certificate": read_json(exported / CERTIFICATE),
        "serving": read_json(exported / SERVING),
        "slices": slices(predictions, content),
        **made_with,
        "reproduce": commands(task, label, made_with["git"], made_with["environment"], place),
        "links": [asdict(in_project(link, place)) for link in chain],
    }


def in_project(link: Link, place: Path) -> Link:
    """The link as the project names it, of results that lie in its folder ``place``.

    Sources are the project's own.
    """
    if not link.cell:
        return link
    path = (place / link.path).as_posix()
    return replace(link, path=path, cell=address(place, link.cell))


@dataclass(frozen=True)
class Chosen:
    """A run of the comparison and the names of the cells that make it.

    Attributes:
        run: The run.
        frozen: Its file in the plan, or that of the run it was made from by another seed.
        trained: Cell that trained it.
        evaluated: Cell that scored it.
    """

    run: PlannedRun
    frozen: Path
    trained: str
    evaluated: str


def compared_runs(
    plan: Path, task: str, content: Mapping[str, Any], winner: tuple[str, int]
) -> list[Chosen]:
    """Every run of a task's comparison, the shipped one first.

    Args:
        plan: The plan.
        task: Name of the task.
        content: The task in comparison.json.
        winner: Label and seed of the shipped run.
    """
    found = []
    for label, method in content["methods"].items():
        for budget, result in method["budgets"].items():
            for seed in (run["seed"] for run in result["runs"]):
                frozen, run = planned_run(plan / task, label, budget, seed)
                # A further seed is the planned run with another one; DVC names those by task.
                cells = [
                    f"{stage}@{task}-{label}-{budget}-{seed}"
                    if frozen.stem == str(seed)
                    else f"{stage}_more@{task}-{label}-{seed}"
                    for stage in ("train", "evaluate")
                ]
                found.append(Chosen(run, frozen, *cells))
    shipped = (*winner, content["main_budget"])
    return sorted(found, key=lambda c: (c.run.method, c.run.seed, c.run.budget) != shipped)


def links(
    task: str,
    label: str,
    content: Mapping[str, Any],
    runs_compared: list[Chosen],
    plan: Path,
    data: Path,
    runs: Path,
    base: Path,
) -> list[Link]:
    """The chain from the source to the export, in order, each file with its digest as it is now.

    What results say of each other is compared on the way: what cannot be right is not written down.

    Args:
        task: Name of the task.
        label: The shipped method.
        content: The task in comparison.json.
        runs_compared: Every run of the comparison.
        plan: The plan.
        data: Folder of the canonical, validated and prepared data.
        runs: Folder of the trained, evaluated, selected and exported runs.
        base: What the base stage wrote.

    Raises:
        TuneTrailError: A file is missing, or is not the one that another result names.
    """
    canonical, prepared = data / "canonical" / task, data / "prepared" / task
    card = read_json(canonical / CARD)
    agree(canonical / DATA, card["digest"])
    for name in ("fit", "test"):
        for found in runs_compared:
            agree(prepared / name, getattr(found.run.spec.data, name))
    agree(base / "model", read_json(base / CARD)["digest"])
    for found in runs_compared:
        trained = runs / "train" / task / found.run.place
        for file in (trained / HISTORY, trained / ADAPTER):
            _named(file, "run", found.run.spec.digest)
    selected, exported = runs / "select" / task, runs / "export" / task / label
    certificate = read_json(exported / CERTIFICATE)
    agree(exported / MODEL, certificate["onnx_sha256"])
    _named(exported / CERTIFICATE, "run", runs_compared[0].run.spec.digest)

    def below(step: str, folder: Path, cell: str) -> list[Link]:
        files = sorted(p for p in folder.rglob("*") if p.is_file())
        return [Link(step, p.as_posix(), file_digest(p), cell) for p in files]

    chain = [_source(read_json(canonical / TASK)["source"], card["source"])]
    chain += below("canonical data", canonical, f"ingest@{task}")
    result = data / "validated" / task / RESULT
    chain += [Link("validation", result.as_posix(), file_digest(result), f"validate@{task}")]
    chain += below("base model", base, "base")
    for name in ("fit", "test"):
        chain += below("prepared data", prepared / name, f"prepare@{task}")
    for start in content["pretraining"]:
        chain += below(
            "pretraining", checkpoint_folder(start, base, task), _pretrained(start, task)
        )
    for tuned, ledgers in content["tuning"].items():
        for budget in ledgers:
            folder = prepared / TUNED / tuned / budget
            chain += below("tuning", folder, f"tune@{task}-{tuned}-{budget}")
    for frozen in dict.fromkeys(found.frozen for found in runs_compared):
        chain += [Link("plan", frozen.as_posix(), file_digest(frozen), f"resolve@{task}")]
    for found in runs_compared:
        chain += below("training", runs / "train" / task / found.run.place, found.trained)
    for found in runs_compared:
        chain += below("evaluation", runs / "evaluate" / task / found.run.place, found.evaluated)
    choice = selected / CHOICE
    chain += [Link("selection", choice.as_posix(), file_digest(choice), f"select@{task}")]
    chain += below("selection", selected / label, f"select@{task}")
    return chain + below("export", exported, f"export@{task}-{label}")


def _source(path: str, origin: Mapping[str, str]) -> Link:
    """Data that is read where it is has a digest; a pointer pins what it points to."""
    return Link("source data", path, origin["sha256"] if "path" in origin else None, "")


def _pretrained(start: str, task: str) -> str:
    """The cell that makes a checkpoint."""
    if start == TAPT:
        return f"tapt@{task}-{BASE}"
    domain, _, after = start.partition("+")
    return f"tapt@{task}-{domain}" if after else f"dapt@{domain}"


def agree(path: Path, expected: str | None) -> None:
    """Stop where a file or folder is not what a result names.

    Raises:
        TuneTrailError: With both digests.
    """
    actual = tree_digest(path) if path.is_dir() else file_digest(path)
    if actual != expected:
        raise _disagreement(path, expected, actual)


def _named(file: Path, key: str, expected: str) -> None:
    actual = read_json(file)[key]
    if actual != expected:
        raise _disagreement(file, expected, actual)


def _disagreement(path: Path, expected: str | None, actual: str) -> TuneTrailError:
    return TuneTrailError(
        f"{path} is not what the results after it were made from\n"
        f"  expected sha256 {expected}\n  actual   sha256 {actual}",
        "`tunetrail verify --discard` removes damaged files; then run the pipeline again",
    )
