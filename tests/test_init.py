"""tunetrail init: what a file says itself is not asked, and what it does not say is not guessed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from tests.conftest import ROOT, SHARED_DATA, Project, prefect_api
from tunetrail.cli import main
from tunetrail.init.project import write_project
from tunetrail.init.proposal import propose
from tunetrail.init.reading import read_table
from tunetrail.init.roles import assign
from tunetrail.params import read_params, task_of
from tunetrail.place import PIPELINE
from tunetrail.splits import GATE, assign_sets

QUEUES = ("billing", "bug", "other")


def tickets(rows: int = 60) -> pd.DataFrame:
    """Messages of customers, each with a queue."""
    generator = np.random.default_rng(0)
    words = ["invoice", "refund", "crash", "login", "printer", "window", "update", "price", "late"]
    return pd.DataFrame(
        {
            "ticket_id": [f"T{number}" for number in range(rows)],
            "customer": [f"c{number % 25}" for number in range(rows)],
            "message": [
                f"Hello, {' '.join(generator.choice(words, 8))}; number {number}, please"
                for number in range(rows)
            ],
            "queue": [QUEUES[number % 3] for number in range(rows)],
            "created": [f"2026-01-{1 + number % 28:02d}" for number in range(rows)],
        }
    )


def run(*arguments: str) -> int:
    """Exit code of a command; click leaves by SystemExit, TuneTrail returns."""
    try:
        return main(arguments)
    except SystemExit as leaving:
        return int(leaving.code or 0)


@pytest.fixture
def made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Writes a file, makes a project of it with options, and returns what was said as JSON."""

    def make(data: Path | pd.DataFrame, *options: str, name: str = "data.csv") -> dict[str, Any]:
        if isinstance(data, pd.DataFrame):
            path = tmp_path / name
            data.to_csv(path, index=False)
            data = path
        code = run("init", str(tmp_path / "project"), "--data", str(data), "--json", *options)
        shown = capsys.readouterr()
        assert code == 0, shown.err
        return json.loads(shown.out)

    return make


def refused(capsys: pytest.CaptureFixture[str], folder: Path, data: Path, *options: str) -> str:
    """What a refusal says; nothing may have been written."""
    assert run("init", str(folder / "project"), "--data", str(data), *options) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("error: ")
    assert "\n  fix: " in shown
    assert not (folder / "project").exists()
    return shown


# Reading -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {}),
        ({"sep": ";"}, {"delimiter": ";"}),
        ({"sep": "|"}, {"delimiter": "|"}),
        ({"sep": "\t"}, {"delimiter": "\t"}),
        ({"quoting": 1}, {}),
        ({"lineterminator": "\r\n"}, {}),
        ({"encoding": "utf-8-sig"}, {}),
    ],
)
def test_delimiter_quotes_and_line_ends_are_inferred(
    options: dict[str, Any], expected: dict[str, Any], made: Any, tmp_path: Path
) -> None:
    path = tmp_path / "data.csv"
    tickets().to_csv(path, index=False, **options)
    facts = made(path)
    assert facts["format"] == expected
    assert facts["columns"]["text"] == "message"
    assert facts["rows"] == 60
    assert (tmp_path / "project/data/data.csv").read_bytes() == path.read_bytes()


def test_a_cell_may_hold_line_breaks_quotes_and_delimiters(made: Any, tmp_path: Path) -> None:
    frame = tickets()
    frame["message"] = frame["message"] + '\nsaid "yes", then\n\nleft; bye'
    facts = made(frame)
    assert facts["rows"] == 60
    assert facts["format"] == {}


def test_quotation_marks_that_quote_nothing_are_text(made: Any, tmp_path: Path) -> None:
    path = tmp_path / "data.tsv"
    lines = [f'"so{n}" he said, 5" tall\t{QUEUES[n % 3]}' for n in range(60)]
    path.write_text("text\tlabel\n" + "\n".join(lines) + "\n")
    assert made(path)["format"] == {"quoting": False, "delimiter": "\t"}


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16"])
def test_another_encoding_is_converted_and_said(encoding: str, made: Any, tmp_path: Path) -> None:
    frame = tickets()
    frame["message"] = "Grüße aus Köln, schöne Füße und große Äpfel: " + frame["message"]
    path = tmp_path / "data.csv"
    frame.to_csv(path, index=False, encoding=encoding, sep=";")
    facts = made(path)
    copy = pd.read_csv(tmp_path / "project/data/data.csv")  # commas, UTF-8
    assert copy["message"].tolist() == frame["message"].tolist()
    assert facts["encoding"] != "utf-8"
    assert facts["format"] == {"delimiter": ";"}
    assert "format" not in yaml.safe_load((tmp_path / "project/params.yaml").read_text())["tasks"]


