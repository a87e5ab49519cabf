"""Figures of a comparison: which curves there are, what is marked, what is said of it."""

from __future__ import annotations

import copy
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import finished
from tests.conftest import ROOT
from tunetrail.report import figures, learning_rates, tradeoffs
from tunetrail.report.across import profile_plot
from tunetrail.report.budgets import budget_axes, budget_plot
from tunetrail.report.learning_rates import learning_rate_plot
from tunetrail.report.output import inline_svg
from tunetrail.report.plots import score_plot
from tunetrail.stages.compare import _means
from tunetrail.verdicts.costs import COSTS, costs_of

STEPS = ({"label": "lora", "title": "LoRA", "seed": 1, "loss": [[1, 0.7], [2, 0.6]]},)


def movie() -> dict[str, Any]:
    task: dict[str, Any] = finished.comparison()["tasks"]["movie"]
    return task


def measured() -> dict[str, dict[str, float]]:
    return {
        label: costs_of(
            finished.costs()["movie"].get(label), finished.certificates()["movie"][label]
        )
        for label in finished.METHODS
    }


def tips(drawing: str, label: str) -> list[str]:
    """What a page says of a method, in the order of the drawing."""
    groups = re.split(r'<g (?:id="[^"]*" )?(?=data-method)', drawing)
    mine = "".join(group for group in groups if group.startswith(f'data-method="{label}"'))
    return re.findall(r'data-tip="([^"]*)"', mine)


# Budgets -----------------------------------------------------------------------------------------


def curves(budgets: dict[str, Any], main: str) -> list[tuple[str, dict[str, float]]]:
    return [(axis.title, axis.places) for axis in budget_axes(budgets, main)]


def test_budgets_of_one_kind_are_one_curve_from_low_to_high() -> None:
    budgets = {
        "full": {"epochs": 2},
        "half": {"epochs": 2, "fraction": 0.5},
        "tenth": {"epochs": 2, "fraction": 0.1},
    }
    (axis,) = budget_axes(budgets, "full")
    assert axis.title == "share of the training rows"
    assert list(axis.places.items()) == [("tenth", 0.1), ("half", 0.5), ("full", 1.0)]
    assert axis.logarithmic


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("epochs", "epochs"),
        ("steps", "optimiser steps"),
        ("minutes", "minutes of training"),
        ("shots", "training rows of each class"),
    ],
)
def test_every_axis_has_its_curve(name: str, title: str) -> None:
    rest = {"epochs": 3} if name == "shots" else {}
    budgets = {"a": rest | {name: 4}, "b": rest | {name: 8}}
    assert curves(budgets, "b") == [(title, {"a": 4.0, "b": 8.0})]
    assert not budget_axes(budgets, "b")[0].logarithmic


def test_several_axes_are_several_curves_through_the_main_budget() -> None:
    budgets = {
        "full": {"epochs": 2},
        "half": {"epochs": 2, "fraction": 0.5},
        "one": {"epochs": 1},
        "short": {"minutes": 1},
        "long": {"minutes": 5},
        "few": {"epochs": 2, "shots": 8},
        "more": {"epochs": 2, "shots": 32},
    }
    assert curves(budgets, "full") == [
        ("share of the training rows", {"half": 0.5, "full": 1.0}),
        ("epochs", {"one": 1.0, "full": 2.0}),
        ("training rows of each class", {"few": 8.0, "more": 32.0}),
        ("minutes of training", {"short": 1.0, "long": 5.0}),
    ]


def test_a_grid_is_a_curve_for_each_line_of_it_and_says_which() -> None:
    budgets = {
        f"{epochs}-{share}": {"epochs": epochs, "fraction": share}
        for epochs in (1, 4)
        for share in (0.3, 1.0)
    }
    assert [title for title, _ in curves(budgets, "4-1.0")] == [
        "share of the training rows (4 epochs)",
        "epochs (all rows)",
        "share of the training rows (1 epoch)",
        "epochs (30% of the rows)",
    ]


def test_what_lies_on_no_curve_stands_beside_the_main_budget() -> None:
    budgets = {
        "full": {"epochs": 2},
        "half": {"epochs": 2, "fraction": 0.5},
        "odd": {"minutes": 3, "fraction": 0.2},
    }
    assert curves(budgets, "full")[1] == ("budget", {"full": 0.0, "odd": 1.0})
    assert curves({"full": {"epochs": 2}}, "full") == []
    assert curves({"full": {"epochs": 2}, "timed": {"minutes": 1}}, "full") == [
        ("budget", {"full": 0.0, "timed": 1.0})
    ]


def test_a_curve_has_every_seed_and_every_interval() -> None:
    task = movie()
    (axis, _) = budget_axes(task["budgets"], "full")
    said = tips(inline_svg(budget_plot(task, axis)), "lora")
    for budget in axis.places:
        result = task["methods"]["lora"]["budgets"][budget]
        for run in result["runs"]:
            assert f"LoRA, seed {run['seed']}: {run['test']['accuracy']:.3f}" in said
        summary = result["summary"]["accuracy"]
        assert any(f"[{summary['low']:.3f}, {summary['high']:.3f}]" in tip for tip in said)
    assert len(said) == 3 * (1 + 3 + 1)


