"""Tuning: what is searched, what is chosen, what is kept of it, and that a kill changes nothing."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import BIN, ROOT, Project, new_project
from tests.test_params import write
from tests.test_prepare_resolve import Case
from tunetrail import methods, staleness
from tunetrail.cli import execute, main
from tunetrail.dag import Cell, Dag
from tunetrail.errors import TuneTrailError
from tunetrail.files import STATE_DIR, read_json, write_json
from tunetrail.params import Params, method_of, read_params, search_space
from tunetrail.run import planned_runs
from tunetrail.stages import tune as stage
from tunetrail.stages.compare import _tuning, _tuning_cost
from tunetrail.stages.resolve import resolve
from tunetrail.stages.train import train
from tunetrail.stages.tune import study_digest, tune
from tunetrail.tuning import Choices, Range, Tuning, edges, space_of

pytestmark = pytest.mark.usefixtures("fresh_accelerate")


class Tuned(Case):
    """A prepared project whose options are tuned, in the working directory."""

    def __init__(self, folder: Path, ready: Path, **changes: Any) -> None:
        plan: dict[str, Any] = {
            "methods": {"head": {}, "lora": {}},
            "base": {"source": str(folder), "max_length": 16},
            "budgets": {"full": {"epochs": 2}, "short": {"steps": 2}},
            "tuning": {"trials": {"full": 4}},
            "numerics": {"precision": "fp32", "threads": 1},
        }
        super().__init__(folder, **plan | changes)
        shutil.copytree(ready, folder, dirs_exist_ok=True)
        self.data = folder / "prepared"

    def inputs(self, label: str, budget: str = "full") -> tuple[Any, ...]:
        base, data = self.folder / "base", self.data
        return self.params, self.path, label, budget, base, data / "fit", data / "tapt"

    def ledger(self, label: str, budget: str = "full", **options: Any) -> dict[str, Any]:
        out = self.data / "tuned" / label / budget
        tune(*self.inputs(label, budget), out, **options)
        return read_json(out / "ledger.json")

    def study(self, label: str) -> Any:
        return stage._Study(*self.inputs(label))

    def frozen(self) -> dict[tuple[str, str], dict[str, Any]]:
        """(label, budget) → options of the runs in the plan."""
        plan = self.folder / "plan"
        canonical, base = self.folder / "canonical", self.folder / "base"
        resolve(self.params, self.path, canonical, base, self.data, plan)
        return {(r.method, r.budget): r.spec.method.options for r in planned_runs(plan)}


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the stages before tuning leave of the task."""
    folder = tmp_path_factory.mktemp("ready")
    Case(folder).prepared()
    for name in ("params.yaml", "base"):
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return folder


@pytest.fixture
def project(tmp_path: Path, ready: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Tuned]:
    monkeypatch.chdir(tmp_path)
    return lambda **changes: Tuned(tmp_path, ready, **changes)


def untimed(ledger: dict[str, Any]) -> dict[str, Any]:
    """A ledger without its seconds."""
    trials = [{k: v for k, v in trial.items() if k != "seconds"} for trial in ledger["trials"]]
    return {k: v for k, v in ledger.items() if k != "seconds"} | {"trials": trials}


def record(study: Any, options: dict[str, Any], scores: list[float]) -> dict[str, Any]:
    """A trial that came to its end, a score after each of its epochs."""
    selection = [[step, {"accuracy": score}] for step, score in enumerate(scores, 1)]
    return {
        "run": "",
        "options": options,
        "state": "complete",
        "selection": selection,
        "kept": selection[-1],
        "seconds": 1.0,
    }


# What is searched --------------------------------------------------------------------------------


def test_a_learning_rate_is_searched_around_the_methods_own() -> None:
    lora = methods.resolve("lora", {}, "test")
    assert space_of("lora", lora, {}, 10.0, "x") == {"learning_rate": Range(2e-4, 2e-2)}
    own = methods.resolve("lora", {"learning_rate": 1e-3}, "test")
    assert space_of("lora", own, {}, 4.0, "x") == {"learning_rate": Range(2.5e-4, 4e-3)}


