"""A change as a pull request makes one, through the commands that CI runs, on the real model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import ttest_rel

from tests.conftest import BIN, Project, new_project
from tests.repository import MAKE, git

pytestmark = pytest.mark.pipeline

Json = dict[str, Any]
SEEDS = (1, 2)


def make(project: Project, *arguments: str) -> str:
    """`make` as in a workflow, without the set-up; what it printed."""
    done = project.command(*MAKE, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def changes(project: Project, *arguments: str) -> Json:
    command = [str(BIN / "python"), "-m", "tunetrail.cli", "changes", *arguments, "--json"]
    done = project.command(*command)
    assert done.returncode == 0, done.stderr
    found: Json = json.loads(done.stdout)
    return found


def scores(small: Path, label: str) -> list[float]:
    places = (small / f"runs/evaluate/movie/{label}/few/{seed}/metrics.json" for seed in SEEDS)
    return [json.loads(place.read_text())["accuracy"] for place in places]


@pytest.fixture(scope="module")
def pull_request(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, Project]:
    """The base and a pull request that trains one of two methods otherwise, both run in small."""
    folder = tmp_path_factory.mktemp("request")
    before = new_project(folder / "base")
    before.change(
        tasks={"movie": before.params["tasks"]["movie"]},
        seeds=list(SEEDS),
        budgets={"few": {"epochs": 9}, "fewer": {"epochs": 1}},
    )
    after = before.copy(folder / "request")
    after.change(methods={"head": {}, "lora": {"learning_rate": 0.0001}})
    cache = f"CACHE={folder / 'cache'}"
    make(before, "small", cache)
    make(after, "small", cache)
    make(after, "changes", f"BEFORE={before.root / '.tunetrail/small'}")
    return before, after


def small(project: Project) -> Path:
    return project.root / ".tunetrail" / "small"


def test_the_small_plan_has_everything_but_size(pull_request: tuple[Project, Project]) -> None:
    before, _ = pull_request
    cut, whole = Project(small(before)).params, before.params
    assert cut["methods"] == whole["methods"]
    assert cut["seeds"] == whole["seeds"]
    assert cut["budgets"] == {"few": {"steps": 20}}
    assert cut["tasks"] == whole["tasks"]  # these were small before
    assert git(before.root, "status", "--porcelain") == " M params.yaml\n"  # the fixture's change


def test_only_what_the_request_changes_is_executed(pull_request: tuple[Project, Project]) -> None:
    before, after = pull_request

    def trained(project: Project) -> set[str]:
        logs = (small(project) / ".tunetrail" / "logs").glob("train@*.log")
        return {log.name.split("-")[1] for log in logs}

    assert trained(before) == {"head", "lora"}
    assert trained(after) == {"lora"}


def test_the_comment_says_what_changed(pull_request: tuple[Project, Project]) -> None:
    _, after = pull_request
    shown = (after.root / "build" / "changes.md").read_text()
    assert "1 with the same runs" in shown
    assert "- LoRA: learning_rate 0.002 → 0.0001\n" in shown
    assert "- The same runs: head only" in shown
    changed, _, whole = shown.partition("<details>")
    (row,) = (line for line in changed.splitlines() if line.startswith("| LoRA "))
    old, new = (sum(scores(small(project), "lora")) / 2 for project in pull_request)
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert (cells[1][:5], cells[2][:5]) == (f"{old:.3f}", f"{new:.3f}")
    assert whole.count("| LoRA ") == 1  # the table of the comparison


def test_the_interval_of_a_change_is_never_narrower_than_that_of_its_seeds(
    pull_request: tuple[Project, Project],
) -> None:
    before, after = pull_request
    found = changes(after, str(small(before)), str(small(after)))["tasks"]["movie"]["methods"]
    oracle = ttest_rel(scores(small(after), "lora"), scores(small(before), "lora"))
    interval = oracle.confidence_interval(0.95)
    record = found["lora"]["difference"]
    assert found["head"]["status"] == "same"
    assert interval.low < interval.high
    assert found["lora"]["basis"] == "seeds and rows"
    assert (record["low"] + record["high"]) / 2 == pytest.approx((interval.low + interval.high) / 2)
    assert record["low"] <= interval.low + 1e-9
    assert record["high"] >= interval.high - 1e-9


def test_of_files_alone_the_interval_is_that_of_scipy(
    pull_request: tuple[Project, Project], tmp_path: Path
) -> None:
    before, after = pull_request
    files = [tmp_path / "before.json", tmp_path / "after.json"]
    for project, file in zip(pull_request, files, strict=True):
        shutil.copyfile(small(project) / "comparison" / "comparison.json", file)
    found = changes(after, *map(str, files))["tasks"]["movie"]["methods"]["lora"]
    interval = ttest_rel(
        scores(small(after), "lora"), scores(small(before), "lora")
    ).confidence_interval(0.95)
    assert found["basis"] == "seeds"
    assert found["difference"]["low"] == pytest.approx(interval.low)
    assert found["difference"]["high"] == pytest.approx(interval.high)


def test_predictions_of_another_execution_are_refused(
    pull_request: tuple[Project, Project], tmp_path: Path
) -> None:
    before, after = pull_request
    mixed = Project(small(after)).copy(tmp_path / "mixed")
    place = "runs/evaluate/movie/lora/few/1/predictions.parquet"
    (mixed.root / place).unlink()
    shutil.copyfile(small(before) / place, mixed.root / place)
    command = [str(BIN / "python"), "-m", "tunetrail.cli", "changes", str(small(before))]
    done = after.command(*command, str(mixed.root))
    assert done.returncode == 2
    assert "the predictions of lora on movie with seed 1 are not those of the comparison" in (
        done.stderr
    )


def test_a_revision_is_compared_like_its_folder(small_run: Project, tmp_path: Path) -> None:
    project = small_run.copy(tmp_path / "project")
    git(project.root, "add", "-A")
    git(project.root, "commit", "-qm", "results")
    before = project.copy(tmp_path / "before")
    project.change(methods={"head": {"learning_rate": 0.02}, "lora": {}})
    project.run()
    by_revision, by_folder = (changes(project, given) for given in ("HEAD", str(before.root)))
    method = by_revision["tasks"]["own"]["methods"]["head"]
    assert method["options"] == {"learning_rate": {"before": 0.01, "after": 0.02}}
    assert method["basis"] == "seeds and rows"
    assert method["difference"]["low"] is None  # one seed
    assert by_revision | {"before": ""} == by_folder | {"before": ""}
    command = [str(BIN / "python"), "-m", "tunetrail.cli", "changes"]
    done = project.command(*command, "HEAD~1")
    assert done.returncode == 2
    assert "revision 'HEAD~1' is neither in DVC's cache nor in its remote" in done.stderr
    done = project.command(*command, "nowhere")
    assert "'nowhere' is neither a file nor a revision of the project" in done.stderr