# Costs -------------------------------------------------------------------------------------------


def test_every_cost_has_its_view_and_one_that_nobody_has_has_none() -> None:
    whole = finished.comparison()
    drawn = finished.pictures(whole)["movie"]
    views = [p.choice for p in drawn.values() if p.choice]
    assert views == [tradeoffs.SHOWN[cost].title for cost in COSTS]
    without = copy.deepcopy(finished.certificates())
    for certificate in without["movie"].values():
        del certificate["latency"]
    steps = dict.fromkeys(finished.TASKS, STEPS)
    assert "latency" not in figures.draw(whole, finished.costs(), without, steps)["movie"]


def test_dominated_is_what_a_recommendation_sets_aside() -> None:
    whole, task = finished.comparison(), movie()
    # LoRA matches full fine-tuning with fewer parameters; what the others do is open.
    task["pairs"] = []
    task["verdicts"] = {
        label: {"low": -0.2, "high": 0.2} for label in finished.METHODS if label != "full"
    }
    task["verdicts"]["lora"] = {"low": -0.005, "high": 0.2}
    found = tradeoffs.weighed(task, measured(), "trainable_parameters", whole)
    assert set(found.dominated) == {"full"}
    assert tradeoffs.in_words(task, found) == (
        "Not dominated: LoRA, Houlsby adapter, LoRA (lora-r2). full fine-tuning: LoRA is not worse "
        "by more than the margin, with fewer trainable parameters."
    )
    # With the same latency nothing is gained.
    assert not tradeoffs.weighed(task, measured(), "latency_ms", whole).dominated
    drawn = inline_svg(tradeoffs.tradeoff_plot(task, measured(), "trainable_parameters", whole))
    marks = {
        label: re.findall(rf'data-method="{label}" data-tip.*?</g>', drawn, re.DOTALL)[-1]
        for label in ("full", "lora")
    }
    assert "fill: none" in marks["full"]
    assert "fill: none" not in marks["lora"]


def test_nearly_equal_costs_stand_apart_and_others_stay() -> None:
    moved = tradeoffs.apart([100.0, 50.0, 100.0, 100.5], logarithmic=False)
    assert moved[1] == 50
    assert moved[0] < moved[2] < moved[3]
    assert sum(moved) == pytest.approx(350.5)
    assert max(moved) < 105
    assert tradeoffs.apart([10.0, 1e3, 1e7], logarithmic=True) == [10.0, 1e3, 1e7]
    low, high = tradeoffs.apart([1e3, 1e3, 1e6], logarithmic=True)[:2]
    assert low < 1e3 < high
    assert low * high == pytest.approx(1e6)


def test_a_seed_far_from_the_others_is_within_the_axes() -> None:
    whole, task = finished.comparison(), movie()
    method = task["methods"]["lora"]
    method["summary"]["accuracy"] |= {"low": None, "high": None}
    for budget in [method, *method["budgets"].values()]:
        budget["runs"][0]["test"]["accuracy"] = 0.2
    (axis, _) = budget_axes(task["budgets"], "full")
    for figure in (
        budget_plot(task, axis),
        tradeoffs.tradeoff_plot(task, measured(), "trainable_parameters", whole),
    ):
        assert figure.axes[0].get_ylim()[0] < 0.2
    # A linear axis has room for the rings of the dearest method, too.
    over_time = tradeoffs.tradeoff_plot(task, measured(), "train_seconds", whole).axes[0]
    dearest = max(cost.get("train_seconds", 0) for cost in measured().values())
    assert over_time.get_xlim()[0] == 0
    assert over_time.get_xlim()[1] > 1.05 * dearest


# All tasks, learning rates -----------------------------------------------------------------------


def test_profiles_are_drawn_with_their_bands() -> None:
    whole = finished.comparison()
    figure = profile_plot(whole)
    found = whole["across"]["profiles"]["lora"]
    (axes,) = figure.axes
    line = next(line for line in axes.lines if line.get_label() == "LoRA")
    assert line.get_ydata().tolist() == found["share"]
    band = axes.collections[list(finished.METHODS).index("lora")].get_paths()[0].vertices
    assert {round(y, 9) for _, y in band} == {round(y, 9) for y in found["low"] + found["high"]}


def test_one_task_has_no_figures_of_all_tasks() -> None:
    whole = finished.comparison()
    del whole["tasks"]["own"]
    drawn = figures.draw(whole, finished.costs(), {}, {"movie": STEPS})
    assert figures.ALL_TASKS not in drawn


def test_trials_that_ended_early_are_told_from_complete_ones() -> None:
    task = movie()
    (records,) = learning_rates.tuned(task).values()
    drawing = inline_svg(learning_rate_plot(task, "full", records))
    assert sorted(tips(drawing, "lora")) == [
        "LoRA, learning rate 0.0001: 0.720, pruned",
        "LoRA, learning rate 0.0003: 0.740",
        "LoRA, learning rate 0.001: 0.760",
        "LoRA, learning rate 0.001: 0.760, chosen",
        "LoRA, learning rate 0.003: 0.740",
        "LoRA, learning rate 0.01: no score, failed",
    ]
    assert learning_rates.in_words(task, "full", records) == (
        "LoRA: 5 trials (1 pruned, 1 failed), 0.001 chosen. head only: 5 trials (1 pruned), 0.01 "
        "chosen. On the edge of its range, so a wider one may hold a higher score: head only, "
        "learning_rate 0.01 (high end of [0.0001, 0.01])."
    )


