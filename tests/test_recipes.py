"""Recipes: their files, the projects that they make, and the verdicts on claims."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import stats

from tests import finished as comparisons
from tests.conftest import Project
from tunetrail.cli import main
from tunetrail.errors import TuneTrailError
from tunetrail.files import write_json
from tunetrail.params import check_sources, read_params, sources
from tunetrail.place import CODE
from tunetrail.recipes import rules
from tunetrail.recipes.claims import Claim
from tunetrail.recipes.observed import Observed
from tunetrail.recipes.projects import check_data, write_project
from tunetrail.recipes.recipe import RECIPES, Recipe, plan_files, read_recipe, recipe_names
from tunetrail.recipes.results import judge, page, read_results, write_results
from tunetrail.recipes.vocabulary import overlaps, training_texts
from tunetrail.report import figures
from tunetrail.verdicts.difference import Difference, paired_difference

PLANS = sorted(RECIPES.glob("*/*/*.yaml"))


def test_every_plan_belongs_to_a_recipe_and_every_recipe_reads() -> None:
    assert recipe_names() == ["2401.04051", "2405.05493"]
    files: list[Path] = []
    for name in recipe_names():
        recipe = read_recipe(name)
        for scale in ("laptop", "full"):
            files += plan_files(recipe, name, scale).values()
    assert sorted(files) == PLANS


@pytest.mark.parametrize("plan", PLANS, ids=lambda p: "-".join(p.parts[-3:]))
def test_project_of_every_plan_is_ready_to_run(
    plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, project = tmp_path / "datasets", tmp_path / "project"
    for source in sources(read_params(plan), plan).values():
        if source.is_relative_to("data/local"):
            (data / source.relative_to("data/local")).mkdir(parents=True)
    check_data([plan], data)
    data.mkdir(exist_ok=True)
    write_project(project, plan, data)
    assert (project / "params.yaml").read_bytes() == plan.read_bytes()
    assert (project / CODE / "recipes").is_dir()
    monkeypatch.chdir(project)
    check_sources(read_params(Path("params.yaml")), Path("params.yaml"))


def test_small_plans_need_no_network_and_full_ones_no_local_data() -> None:
    for plan in PLANS:
        local = [
            s for s in sources(read_params(plan), plan).values() if s.is_relative_to("data/local")
        ]
        if plan.parent.name == "full":
            assert not local, plan
            continue
        params = read_params(plan)
        assert params.base.source == Path("data/minilm.yaml")
        others = {s for s in sources(params, plan).values() if s not in local}
        assert others <= {Path("data/minilm.yaml"), Path("data/hutto.yaml")}


# The command -------------------------------------------------------------------------------------


def test_unknown_recipe_lists_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipe", "run", "2401.0405"]) == 2
    error = capsys.readouterr().err
    assert "did you mean '2401.04051'?" in error
    assert "2405.05493" in error


def test_missing_data_is_named_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "work"
    assert main(["recipe", "run", "2401.04051", "--folder", str(folder)]) == 2
    assert "glue/cola, glue/mrpc, glue/stsb" in capsys.readouterr().err
    (tmp_path / "glue" / "mrpc").mkdir(parents=True)
    command = ["recipe", "run", "2401.04051", "--data", str(tmp_path), "--folder", str(folder)]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert "lacks glue/cola, glue/stsb" in error
    assert "--data" in error
    assert not folder.exists()


def test_project_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("project: mine\n")
    with pytest.raises(TuneTrailError, match="is a project of something else"):
        write_project(tmp_path, PLANS[0], None)
    assert (tmp_path / "params.yaml").read_text() == "project: mine\n"


def test_list_says_how_many_runs(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["recipe", "list", "--json"])
    found = json.loads(capsys.readouterr().out)
    plans = [
        yaml.safe_load(p.read_text()) for p in PLANS if p.parts[-3:-1] == ("2401.04051", "laptop")
    ]
    runs = sum(
        math.prod(len(plan[key]) for key in ("tasks", "methods", "budgets", "seeds"))
        for plan in plans
    )
    assert found["2401.04051"]["runs"]["laptop"] == runs


# Rules -------------------------------------------------------------------------------------------


def of_seeds(*differences: float, rows: int = 50) -> Difference:
    """A difference whose seeds differ and whose rows do not: its interval is Student's."""
    cells = np.repeat(np.array(differences)[:, None], rows, axis=1)
    return paired_difference(cells, np.zeros_like(cells))


