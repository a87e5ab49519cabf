"""What changed between two comparisons: scores, winners, verdicts, costs, and what supports it."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import ttest_rel

from tests import finished
from tests.refusals import exit_code, refusal
from tunetrail.files import write_json
from tunetrail.verdicts.scores import summarise

Json = dict[str, Any]


def rescored(task: Json, label: str, scores: list[float]) -> None:
    """Give a method's runs other scores, as another training would."""
    method = task["methods"][label]
    for run, score in zip(method["runs"], scores, strict=True):
        run["run"], run["test"]["accuracy"] = finished.digest(run["run"], score), score
    method["summary"]["accuracy"] = summarise(scores)


def scores_of(task: Json, label: str) -> list[float]:
    return [run["test"]["accuracy"] for run in task["methods"][label]["runs"]]


class Two:
    """Two comparisons as files, and the command on them."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str], whole: Json) -> None:
        self.folder, self.capsys = folder, capsys
        self.before, self.after = deepcopy(whole), deepcopy(whole)

    def write(self) -> tuple[str, str]:
        files = self.folder / "before.json", self.folder / "after.json"
        write_json(files[0], self.before)
        write_json(files[1], self.after)
        return str(files[0]), str(files[1])

    def shown(self, *options: str, code: int = 0) -> str:
        self.capsys.readouterr()
        assert exit_code("changes", *self.write(), *options) == code
        return self.capsys.readouterr().out

    def found(self) -> Json:
        found: Json = json.loads(self.shown("--json"))
        return found


@pytest.fixture(scope="module")
def whole() -> Json:
    return finished.comparison()


@pytest.fixture
def two(tmp_path: Path, capsys: pytest.CaptureFixture[str], whole: Json) -> Two:
    return Two(tmp_path, capsys, whole)


def test_equal_comparisons_have_nothing_to_show(two: Two) -> None:
    assert two.shown("--markdown").splitlines()[2:] == [
        "Of 10 pairs of a task and a method: 10 with the same runs."
    ]


def test_a_change_is_paired_by_seed_and_its_interval_is_that_of_scipy(two: Two) -> None:
    before = scores_of(two.before["tasks"]["movie"], "lora")
    after = [before[0] + 0.031, before[1] + 0.040, before[2] + 0.037]
    rescored(two.after["tasks"]["movie"], "lora", after)
    found = two.found()["tasks"]["movie"]["methods"]["lora"]
    oracle = ttest_rel(after, before)
    low, high = oracle.confidence_interval(0.95)
    assert found["basis"] == "seeds"
    assert found["difference"]["difference"] == pytest.approx(0.036)
    assert found["difference"]["low"] == pytest.approx(low)
    assert found["difference"]["high"] == pytest.approx(high)
    assert found["difference"]["p"] == pytest.approx(oracle.pvalue)
    assert low > 0
    assert found["difference"]["outcome"] == "win"


def test_markdown_says_what_is_supported_and_on_what_it_rests(two: Two) -> None:
    before = scores_of(two.before["tasks"]["movie"], "lora")
    rescored(
        two.after["tasks"]["movie"],
        "lora",
        [s + d for s, d in zip(before, (-0.03, -0.04, -0.037), strict=True)],
    )
    two.after["tasks"]["movie"]["methods"]["lora"]["options"]["learning_rate"] = 0.02
    shown = two.shown("--markdown")
    low, high = ttest_rel([-0.03, -0.04, -0.037], [0.0] * 3).confidence_interval(0.95)
    row = next(line for line in shown.splitlines() if line.startswith("| LoRA "))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[3:] == [
        "−0.036",
        f"[−{-low:.3f}, −{-high:.3f}]",
        "worse (these rows)",
    ]
    assert "- LoRA: learning_rate 0.002 → 0.02" in shown
    assert "the interval is over seeds alone and says nothing of other texts" in shown
    assert "best" not in shown
    assert "Own" not in shown  # a task on which nothing changed
    assert "1 worse, 9 with the same runs" in shown


def test_several_changed_methods_share_the_error(two: Two) -> None:
    task = two.after["tasks"]["movie"]
    for label, gains in (("lora", (0.030, 0.040, 0.037)), ("head", (0.01, 0.03, 0.05))):
        old = scores_of(task, label)
        rescored(task, label, [s + g for s, g in zip(old, gains, strict=True)])
    methods = two.found()["tasks"]["movie"]["methods"]
    # Holm: the smaller p value is held against half of the error, the other against all of it.
    assert [methods[label]["difference"]["level"] for label in ("lora", "head")] == [0.975, 0.95]


def test_one_seed_has_no_interval_and_settles_nothing(two: Two) -> None:
    for side in (two.before, two.after):
        for method in side["tasks"]["movie"]["methods"].values():
            method["runs"] = method["runs"][:1]
            method["summary"]["accuracy"] = summarise([method["runs"][0]["test"]["accuracy"]])
    rescored(two.after["tasks"]["movie"], "lora", [0.1])
    shown = two.shown("--markdown", "--fail-on-worse")
    row = next(line for line in shown.splitlines() if line.startswith("| LoRA "))
    assert row.split("|")[-3:-1] == ["        – ", " one seed: no interval "]
    assert "1 not settled" in shown


def test_only_a_settled_loss_fails_and_only_where_asked(two: Two) -> None:
    before = scores_of(two.before["tasks"]["movie"], "lora")
    rescored(
        two.after["tasks"]["movie"], "lora", [before[0] - 0.2, before[1] + 0.1, before[2] - 0.1]
    )
    assert "open" in two.shown("--fail-on-worse")
    rescored(
        two.after["tasks"]["movie"], "lora", [s - 0.1 - 0.001 * n for n, s in enumerate(before)]
    )
    assert two.found()["worse"] == [["movie", "lora"]]
    two.shown()
    two.shown("--fail-on-worse", code=1)


def test_only_seeds_that_both_have_are_compared(two: Two) -> None:
    task = two.after["tasks"]["movie"]
    rescored(task, "lora", [0.8, 0.81, 0.82])
    task["methods"]["lora"]["runs"][0]["seed"] = 9
    found = two.found()["tasks"]["movie"]["methods"]["lora"]
    assert found["seeds"] == [2, 3]
    assert [entry["seed"] for entry in found["difference"]["by_seed"]] == [2, 3]
    for number, run in enumerate(task["methods"]["lora"]["runs"]):
        run["seed"] = 10 + number
    found = two.found()["tasks"]["movie"]["methods"]["lora"]
    assert (found["status"], found["why"]) == ("incomparable", "no seed in common")


def test_new_and_removed_methods_and_tasks_are_named(two: Two) -> None:
    for name in ("movie", "own"):
        two.before["tasks"][name]["methods"].pop("houlsby")
        two.after["tasks"][name]["methods"].pop("head")
    two.before["tasks"]["gone"] = two.before["tasks"]["own"]
    two.after["tasks"]["fresh"] = two.after["tasks"]["own"]
    shown = two.shown("--markdown")
    assert "New task: fresh." in shown
    assert "Removed task: gone." in shown
    rows = [[c.strip() for c in line.strip("|").split("|")] for line in shown.splitlines()]
    told = {row[0]: row[-1] for row in rows if row[-1] in ("new", "removed")}
    assert told == {"Houlsby adapter": "new", "head only": "removed"}


def test_winner_verdicts_and_settings_that_changed_are_named(two: Two) -> None:
    task = two.after["tasks"]["movie"]
    task["winner"]["method"] = "lora"
    record = task["verdicts"]["lora"]
    old = two.before["tasks"]["movie"]["verdicts"]["lora"]["outcome"]
    record.update(outcome="win", difference=0.05, low=0.04, high=0.06, needs=None)
    two.after["margin"] = 0.02
    shown = two.shown("--markdown")
    assert "- Chosen on the selection set: full fine-tuning → LoRA" in shown
    assert f"- Verdict on LoRA against the baseline: {old}" in shown
    assert "→ win (+0.050 [+0.040, +0.060])" in shown
    assert "\nSettings: margin 0.01 → 0.02.\n" in shown


def test_other_data_without_predictions_is_not_compared(two: Two) -> None:
    task = two.after["tasks"]["movie"]
    rescored(task, "lora", [0.8, 0.81, 0.82])
    task["data"]["digest"] = finished.digest("other")
    shown = two.shown("--markdown")
    assert "LoRA is not compared: other data" in shown
    assert "- data changed" in shown
    assert two.found()["worse"] == []


def test_another_metric_is_not_compared(two: Two) -> None:
    task = two.after["tasks"]["movie"]
    rescored(task, "lora", [0.8, 0.81, 0.82])
    task["primary"] = "f1_macro"
    assert "LoRA is not compared: another metric" in two.shown("--markdown")


def test_what_is_no_comparison_is_refused(
    two: Two, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before, _ = two.write()
    monkeypatch.chdir(tmp_path)
    problem, fix = refusal(capsys, "changes", before, "nowhere")
    assert problem == "'nowhere' is not there"
    assert fix.startswith("name a comparison.json or a project's folder; revisions are those of")
    (tmp_path / "empty").mkdir()
    problem, fix = refusal(capsys, "changes", before, "empty")
    assert problem == "'empty/comparison/comparison.json' is not there"
    assert fix == "run `tunetrail run` in 'empty'\n"
    problem, fix = refusal(capsys, "changes", before, before, "--json", "--markdown")
    assert problem == "--json and --markdown were both given"


def test_a_comparison_of_another_version_is_refused(
    two: Two, capsys: pytest.CaptureFixture[str]
) -> None:
    del two.before["tasks"]["movie"]["primary"]
    problem, fix = refusal(capsys, "changes", *two.write())
    assert "is of another version of TuneTrail: 'primary' is missing" in problem
    assert fix.startswith("`tunetrail run` brings a comparison up to date")
