"""Recommendations under limits, each case with its answer known."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests import finished
from tests.conftest import ROOT, new_project
from tunetrail.cli import execute, main
from tunetrail.dag import Dag
from tunetrail.files import write_json
from tunetrail.report import text
from tunetrail.stages.recommend import all_pairs
from tunetrail.verdicts.costs import known_pairs
from tunetrail.verdicts.recommend import Pair, Recommendation, recommend

WIN, LOSE = Pair(better=True, not_worse=True), Pair(better=False, not_worse=False)
OPEN, MATCH = LOSE, Pair(better=False, not_worse=True)
SCORES = {"full": 0.78, "lora": 0.77, "head": 0.70}
COSTS = {
    "full": {"parameters": 22e6, "latency_ms": 5.0},
    "lora": {"parameters": 75e3, "latency_ms": 5.1},
    "head": {"parameters": 1e3, "latency_ms": 5.0},
}


TITLES = {"full": "full fine-tuning", "lora": "LoRA"}


def both_ways(**known: Pair) -> dict[tuple[str, str], Pair]:
    return {tuple(names.split("_")): pair for names, pair in known.items()}


def ask(pairs: dict[tuple[str, str], Pair], **limits: float) -> Recommendation:
    return recommend(SCORES, COSTS, pairs, limits, ["parameters", "latency_ms"])


def test_what_is_open_dominates_nobody_and_the_highest_score_is_picked() -> None:
    pairs = {(a, b): OPEN for a in SCORES for b in SCORES if a != b}
    found = ask(pairs)
    assert (found.pick, found.candidates) == ("full", ["full", "lora", "head"])
    assert found.reasons == [
        "It has the highest mean score of the methods that no other makes pointless.",
        "That it is better than lora and head is not shown.",
    ]


def test_reasons_call_a_method_by_its_title_where_it_has_one() -> None:
    found = recommend(SCORES, COSTS, {}, {}, ["parameters"], TITLES)
    assert found.candidates == ["full", "lora", "head"]
    assert found.reasons[1] == "That it is better than LoRA and head is not shown."


def test_a_cheaper_method_that_matches_makes_the_dearer_one_pointless() -> None:
    pairs = both_ways(lora_full=MATCH, full_lora=OPEN, full_head=WIN, head_full=LOSE)
    found = ask(pairs)
    assert found.pick == "lora"  # 2 % more latency is the same
    assert found.dominated == {
        "full": ("lora", "not worse by more than the margin, with fewer parameters")
    }
    assert "Against full it is not worse by more than the margin, with fewer parameters." in (
        found.reasons
    )


def test_better_is_not_enough_where_it_costs_more() -> None:
    found = ask(both_ways(full_lora=WIN, full_head=WIN, lora_head=WIN))
    assert found.candidates == ["full", "lora", "head"]
    assert found.reasons[1:] == []


def test_better_at_the_same_cost_dominates() -> None:
    pairs = both_ways(full_head=WIN, head_full=LOSE)
    found = recommend(SCORES, COSTS, pairs, {"latency_ms": 5.0}, ["latency_ms"])
    assert found.dominated == {"head": ("full", "better, and costs no more")}
    assert found.outside == {"lora": "latency_ms 5.1 > 5"}


def test_limits_leave_out_and_say_why() -> None:
    found = ask({}, parameters=100e3, latency_ms=5.05)
    assert found.pick == "head"
    assert found.outside["full"] == "parameters 22,000,000 > 100,000"
    assert found.reasons == ["It is the only method within the limits."]


def test_nothing_within_the_limits() -> None:
    found = ask({}, latency_ms=1.0)
    assert (found.pick, found.candidates, found.reasons) == (
        None,
        [],
        ["No method is within the limits."],
    )


def test_a_cost_that_is_not_known_is_within_no_limit() -> None:
    costs = COSTS | {"head": {"parameters": 1e3}}
    found = recommend(SCORES, costs, {}, {"latency_ms": 9.0}, ["latency_ms"])
    assert found.outside == {"head": "latency_ms is not known"}


@pytest.mark.parametrize("other", ["lora", "full"])
def test_two_that_match_each_other_do_not_both_vanish(other: str) -> None:
    costs = {label: {"parameters": 5.0} for label in SCORES}
    pairs = {(a, b): MATCH for a in SCORES for b in SCORES if a != b}
    found = recommend(SCORES, costs, pairs, {}, ["parameters"])
    assert other in found.candidates


# From a finished comparison ----------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The made-up comparison as files; nothing was measured of head only."""
    write_json(tmp_path / "comparison" / "comparison.json", finished.comparison())
    for task, known in finished.costs().items():
        for label, cost in known.items():
            write_json(tmp_path / "runs" / "cost" / task / f"{label}.json", cost)
    for task, certified in finished.certificates().items():
        for label, certificate in certified.items():
            folder = tmp_path / "runs" / "export" / task / label
            write_json(folder / "certificate.json", certificate)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_limits_on_the_command_line_go_before_those_of_params(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (folder / "params.yaml").open("a") as file:
        file.write("\nlimits: {trainable_parameters: 100000, latency_ms: 9}\n")
    execute(["recommend", "movie", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert list(found) == ["movie"]
    assert found["movie"]["pick"] == "lora"
    assert found["movie"]["outside"] == {
        "full": "trainable_parameters 22,566,531 > 100,000",
        "houlsby": "trainable_parameters 606,339 > 100,000",
        "head": "trainable_parameters is not known",
    }
    assert found["movie"]["costs"]["lora"]["latency_ms"] == 4.9
    assert found["movie"]["costs"]["lora"]["artifact_mb"] == pytest.approx(4 * 74_883 / 2**20)
    execute(["recommend", "movie", "--max-parameters", "30000"])
    shown = capsys.readouterr().out
    assert shown.startswith("Limits: trainable_parameters ≤ 30,000, latency_ms ≤ 9\n\nmovie: take")
    assert "take LoRA (lora-r2), accuracy 0.740 [0.713, 0.767]\n" in shown


def test_pretraining_and_its_checkpoint_count(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = folder / "runs" / "cost" / "movie" / "lora.json"
    started = {"pretrain_seconds": 50.0, "checkpoint_bytes": 90 * 2**20}
    write_json(file, json.loads(file.read_text()) | started)
    asked = ["recommend", "movie", "--max-train-seconds", "20", "--max-artifact-mb", "90"]
    execute([*asked, "--json"])
    found = json.loads(capsys.readouterr().out)["movie"]
    assert found["costs"]["lora"]["train_seconds"] == 60
    assert found["outside"]["lora"] == "train_seconds 60 > 20; artifact_mb 90.2857 > 90"
    assert "lora-r2" not in found["outside"]


def test_limits_are_part_of_the_stage_that_writes_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = new_project(tmp_path / "project")
    monkeypatch.chdir(project.root)
    assert Dag(project.root).cells["compare"].command.endswith("--limits ''")
    project.change(limits={"latency_ms": 5})
    assert Dag(project.root).cells["compare"].command.endswith("--limits '--latency_ms 5'")


def test_results_of_another_version_are_named(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = folder / "runs" / "cost" / "movie" / "lora.json"
    known = json.loads(file.read_text())
    del known["pretrain_seconds"]
    write_json(file, known)
    assert main(["recommend", "movie"]) == 2
    error = capsys.readouterr().err
    assert "movie/lora.json' is of another version of TuneTrail: 'pretrain_seconds' is" in error
    assert "`tunetrail run`" in error
    comparison = folder / "comparison" / "comparison.json"
    content = json.loads(comparison.read_text())
    del content["tasks"]["movie"]["pairs"][0]["needs"]
    write_json(comparison, content)
    assert main(["pairs", "movie"]) == 2
    error = capsys.readouterr().err
    assert "comparison.json' is of another version of TuneTrail: 'needs' is missing" in error


def test_a_defect_is_not_taken_for_another_version(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text, "every_pair", lambda *_: {}["a defect"])
    with pytest.raises(KeyError, match="a defect"):
        all_pairs(folder / "comparison", "movie")


def test_in_words_for_every_task(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    execute(["recommend"])
    shown = capsys.readouterr().out
    assert shown.startswith("Limits: none\n\nmovie: take full fine-tuning, accuracy 0.780 [")
    assert "\n\nown: take full fine-tuning" in shown
    assert max(len(line) for line in shown.splitlines()) <= 80


def test_pairs_are_known_in_both_directions(folder: Path) -> None:
    task = finished.comparison()["tasks"]["movie"]
    task["verdicts"]["lora"] |= {"low": -0.005, "high": 0.2}
    pairs = known_pairs(task, "full", 0.01)
    assert pairs["lora", "full"] == Pair(better=False, not_worse=True)
    assert pairs["full", "lora"] == Pair(better=False, not_worse=False)
    low, high = (task["pairs"][0][end] for end in ("low", "high"))
    one, other = task["pairs"][0]["of"]
    assert pairs[one, other] == Pair(low > 0, low > -0.01)
    assert pairs[other, one] == Pair(high < 0, high < 0.01)
    task["verdicts"]["lora"] |= {"low": None, "high": None}
    assert ("lora", "full") not in known_pairs(task, "full", 0.01)


def test_all_pairs_on_request(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    execute(["pairs", "movie", "--json"])
    found = json.loads(capsys.readouterr().out)
    task = finished.comparison()["tasks"]["movie"]
    assert list(found) == ["movie"]
    assert found["movie"]["pairs"][4:] == task["pairs"]
    against = [label for label in task["letters"] if label != "full"]
    assert found["movie"]["pairs"][:4] == [
        {"of": [label, "full"], **task["verdicts"][label]} for label in against
    ]
    execute(["pairs"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "movie, accuracy first second difference interval p verdict" in shown
    assert " lora head +0.060 [+0.033, +0.087] <0.001 win " in shown
    assert " head full −0.080 [−0.171, +0.011] 0.066 open, needs ≈ 1 seed " in shown
    assert " own, accuracy " in shown
    assert shown.endswith(text.PAIRS)


@pytest.mark.parametrize("command", ["recommend", "pairs"])
@pytest.mark.parametrize(
    ("arguments", "problem", "fix"),
    [
        (["moovie"], "unknown task 'moovie'", "did you mean 'movie'?"),
        ([], "'comparison/comparison.json' is not there", "`tunetrail run` makes the comparison"),
    ],
)
def test_what_cannot_be_answered_is_said(
    command: str,
    arguments: list[str],
    problem: str,
    fix: str,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if not arguments:
        (folder / "comparison" / "comparison.json").unlink()
    assert main([command, *arguments]) == 2
    shown = capsys.readouterr().err
    assert problem in shown
    assert fix in shown