def test_interval_without_an_effect_of_rows_is_students() -> None:
    found = rules.interval(of_seeds(0.1, 0.0, -0.1))
    # t(2) = 4.3027, standard error 0.1 / sqrt(3)
    assert found == pytest.approx((0.0, -0.24841, 0.24841), abs=1e-5)


def test_not_worse_is_planted_and_found() -> None:
    same, little, worse = (
        of_seeds(0, 0, 0),
        of_seeds(-0.011, -0.01, -0.009),
        of_seeds(-0.1, -0.1, -0.1),
    )
    assert rules.not_worse([same, little], 0.02) == "supported"
    assert rules.not_worse([same, worse], 0.02) == "not supported"
    assert rules.not_worse([same, of_seeds(0.1, 0, -0.1)], 0.02) == "open"
    one_seed = of_seeds(0.3)
    assert rules.not_worse([same, one_seed], 0.02) == "open"


def test_many_cells_make_it_harder_to_refute_one() -> None:
    # Half-widths 0.0248 at 95 %, 0.0572 at 99 %: the first interval ends at -0.025.
    bad, same = of_seeds(-0.04, -0.05, -0.06), of_seeds(0, 0, 0)
    assert rules.not_worse([bad], 0.02) == "not supported"
    assert rules.not_worse([bad, same, same, same, same], 0.02) == "open"


def test_mean_over_tasks_adds_half_widths_as_squares() -> None:
    cells = [of_seeds(0.3, 0.2, 0.1), of_seeds(0.5, 0.4, 0.3)]
    mean = rules.mean_over(cells)
    half = math.hypot(0.24841, 0.24841) / 2
    assert mean == pytest.approx((0.3, 0.3 - half, 0.3 + half), abs=1e-5)
    assert rules.better(mean, 0.01) == "supported"
    assert rules.better(rules.Interval(0.0, -0.02, 0.005), 0.01) == "not supported"
    assert rules.better(rules.Interval(0.0, -0.02, 0.02), 0.01) == "open"
    assert rules.mean_over([cells[0], of_seeds(0.1)]).low is None


def test_spread_ratio_is_the_geometric_mean_over_tasks() -> None:
    one = [0.0, 1.0, 2.0]  # standard deviation 1
    tasks = {
        "a": [([0, 2, 4], one), ([0, 8, 16], one)],  # 2 and 8: 4
        "b": [([0, 1, 2], one)],
        "c": [([0, 4, 8], one), (one, [3, 3, 3])],  # the second has no ratio
    }
    logs = np.log([4, 1, 4])
    ends = stats.t.interval(0.95, 2, logs.mean(), stats.sem(logs))
    found = rules.spread_ratio(tasks)
    assert found == pytest.approx((math.exp(logs.mean()), *np.exp(ends)))
    with pytest.raises(ValueError, match="no task"):
        rules.spread_ratio({"a": [(one, [1, 1, 1])]})


def test_verdicts_on_spreads() -> None:
    above, below = rules.Interval(3, 2, 4), rules.Interval(0.5, 0.3, 0.9)
    wide = rules.Interval(1.5, 0.5, 4)
    assert [rules.varies_more(r) for r in (above, below, wide)] == [
        "supported", "not supported", "open",
    ]  # fmt: skip
    assert [rules.varies_no_more(r, 1.25) for r in (above, below, wide)] == [
        "not supported", "supported", "open",
    ]  # fmt: skip


def test_equal_spreads_are_rarely_called_different() -> None:
    generator = np.random.default_rng(0)
    scores = generator.normal(size=(2000, 3, 2, 3))  # comparisons, tasks, methods, seeds
    found = [
        rules.spread_ratio({str(t): [(task[0], task[1])] for t, task in enumerate(drawn)})
        for drawn in scores
    ]
    wrong = np.mean([not (r.low or 0) <= 1 <= (r.high or 0) for r in found])
    # 5 %, with three standard errors of 2,000 draws
    assert wrong <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 2000)
    planted = [
        rules.spread_ratio({str(t): [(20 * task[0], task[1])] for t, task in enumerate(drawn)})
        for drawn in scores[:500]
    ]
    assert np.mean([rules.varies_more(r) == "supported" for r in planted]) > 0.8


