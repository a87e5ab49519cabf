"""Retraining: new data in, what follows from it, and the gate.

New rows become a dataset version, if its gate lets them pass; the champion's method of each task,
or the whole comparison, is trained with them; the new model replaces the champion if it passes the
gate between them; results are pushed and committed as `retrain` in params.yaml says, and a report
goes to Prefect and to a command.
"""

from __future__ import annotations

if __name__ == "__main__":
    from pipelines.early import begin

    begin()

import argparse
import json
import logging
import os
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from filelock import FileLock
from rich.console import Console

from pipelines.compare import guarded, quiet_output, run_champion, run_project
from pipelines.environment import configure_prefect
from pipelines.keep import commit
from pipelines.server import connect, wait_until_ready
from tunetrail import logs
from tunetrail.dag import Dag
from tunetrail.errors import TuneTrailError, Unreachable
from tunetrail.files import STATE_DIR, read_json, write_json, write_text
from tunetrail.gate.words import in_words
from tunetrail.init.champion import check_champion, known_champions, write_champion
from tunetrail.intake import Version, intake
from tunetrail.intake.record import VERSIONS, versions
from tunetrail.layout import CARD, COMPARISON, REPORT
from tunetrail.params import Params, read_params
from tunetrail.place import CHAMPIONS, project_root
from tunetrail.remote import push
from tunetrail.report import text
from tunetrail.report.markdown import aligned

_log = logging.getLogger("pipelines.retrain")

_INCOMING = Path("data/incoming")
_COMPARISON = Path("comparison")
_PARAMS = Path("params.yaml")

#: The last report, in the project's own state.
REPORT_FILE = "retrain.md"

#: What is trained: the champion's method of each task, or the whole comparison.
Methods = Literal["champion", "all"]

#: Task → the last data version that a report had.
_TOLD = STATE_DIR / "told.json"