def test_what_is_searched_can_be_said() -> None:
    lora = methods.resolve("lora", {}, "test")
    # YAML reads 1e-4 as a text.
    wanted = {"learning_rate": ["1e-4", 0.01], "rank": [4, 8, 16]}
    found = {"learning_rate": Range(1e-4, 1e-2), "rank": Choices((4, 8, 16))}
    assert space_of("lora", lora, wanted, 10.0, "x") == found
    listed = {"learning_rate": [1e-3, 2e-3, 4e-3]}
    found = {"learning_rate": Choices((1e-3, 2e-3, 4e-3))}
    assert space_of("lora", lora, listed, 10.0, "x") == found


@pytest.mark.parametrize(
    ("value", "edge"),
    # A tenth of two decades is a fifth of one: 10^0.2 = 1.585.
    [(1e-4, "low"), (1.58e-4, "low"), (1.59e-4, None), (1e-3, None), (6.3e-3, None),
     (6.32e-3, "high"), (1e-2, "high")],
)  # fmt: skip
def test_the_outer_tenths_of_a_range_are_its_edges(value: float, edge: str | None) -> None:
    found = edges({"learning_rate": Range(1e-4, 1e-2)}, {"learning_rate": value})
    assert found == ({"learning_rate": edge} if edge else {})


def test_the_first_and_last_of_numbers_are_edges_and_texts_have_none() -> None:
    space = {"rank": Choices((8, 4, 16)), "activation": Choices(("gelu", "relu"))}
    found = [edges(space, {"rank": rank, "activation": "relu"}) for rank in (4, 8, 16)]
    assert found == [{"rank": "low"}, {}, {"rank": "high"}]


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ({"trials": {"ful": 4}}, "tuning.trials: unknown budget 'ful'"),
        ({"trials": {"full": 1}}, "'tuning.trials.full' is 1: input should be greater than or"),
        ({"trials": 8}, "'tuning.trials' is 8: must be keys with values"),
        ({"trials": {"full": 4}, "seed": 2}, "tuning.seed is 2, one of 'seeds'"),
        ({"factor": 1}, "'tuning.factor' is 1: input should be greater than 1"),
        ({"at": ["full"]}, "unknown key 'at'"),
        ({"search": {"lroa": {}}}, "tuning.search: unknown method 'lroa'"),
        ({"search": {"lora": {"rnk": [1, 2]}}}, "tuning.search.lora: unknown option 'rnk'"),
        ({"search": {"lora": {"start": ["tapt"]}}}, "unknown option 'start'"),
        ({"search": {"lora": {"rank": [4]}}}, "there must be two or more single values"),
        ({"search": {"lora": {"rank": [4, [8]]}}}, "there must be two or more single values"),
        ({"search": {"lora": {"rank": [4, 4]}}}, "a value is there twice"),
        ({"search": {"lora": {"rank": [4, -1]}}}, "tuning.search.lora: 'rank' is -1"),
        ({"search": {"lora": {"rank": [8, 16]}}}, "the method's own value 4"),
        ({"search": {"lora": {"learning_rate": [0.01, 0.001]}}}, "low must be less than high"),
        ({"search": {"lora": {"dropout": [0.0, 0.2]}}}, "low must be above 0"),
        ({"search": {"lora": {"learning_rate": [0, 0.1]}}}, "'learning_rate' is 0"),
        ({"search": {"lora": {"learning_rate": [0.1, 0.2]}}}, "the method's own value 0.002"),
    ],
)  # fmt: skip
def test_wrong_parameters_are_refused(
    value: Any, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "tuning", value)
    assert main(["ingest", "movie", "out"]) == 2
    shown = capsys.readouterr().err
    assert problem in shown
    assert "\n  fix: " in shown