def test_trend_is_the_exact_permutation_test() -> None:
    overlap, gain = [0.2, 0.3, 0.5, 0.4, 0.6], [0.04, 0.05, 0.01, 0.01, -0.02]
    found = rules.trend(overlap, gain)

    def rho(y: Any) -> float:
        return float(stats.spearmanr(overlap, y).statistic)

    for alternative, p in (("less", found.falls), ("greater", found.rises)):
        exact = stats.permutation_test(
            (gain,), rho, permutation_type="pairings", n_resamples=np.inf, alternative=alternative
        )
        assert p == pytest.approx(exact.pvalue)
    assert found.rho == pytest.approx(rho(gain))


def test_verdict_on_a_trend() -> None:
    x = [0.1, 0.2, 0.3, 0.4, 0.5]
    assert rules.trend(x, [5, 4, 3, 2, 1]).falls == pytest.approx(1 / 120)
    assert rules.falls(rules.trend(x, [5, 4, 3, 2, 1])) == "supported"
    assert rules.falls(rules.trend(x, [1, 2, 3, 4, 5])) == "not supported"
    assert rules.falls(rules.trend(x, [5, 1, 4, 2, 3])) == "open"
    with pytest.raises(ValueError, match="2 points"):
        rules.trend([1, 2], [2, 1])


def test_a_claim_is_as_good_as_its_weakest_part() -> None:
    assert rules.together(["supported", "supported"]) == "supported"
    assert rules.together(["supported", "open"]) == "open"
    assert rules.together(["open", "not supported", "supported"]) == "not supported"


# Vocabulary --------------------------------------------------------------------------------------


def test_overlap_of_vocabularies_by_hand() -> None:
    texts = {
        "wiki": ["The river, the river and a city.", "City; mountain! 1999"],
        "near": ["river city Mountain", "river city"],
        "far": ["kinase kinase protein", "protein river"],
    }
    # Five words each (the shortest has five; stop words and numbers do not count):
    # wiki river 2 city 2 mountain 1, near the same, far kinase 2 protein 2 river 1.
    assert overlaps(texts, "wiki", 3) == {"near": 1.0, "far": 1 / 3}
    assert overlaps(texts, "wiki", 2) == {"near": 1.0, "far": 0.0}
    assert overlaps(texts, "wiki", 100) == {"near": 1.0, "far": 1 / 3}


def test_a_longer_text_has_no_larger_vocabulary() -> None:
    texts = {"wiki": ["river city"], "far": ["kinase protein", "river city"]}
    assert overlaps(texts, "wiki", 10) == {"far": 0.0}


# Claims about finished comparisons ---------------------------------------------------------------

ROWS = 200


def finished(
    folder: Path, right: Mapping[str, Mapping[str, Iterable[float]]], name: str = "c"
) -> dict[str, Observed]:
    """A comparison on one task of accuracy: budget → method → share of right answers of each seed.

    A seed's right answers are the first rows, so equal shares are equal predictions.
    """
    methods: dict[str, Any] = {}
    for budget, of_methods in right.items():
        for method, shares in of_methods.items():
            runs = []
            for seed, share in enumerate(shares, 1):
                predictions = (np.arange(ROWS) >= share * ROWS).astype(int)
                place = folder / "runs/evaluate/t" / method / budget / str(seed)
                place.mkdir(parents=True)
                pd.DataFrame({"label": np.zeros(ROWS, int), "prediction": predictions}).to_parquet(
                    place / "predictions.parquet"
                )
                runs.append({"seed": seed, "test": {"accuracy": float((predictions == 0).mean())}})
            methods.setdefault(method, {"budgets": {}})["budgets"][budget] = {"runs": runs}
            cost = folder / "runs/cost/t" / f"{method}.json"
            cost.parent.mkdir(parents=True, exist_ok=True)
            cost.write_text(json.dumps({"trainable_parameters": 10 if method == "small" else 100}))
    task = {"primary": "accuracy", "labels": ["a", "b"], "methods": methods}
    task |= {"budgets": {budget: {} for budget in right}, "main_budget": next(iter(right))}
    content = {"margin": 0.02, "tasks": {"t": task}}
    plan = {"tasks": {"t": {}}, "methods": methods, "budgets": task["budgets"]}
    (folder / "params.yaml").write_text(yaml.safe_dump(plan))
    (folder / "comparison").mkdir(parents=True)
    (folder / "comparison/comparison.json").write_text(json.dumps(content))
    return {name: Observed(name, folder)}