@dataclass
class Report:
    """What a retraining did.

    Attributes:
        project: Its name.
        accepted: Dataset versions that were taken in, as ``TASK NUMBER``.
        rejected: The same of those that the data's gate turned away → reasons.
        champions: Task → method of its champion, where that was trained and nothing else.
        executed: Stages whose command ran.
        failed: Stage → reason.
        refused: Models that were not registered → reason.
        decisions: Of the gate between champion and challenger.
        commit: What the branch got, if anything.
        pushed: Whether DVC's remote was brought up to date.
        notes: What to bear in mind.
        waiting: Results that MLflow or the remote did not take: why, and what to do.
    """

    project: str
    accepted: list[str] = field(default_factory=list)
    rejected: dict[str, list[str]] = field(default_factory=dict)
    champions: dict[str, str] = field(default_factory=dict)
    executed: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    decisions: list[dict[str, Any]] = field(default_factory=list)
    commit: str | None = None
    pushed: bool = False
    notes: list[str] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)

    @property
    def nothing(self) -> bool:
        """Whether there was nothing to do."""
        done = self.accepted or self.rejected or self.executed or self.failed
        return not (done or self.waiting)

    @property
    def failing(self) -> str:
        """Why it counts as failed; empty where it does not."""
        if self.rejected:
            return f"data was rejected, so nothing was trained: {'; '.join(self.rejected)}"
        if self.failed:
            return f"{text.plural(len(self.failed), 'stage')} failed: {', '.join(self.failed)}"
        return "results wait here; `tunetrail sync` hands them over" if self.waiting else ""

    @property
    def headline(self) -> str:
        """The outcome in one line, as a person wants it in the subject of a mail."""
        if self.rejected or self.failed:
            return f"{self.project}: {self.failing}. The champion stays as it is."
        if self.waiting:
            return f"{self.project}: {self.failing}."
        if self.nothing:
            return f"{self.project}: nothing is new."
        promoted = [d["task"] for d in self.decisions if d["passed"]]
        kept = [d["task"] for d in self.decisions if not d["passed"]]
        said = [f"new champion of {', '.join(promoted)}"] if promoted else []
        said += [f"the champion of {', '.join(kept)} stays"] if kept else []
        said += [f"not registered: {', '.join(self.refused)}"] if self.refused else []
        return f"{self.project}: {'; '.join(said) or 'retrained, nothing for the gate to decide'}."

    def markdown(self) -> str:
        """The report for a person: the outcome first, then the gate in a table, then the rest."""
        outcome = self.headline.partition(": ")[2]
        parts = [f"# {self.project}", outcome[:1].upper() + outcome[1:]]
        if self.decisions:
            parts += [self._gate(), *(in_words(decision) + "." for decision in self.decisions)]
        lines = [f"- Taken in: data version {name}" for name in self.accepted]
        for name, reasons in self.rejected.items():
            lines.append(f"- **Rejected**: data of {name}")
            lines += [f"  - {reason}" for reason in reasons]
        if self.champions:
            of = ", ".join(f"{label} on {task}" for task, label in self.champions.items())
            lines.append(
                f"- Trained again: the champion's method alone ({of}). {_COMPARISON / REPORT} is "
                "of older data; `make run`, or `--methods all`, brings it up to date"
            )
        if self.executed:
            lines.append(f"- {text.plural(len(self.executed), 'stage')} executed")
        lines += [f"- **Failed**: {name}: {reason}" for name, reason in self.failed.items()]
        lines += [f"- **Not registered**: {name}: {why}" for name, why in self.refused.items()]
        lines += ["- Pushed to DVC's remote"] if self.pushed else []
        lines += [f"- **Waiting here**: {reason}" for reason in self.waiting]
        lines += [f"- Committed as {self.commit}"] if self.commit else []
        lines += [f"- Note: {note}" for note in self.notes]
        return "\n\n".join([*parts, *(["\n".join(lines)] if lines else [])]) + "\n"

    def _gate(self) -> str:
        """The decisions as a table."""
        header = ["task", "metric", "champion", "challenger", "difference at least", "outcome"]
        rows = [
            [
                found["task"],
                found["metric"],
                f"version {found['champion']}: {_score(found, 'champion')}",
                f"version {found['challenger']}: {_score(found, 'challenger')}",
                f"{found['low']:+.3f} (margin {found['margin']:g})",
                "promoted" if found["passed"] else "refused",
            ]
            for found in self.decisions
        ]
        return aligned(header, rows)


def _score(decision: dict[str, Any], role: str) -> str:
    return text.score(decision["scores"][role][decision["metric"]])


class Failing(RuntimeError):
    """The retraining failed.

    Args:
        report: Says where.
    """

    def __init__(self, report: Report) -> None:
        super().__init__(report.failing)
        self.report = report


def retrain(
    workers: int = 0, methods: Methods | None = None, console: Console | None = None
) -> Report:
    """Retrain the project here. A second one in the same project waits for the first.

    Args:
        workers: Stages side by side; 0: as many as the cores allow.
        methods: What is trained; None: as ``retrain.methods`` says.
        console: Where it is shown what is done; default: standard error.

    Returns:
        What was done.

    Raises:
        TuneTrailError: Bad input; nothing is changed.
        Failing: Data was rejected, stages failed, or results wait here for MLflow or the remote;
            after the report was handed over.
    """
    os.chdir(project_root(Path.cwd()))
    console = console or Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
    params = read_params(_PARAMS)
    STATE_DIR.mkdir(exist_ok=True)
    with FileLock(STATE_DIR / "retrain.lock"):
        report = Report(params.project)
        champions: dict[str, str] = {}
        if (methods or params.retrain.methods) == "champion":
            champions = _champions(params, report)
        return _steps(report, params, champions, workers, console)


