"""Retraining: new data in, what follows from it, and the gate.

New rows become a dataset version, if its gate lets them pass; what they make stale is executed; the
new winner replaces the champion if it passes the gate between them; results are pushed and
committed as `retrain` in params.yaml says, and a report goes to Prefect and to a command.
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
from typing import Any

from filelock import FileLock
from rich.console import Console

from pipelines.compare import guarded, run_project
from pipelines.environment import configure_prefect
from pipelines.keep import commit, push
from pipelines.server import connect, wait_until_ready
from tunetrail import logs
from tunetrail.dag import project_root
from tunetrail.errors import TuneTrailError
from tunetrail.files import STATE_DIR
from tunetrail.gate.words import in_words
from tunetrail.intake import Version, intake
from tunetrail.intake.record import VERSIONS
from tunetrail.params import Params, read_params

_log = logging.getLogger("pipelines.retrain")

_INCOMING = Path("data/incoming")


@dataclass
class Report:
    """What a retraining did.

    Attributes:
        project: Its name.
        accepted: Dataset versions that were taken in, as ``TASK NUMBER``.
        rejected: The same of those that the data's gate turned away → reasons.
        executed: Stages whose command ran.
        failed: Stage → reason.
        decisions: Of the gate between champion and challenger.
        commit: What the branch got, if anything.
        pushed: Whether DVC's remote was brought up to date.
    """

    project: str
    accepted: list[str] = field(default_factory=list)
    rejected: dict[str, list[str]] = field(default_factory=dict)
    executed: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    decisions: list[dict[str, Any]] = field(default_factory=list)
    commit: str | None = None
    pushed: bool = False

    @property
    def nothing(self) -> bool:
        """Whether there was nothing to do."""
        return not (self.accepted or self.rejected or self.executed or self.failed)

    @property
    def failing(self) -> str:
        """Why it counts as failed; empty where it does not."""
        if self.rejected:
            return f"data was rejected, so nothing was trained: {'; '.join(self.rejected)}"
        return f"{len(self.failed)} stages failed" if self.failed else ""

    def markdown(self) -> str:
        """The report for a person."""
        if self.nothing:
            return f"# {self.project}\n\nNothing is new.\n"
        lines = [f"# {self.project}", ""]
        lines += [f"- Taken in: data version {name}" for name in self.accepted]
        for name, reasons in self.rejected.items():
            lines.append(f"- **Rejected**: data of {name}. The champion stays as it is.")
            lines += [f"  - {reason}" for reason in reasons]
        if self.executed:
            lines.append(f"- {len(self.executed)} stages executed")
        lines += [f"- **Failed**: {name}: {reason}" for name, reason in self.failed.items()]
        lines += [f"- {in_words(decision)}" for decision in self.decisions]
        lines += ["- Pushed to DVC's remote"] if self.pushed else []
        lines += [f"- Committed as {self.commit}"] if self.commit else []
        return "\n".join(lines) + "\n"


class Failing(RuntimeError):
    """The retraining failed.

    Args:
        report: Says where.
    """

    def __init__(self, report: Report) -> None:
        super().__init__(report.failing)
        self.report = report


def retrain(workers: int = 0, console: Console | None = None) -> Report:
    """Retrain the project here. A second one in the same project waits for the first.

    Args:
        workers: Stages side by side; 0: as many as the cores allow.
        console: Where it is shown what is done; default: standard error.

    Returns:
        What was done.

    Raises:
        TuneTrailError: Bad input; nothing is changed.
        Failing: The data was rejected or stages failed, after the report was handed over.
    """
    os.chdir(project_root(Path.cwd()))
    console = console or Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
    params = read_params(Path("params.yaml"))
    STATE_DIR.mkdir(exist_ok=True)
    with FileLock(STATE_DIR / "retrain.lock"):
        return _steps(params, workers, console)


def _steps(params: Params, workers: int, console: Console) -> Report:
    """Each part is a task of Prefect's: it shows where a retraining is, and where it ended."""
    from prefect import task
    from prefect.artifacts import create_markdown_artifact
    from prefect.cache_policies import NO_CACHE

    # DVC is the one cache: Prefect keeps states, not results.
    options: dict[str, Any] = {"cache_policy": NO_CACHE, "persist_result": False}
    report = Report(params.project)

    @task(name="intake", task_run_name="intake-{name}", **options)
    def take_in(name: str) -> None:
        try:
            version = intake(Path.cwd(), name, say=console.print)
        except TuneTrailError as error:  # files that cannot be read as the task's data
            report.rejected[f"{name}, files in {_INCOMING / name}"] = [str(error)]
            return
        if version is not None:
            _note(report, version)

    @task(name="run", **options)
    def run() -> None:
        done = run_project(workers, console)
        report.executed, report.failed = done["executed"], done["failed"]
        report.decisions = done.get("decisions", [])

    @task(name="keep", **options)
    def keep() -> None:
        _keep(report, params)

    for name in params.tasks:
        if (_INCOMING / name).is_dir():
            take_in(name)
    if not report.rejected:  # else the data is as it was, and somebody has to look at it first
        run()
    if not report.failing:
        keep()
    if not report.nothing:  # else the last one that says something would be hard to find
        create_markdown_artifact(
            key="retrain", markdown=report.markdown(), description=f"Retraining of {params.project}"
        )
    _notify(report, params)
    if report.failing:
        raise Failing(report)
    return report


def _note(report: Report, version: Version) -> None:
    name = f"{version.task} {version.number}"
    if version.accepted:
        report.accepted.append(name)
    else:
        report.rejected[name] = list(version.reasons)


def _keep(report: Report, params: Params) -> None:
    """Push and commit, as the parameters say."""
    root, wanted = Path.cwd(), params.retrain
    if wanted.push:
        push(root)
        report.pushed = True
    if wanted.branch:
        pointers = sorted(Path("data").glob("**/*.dvc"))
        files = [Path("dvc.lock"), Path("params.yaml"), *sorted(VERSIONS.rglob("*.json"))]
        files += [*pointers, *sorted(Path("data").glob("**/.gitignore"))]
        files += sorted(Path("data/gate").glob("*.json"))
        said = f"Retrain {params.project}: {', '.join(report.accepted) or 'no new data'}"
        kept_by_dvc = [pointer.with_suffix("") for pointer in pointers]
        report.commit = commit(root, wanted.branch, files, said, kept_by_dvc)


def _notify(report: Report, params: Params) -> None:
    """Hand the report to the command; what it says or how it fails changes nothing."""
    command = params.retrain.notify
    if not command or report.nothing:
        return
    text = json.dumps(asdict(report) | {"failing": report.failing, "text": report.markdown()})
    try:
        done = subprocess.run(command, input=text, text=True, capture_output=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        _log.warning("retrain.notify: %s could not be run: %s", command[0], error)
        return
    if done.returncode != 0:
        _log.warning("retrain.notify: %s ended with %d", command[0], done.returncode)


def main() -> int:
    """Command line of the flow; the exit code is 1 if data was rejected or something failed."""
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.retrain",
        description="Take in what lies in data/incoming/TASK/, run what follows from it, promote "
        "the winner if it passes the gate, and keep the results.",
        epilog="example: python -m pipelines.retrain --workers 4",
    )
    parser.add_argument(
        "--workers", type=int, default=0, help="stages side by side (default: cores / threads)"
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
            report = flow(workers=options.workers, console=console)
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