def claim(*parts: dict[str, Any]) -> Claim:
    return Claim.model_validate({"says": "x", "parts": parts})


NOT_WORSE = {"kind": "not_worse", "method": "small", "than": "full"}


def test_planted_claims_are_judged_from_the_predictions_of_every_budget(tmp_path: Path) -> None:
    found = finished(
        tmp_path,
        {
            "all": {"full": [0.9, 0.9, 0.9], "small": [0.9, 0.9, 0.9]},
            "third": {"full": [0.8, 0.8, 0.8], "small": [0.6, 0.6, 0.6]},
        },
    )
    assert claim(NOT_WORSE | {"budgets": ["all"]}).judge(found)["verdict"] == "supported"
    both = claim(NOT_WORSE).judge(found)
    assert both["verdict"] == "not supported"
    assert [cell["difference"] for cell in both["parts"][0]["cells"]] == pytest.approx([0, -0.2])
    assert (
        claim(NOT_WORSE | {"than": "small", "method": "full"}).judge(found)["verdict"]
        == "supported"
    )


def test_planted_claim_stays_open_where_seeds_disagree(tmp_path: Path) -> None:
    shares = {"full": [0.8, 0.8, 0.8], "small": [0.9, 0.8, 0.7]}
    judged = claim(NOT_WORSE).judge(finished(tmp_path, {"all": shares}))
    assert judged["verdict"] == "open"


def test_keeping_up_is_about_changes_not_levels(tmp_path: Path) -> None:
    found = finished(
        tmp_path,
        {
            "all": {"full": [0.9, 0.9, 0.9], "small": [0.6, 0.6, 0.6], "frail": [0.9, 0.9, 0.9]},
            "third": {"full": [0.8, 0.8, 0.8], "small": [0.7, 0.7, 0.7], "frail": [0.5, 0.5, 0.5]},
        },
    )
    part = {"kind": "keeps_up", "than": "full", "budget": "third", "from": "all"}
    verdicts = [claim(part | {"method": m}).judge(found)["verdict"] for m in ("small", "frail")]
    assert verdicts == ["supported", "not supported"]


def test_parameters_and_spread_are_read_too(tmp_path: Path) -> None:
    shares = {"full": [0.8, 0.81, 0.79], "small": [0.9, 0.7, 0.8]}
    found = finished(tmp_path, {"all": shares})
    fewer = {"kind": "fewer_parameters", "method": "small", "than": "full"}
    assert claim(fewer).judge(found)["verdict"] == "supported"
    assert (
        claim(fewer | {"method": "full", "than": "small"}).judge(found)["verdict"]
        == "not supported"
    )
    varies = {"kind": "varies_more", "method": "small", "than": "full"}
    judged = claim(varies).judge(found)
    assert judged["parts"][0]["ratio"]["value"] == pytest.approx(10)
    assert judged["verdict"] == "open"  # one task shows no spread of the ratio


def test_claims_are_shown_with_their_numbers(tmp_path: Path) -> None:
    found = finished(tmp_path, {"all": {"full": [0.9, 0.9, 0.9], "small": [0.6, 0.6, 0.6]}})
    judged = claim(NOT_WORSE).judge(found)
    shown = page(
        {
            "title": "T", "paper": "P", "scale": "laptop", "claims": {"one": judged},
            "comparisons": {},
        },
        {"one-0": ["one-0.svg"]},
    )  # fmt: skip
    assert "| x     | **not supported** |" in shown
    assert "−0.300" in shown
    assert "holds in 0 of 1 cells and fails in 1" in shown
    assert "](one-0.svg)" in shown