def test_a_wrong_encoding_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "data.csv"
    tickets().assign(queue="Straße").to_csv(path, index=False, encoding="cp1252")
    shown = refused(capsys, tmp_path, path, "--encoding", "utf-8")
    assert "'data.csv' is not UTF-8" in shown
    assert "--encoding" in shown


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_other_formats(suffix: str, made: Any, tmp_path: Path) -> None:
    frame, path = tickets(), tmp_path / f"data{suffix}"
    if suffix == ".parquet":
        frame.to_parquet(path)
    else:
        frame.to_json(path, orient="records", lines=True)
    facts = made(path)
    assert facts["columns"]["label"] == "queue"
    assert (tmp_path / "project/data" / path.name).read_bytes() == path.read_bytes()


def test_a_file_without_header_gets_names(made: Any, tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    tickets()[["message", "queue"]].to_csv(path, index=False, header=False)
    facts = made(path)
    assert facts["format"] == {"names": ["column_1", "column_2"]}
    assert facts["columns"] == {
        "text": "column_1", "text_pair": None, "label": "column_2", "id": None, "group": None,
    }  # fmt: skip
    assert facts["rows"] == 60


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.xlsx", b"PK", "unknown format"),
        ("a.csv", b"", "one column only"),
        (
            "a.csv",
            b"only one column\n" * 9,
            "one column only, with ',' or ';' or tab or '|' between cells",
        ),
        ("a.csv", b"a,b\n1,2\n2,3,4\n5,6\n6,7,8,9\n", "is irregular"),
        ("a.csv", b"text,label\n\x00\x01,\x02\n", "is not a text file"),
        ("a.jsonl", b"{broken\n", "'a.jsonl' cannot be read"),
        ("a.parquet", b"nothing", "'a.parquet' cannot be read"),
    ],
)
def test_what_cannot_be_read_is_refused(
    name: str, content: bytes, problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_bytes(content)
    assert problem in refused(capsys, tmp_path, tmp_path / name)


def test_a_missing_file_and_a_folder_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "does not exist" in refused(capsys, tmp_path, tmp_path / "nothing.csv")
    (tmp_path / "folder").mkdir()
    assert "is a folder" in refused(capsys, tmp_path, tmp_path / "folder")


# Columns -----------------------------------------------------------------------------------------


def test_text_label_id_and_group_are_told_from_values_and_names(made: Any) -> None:
    assert made(tickets())["columns"] == {
        "text": "message", "text_pair": None, "label": "queue", "id": "ticket_id",
        "group": "customer",
    }  # fmt: skip


def test_two_columns_that_could_be_the_label_are_both_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "data.csv"
    frame = tickets()
    frame["priority"] = ["low", "high"] * 30
    frame.to_csv(path, index=False)
    shown = refused(capsys, tmp_path, path)
    assert "2 columns could be the label: queue (3 different: 'billing', 'bug', 'other')" in shown
    assert "priority (2 different: " in shown
    assert "--label queue" in shown
    frame.rename(columns={"queue": "final queue"}).to_csv(path, index=False)
    assert "--label 'final queue'" in refused(capsys, tmp_path, path)


def test_a_column_called_label_wins_and_an_option_wins_over_it(made: Any, tmp_path: Path) -> None:
    frame = tickets().rename(columns={"queue": "label"})
    frame["priority"] = ["low", "high"] * 30
    assert made(frame)["columns"]["label"] == "label"
    shutil.rmtree(tmp_path / "project")
    assert made(frame, "--label", "priority")["columns"]["label"] == "priority"


def test_no_label_and_no_text_are_refused_with_all_columns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "data.csv"
    frame = tickets()
    frame[["message", "ticket_id"]].to_csv(path, index=False)
    shown = refused(capsys, tmp_path, path)
    assert "no column looks like a label" in shown
    assert "message (60 different: " in shown
    assert "--label COLUMN" in shown
    frame[["queue", "customer"]].to_csv(path, index=False)
    shown = refused(capsys, tmp_path, path)
    assert "no column looks like text" in shown
    assert "--text COLUMN" in shown


def test_pairs_are_told_by_their_names_only(made: Any, tmp_path: Path) -> None:
    frame = tickets()
    frame["sentence1"], frame["sentence2"] = frame["message"], "again: " + frame["message"]
    facts = made(frame.drop(columns="message"))
    assert (facts["columns"]["text"], facts["columns"]["text_pair"]) == ("sentence1", "sentence2")

    shutil.rmtree(tmp_path / "project")
    other = frame.rename(columns={"sentence1": "subject_line"}).drop(columns="sentence2")
    facts = made(other)
    assert (facts["columns"]["text"], facts["columns"]["text_pair"]) == ("message", None)

    shutil.rmtree(tmp_path / "project")
    facts = made(other, "--text", "subject_line", "--pair", "message")
    assert facts["columns"]["text_pair"] == "message"


def test_text_without_blanks_between_words_is_text(made: Any) -> None:
    frame = tickets()
    frame["message"] = [f"打印机第{number}次不能正常工作请帮忙" for number in range(60)]
    assert made(frame)["columns"]["text"] == "message"


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--text", "mesage"), "--text: unknown column 'mesage'"),
        (("--text", "queue", "--label", "queue"), "column 'queue' is given two roles"),
        (("--task-name", "a-b"), "--task-name is 'a-b'"),
        (("--task-name", "movie"), "a task that comes with TuneTrail"),
        (("--delimiter", ",,"), "--delimiter is ',,'"),
    ],
)
def test_wrong_options_are_refused(
    options: tuple[str, ...], problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "data.csv"
    tickets().to_csv(path, index=False)
    assert problem in refused(capsys, tmp_path, path, *options)


# The proposal ------------------------------------------------------------------------------------


def test_classes_are_ordered_and_the_metric_follows_the_balance(made: Any, tmp_path: Path) -> None:
    frame = tickets()
    frame["queue"] = ["10", "9", "2"] * 20
    facts = made(frame)
    assert list(facts["labels"]) == ["2", "9", "10"]
    assert facts["metrics"] == ["accuracy", "f1_macro"]

    shutil.rmtree(tmp_path / "project")
    frame["queue"] = ["yes"] + ["no"] * 4 + ["no", "yes", "no", "no", "no"] * 11
    assert made(frame)["metrics"] == ["f1_macro", "accuracy"]


def test_rows_without_text_or_label_are_left_out_and_said(made: Any, tmp_path: Path) -> None:
    frame = tickets()
    frame.loc[3, "queue"] = ""
    frame.loc[4, "message"] = "  "
    facts = made(frame)
    assert (facts["rows"], facts["left_out"]) == (58, 2)
    assert facts["warnings"] == ["2 rows without text or label are left out of the project's copy"]
    assert len(pd.read_csv(tmp_path / "project/data/data.csv")) == 58
    assert facts["checks_failed"] is None


def test_rare_classes_and_two_spellings_of_one_are_warnings(made: Any) -> None:
    frame = tickets()
    frame.loc[:2, "queue"] = ["Bug", "Bug", "legal"]
    rare, spelled = made(frame, "--label", "queue")["warnings"]
    assert rare.startswith("fewer than 10 rows each: Bug, legal; ")
    assert "the classes 'Bug', 'bug' differ in case or blanks only" in spelled


def test_limits_shrink_with_the_length_of_the_texts(made: Any, tmp_path: Path) -> None:
    short = tickets(3000)
    few = made(short)["limits"]
    shutil.rmtree(tmp_path / "project")
    long = short.assign(message=short["message"] * 12)
    facts = made(long)
    assert 200 <= facts["limits"]["train"] < few["train"] <= 1000
    assert facts["max_length"] == 256


def test_a_column_of_single_values_is_no_class_even_if_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "data.csv"
    tickets().to_csv(path, index=False)
    shown = refused(capsys, tmp_path, path, "--label", "ticket_id")
    assert "column 'ticket_id' has 60 different values in 60 rows: too many" in shown


@pytest.mark.parametrize(
    ("rows", "share", "kept"),
    [(4999, 0.0, 0), (5000, 0.2, 1000), (20_000, 0.15, 3000)],
)
def test_a_gate_is_proposed_where_its_rows_can_decide(
    rows: int, share: float, kept: int, tmp_path: Path
) -> None:
    path, root = tmp_path / "data.csv", tmp_path / "project"
    tickets(rows).to_csv(path, index=False)
    table = read_table(path, None, None, None)
    proposal = propose(table, assign(table.rows, {}), None)
    assert (proposal.gate, proposal.gate_rows) == (share, kept)
    write_project(root, proposal)
    text = (root / "params.yaml").read_text()
    assert ("retrained model replaces the one that serves" in text) == (share > 0)
    task = task_of(read_params(root / "params.yaml"), "data", root / "params.yaml")
    assert task.split.gate == share
    frame = pd.DataFrame({"split": None, "group": [f"T{n}" for n in range(rows)]}, dtype=object)
    drawn = assign_sets(frame, task).value_counts()
    assert drawn.get(GATE, 0) == pytest.approx(kept, rel=0.1)
    assert proposal.limits["train"] < drawn["train"]


@pytest.mark.parametrize(
    ("rows", "said"), [(60, "gate     none: 1,000 rows"), (5000, "gate     20%")]
)
def test_the_gate_is_shown_with_its_reason(
    rows: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "data.csv"
    tickets(rows).to_csv(path, index=False)
    assert run("init", str(tmp_path / "project"), "--data", str(path)) == 0
    assert said in capsys.readouterr().out


def test_small_data_has_no_limits(made: Any) -> None:
    assert made(tickets())["limits"] == {}


def test_the_name_of_a_built_in_task_is_not_taken(made: Any) -> None:
    assert made(tickets(), name="tweets.csv")["task"] == "tweets_own"


def test_data_that_fails_the_gate_is_said_with_the_way_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "data.csv"
    frame = tickets()
    frame.loc[20:40, ["message", "queue"]] = ["the very same message again", "bug"]
    frame.to_csv(path, index=False)
    assert run("init", str(tmp_path / "project"), "--data", str(path)) == 0
    shown = capsys.readouterr().out
    assert "does not pass validation yet" in shown
    assert "duplicates: no row is repeated" in shown
    assert "tasks.data.waive: {CHECK: why this fault is accepted}" in shown


# The project -------------------------------------------------------------------------------------


def test_the_parameters_are_valid_and_as_shipped(made: Any, tmp_path: Path) -> None:
    made(tickets(3000))
    root = tmp_path / "project"
    own, shipped = (yaml.safe_load((folder / "params.yaml").read_text()) for folder in (root, ROOT))
    decided = {"project", "base", "tasks"}
    assert {k: v for k, v in own.items() if k not in decided} == {
        k: v for k, v in shipped.items() if k not in decided
    }
    assert own["base"].keys() == shipped["base"].keys()
    task = task_of(read_params(root / "params.yaml"), "data", root / "params.yaml")
    assert task.labels == QUEUES
    assert task.columns.group == "customer"


def test_names_that_yaml_would_misread_come_back_as_they_are(made: Any, tmp_path: Path) -> None:
    frame = tickets().rename(columns={"message": "text: free # form", "queue": "yes"})
    frame["yes"] = frame["yes"].map({"billing": "no", "bug": "null", "other": "${x}: [1"})
    facts = made(frame, "--label", "yes")
    root = tmp_path / "project"
    task = task_of(read_params(root / "params.yaml"), "data", root / "params.yaml")
    assert task.columns.text == "text: free # form"
    assert list(task.labels) == list(facts["labels"]) == ["${x}: [1", "no", "null"]


def test_folders_and_files_may_be_called_anything(tmp_path: Path) -> None:
    path = tmp_path / "2024.csv"
    tickets().to_csv(path, index=False)
    assert run("init", str(tmp_path / "on"), "--data", str(path)) == 0
    params = read_params(tmp_path / "on" / "params.yaml")
    assert (params.project, list(params.tasks)) == ("on", ["2024"])


def test_files_that_are_there_are_never_overwritten(
    made: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made(tickets())
    before = (tmp_path / "project/params.yaml").read_bytes()
    assert run("init", str(tmp_path / "project"), "--data", str(tmp_path / "data.csv")) == 2
    assert "has a file 'params.yaml' already" in capsys.readouterr().err
    assert (tmp_path / "project/params.yaml").read_bytes() == before


def test_a_folder_with_the_data_in_it_becomes_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    tickets().to_csv(tmp_path / "data" / "mine.csv", index=False)
    monkeypatch.chdir(tmp_path)
    assert run("init", ".", "--data", "data/mine.csv") == 0
    assert read_params(Path("params.yaml")).project == tmp_path.name


def test_git_sees_the_project_and_neither_state_nor_the_link(made: Any, tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    facts = made(tickets())
    status = ["git", "status", "--porcelain", "-uall", "project"]
    seen = subprocess.run(status, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert sorted(line[3:] for line in seen.splitlines()) == sorted(
        f"project/{name}" for name in facts["files"]
    )


def test_the_shipped_files_come_from_one_place() -> None:
    for name, origin in {
        "pipeline.yaml": "dvc.yaml",
        "minilm.yaml": "data/minilm.yaml",
        "dvc-config": ".dvc/config",
        "dvcignore": ".dvcignore",
        "gitignore": ".gitignore",
    }.items():
        assert (PIPELINE.parent / name).read_bytes() == (ROOT / origin).read_bytes()
    assert PIPELINE.is_symlink(), "a checkout has one pipeline, not two"


# Real data ---------------------------------------------------------------------------------------


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="the benchmark data is not there")
@pytest.mark.parametrize(
    ("data", "text", "pair", "label", "classes"),
    [
        ("glue/sst2", "sentence", None, "label", 2),
        ("glue/mrpc", "sentence1", "sentence2", "label", 2),
        ("glue/cola", "sentence", None, "label", 2),
        ("domain/chemprot", "text", None, "label", 13),
        ("domain/acl_arc", "text", None, "label", 6),
        ("domain/agnews", "text", None, "label", 4),
    ],
)
@pytest.mark.parametrize("options", [{}, {"sep": ";", "quoting": 1}])
def test_real_files_are_understood(
    data: str,
    text: str,
    pair: str | None,
    label: str,
    classes: int,
    options: dict[str, Any],
    made: Any,
    tmp_path: Path,
) -> None:
    frame = pd.read_parquet(SHARED_DATA / data / "train.parquet")
    path = tmp_path / "data.csv"
    frame.to_csv(path, index=False, **options)
    facts = made(path)
    found = facts["columns"]
    assert (found["text"], found["text_pair"], found["label"]) == (text, pair, label)
    assert len(facts["labels"]) == classes
    assert facts["rows"] == len(frame)


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="the benchmark data is not there")
def test_a_score_is_not_taken_for_a_class(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = refused(capsys, tmp_path, SHARED_DATA / "glue/stsb/train.parquet")
    assert "no column looks like a label" in shown
    assert "`bins`" in shown


# Running it --------------------------------------------------------------------------------------


class Installed(Project):
    """A project that runs with TuneTrail as a wheel installs it."""

    @property
    def site(self) -> Path:
        return self.root.parent / "site"

    def environment(self, **extra: str) -> dict[str, str]:
        return super().environment(PYTHONPATH=str(self.site), **extra)

    def run(self, **extra: str) -> dict[str, Any]:
        extra = {"PREFECT_API_URL": prefect_api()} | extra
        done = self.command("tunetrail", "run", "--json", **extra)
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)

    def stale(self) -> dict[str, list[str]]:
        done = self.command("tunetrail", "plan", "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)["stale"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """A project made and executed by an installation that is no checkout. Not to be changed."""
    folder = tmp_path_factory.mktemp("installed")
    wheel = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    copy = folder / "source"  # building leaves files beside the sources
    git = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        if (ROOT / name).exists():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            subprocess.run(["cp", "-P", ROOT / name, copy / name], check=True)
    subprocess.run([*wheel, "-w", str(folder), str(copy)], check=True)
    project = Installed(folder / "tickets")
    zipfile.ZipFile(next(folder.glob("*.whl"))).extractall(project.site)
    if SHARED_DATA.is_dir():
        frame = pd.read_parquet(SHARED_DATA / "domain/agnews/train.parquet").head(400)
        frame["text"] = frame["text"].str.replace(". ", ".\n", regex=False)
        frame = frame.rename(columns={"text": "Nachricht", "label": "Rubrik"})
    else:
        frame = tickets(400)[["message", "queue"]]
    frame.to_csv(folder / "tickets.csv", index=False, sep=";")
    project.root.mkdir()
    done = project.command("tunetrail", "init", ".", "--data", "../tickets.csv")
    assert done.returncode == 0, done.stderr
    assert "The data passes validation." in done.stdout
    content = project.params
    budget = (
        {"budgets": {name: {"steps": 4} for name in content["budgets"]}}
        if "budgets" in content
        else {"budget": {"steps": 4}}
    )
    project.change(methods={"head": {}, "lora": {}}, baseline="lora", seeds=[1], **budget)
    outcome = project.run()
    stages = set(yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"])
    unasked = {"corpus", "dapt", "tapt", "tune", "train_more", "evaluate_more"}
    assert {name.partition("@")[0] for name in outcome["executed"]} == stages - unasked
    return project


@pytest.fixture
def tickets_project(installed: Installed, tmp_path: Path) -> Installed:
    subprocess.run(["cp", "-a", f"{installed.root.parent}/.", str(tmp_path)], check=True)
    return Installed(tmp_path / "tickets")


@pytest.mark.pipeline
def test_the_pipeline_of_the_project_is_the_shipped_one(installed: Installed) -> None:
    assert (installed.root / "dvc.yaml").read_bytes() == (ROOT / "dvc.yaml").read_bytes()
    assert (installed.root / "comparison/report.html").stat().st_size > 0
    lock = yaml.safe_load((installed.root / "dvc.lock").read_text())["stages"]
    paths = [dep["path"] for stage in lock.values() for dep in stage["deps"]]
    assert not [path for path in paths if os.path.isabs(path)]


@pytest.mark.pipeline
def test_again_nothing_is_stale_for_either_driver(tickets_project: Installed) -> None:
    (tickets_project.root / "queue.py").write_text("raise RuntimeError('not the real one')\n")
    assert tickets_project.stale() == {}
    assert tickets_project.run()["executed"] == []
    done = tickets_project.command("dvc", "repro")
    assert done.returncode == 0, done.stderr
    assert "Running stage" not in done.stdout


@pytest.mark.pipeline
def test_a_changed_row_makes_its_task_stale(tickets_project: Installed) -> None:
    (data,) = (tickets_project.root / "data").glob("*.csv")
    header, _, rows = data.read_text().partition("\n")
    data.write_text(f"{header}\n{rows.replace('e', 'E', 1)}")
    stale = tickets_project.stale()
    assert stale["train@tickets-lora-full-1"] == ["file data/tickets.csv changed"]
    assert "base" not in stale
    assert {"ingest@tickets", "train@tickets-head-full-1"} <= set(stale)


@pytest.mark.pipeline
def test_an_upgrade_makes_stale_what_it_changes(tickets_project: Installed) -> None:
    project = tickets_project
    with (project.site / "tunetrail/methods/lora.py").open("a") as source:
        source.write("# a new version\n")
    stale = project.stale()
    trainings = {name: why for name, why in stale.items() if name.startswith("train@")}
    assert trainings == {"train@tickets-lora-full-1": ["code of lora changed"]}
    assert project.run()["executed"].count("train@tickets-lora-full-1") == 1

    with (project.site / "tunetrail/stages/ingest.py").open("a") as source:
        source.write("# a new version\n")
    seen = project.command("dvc", "status").stdout
    assert "modified:           src/tunetrail/stages/ingest.py" in seen


@pytest.mark.pipeline
def test_a_moved_installation_and_a_clone_change_nothing(tickets_project: Installed) -> None:
    project = tickets_project
    link = project.root / "src" / "tunetrail"
    link.unlink()  # as in a clone: git does not have it
    assert project.stale() == {}
    assert link.resolve() == (project.site / "tunetrail").resolve()


@pytest.mark.pipeline
def test_a_pipeline_of_another_version_is_refused_and_updated(tickets_project: Installed) -> None:
    project = tickets_project
    path = project.root / "dvc.yaml"
    path.write_text(path.read_text().replace("--tolerance", "--limit"))
    done = project.command("tunetrail", "plan")
    assert done.returncode == 2
    assert "is not the pipeline of the installed TuneTrail: export differ" in done.stderr
    assert project.command("tunetrail", "init", ".", "--update").returncode == 0
    assert project.stale() == {}