def test_minutes_are_refused_and_other_budgets_take_the_choice(tmp_path: Path) -> None:
    path = write(tmp_path, "budgets", {"full": {"minutes": 1}, "few": {"steps": 2}})
    content = path.read_text()
    path.write_text(content + "tuning: {trials: {full: 4}}\n")
    with pytest.raises(TuneTrailError, match=r"budgets\.full is a number of minutes"):
        read_params(path)
    path.write_text(content + "tuning: {trials: {few: 4}}\n")
    tuning = read_params(path).tuning
    assert [tuning.decides(budget, "full") for budget in ("full", "few")] == ["few", "few"]


def test_whose_trials_decide(tmp_path: Path) -> None:
    budgets = {name: {"steps": 1} for name in ("full", "a", "b", "c")}
    path = write(tmp_path, "budgets", budgets)
    content = path.read_text()

    def decides(trials: str) -> list[str | None]:
        path.write_text(content + f"tuning: {{trials: {trials}}}\n")
        return [read_params(path).tuning.decides(name, "full") for name in budgets]

    assert decides("{b: 2, full: 2}") == ["full", "full", "b", "full"]
    assert decides("{b: 2, a: 2}") == ["b", "a", "b", "b"]
    assert decides("{}") == [None] * 4


# Trials ------------------------------------------------------------------------------------------


def test_the_optimum_of_a_known_function_is_found(project: Callable[..., Tuned]) -> None:
    """A score that falls with the distance from 6e-3, on a logarithmic scale."""
    study = project(tuning={"trials": {"full": 20}}).study("lora")
    records: list[dict[str, Any]] = []
    for _ in range(20):
        options = dict(study._asked(records).params)
        score = 1 - abs(math.log10(options["learning_rate"] / 6e-3))
        records.append(record(study, options, [score]))
    ledger = study.ledger(records)
    rates = [r["options"]["learning_rate"] for r in records]
    assert rates[0] == 2e-3, "the method's own comes first"
    assert all(2e-4 <= rate <= 2e-2 for rate in rates)
    assert ledger["chosen"]["learning_rate"] == pytest.approx(6e-3, rel=0.15)
    assert ledger["edge"] == {}
    assert ledger["default_score"] == pytest.approx(1 - math.log10(3))
    # What TPE draws is closer to the optimum than what is drawn by chance.
    misses = [abs(math.log10(rate / 6e-3)) for rate in rates]
    assert sum(misses[10:]) < sum(misses[:10])


def test_what_is_worse_than_the_median_is_pruned(project: Callable[..., Tuned]) -> None:
    """What others had after one epoch is 0.5, 0.6 and 0.7, after two 0.6, 0.7 and 0.8."""
    study = project(tuning={"trials": {"full": 6}}).study("head")
    curves = [[0.5, 0.6, 0.9], [0.7, 0.7, 0.9], [0.6, 0.8, 0.9]]
    before = [record(study, {"learning_rate": 0.01}, scores) for scores in curves]

    def ends(*scores: float) -> str:
        tried = record(study, {}, list(scores))
        found = study._judged(tried, study._asked(before))
        return "unknown" if found is None else f"{found['state']} {len(found['selection'])}"

    assert ends(0.65, 0.69, 1.0) == "pruned 2"
    assert ends(0.65, 0.71, 1.0) == "complete 3"
    assert ends(0.5, 0.9, 1.0) == "pruned 1"
    assert ends(0.75, 0.8, 0.0) == "complete 3", "nothing is left to prune at the end"
    # As many as are needed for a median are never pruned.
    assert study._judged(record(study, {}, [0.0, 0.0]), study._asked(before[:2])) is not None
    # A trial that others stopped earlier is not known to the end.
    stopped = record(study, {}, [0.75, 0.8]) | {"state": "pruned"}
    assert study._judged(stopped, study._asked(before)) is None