@pytest.mark.filterwarnings("error")
def test_results_have_a_curve_where_budgets_differ(tmp_path: Path) -> None:
    content = comparisons.comparison()
    for task in content["tasks"].values():
        task["methods"]["full"] |= {"start": "pretrained"}
    write_json(tmp_path / "comparison" / "comparison.json", content)
    plan = {key: dict.fromkeys(content["tasks"]["movie"][key]) for key in ("methods", "budgets")}
    (tmp_path / "params.yaml").write_text(
        yaml.safe_dump({"tasks": dict.fromkeys(content["tasks"]), **plan})
    )
    for task in content["tasks"]:
        for label, (_, trainable, _) in comparisons.METHODS.items():
            cost = {"trainable_parameters": trainable}
            write_json(tmp_path / "runs" / "cost" / task / f"{label}.json", cost)
    plots = tmp_path / "comparison"
    figures.write(comparisons.pictures(content), plots / "plots", plots / "png")
    found = {"c": Observed("c", tmp_path)}
    part = {"kind": "fewer_parameters", "method": "lora", "than": "full"}
    declared = {"title": "T", "paper": "P", "comparisons": {"c": "x"}}
    recipe = Recipe.model_validate(declared | {"claims": {"one": {"says": "x", "parts": [part]}}})
    recipe.model_dump(mode="json")
    write_results(judge(recipe, "id", "laptop", found), found, tmp_path / "results")
    shown = (tmp_path / "results" / "results.md").read_text()
    for figure in ("c-movie-by-fraction.svg", "c-own-by-epochs.svg"):
        assert f"]({figure})" in shown
        assert "<svg" in (tmp_path / "results" / figure).read_text()


def test_unknown_kind_of_claim_is_refused() -> None:
    with pytest.raises(ValueError, match="kind"):
        claim(NOT_WORSE | {"kind": "best"})


@pytest.mark.pipeline
def test_claims_read_a_finished_comparison_as_its_own_verdicts_do(
    first_run: tuple[Project, dict[str, Any]], tmp_path: Path
) -> None:
    folder = first_run[0].root
    found = {"c": Observed("c", folder)}
    part = {"kind": "not_worse", "method": "head", "than": "lora"}
    declared = {"title": "T", "paper": "P", "comparisons": {"c": "x"}}
    recipe = Recipe.model_validate(declared | {"claims": {"one": {"says": "x", "parts": [part]}}})
    judged = judge(recipe, "id", "laptop", found)
    cells = judged["claims"]["one"]["parts"][0]["cells"]
    assert [cell["task"] for cell in cells] == ["movie", "own"]
    for cell in cells:  # one comparison a task, so that Holm's first level is 95 %
        verdict = found["c"].tasks[cell["task"]]["verdicts"]["head"]
        for key in ("difference", "low", "high"):
            assert cell[key] == pytest.approx(verdict[key])
    write_results(judged, found, tmp_path / "results")
    shown = (tmp_path / "results" / "results.md").read_text()
    for figure in ("one-0.svg", "c-movie-difference.svg", "c-own-difference.svg"):
        assert f"]({figure})" in shown
        assert "<svg" in (tmp_path / "results" / figure).read_text()
    again = recipe.model_copy(update={"claims": {"two": recipe.claims["one"], **recipe.claims}})
    assert read_results(tmp_path, again, "these") is None
    judged = judge(again, "id", "laptop", found) | {"inputs": "these"}
    write_results(judged, found, tmp_path / "results")
    assert read_results(tmp_path / "results", again, "others") is None
    before = read_results(tmp_path / "results", again, "these")
    assert before is not None
    assert list(before["claims"]) == ["two", "one"]  # not the order of the file, the alphabet
    train = training_texts(folder / "data/canonical/own")
    prepared = pd.read_parquet(folder / "data/prepared/own/test/test.parquet")
    frame = pd.read_parquet(folder / "data/canonical/own/data.parquet").set_index("id")
    assert train
    assert not set(frame.loc[prepared["id"], "text"]) & set(train)
