"""Seeds beyond those of all methods: who gets them, how strict each look is, what is written."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from benchmarks.looks import looked_at
from benchmarks.verdicts import SCENARIOS
from tests.test_params import GOOD, complaint
from tunetrail.cli import main
from tunetrail.errors import TuneTrailError
from tunetrail.files import write_json
from tunetrail.params import AddedRun, Params, read_params
from tunetrail.stages.more_seeds import give_more_seeds, next_runs
from tunetrail.verdicts.decision import decide
from tunetrail.verdicts.difference import paired_difference
from tunetrail.verdicts.looks import Looks

COUNT = 1500


# How strict a look is -----------------------------------------------------------------------------


def test_one_look_has_all_of_the_error() -> None:
    assert Looks(3, 3).share(3, 5) == 1
    assert Looks(1, 2).share(2, 5) == 1  # one seed shows nothing: no look


@pytest.mark.parametrize("looks", [Looks(3, 4), Looks(3, 8), Looks(5, 10)])
@pytest.mark.parametrize("comparisons", [1, 5, 20])
def test_looks_share_the_error_and_later_ones_get_more(looks: Looks, comparisons: int) -> None:
    shares = [looks.share(seeds, comparisons) for seeds in range(looks.first, looks.last + 1)]
    assert shares == sorted(shares)
    assert shares[-1] < 1
    assert sum(shares) > 1  # what is left to looks that have nothing in common (Bonferroni)


@pytest.mark.parametrize("name", ["seeds alone", "mostly rows"])
def test_all_looks_together_claim_no_more_than_they_may(name: str) -> None:
    """Families of three without any difference, looked at after 3, 4, … 7 seeds."""
    scenario, none = replace(SCENARIOS[name], rows=60), np.zeros(3)

    def any_false(careful: bool) -> float:
        generator = np.random.default_rng(5)
        return looked_at(scenario, Looks(3, 7), COUNT, generator, none, careful)["any_false"]

    assert any_false(careful=True) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / COUNT)
    if name == "seeds alone":
        assert any_false(careful=False) > 0.08


def test_further_seeds_find_what_the_first_ones_do_not() -> None:
    scenario = replace(SCENARIOS["mostly rows"], rows=200)
    found, first = (
        looked_at(scenario, looks, 200, np.random.default_rng(6), np.array([-0.08]))
        for looks in (Looks(3, 8), Looks(3, 3))
    )
    assert found["found"] > first["found"] + 0.1
    assert 3 < found["seeds"] < 8


def test_adjusted_p_and_interval_agree_whatever_the_looks() -> None:
    generator = np.random.default_rng(2)
    claimed = []
    for effect in np.linspace(0.5, 6.0, 40):
        cells = (
            effect + generator.standard_normal((3, 50)) + 0.3 * generator.standard_normal((3, 1))
        )
        difference = paired_difference(cells, np.zeros_like(cells))
        for looks in (None, Looks(3, 6)):
            verdict = decide({"it": difference}, 0.01, 50, looks)["it"]
            assert verdict.low is not None
            assert verdict.adjusted is not None
            assert (verdict.adjusted <= 0.05) == (verdict.low > 0)
            claimed.append((looks is None, verdict.differs))
    assert sum(d for alone, d in claimed if alone) > sum(d for alone, d in claimed if not alone) > 0


# Who gets a seed ----------------------------------------------------------------------------------


def record(outcome: str, seeds: int = 0, rows: int = 0, there: int = 2) -> dict[str, Any]:
    needs = {"seeds": seeds, "rows": rows} if outcome == "open" else None
    return {"outcome": outcome, "needs": needs, "by_seed": [{"seed": s} for s in range(there)]}


def judged(movie: dict[str, Any], books: dict[str, Any]) -> dict[str, Any]:
    return {"tasks": {"movie": {"verdicts": movie}, "books": {"verdicts": books}}}


def planned(**more: Any) -> Params:
    tasks = {name: {"source": "data.csv"} for name in ("movie", "books")}
    return Params.model_validate({**GOOD, "tasks": tasks, "more_seeds": {"most": 4, **more}})


def names(found: list[AddedRun]) -> list[str]:
    return [run.name for run in found]


def test_open_pairs_get_the_next_seed_and_the_baseline_gets_it_once() -> None:
    comparison = judged(
        {"lora": record("open", seeds=9), "wide": record("lose")},
        {"lora": record("open", seeds=3), "wide": record("open", seeds=1)},
    )
    assert names(next_runs(planned(), comparison)) == [
        "books-full-3",
        "books-wide-3",  # needs the fewest
        "books-lora-3",
        "movie-full-3",
        "movie-lora-3",
    ]


def test_a_pair_that_misses_test_rows_gets_no_seed() -> None:
    missing = {"lora": record("open", rows=400), "wide": record("open", seeds=9, rows=50)}
    comparison = judged(missing, {"lora": record("tie")})
    assert next_runs(planned(), comparison) == []


def test_it_ends_at_the_seeds_and_at_the_runs_that_are_allowed() -> None:
    added = {
        f"movie-{label}-{seed}": {"task": "movie", "method": label, "seed": seed}
        for label in ("full", "lora")
        for seed in (3, 4)
    }
    comparison = judged(
        {"lora": record("open", seeds=1, there=4), "wide": record("open", seeds=5)},
        {"lora": record("open", seeds=2)},
    )
    # lora has its four; what the baseline has already costs no run.
    assert names(next_runs(planned(added=added), comparison)) == [
        "books-full-3",
        "books-lora-3",
        "movie-wide-3",
    ]
    assert names(next_runs(planned(added=added, runs=5), comparison)) == ["movie-wide-3"]
    assert next_runs(planned(added=added, runs=4), comparison) == []


def test_an_older_comparison_is_refused() -> None:
    added = {
        f"movie-{label}-3": {"task": "movie", "method": label, "seed": 3}
        for label in ("full", "lora")
    }
    comparison = judged({"lora": record("open", seeds=1)}, {})
    with pytest.raises(TuneTrailError, match="does not have all seeds of 'lora' on 'movie'"):
        next_runs(planned(added=added), comparison)


# What is written ----------------------------------------------------------------------------------

TEXT = """\
# Mine.
project: toy   # its name
base: {source: base}
tasks:
  movie: {source: "data.csv"}   # two spaces