def test_every_method_gets_the_same_trials_and_the_plan_their_choice(
    project: Callable[..., Tuned],
) -> None:
    case = project(tuning={"trials": {"full": 4}, "search": {"lora": {"rank": [4, 8]}}})
    ledgers = {label: case.ledger(label) for label in ("head", "lora")}
    for label, ledger in ledgers.items():
        own = method_of(case.params, label, case.path)
        assert len(ledger["trials"]) == 4
        first = ledger["trials"][0]
        assert first["options"] == {o: getattr(own, o) for o in ledger["range"]}
        assert first["score"] == ledger["default_score"]
        whole = [t for t in ledger["trials"] if t["state"] == "complete"]
        best = max(t["score"] for t in whole)
        chosen = next(t["options"] for t in whole if t["score"] == best)
        assert ledger["chosen"] == chosen
        for trial in whole:
            kept = read_json(case.data / "tuned" / label / f"full/trials/{trial['run']}.json")
            assert kept["selection"][-1] == [trial["steps"], {"accuracy": trial["score"]}]
            assert kept["spec"]["data"]["test"] is None
            assert kept["spec"]["seed"] == 0
    assert [set(ledger["range"]) for ledger in ledgers.values()] == [
        {"learning_rate"}, {"learning_rate", "rank"},
    ]  # fmt: skip
    frozen = case.frozen()
    for (label, _), options in frozen.items():
        assert options.items() >= ledgers[label]["chosen"].items()
    assert len(frozen) == 4, "the other budget takes the choice, too"
    # A trial is trained as a run of the plan is.
    trial = ledgers["head"]["trials"][1]
    file = case.data / f"tuned/head/full/trials/{trial['run']}.json"
    train(file, case.folder / "base", case.data / "fit", Path("again"))
    assert read_json(Path("again/history.json"))["kept"][1]["accuracy"] == trial["score"]
    # What is compared holds no times.
    shown = _tuning(case.data / "tuned", case.params)
    assert shown["lora"]["full"] == untimed(ledgers["lora"])
    assert "seconds" not in json.dumps(shown)
    # The report has them all the same.
    took = _tuning_cost(case.data / "tuned" / "lora", case.params)["tuning"]
    trials = ledgers["lora"]["trials"]
    assert took["trials"] == len(trials)
    assert took["seconds"] == pytest.approx(sum(trial["seconds"] for trial in trials), abs=0.01)
    untuned = case.params.model_copy(update={"tuning": Tuning()})
    assert _tuning_cost(case.data / "tuned" / "lora", untuned) == {}


def test_finished_trials_are_not_repeated(
    project: Callable[..., Tuned],
) -> None:
    steps: list[tuple[int, int]] = []
    case = project()
    first = case.ledger("head", progress=lambda step, steps_, _: steps.append((step, steps_)))
    assert steps[-1][0] <= steps[-1][1]
    assert {total for _, total in steps} == {steps[-1][1]}
    steps.clear()
    again = case.ledger("head", progress=lambda *state: steps.append(state[:2]))
    assert steps == []
    assert again == first, "seconds are those of the training"
    # A result that was cut off, or is that of another run, is none.
    kept = sorted(STATE_DIR.glob("trials/*.json"))
    kept[0].write_text("{")
    write_json(kept[1], read_json(kept[1]) | {"run": "another"})
    assert untimed(case.ledger("head")) == untimed(first)


def test_what_decides_a_trial_decides_whether_it_is_repeated(
    project: Callable[..., Tuned], monkeypatch: pytest.MonkeyPatch
) -> None:
    case = project()
    text = case.path.read_text()
    study = study_digest(*case.inputs("head"))
    runs = {trial["run"] for trial in case.ledger("head")["trials"]}

    def changed(before: str, after: str) -> tuple[bool, bool]:
        """Whether the study, and the first trial, is another one."""
        assert before in text
        case.path.write_text(text.replace(before, after))
        first = case.study("head")._frozen({}).digest
        return study_digest(*case.inputs("head")) != study, first not in runs

    assert changed("project: sentiment", "project: other") == (False, False)
    assert changed("full: 4", "full: 5") == (True, False)
    assert changed("batch_size: 16", "batch_size: 8") == (True, True)
    assert changed("epochs: 2", "epochs: 3") == (True, True)
    case.path.write_text(text)
    monkeypatch.setattr("tunetrail.stages.freezing.code_digest", lambda *_: "another")
    assert case.study("head")._frozen({}).digest not in runs


