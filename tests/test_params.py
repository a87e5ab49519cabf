"""params.yaml: whatever is wrong, the command says what and where, and exits 2."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tunetrail.cli import main
from tunetrail.params import RequestedNumerics, method_name, method_of, read_params, task_of

GOOD: dict[str, Any] = {
    "project": "toy",
    "base": {"source": "base"},
    "tasks": {"movie": {"source": "data.csv"}},
    "methods": {"full": {}, "lora": {"rank": 4}, "wide": {"method": "lora", "rank": 16}},
    "baseline": "full",
    "margin": 0.01,
    "seeds": [1, 2],
    "budgets": {"full": {"epochs": 1}},
    "main_budget": "full",
    "training": {},
    "numerics": {},
    "cost": {},
    "export": {},
}
COMMAND = Path(sys.executable).with_name("tunetrail")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder: Path, key: str = "", value: Any = None) -> Path:
    """Write the good parameters with one value replaced, ``a/b`` being key b of a."""
    content = copy.deepcopy(GOOD)
    place = content
    *way, last = key.split("/")
    for part in way:
        place = place.setdefault(part, {})
    if key:
        place[last] = value
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def complaint(capsys: pytest.CaptureFixture[str]) -> str:
    """What the quickest command that reads the parameters prints; it must exit 2."""
    assert main(["ingest", "movie", "out"]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("error: ")
    assert "\n  fix: " in shown.err
    return shown.err


NUMBER = {"source": "x.csv", "columns": {"text": "t", "label": "l"}, "range": [0, 1]}
OWN = {"source": "x.csv", "columns": {"text": "t", "label": "l"}, "labels": ["a", "b"]}


def test_good_parameters_are_read_with_every_default(folder: Path) -> None:
    path = write(folder)
    params = read_params(path)
    assert params.training.batch_size == 16
    assert params.base.max_length == 128
    assert params.seeds == (1, 2)
    assert task_of(params, "movie", path).labels == ("negative", "neutral", "positive")
    assert method_of(params, "wide", path).rank == 16
    assert [method_name(params, label) for label in params.methods] == ["full", "lora", "lora"]


@pytest.mark.parametrize("key", ["text", "labels"])
def test_task_override_replaces_the_built_in_key(key: str, folder: Path) -> None:
    changes = {"text": {"title": "Mine"}, "labels": {"labels": ["a", "b"], "bins": [0]}}[key]
    path = write(folder, "tasks/movie", {"source": "data.csv", **changes})
    task = task_of(read_params(path), "movie", path)
    assert (task.title == "Mine") == (key == "text")
    assert (task.labels == ("a", "b")) == (key == "labels")
    assert task.columns.label == "rating"  # untouched


def test_labels_may_be_numbers_in_yaml(folder: Path) -> None:
    path = write(folder, "tasks/own", {**OWN, "labels": [1, 2.5, "three"]})
    assert task_of(read_params(path), "own", path).labels == ("1", "2.5", "three")


UNKNOWN = [
    ("sedes", [1], "unknown key 'sedes'", "seeds"),
    ("training/batchsize", 8, "unknown key 'batchsize'", "batch_size"),
    ("base/poolng", "cls", "unknown key 'poolng'", "pooling"),
    ("numerics/thread", 1, "unknown key 'thread'", "threads"),
    ("methods/lra", {}, "methods.lra: unknown method 'lra'", "lora"),
    ("methods/big", {"method": "huolsby"}, "methods.big: unknown method 'huolsby'", "houlsby"),
    ("methods/lora/rnk", 8, "methods.lora: unknown key 'rnk'", "rank"),
    ("tasks/moovie", {"source": "x"}, "tasks.moovie: unknown task 'moovie'", "movie"),
    ("tasks/movie/colums", {}, "tasks.movie: unknown key 'colums'", "columns"),
    ("tasks/movie/limits", {"trian": 9}, "tasks.movie.limits: unknown key 'trian'", "train"),
    ("tasks/movie/checks", {"blnk": 1}, "tasks.movie.checks: unknown key 'blnk'", "blank"),
    ("tasks/movie/metrics", ["acuracy"], "tasks.movie: unknown metric 'acuracy'", "accuracy"),
    ("tasks/movie/waive", {"lenght": "x"}, "unknown check 'lenght'", "length"),
    ("limits", {"latency": 5}, "limits: unknown key 'latency'", "latency_ms"),
    ("runner", {"kind": "ray", "gpu": 1}, "runner: unknown key 'gpu'", "gpus"),
    ("baseline", "ful", "unknown baseline 'ful'", "full"),
]


@pytest.mark.parametrize(("key", "value", "problem", "nearest"), UNKNOWN, ids=lambda v: str(v)[:30])
def test_unknown_name_suggests_the_nearest(
    key: str,
    value: Any,
    problem: str,
    nearest: str,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write(folder, key, value)
    shown = complaint(capsys)
    assert shown.startswith("error: params.yaml")
    *parents, _ = key.split("/")
    assert ".".join(parents) in shown.splitlines()[0]
    assert problem in shown
    assert f"did you mean '{nearest}'? valid: " in shown


def test_unknown_nested_key_is_placed_below_its_parent(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(folder, "training/batchsize", 8)
    assert complaint(capsys).startswith("error: params.yaml: training: unknown key 'batchsize'\n")


REFUSED = [
    # wrong type
    ("project", 3, "'project' is 3: must be a text"),
    ("seeds", 3, "'seeds' is 3: must be a list"),
    ("seeds", [1, "two"], "'seeds.1' is 'two': must be a whole number"),
    ("training", None, "'training' is None: must be keys with values"),
    ("training/batch_size", "big", "'training.batch_size' is 'big': must be a whole number"),
    ("methods/lora", None, "'methods.lora' is None: must be keys with values"),
    ("methods/lora", {"method": 3}, "methods.lora: 'method' is 3, not a name"),
    ("methods/lora/rank", "big", "methods.lora: 'rank' is 'big': must be a whole number"),
    ("tasks/movie/labels", "neg", "tasks.movie: 'labels' is 'neg': must be a list"),
    ("seeds", [True], "'seeds' is [True]: true and false are not valid here"),
    ("training/batch_size", True, "'training.batch_size' is True: true and false are not valid"),
    ("tasks/own", {**OWN, "labels": [True, False]}, "'labels' is [True, False]: true and false"),
    ("runner", {"kind": "slurm"}, "'runner.kind' is 'slurm': input should be 'local' or 'ray'"),
    ("runner", {"cpus": 2}, "'cpus' is only for `kind: ray`"),
    ("runner", {"kind": "ray", "address": "host"}, "give 'auto', 'host:port' or 'ray://host:port'"),
    ("runner", {"kind": "ray", "gpus": 1.5}, "more than one GPU must be a whole number"),
    # out of range
    ("runner", {"kind": "ray", "cpus": 0}, "'runner.cpus' is 0: input should be greater than 0"),
    ("budgets/full/fraction", 0, "'budgets.full.fraction' is 0: input should be greater than 0"),
    ("budgets/full/fraction", 1.5, "'budgets.full.fraction' is 1.5: input should be less than or"),
    ("budgets/full/fraction", float("nan"), "'budgets.full.fraction' is nan: "),
    ("budgets/full/shots", 0, "'budgets.full.shots' is 0: input should be greater than or equal"),
    ("budgets/full/patience", 0, "'budgets.full.patience' is 0: input should be greater than or"),
    ("base/max_length", 3, "'base.max_length' is 3: input should be greater than or equal to 4"),
    ("margin", 0, "'margin' is 0: input should be greater than 0"),
    ("margin", 1, "'margin' is 1: input should be less than 1"),
    ("limits", {"latency_ms": 0}, "'limits.latency_ms' is 0: input should be greater than 0"),
    ("base/pooling", "max", "'base.pooling' is 'max': input should be 'mean', 'cls' or 'last'"),
    (
        "numerics/precision",
        "fp16",
        "'numerics.precision' is 'fp16': input should be 'auto', 'bf16'",
    ),
    ("budgets/full/epochs", 0, "'budgets.full.epochs' is 0: input should be greater than or equ"),
    ("budgets", {"x": {"minutes": 0}}, "'budgets.x.minutes' is 0: input should be greater than"),
    ("training/warmup", 1, "'training.warmup' is 1: input should be less than 1"),
    ("training/clip", float("inf"), "'training.clip' is inf: input should be a finite number"),
    ("export/tolerance", 0, "'export.tolerance' is 0: input should be greater than 0"),
    ("cost/steps", 0, "'cost.steps' is 0: input should be greater than or equal to 1"),
    ("methods/lora/rank", 0, "methods.lora: 'rank' is 0: input should be greater than or equal"),
    (
        "methods/lora/dropout",
        1,
        "methods.lora: 'dropout' is 1: input should be less than or equal to 0.9",
    ),
    (
        "methods/lora/sites",
        ["quary"],
        "methods.lora: 'sites.0' is 'quary': input should be 'query'",
    ),
    (
        "methods/full/learning_rate",
        float("inf"),
        "methods.full: 'learning_rate' is inf: input should be a finite number",
    ),
    ("tasks/movie/checks", {"blank": 2}, "tasks.movie: 'checks.blank' is 2: input should be less"),
    ("tasks/movie/checks", {"length_bounds": [5, 1]}, "tasks.movie: 'checks.length_bounds'"),
    ("tasks/movie/limits", {"train": 1}, "tasks.movie: 'limits.train' is 1: input should be gr"),
    # rules between values
    ("budgets", {"x": {"epochs": 1, "steps": 5}}, "exactly one of 'epochs', 'steps' and 'minutes'"),
    ("budgets", {"x": {}}, "'budgets.x' is {}: give exactly one of 'epochs', 'steps' and 'min"),
    ("budgets", {"x": {"epochs": 1, "shots": 2, "fraction": 0.5}}, "either 'shots' or 'fraction'"),
    ("main_budget", "ful", "unknown main_budget 'ful'\n  fix: did you mean 'full'?"),
    ("tasks/movie/range", [4, -4], "tasks.movie: 'range' is [4, -4]: must be ascending"),
    ("tasks/own", {**OWN, "range": [0, 1]}, "give either 'labels' (classes) or 'range' (a number)"),
    (
        "tasks/own",
        {"source": "x.csv", "columns": OWN["columns"]},
        "give either 'labels' (classes) or 'range' (a number)",
    ),
    ("tasks/own", {**NUMBER, "bins": [0.5]}, "'bins' make classes: give 'labels' with them"),
    (
        "tasks/own",
        {**NUMBER, "metrics": ["accuracy"]},
        "metric 'accuracy' scores classes, the task predicts a number\n  fix: use one of pearson",
    ),
    (
        "tasks/own",
        {**OWN, "metrics": ["pearson"]},
        "metric 'pearson' scores a number, the task predicts classes\n  fix: use one of accuracy",
    ),
    ("tasks/own", {"task": "moovie", "source": "x"}, "unknown task 'moovie'\n  fix: did you mean"),
    (
        "tasks/own",
        {"source": "x.csv", "labels": ["a", "b"]},
        "tasks.own: 'columns' is missing\n  fix: add it: `columns: {text: …, label: …}`",
    ),
    ("tasks/own", {"source": "x.csv"}, "; a task of your own needs 'columns'"),
    (
        "tasks/own",
        {**OWN, "columns": {"question": "t", "label": "l"}},
        "tasks.own.columns: unknown key 'question'\n  fix: valid: domain, group, id, label, text",
    ),
    ("tasks/own", {**OWN, "columns": ["t", "l"]}, "must be keys with values, {key: value}"),
    ("tasks/own", {**OWN, "metrics": "accuracy"}, "'metrics' is 'accuracy': must be a list, [a,"),
    ("tasks/own", {**OWN, "labels": [True, False]}, "true and false are not valid here (quote it"),
    (
        "tasks/own",
        {**OWN, "answers": {}},
        "tasks.own: give either 'labels' (classes) or 'range' (a number) or 'answers' (spans of "
        "the second text; {} for the usual options)\n  fix: change 'tasks.own'",
    ),
    ("seeds", [1, 2, 1], "'seeds' is [1, 2, 1]: seeds must be different from each other"),
    ("seeds", [0, -1], "'seeds' is [0, -1]: seeds must not be negative"),
    ("tasks/movie/labels", ["a", "b"], "2 labels need 1 'bins'"),
    ("tasks/movie/labels", ["a", "a", "b"], "'labels' must be different from each other"),
    ("tasks/movie/bins", [1, -1], "'bins' must be ascending"),
    ("tasks/movie/metrics", ["f1"], "'f1'"),  # F1 of class 1 is for two classes
    ("numerics", {"processes": 0}, "'numerics.processes' is 0: input should be greater than or"),
    ("numerics", {"sharding": "fsd"}, "'numerics.sharding' is 'fsd': input should be 'none' or"),
    (
        "numerics",
        {"sharding": "fsdp"},
        "numerics.sharding is fsdp, which divides weights among processes, and numerics.processes "
        "is 1\n  fix: raise numerics.processes",
    ),
    (
        "numerics",
        {"processes": 17},
        "numerics.processes is 17, and the batch_size of training is 16: each process takes its "
        "share of every batch\n  fix: lower processes to 16 or less, or raise batch_size",
    ),
    # nothing there
    ("seeds", [], "'seeds' is []: tuple should have at least 1 item"),
    ("tasks", {}, "'tasks' is {}: dictionary should have at least 1 item"),
    ("methods", {}, "'methods' is {}: dictionary should have at least 1 item"),
    ("tasks/movie", {}, "tasks.movie: 'source' is missing\n  fix: add the key 'source'"),
    ("tasks/own", {**OWN, "columns": {"text": "t"}}, "tasks.own: 'columns.label' is missing"),
    (
        "tasks/own",
        {**OWN, "labels": ["a"]},
        "tasks.own: 'labels' is ['a']: give at least two class",
    ),
    # names that become folders
    ("project", "my project", "'project' is 'my project': use letters, digits, '_', '-' and '.'"),
    ("project", "../up", "'project' is '../up': use letters"),
    ("tasks/my-own", OWN, "'my-own' names a folder: use letters, digits and '_'"),
    ("tasks/..", OWN, "'..' names a folder: use letters, digits and '_'"),
    ("methods/lo ra", {"method": "lora"}, "'lo ra' names a folder: use letters, digits and '_'"),
    ("methods/_x", {"method": "lora"}, "'_x' names a folder: use letters, digits and '_'"),
]


@pytest.mark.parametrize(("key", "value", "message"), REFUSED, ids=lambda value: str(value)[:30])
def test_value_that_breaks_a_rule_is_shown_with_the_rule(
    key: str, value: Any, message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(folder, key, value)
    shown = complaint(capsys)
    assert shown.startswith("error: params.yaml: ")
    assert message in shown


@pytest.mark.parametrize("key", sorted(GOOD))
def test_missing_key_is_named(key: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "params.yaml").write_text(yaml.safe_dump({k: GOOD[k] for k in GOOD if k != key}))
    shown = ", such as `margin: 0.01`" if key == "margin" else ""
    fix = f"add the key '{key}'{shown}"
    expected = f"error: params.yaml: '{key}' is missing\n  fix: {fix}\n"
    assert complaint(capsys) == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"seeds: [1", "params.yaml is not valid YAML: while parsing a flow sequence"),
        (b"a: b: c", "params.yaml is not valid YAML: mapping values are not allowed here"),
        (b"project: \xff", "params.yaml is not valid YAML: 'utf-8' codec can't decode"),
        (b"seeds: [1]\nseeds: [2]\n", "the key 'seeds' is there twice"),
        (b"- 1\n- 2\n", "params.yaml must be a mapping of keys to values"),
        (b"", "params.yaml must be a mapping of keys to values"),
    ],
)
def test_file_that_is_not_a_mapping_is_refused(
    content: bytes, message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "params.yaml").write_bytes(content)
    assert message in complaint(capsys)


def test_a_folder_is_no_parameter_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "params.yaml").unlink(missing_ok=True)
    (folder / "params.yaml").mkdir()
    assert "params.yaml cannot be read: Is a directory" in complaint(capsys)


def test_shots_are_refused_where_a_number_is_predicted(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(folder, "budgets", {"full": {"epochs": 1, "shots": 4}})
    read_params(folder / "params.yaml")
    content = copy.deepcopy(GOOD) | {"budgets": {"full": {"epochs": 1, "shots": 4}}}
    content["tasks"]["own"] = NUMBER
    (folder / "params.yaml").write_text(yaml.safe_dump(content))
    assert "budgets.full: shots are rows of each class, but task 'own' predicts a number" in (
        complaint(capsys)
    )


def test_a_built_in_task_can_be_had_twice_once_as_a_number(folder: Path) -> None:
    write(folder, "tasks/score", {"task": "movie", "source": "x", "range": [-4, 4]})
    params = read_params(folder / "params.yaml")
    score, movie = (task_of(params, name, folder) for name in ("score", "movie"))
    assert (score.labels, score.range, score.bins) == ((), (-4.0, 4.0), None)
    assert score.metrics == ("pearson", "spearman")
    assert score.columns == movie.columns
    assert len(movie.labels) == 3


def test_missing_file_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "params.yaml does not exist" in complaint(capsys)
    assert main(["ingest", "movie", "out", "--params", "other.yaml"]) == 2
    assert "other.yaml does not exist" in capsys.readouterr().err


def test_task_that_the_plan_does_not_have_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(folder)
    assert main(["ingest", "movi", "out"]) == 2
    shown = capsys.readouterr().err
    assert "params.yaml: unknown task 'movi'" in shown
    assert "did you mean 'movie'? valid: movie" in shown


def test_nothing_is_written_when_the_parameters_are_bad(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(folder, "seeds", [1, 1])
    complaint(capsys)
    assert [path.name for path in folder.iterdir()] == ["params.yaml"]


@pytest.mark.parametrize(
    ("arguments", "key", "value", "message"),
    [
        (["ingest", "movie", "out"], "sedes", [1], "unknown key 'sedes'"),
        (["resolve", "c", "b", "p", "out"], "methods/lra", {}, "unknown method 'lra'"),
    ],
)
def test_installed_command_exits_2_without_a_traceback(
    arguments: list[str], key: str, value: Any, message: str, tmp_path: Path
) -> None:
    write(tmp_path, key, value)
    done = subprocess.run(
        [COMMAND, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: params.yaml")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


SHARED = [
    (
        {"budgets": {"full": {"minutes": 2}}},
        {},
        "budgets.full has 2 minutes, which the 2 processes of a training would count each by its "
        "own clock\n  fix: give epochs or steps, or set numerics.processes to 1",
    ),
    (
        {"pretraining": {"task": {"base": {"budget": {"minutes": 1}}}}},
        {},
        "the pretraining 'tapt' has 1 minutes, which the 2 processes of a training would count",
    ),
    (
        {
            "pretraining": {
                "task": {"base": {"budget": {"steps": 1}, "training": {"batch_size": 1}}}
            }
        },
        {},
        "numerics.processes is 2, and the batch_size of the pretraining 'tapt' is 1: each process",
    ),
    (
        {"pretraining": {"task": {"base": {"budget": {"steps": 1}}}}},
        {"sharding": "fsdp"},
        "numerics.sharding is fsdp, and the pretraining 'tapt' cannot be sharded\n  fix: set shard",
    ),
    (
        {"methods": {"full": {}, "dora": {"method": "peft_adapter"}}},
        {"sharding": "fsdp"},
        "numerics.sharding is fsdp, and methods.dora cannot be sharded: layers of peft may share "
        "or move whole tensors\n  fix: set sharding to none, or leave out 'dora'",
    ),
    (
        {"methods": {"full": {}, "dsee": {"prune": 0.1}}},
        {"sharding": "fsdp"},
        "methods.dsee cannot be sharded: it prunes by comparing whole weights",
    ),
    (
        {
            "methods": {
                "full": {},
                "union": {"parts": [{"method": "peft_adapter"}, {"method": "bitfit"}]},
            }
        },
        {"sharding": "fsdp"},
        "methods.union cannot be sharded: peft_adapter: layers of peft may share",
    ),
]


@pytest.mark.parametrize(("changes", "numerics", "message"), SHARED)
def test_what_several_processes_cannot_share_is_refused(
    changes: dict[str, Any],
    numerics: dict[str, Any],
    message: str,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    content = copy.deepcopy(GOOD) | changes
    (folder / "params.yaml").write_text(yaml.safe_dump(content))
    read_params(folder / "params.yaml")  # one process can
    content["numerics"] = {"processes": 2, **numerics}
    (folder / "params.yaml").write_text(yaml.safe_dump(content))
    assert message in complaint(capsys)


def test_as_many_runs_side_by_side_as_there_are_cores_for_their_processes_and_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 12)
    wanted = [(1, 1, 12), (2, 1, 6), (2, 2, 3), (3, 4, 1), (5, 1, 2), (8, 4, 1)]
    found = [(t, p, RequestedNumerics(threads=t, processes=p).width) for t, p, _ in wanted]
    assert found == wanted