@pytest.mark.parametrize("tuning", [None, {}, {"lora": {}}])
def test_without_tuning_there_is_no_figure_of_learning_rates(tuning: Any) -> None:
    task = movie() | {"tuning": tuning}
    if tuning is None:
        del task["tuning"]
    assert learning_rates.tuned(task) == {}


# Gates -------------------------------------------------------------------------------------------


def test_every_gate_is_a_cell_with_its_mean_and_spread() -> None:
    whole = finished.comparison()
    for run in whole["tasks"]["movie"]["methods"]["lora"]["runs"]:
        run["observed"] = {"0 prefix": 0.2 + 0.1 * run["seed"], "1 prefix": 1.0, "1 adapter": 0.0}
    drawn = finished.pictures(whole)
    assert "gates-lora" in drawn["movie"]
    assert not any(name.startswith("gates") for name in drawn["own"])
    picture = drawn["movie"]["gates-lora"]
    (axes,) = picture.figure.axes
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["Layer 0", "Layer 1"]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["prefix", "adapter"]
    strength = {(p.get_x() + 0.49, p.get_y() + 0.48): p.get_alpha() for p in axes.patches}
    assert strength[0, 0] == pytest.approx(0.4 * strength[0, 1])
    assert strength[1, 1] == 0
    said = tips(inline_svg(picture.figure), "lora")
    assert sorted(set(said)) == [
        "LoRA, layer 0, prefix: 0.40 ± 0.10, 3 seeds",
        "LoRA, layer 1, adapter: 0.00 ± 0.00, 3 seeds",
        "LoRA, layer 1, prefix: 1.00 ± 0.00, 3 seeds",
    ]


# Files -------------------------------------------------------------------------------------------


def test_dvc_shows_scores_and_figures(tmp_path: Path) -> None:
    """By DVC itself, with the plots that dvc.yaml declares."""
    declared = yaml.safe_load((ROOT / "dvc.yaml").read_text())
    compare = declared["stages"]["compare"]
    stage = {"cmd": "true", "outs": ["comparison/means.json"], "plots": compare["plots"]}
    assert set(stage["outs"]) <= set(compare["outs"])
    pipeline = {"stages": {"compare": stage}, "plots": declared["plots"]}
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump(pipeline))
    template = declared["plots"][0]["Test scores"]["template"]
    (tmp_path / template).parent.mkdir(parents=True)
    shutil.copyfile(ROOT / template, tmp_path / template)
    whole = finished.comparison()
    means, plots = tmp_path / "comparison" / "means.json", tmp_path / "comparison" / "plots"
    pictures = {"movie": {"score": finished.pictures(whole)["movie"]["score"]}}
    figures.write(pictures, plots, tmp_path / "png")
    assert [p.name for p in (tmp_path / "png").rglob("*.*")] == ["score.png"]
    means.write_text(json.dumps(_means(whole)))

    def dvc(*arguments: str) -> str:
        command = [str(Path(sys.executable).with_name("dvc")), *arguments]
        return subprocess.run(
            command, cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout

    dvc("init", "--no-scm", "--quiet")
    dvc("commit", "--force", "--quiet")
    shown = json.loads(dvc("plots", "show", "--json"))
    assert shown.get("errors", []) == []
    data = shown["data"]
    assert set(data) == {"Test scores", "comparison/plots/movie/score.svg"}
    content = data["Test scores"][0]["content"]
    drawn = content["data"]["values"]
    by_name = {row["of"]: [row[key] for key in ("score", "low", "high")] for row in drawn}
    expected = whole["tasks"]["movie"]["methods"]["lora-r2"]["summary"]["accuracy"]
    assert by_name["movie, LoRA (lora-r2)"] == [expected[key] for key in ("mean", "low", "high")]
    ends = [layer["encoding"].get("x2", {}).get("field") for layer in content["layer"]]
    assert ends == [None, "high"]
    assert len(by_name) == len(finished.TASKS) * len(finished.METHODS)


@pytest.mark.parametrize(("lowest", "floor"), [(0.4, -0.02), (-0.1, -1.02)])
def test_axes_of_scores_end_where_scores_do(lowest: float, floor: float) -> None:
    task = movie()
    for method in task["methods"].values():
        for result in method["budgets"].values():
            result["summary"]["accuracy"] |= {"low": -3.0, "high": 4.0}
            result["runs"][0]["test"]["accuracy"] = lowest
    (axis, *_) = budget_axes(task["budgets"], task["main_budget"])
    assert budget_plot(task, axis).axes[0].get_ylim() == (floor, 1.02)
    assert score_plot(task).axes[0].get_xlim() == (floor, 1.02)