def test_a_diverged_trial_is_recorded_and_all_of_them_are_an_error(
    project: Callable[..., Tuned],
) -> None:
    wild = {"full": {"learning_rate": 1e-3}, "wild": {"method": "full", "learning_rate": 1e30}}
    case = project(
        methods=wild, baseline="full",
        tuning={"trials": {"full": 4}, "search": {"full": {"learning_rate": [1e-3, 1e30]}}},
    )  # fmt: skip
    ledger = case.ledger("full")
    states = [trial["state"] for trial in ledger["trials"]]
    assert states[0] == "complete"
    assert "failed" in states
    for trial in ledger["trials"]:
        assert (trial["score"] is None) == (trial["state"] == "failed")
    assert not list(STATE_DIR.glob("checkpoints/*"))
    with pytest.raises(TuneTrailError, match="all 4 trials of 'wild' on task 'own' diverged"):
        case.ledger("wild")


def test_a_value_that_the_base_model_cannot_hold_is_refused_before_any_trial(
    project: Callable[..., Tuned],
) -> None:
    case = project(tuning={"trials": {"full": 2}, "search": {"lora": {"rank": [8, 33]}}})
    with pytest.raises(TuneTrailError, match="rank is 33, larger than the hidden size 32"):
        case.ledger("lora")
    assert not (STATE_DIR / "trials").exists()


def test_killed_at_any_time_it_ends_with_the_same_trials(project: Callable[..., Tuned]) -> None:
    case = project(tuning={"trials": {"full": 4}}, budgets={"full": {"epochs": 4}})
    case.ledger("lora")
    whole = case.data / "tuned" / "lora" / "full"
    kept = case.folder / "kept"
    (case.folder / STATE_DIR).rename(kept)
    out = case.folder / "out"
    _, path, label, budget, *inputs = case.inputs("lora")
    command = [BIN / "tunetrail", "tune", label, budget, *inputs, out, "--params", path]
    code = f"{ROOT / 'src'}{os.pathsep}{ROOT}"
    environment = os.environ | {"PYTHONPATH": code, "TUNETRAIL_CHECKPOINT_SECONDS": "0"}
    done: dict[Path, int] = {}
    for count in (1, 2):
        running = subprocess.Popen(command, cwd=case.folder, env=environment)
        while len(list(STATE_DIR.glob("trials/*.json"))) < count:
            assert running.poll() is None, "it ended before it could be killed"
            time.sleep(0.005)
        running.send_signal(signal.SIGKILL)
        running.wait()
        assert not out.exists()
        assert {f: f.stat().st_mtime_ns for f in done} == done
        done = {f: f.stat().st_mtime_ns for f in STATE_DIR.glob("trials/*.json")}
    subprocess.run(command, cwd=case.folder, env=environment, check=True)
    assert {f: f.stat().st_mtime_ns for f in done} == done, "no finished trial was repeated"
    ledgers = [untimed(read_json(folder / "ledger.json")) for folder in (whole, out)]
    assert ledgers[0] == ledgers[1]
    names = [sorted(f.name for f in (folder / "trials").iterdir()) for folder in (whole, out)]
    assert names[0] == names[1]
    for name in names[0]:
        assert (whole / "trials" / name).read_bytes() == (out / "trials" / name).read_bytes()


# Without tuning ----------------------------------------------------------------------------------