def _champions(params: Params, report: Report) -> dict[str, str]:
    """Task → method of its champion; nothing unless every task has one: then all is trained.

    Where the registry does not answer the work goes on with the methods that the project knows.

    Raises:
        TuneTrailError: A method cannot be trained by itself.
    """
    from tunetrail.tracking.sync import champions

    try:
        found = champions(params)
    except Unreachable as error:
        found = known_champions(Path.cwd(), params)
        report.notes.append(f"{error.problem}: champions are of the methods known here")
    if without := [task for task in params.tasks if task not in found]:
        where = (
            "the registry"
            if os.environ.get("MLFLOW_TRACKING_URI")
            else "MLflow's database in this folder (MLFLOW_TRACKING_URI is not set)"
        )
        report.notes.append(
            f"{where} had no champion of {', '.join(without)}: the whole comparison was trained, "
            "and its winner is the champion without having passed a gate"
        )
        return {}
    for task, label in found.items():
        check_champion(params, _PARAMS, task, label)
    return found


def _steps(
    report: Report, params: Params, champions: dict[str, str], workers: int, console: Console
) -> Report:
    """Each part is a task of Prefect's: it shows where a retraining is, and where it ended."""
    from prefect import task
    from prefect.artifacts import create_markdown_artifact
    from prefect.cache_policies import NO_CACHE

    # DVC is the one cache: Prefect keeps states, not results.
    options: dict[str, Any] = {"cache_policy": NO_CACHE, "persist_result": False}
    told = _told(params)

    @task(name="intake", task_run_name="intake-{name}", **options)
    def take_in(name: str) -> None:
        try:
            intake(Path.cwd(), name, say=console.print)
        except TuneTrailError as error:  # files that cannot be read as the task's data
            report.rejected[f"{name}, files in {_INCOMING / name}"] = [str(error)]

    @task(name="run", **options)
    def run() -> None:
        if not champions:
            _add(report, run_project(workers, console))
            return
        whole = Dag(Path.cwd())
        for name, label in champions.items():
            if not _compared(whole, name):
                folder = write_champion(params, _PARAMS, name, label)
                done = run_champion(folder, workers, console)
                if done["executed"] or done["failed"]:
                    report.champions[name] = label
                _add(report, done)

    @task(name="keep", **options)
    def keep() -> None:
        _keep(report, params)

    for name in params.tasks:
        if (_INCOMING / name).is_dir():
            take_in(name)
        for version in versions(Path.cwd(), name):
            if version.number > told[name]:
                _note(report, version)
    if not report.rejected:  # else the data is as it was, and somebody has to look at it first
        run()
    if not report.failed:  # a rejection leaves a record of its reasons
        keep()
    write_text(STATE_DIR / REPORT_FILE, report.markdown())
    if not report.nothing:
        create_markdown_artifact(
            key="retrain", markdown=report.markdown(), description=report.headline
        )
    _notify(report, params)
    write_json(_TOLD, {name: _last(name) for name in params.tasks})
    if report.failing:
        raise Failing(report)
    return report


def _told(params: Params) -> dict[str, int]:
    """Task → the last data version that a report had. One that a killed retraining took in is later
    than that, and is reported by the next."""
    known: dict[str, int] = read_json(_TOLD) if _TOLD.exists() else {}
    if missing := {name: _last(name) for name in params.tasks if name not in known}:
        known |= missing
        write_json(_TOLD, known)
    return known


def _last(task: str) -> int:
    return max((version.number for version in versions(Path.cwd(), task)), default=0)


def _note(report: Report, version: Version) -> None:
    if version.origin == "found":  # the data as it was before there were versions
        return
    name = f"{version.task} {version.number}"
    if version.accepted:
        report.accepted.append(name)
    else:
        report.rejected[name] = list(version.reasons)


def _compared(whole: Dag, task: str) -> bool:
    """Whether the last whole comparison is of the task's data as it is now."""
    compared, card = _COMPARISON / COMPARISON, Path("data/canonical") / task / CARD
    if whole.changes(f"ingest@{task}") or not (compared.exists() and card.exists()):
        return False
    of = read_json(compared)["tasks"].get(task)
    return of is not None and of["data"]["digest"] == read_json(card)["digest"]


def _add(report: Report, done: dict[str, Any]) -> None:
    report.executed += done["executed"]
    report.failed |= done["failed"]
    report.refused |= {model["name"]: model["reason"] for model in done.get("refused", [])}
    report.decisions += done.get("decisions", [])
    report.waiting += [done["waiting"]] if "waiting" in done else []