methods:
  full: {}
  lora: {rank: 4}
baseline: full
margin: 0.01
seeds: [1, 2]
more_seeds: {most: 4} # as needed
budgets:
  full: {epochs: 1}
main_budget: full
training: {}
numerics: {}
cost: {}
export: {tolerance: 1.0e-4}
"""
ADDED = """\
          # as needed
  most: 4
  added:
    movie-full-3: {task: movie, method: full, seed: 3}
    movie-lora-3: {task: movie, method: lora, seed: 3}"""


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(TEXT)
    verdicts = {"lora": record("open", seeds=2)}
    write_json(
        tmp_path / "comparison" / "comparison.json", {"tasks": {"movie": {"verdicts": verdicts}}}
    )
    return tmp_path


def test_params_gain_the_runs_and_change_nowhere_else(
    toy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["seeds"])
    assert capsys.readouterr().out == "movie-full-3\nmovie-lora-3\n"
    path = toy / "params.yaml"
    assert path.read_text() == TEXT.replace("{most: 4} # as needed", ADDED)
    assert yaml.safe_load(path.read_text())["more_seeds"]["added"] == {
        "movie-full-3": {"task": "movie", "method": "full", "seed": 3},
        "movie-lora-3": {"task": "movie", "method": "lora", "seed": 3},
    }
    assert read_params(path).more_seeds.most == 4


def test_nothing_open_exits_1_and_leaves_params_alone(
    toy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = {"tasks": {"movie": {"verdicts": {"lora": record("lose")}}}}
    write_json(toy / "comparison" / "comparison.json", content)
    with pytest.raises(SystemExit, match="1"):
        main(["seeds"])
    assert capsys.readouterr().err == "Nothing to add.\n"
    assert (toy / "params.yaml").read_text() == TEXT


def test_without_most_nothing_is_read(toy: Path) -> None:
    (toy / "params.yaml").write_text(TEXT.replace("{most: 4}", "{}"))
    assert give_more_seeds(toy / "params.yaml", toy / "nowhere") == []


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"added": {"x": {"task": "movie", "method": "lora", "seed": 3}}}, "no 'most'"),
        ({"most": 2}, "most is 2, with 2 seeds for all"),
        (
            {"most": 4, "added": {"movie-lora-3": {"task": "movie", "method": "lora", "seed": 3}}},
            "not a further seed of a method and the baseline 'full'",
        ),
        (
            {"most": 4, "added": {"movie-full-2": {"task": "movie", "method": "full", "seed": 2}}},
            "more_seeds.added.movie-full-2: not a further seed",
        ),
        ({"most": 4, "runs": 0}, "'more_seeds.runs' is 0"),
    ],
)
def test_wrong_settings_are_named(
    toy: Path, capsys: pytest.CaptureFixture[str], more: dict[str, Any], message: str
) -> None:
    content = {**yaml.safe_load(TEXT), "more_seeds": more}
    (toy / "params.yaml").write_text(yaml.safe_dump(content))
    assert message in complaint(capsys)


def test_without_a_baseline_there_is_nothing_to_settle(
    toy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (toy / "params.yaml").write_text(TEXT.replace("baseline: full", "baseline: ''"))
    assert "without a baseline no verdict is open" in complaint(capsys)