def test_without_tuning_there_are_no_cells_and_the_plan_is_that_of_the_methods(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plain").mkdir()
    (tmp_path / "empty").mkdir()
    plans = [Case(tmp_path / "plain").plan(), Case(tmp_path / "empty", tuning={}).plan()]
    assert plans[0] == plans[1]
    files = [
        {p.relative_to(folder): p.read_bytes() for p in (folder / "plan").rglob("*.json")}
        for folder in (tmp_path / "plain", tmp_path / "empty")
    ]
    assert files[0] == files[1]
    project = new_project(tmp_path / "project")
    monkeypatch.chdir(project.root)
    cells = Dag(project.root).cells
    assert [name for name in cells if name.startswith("tune@")] == []
    assert "--tuned ''" in cells["resolve@own"].command


def test_tuning_comes_after_pretraining_and_before_the_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = new_project(tmp_path / "project")
    monkeypatch.chdir(project.root)
    how = {"budget": {"steps": 5}}
    project.change(tuning={"trials": {"few": 3}}, pretraining={"task": {"base": how}})
    cells = Dag(project.root).cells
    tunings = [name for name in cells if name.startswith("tune@")]
    assert sorted(tunings) == [
        f"tune@{task}-{method}-few" for task in ("movie", "own") for method in ("head", "lora")
    ]
    cell = cells["tune@own-lora-few"]
    assert cell.upstream == {"base", "prepare@own", "tapt@own-base"}
    assert not any("test" in path or "canonical" in path for path in cell.inputs)
    assert {name for name in cells["resolve@own"].upstream if name.startswith("tune@")} == {
        "tune@own-head-few", "tune@own-lora-few",
    }  # fmt: skip
    # Nothing else would tell DVC that a budget is tuned no longer.
    for stage_ in ("resolve@own", "compare"):
        assert "--tuned '--few 3'" in cells[stage_].command


def test_spaces_of_all_methods_hold_their_defaults(tmp_path: Path) -> None:
    labels = {n: {} for n in methods.names() if n not in ("union", "peft_adapter")}
    params: Params = read_params(write(tmp_path, "methods", labels | {"full": {}}))
    for label in params.methods:
        space = search_space(params, label, tmp_path)
        assert space["learning_rate"].holds(method_of(params, label, tmp_path).learning_rate)


# What is foreseen --------------------------------------------------------------------------------


def tuning_cell(label: str) -> Cell:
    out = f"prepared/tuned/{label}/full"
    command = f"tunetrail tune {label} full base prepared/fit prepared/tapt {out}"
    return Cell(f"tune@own-{label}-full", command, frozenset(), False, (), (out,))


def test_only_trials_that_differ_are_foreseen_and_only_runs_that_they_decide(
    project: Callable[..., Tuned],
) -> None:
    case = project(tuning={"trials": {"full": 2}})
    text = case.path.read_text()
    cells = {label: tuning_cell(label) for label in ("head", "lora")}
    assert staleness._tunes_anew(cells["head"], False), "it was never tuned"
    for label in cells:
        case.ledger(label)
    case.frozen()

    def anew(before: str, after: str, unsettled: bool = False) -> list[str]:
        assert before in text
        case.path.write_text(text.replace(before, after))
        return [label for label, cell in cells.items() if staleness._tunes_anew(cell, unsettled)]

    assert anew("head: {}", "head: {}") == []
    assert anew("head: {}", "head: {learning_rate: 0.02}") == ["head"]
    assert anew("full: 2", "full: 3") == ["head", "lora"]
    assert anew("batch_size: 16", "batch_size: 8") == ["head", "lora"]
    # Neither starts from a checkpoint that may change.
    assert anew("head: {}", "head: {}", unsettled=True) == []

    command = "tunetrail resolve canonical base prepared plan --tuned '--full 2'"
    plan = Cell("resolve@own", command, frozenset(), False, (), ("plan",))
    assert staleness._retuned(plan, cells["head"], []) == {}
    found = staleness._retuned(plan, cells["head"], ["why"])
    runs = {f"head/{budget}/{seed}.json" for budget in ("full", "short") for seed in (1, 2, 3)}
    assert found == {f"plan/{run}": ["why"] for run in runs | {"head.json"}}
    # A budget with trials of its own does not follow the main one.
    case.path.write_text(text.replace("full: 2", "full: 2\n    short: 2"))
    found = staleness._retuned(plan, cells["head"], ["why"])
    assert found.keys() == {f"plan/head/full/{seed}.json" for seed in (1, 2, 3)} | {
        "plan/head.json"
    }

    # The plan is resolved with the choices that are there, and the options of a method that is new.
    case.path.write_text(text.replace("head: {}", "head: {}\n  bitfit: {}"))
    cells["bitfit"] = tuning_cell("bitfit")
    found = staleness._foresee(plan, execute, list(cells.values()))
    assert {path.split("/")[1].removesuffix(".json") for path in found} == {"bitfit"}
    assert found["plan/bitfit/full/1.json"] == ["bitfit/full/1 is new"]


# MLflow ------------------------------------------------------------------------------------------


def test_trials_are_runs_in_mlflow_below_their_tuning(
    project: Callable[..., Tuned], monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    from tunetrail.stages.register import FORMAT
    from tunetrail.tracking.sync import bring_up_to_date

    case = project()
    (case.folder / "data").mkdir()
    (case.folder / "data" / "prepared").mkdir()
    ledger = case.ledger("lora")
    (case.folder / "data" / "prepared" / "own").symlink_to(case.data)
    uri = f"sqlite:///{case.folder / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    receipt = {
        "format": FORMAT, "project": "toy", "comparison": "", "runs": [], "groups": [],
        "models": [], "refused": [],
        "tuned": [{"task": "own", "label": "lora", "budget": "full"}],
    }  # fmt: skip
    write_json(Path("receipt.json"), receipt)
    first, again = (bring_up_to_date(Path("receipt.json")) for _ in range(2))
    assert (first["runs_created"], first["runs_present"]) == (5, 0)
    assert (again["runs_created"], again["runs_present"]) == (0, 5)
    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name("toy").experiment_id
    runs = {
        r.data.tags["tunetrail.run"]: r
        for r in client.search_runs([experiment], "tags.stage = 'tuning' and tags.method = 'lora'")
    }
    above = runs.pop(ledger["study"])
    rate = ledger["chosen"]["learning_rate"]
    assert float(above.data.params["learning_rate"]) == rate
    assert runs.keys() == {trial["run"] for trial in ledger["trials"]}
    for trial in ledger["trials"]:
        run = runs[trial["run"]]
        assert run.data.tags["mlflow.parentRunId"] == above.info.run_id
        assert run.data.tags["state"] == trial["state"]
        assert float(run.data.params["learning_rate"]) == trial["options"]["learning_rate"]
        assert run.data.metrics["selection/accuracy"] == trial["score"]


# The flow ----------------------------------------------------------------------------------------


@pytest.mark.pipeline
def test_a_choice_reaches_exactly_the_runs_that_it_decides(
    small_run: Project, tmp_path: Path
) -> None:
    project = small_run.copy(tmp_path / "project")
    before = project.json("comparison/comparison.json")
    assert before["tasks"]["own"]["tuning"] == {}
    project.change(tuning={"trials": {"few": 3}})
    first = project.run()
    assert [n for n in first["executed"] if n.startswith("tune@")] == [
        "tune@own-head-few", "tune@own-lora-few",
    ]  # fmt: skip
    task = project.json("comparison/comparison.json")["tasks"]["own"]
    moved = set()
    for label, method in task["methods"].items():
        ledger = task["tuning"][label]["few"]
        chosen = ledger["chosen"]["learning_rate"]
        assert method["options"]["learning_rate"] == chosen
        if chosen != ledger["trials"][0]["options"]["learning_rate"]:
            moved.add(f"train@own-{label}-few-1")
    assert moved, "no choice moved: nothing is shown by this test"
    assert {n for n in first["executed"] if n.startswith("train@")} == moved
    again = project.run()
    assert again["executed"] == again["restored"] == []

    # Only what the change decides is foreseen.
    kept = project.params["methods"]
    project.change(methods={**kept, "head": {"learning_rate": 0.02}})
    planned = json.loads(project.command("tunetrail", "plan", "--json").stdout)
    stale = {run["method"]: run["stale"] for run in planned["runs"]}
    assert stale["lora"] == []
    assert stale["head"] != []
    project.change(methods=kept)

    content = project.params
    del content["tuning"]
    (project.root / "params.yaml").write_text(yaml.safe_dump(content))
    back = project.run()
    assert moved <= set(back["restored"]), "the runs of before come from the run cache"
    assert project.json("comparison/comparison.json")["tasks"] == before["tasks"]