def _keep(report: Report, params: Params) -> None:
    """Push and commit, as the parameters say."""
    root, wanted, lock = Path.cwd(), params.retrain, Path("dvc.lock")
    if wanted.push:
        try:
            push(root)
            report.pushed = True
        except Unreachable as error:  # what is committed is in DVC's cache here
            report.waiting.append(str(error))
    if wanted.branch:
        pointers = sorted(Path("data").glob("**/*.dvc"))
        of_all = ("dvc.lock", "dvc.yaml", "params.yaml", ".gitignore")
        files = [_PARAMS, *([lock] if lock.exists() else []), *sorted(VERSIONS.rglob("*.json"))]
        files += [p for name in of_all for p in sorted(CHAMPIONS.glob(f"*/{name}"))]
        files += [*pointers, *sorted(Path("data").glob("**/.gitignore"))]
        files += sorted(Path("data/gate").glob("*.json"))
        new = [*report.accepted, *(f"{name} rejected" for name in report.rejected)]
        said = f"Retrain {params.project}: {', '.join(new) or 'no new data'}"
        kept_by_dvc = [pointer.with_suffix("") for pointer in pointers]
        report.commit = commit(root, wanted.branch, files, said, kept_by_dvc)


def _notify(report: Report, params: Params) -> None:
    """Hand the report to the command; what it says or how it fails changes nothing."""
    command = params.retrain.notify
    if not command or report.nothing:
        return
    content = asdict(report) | {
        "headline": report.headline,
        "failing": report.failing,
        "text": report.markdown(),
    }
    told = json.dumps(content)
    try:
        done = subprocess.run(command, input=told, text=True, capture_output=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        _log.warning("retrain.notify: %s could not be run: %s", command[0], error)
        return
    if done.returncode != 0:
        _log.warning("retrain.notify: %s ended with %d", command[0], done.returncode)


def main() -> int:
    """Command line of the flow; returns 1 if data was rejected, stages failed or results wait."""
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.retrain",
        description="Take in what lies in data/incoming/TASK/, train with it, promote what passes "
        "the gate, and keep the results.",
        epilog="example: python -m pipelines.retrain --methods all --workers 4",
    )
    parser.add_argument(
        "--workers", type=int, default=0, help="stages side by side (default: cores / threads)"
    )
    parser.add_argument(
        "--methods",
        choices=get_args(Methods),
        help="the champion's method of each task, or the whole comparison (default: "
        "retrain.methods of params.yaml)",
    )
    parser.add_argument(
        "--json", action="store_true", help="print the report as JSON on standard output"
    )
    parser.add_argument(
        "-v", "--verbose", action="count", default=int(os.environ.get(logs.VERBOSE) or 0),
        help="log what is done to standard error and to .tunetrail/logs; -vv: libraries, too",
    )  # fmt: skip
    options = parser.parse_args()
    logs.configure(options.verbose)
    plain: dict[str, Any] = {"soft_wrap": True, "highlight": False, "markup": False}
    console, errors = Console(stderr=options.json, **plain), Console(stderr=True, **plain)

    def run() -> int:
        os.chdir(project_root(Path.cwd()))
        STATE_DIR.mkdir(exist_ok=True)
        configure_prefect()
        connect()
        wait_until_ready()
        from pipelines.deployed import retrain as flow

        report: Report
        try:
            with quiet_output(options.json):
                report = flow(workers=options.workers, methods=options.methods, console=console)
        except Failing as failing:
            report = failing.report
        if options.json:
            sys.stdout.write(json.dumps(asdict(report), indent=2) + "\n")
        else:
            console.print(report.markdown().partition("\n\n")[2].rstrip())
        if report.failing:
            errors.print(f"error: {report.failing}", style="red")
        return 1 if report.failing else 0

    return guarded(run, errors)


if __name__ == "__main__":
    from pipelines.retrain import main as same  # the deployed flow imports it by this name, too

    sys.exit(same())
