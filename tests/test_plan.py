"""tunetrail plan: what will be executed, why, and for about how long."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Project, new_project
from tunetrail.cli import planned
from tunetrail.estimate import Estimator


def plan(project: Project) -> dict[str, Any]:
    done = project.command("tunetrail", "plan", "--json")
    assert done.returncode == 0, done.stderr
    content: dict[str, Any] = json.loads(done.stdout)
    return content


def trainings(content: dict[str, Any]) -> dict[str, list[str]]:
    """Reasons of the runs that are stale, by their cells."""
    return {run["cell"]: run["stale"] for run in content["runs"] if run["stale"]}


def test_before_the_first_run_everything_is_new_and_the_time_a_guess(tmp_path: Path) -> None:
    project = new_project(tmp_path / "project")
    before = sorted(path.name for path in project.root.iterdir())
    done = project.command("tunetrail", "plan", "--workers", "3")
    lines = done.stdout.splitlines()
    assert lines[0] == "8 of 8 runs are stale:"
    assert lines[1].startswith("  movie, own × head, lora × ")
    assert lines.count("      never executed here") == 2
    assert re.search(
        r"About \d+ (s|min) with 3 workers \(first guess; nothing was measured here yet\)\.",
        " ".join(done.stdout.split()),
    )
    assert max(map(len, lines)) <= 80
    assert sorted(path.name for path in project.root.iterdir()) == before, "nothing is executed"


def test_wrong_parameters_are_refused(tmp_path: Path) -> None:
    project = new_project(tmp_path / "project")
    project.change(baseline="lra")
    done = project.command("tunetrail", "plan")
    assert done.returncode == 2
    assert "unknown baseline 'lra'" in done.stderr


# After a run -------------------------------------------------------------------------------------


@pytest.mark.pipeline
def test_after_a_run_all_is_up_to_date(project: Project) -> None:
    assert plan(project)["stale"] == {}
    shown = project.command("tunetrail", "plan").stdout
    assert shown == "All 8 runs and everything after them are up to date.\n"


@pytest.mark.pipeline
def test_a_changed_option_names_its_values_and_only_its_runs(project: Project) -> None:
    project.change(methods={"head": {}, "lora": {"learning_rate": 0.003}})
    content = plan(project)
    reason = "parameter methods.lora.learning_rate changed: 0.002 → 0.003"
    stale = trainings(content)
    assert len(stale) == 4
    assert all("lora" in name and why == [reason] for name, why in stale.items())
    done = project.command("tunetrail", "plan")
    assert "4 of 8 runs are stale:\n  movie, own × lora × " in done.stdout
    assert done.stdout.count(reason) <= 4, "the same reason is not repeated for every run"
    assert "learned from the cost stage" in " ".join(done.stdout.split())
    every = project.command("tunetrail", "plan", "--all").stdout
    assert every.count(reason) >= 4 + 4

    executed = set(project.run()["executed"])
    assert executed <= set(content["stale"]), "the plan had not foreseen all of it"
    assert {name for name in executed if name.startswith("train@")} == set(stale)


@pytest.mark.pipeline
@pytest.mark.parametrize(
    ("path", "methods", "reason"),
    [
        ("src/tunetrail/methods/lora.py", {"lora"}, "code of lora changed"),
        ("src/tunetrail/training/loop.py", {"head", "lora"}, "training code changed"),
        ("src/tunetrail/report/html.py", set(), ""),
        ("src/tunetrail/stages/evaluate.py", set(), ""),
    ],
)
def test_changed_code_is_named_where_it_can_be_told(
    path: str, methods: set[str], reason: str, project: Project
) -> None:
    with (project.root / path).open("a") as source:
        source.write("\n# changed\n")
    content = plan(project)
    stale = trainings(content)
    assert {run["method"] for run in content["runs"] if run["stale"]} == methods
    assert all(why == [reason] for why in stale.values())
    if path.endswith("evaluate.py"):
        of_evaluate = [why for n, why in content["stale"].items() if n.startswith("evaluate@")]
        assert of_evaluate == [["code stages/evaluate.py changed"]] * 8


@pytest.mark.pipeline
def test_the_root_of_a_chain_is_the_reason_of_all_of_it(project: Project) -> None:
    data = project.root / "data" / "own.csv"
    data.write_text(data.read_text().replace("number 3", "number three", 1))
    content = plan(project)
    stale = trainings(content)
    assert len(stale) == 4
    assert all("own" in name for name in stale)
    assert all(why == ["file data/own.csv changed"] for why in stale.values())


@pytest.mark.pipeline
def test_a_new_seed_leaves_the_others_alone(project: Project) -> None:
    project.change(seeds=[1, 2, 3])
    content = plan(project)
    assert all(
        (run["stale"] == ["never executed here"]) == (run["seed"] == 3) for run in content["runs"]
    )


@pytest.mark.pipeline
def test_the_estimate_rests_on_what_was_measured(project: Project) -> None:
    (project.root / "comparison" / "report.html").unlink()
    project.change(methods={"head": {}, "lora": {}, "bitfit": {}})
    estimate = plan(project)["estimate"]
    bases = {name: stage["basis"] for name, stage in estimate["stages"].items()}
    assert bases["compare"] == "measured"
    assert {basis for name, basis in bases.items() if "bitfit" in name} == {"similar"}
    longest = max(stage["seconds"] for stage in estimate["stages"].values())
    assert estimate["seconds"] >= longest


# Words -------------------------------------------------------------------------------------------


def test_the_basis_of_an_estimate_is_told() -> None:
    estimator = Estimator({"train@movie-lora-1": 10.0})
    assert estimator.basis("train@movie-lora-1") == "measured"
    assert estimator.basis("train@movie-lora-2") == "similar"
    assert estimator.basis("export@movie-lora") == "guess"


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.2, "1 s"), (89, "89 s"), (240, "4 min"), (3600, "60 min"), (9000, "2.5 h")],
)
def test_durations_are_rounded_as_people_do(seconds: float, shown: str) -> None:
    assert planned.duration(seconds) == shown


def test_thirty_six_runs_with_one_reason_are_one_line() -> None:
    runs = [
        {"cell": f"train@{t}-{m}-{s}", "task": t, "method": m, "seed": s, "stale": ["why"]}
        for t in ("movie", "amazon")
        for m in ("full", "head", "bitfit", "houlsby", "pfeiffer", "lora")
        for s in (1, 2, 3)
    ]
    stages = {run["cell"]: {"seconds": 12.0, "basis": "measured"} for run in runs}
    content = {
        "runs": runs,
        "stages": 109,
        "stale": {run["cell"]: run["stale"] for run in runs},
        "estimate": {"seconds": 240.0, "workers": 2, "stages": stages},
    }
    assert planned.in_groups(content).splitlines() == [
        "36 of 36 runs are stale:",
        "  movie, amazon × full, head, bitfit, houlsby, pfeiffer, lora × 1, 2, 3; about",
        "    12 s each",
        "      why",
        "About 4 min with 2 workers (learned from the cost stage and from earlier",
        "  executions here).",
    ]
    del content["stale"]["train@movie-lora-2"]
    content["stale"]["train@movie-lora-1"] = ["another"]
    shown = planned.in_groups(content)
    assert "35 of 36 runs are stale:" in shown
    assert "  movie × lora × 1; about 12 s\n      another" in shown


# Logs of a run -----------------------------------------------------------------------------------


@pytest.mark.pipeline
def test_verbose_logs_the_flow_and_the_workers(project: Project) -> None:
    project.change(methods={"head": {}, "lora": {"rank": 2}})
    done = project.command("tunetrail", "-v", "run", "--json")
    assert done.returncode == 0, done.stderr
    content = json.loads(done.stdout)  # log lines never get into it
    line = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d INFO    (tunetrail|pipelines)[.\w]*: .+")
    (trained,) = [n for n in content["executed"] if re.match("train@own-lora.*-1", n)]
    of_flow = [t for t in done.stderr.splitlines() if trained in t and line.fullmatch(t)]
    assert len(of_flow) == 2, done.stderr  # begins, and took; a line of progress may name it, too
    log = (project.root / ".tunetrail" / "logs" / f"{trained}.log").read_text().splitlines()
    assert [text.partition(": ")[2] for text in log if "step 4 of 4, loss" in text]
    assert "took" in log[-1]
    assert all(line.fullmatch(text) for text in log)

    again = project.command("tunetrail", "run")
    assert not line.search(again.stdout + again.stderr), "quiet by default"
