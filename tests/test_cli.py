"""The command line: help, JSON for programs, and answers to typing mistakes."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

import pytest
import typer
import yaml
from typer.testing import CliRunner

from tests.tiny import write_base
from tunetrail import methods
from tunetrail.cli import main
from tunetrail.cli.app import app
from tunetrail.task import built_in_tasks

COMMANDS = sorted(typer.main.get_command(app).commands)
ROOT = Path(__file__).parent.parent


def run(*arguments: str) -> int:
    """Exit code of a command; click leaves by SystemExit, TuneTrail returns."""
    try:
        return main(arguments)
    except SystemExit as leaving:
        return int(leaving.code or 0)


def test_every_stage_of_the_pipeline_is_a_subcommand() -> None:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    words = {name: stage.get("do", stage)["cmd"].split() for name, stage in stages.items()}
    assert {program for program, *_ in words.values()} == {"tunetrail"}
    subcommands = {name: word[1] for name, word in words.items()}
    assert set(subcommands.values()) <= set(COMMANDS)
    others = {name: word for name, word in subcommands.items() if word != name}
    assert others == {
        "dapt": "pretrain",
        "tapt": "pretrain",
        "train_more": "train",
        "evaluate_more": "evaluate",
    }


def test_version_is_that_of_the_distribution(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out == f"tunetrail {version('tunetrail')}\n"


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_breaks_no_line_that_has_room(command: str) -> None:
    shown = CliRunner().invoke(app, [*command.split(), "--help"], env={"COLUMNS": "80"}).output
    lines = [line.rstrip() for line in shown.partition("╭")[0].splitlines()]
    assert sum(map(bool, lines)) >= 2
    for line, following in pairwise(lines):
        if line and following.strip() and not following.startswith("  "):  # an example's own lines
            assert len(f"{line} {following.split()[0]}") > 79, line


def test_help_lists_every_subcommand(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    shown = capsys.readouterr().out
    assert [name for name in COMMANDS if f" {name} " not in shown] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_every_subcommand_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(name, "--help") == 0
    shown = " ".join(capsys.readouterr().out.split())
    summary = typer.main.get_command(app).commands[name].help.splitlines()[0]
    assert f"Usage: tunetrail {name}" in shown or f" {name} [OPTIONS]" in shown
    assert summary[:30] in shown


def test_methods_json_describes_every_method(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("methods", "--json") == 0
    listed = json.loads(capsys.readouterr().out)
    assert sorted(listed) == methods.names()
    for entry in listed.values():
        assert set(entry) == {
            "title", "paper", "mergeable", "not_mergeable_because", "verified_by", "parameters",
            "base", "options",
        }  # fmt: skip
        assert entry["base"] == "all-MiniLM-L6-v2"
        assert all(option["description"] for option in entry["options"])


def test_methods_json_of_one_method_has_its_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("methods", "lora", "--json") == 0
    listed = json.loads(capsys.readouterr().out)
    assert list(listed) == ["lora"]
    shown = {option["name"]: option["default"] for option in listed["lora"]["options"]}
    assert shown == methods.resolve("lora", {}, "test").model_dump(mode="json")


@pytest.mark.parametrize("words", [["lora"], ["show", "lora"]])
def test_method_page_names_its_options(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("methods", *words) == 0
    shown = capsys.readouterr().out
    assert "arXiv 2106.09685" in shown
    assert "rank of the update" in shown
    assert "verified by peft" in shown
    assert "trains 73,728 parameters besides the head on all-MiniLM-L6-v2" in shown


def test_a_method_page_has_the_definition_and_why_it_stays(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("methods", "show", "unipelt", "hiwi") == 0
    shown = capsys.readouterr().out
    assert "A gate is sigmoid(w·h + b) averaged over the tokens" in shown
    assert "stays in the graph: its gates depend on the input" in shown
    assert "unverified: no other code" in shown


def test_the_list_fits_80_columns_and_counts_on_the_base_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a terminal; LoRA's matrices are 32 wide in two layers of the tiny model."""
    write_base(tmp_path / "models" / "base")
    python = "import sys; sys.stdout.isatty = lambda: True; from tunetrail.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", python, "methods"],
        cwd=tmp_path,
        env={**os.environ, "COLUMNS": "80", "NO_COLOR": "1", "TERM": "dumb"},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    rows = {line.split()[0]: line.split() for line in lines if "arXiv" in line}
    assert rows.keys() == set(methods.names())
    assert rows["lora"][3:] == ["yes", f"{2 * 2 * 2 * 8 * 32:,}", "peft"]
    assert rows["arc"][3:] == ["yes", "does", "not", "fit", "authors'", "code"]
    assert rows["unipelt_prompt"][-1] == "unverified"


@pytest.mark.parametrize("name", [None, "amazon"])
def test_tasks_json_is_the_declaration(
    name: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("tasks", *([name] if name else []), "--json") == 0
    files = built_in_tasks()
    expected = {n: yaml.safe_load(files[n].read_text()) for n in ([name] if name else files)}
    assert json.loads(capsys.readouterr().out) == expected


def test_task_page_is_a_declaration_to_copy(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("tasks", "amazon") == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert shown["labels"] == ["negative", "neutral", "positive"]


@pytest.mark.parametrize("command", ["methods", "tasks"])
def test_table_lists_every_name(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command) == 0
    first_words = {line.split()[0] for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert set(methods.names() if command == "methods" else built_in_tasks()) <= first_words


@pytest.mark.parametrize(
    ("arguments", "problem", "suggestion"),
    [
        (("methods", "lra"), "unknown method 'lra'", "did you mean 'lora'?"),
        (("tasks", "amazn"), "unknown task 'amazn'", "did you mean 'amazon'?"),
        (("methds",), "No such command 'methds'", "Did you mean 'methods', 'mend'?"),
        (("methods", "--jsn"), "No such option: --jsn", "--json"),
    ],
)
def test_typing_mistake_exits_2_with_the_nearest_name(
    arguments: tuple[str, ...],
    problem: str,
    suggestion: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(*arguments) == 2
    shown = capsys.readouterr()
    assert problem in shown.err
    assert suggestion in shown.err
    assert shown.out == ""


def test_installed_command_exits_2_without_a_traceback() -> None:
    command = Path(sys.executable).with_name("tunetrail")
    done = subprocess.run([command, "methods", "lra"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.splitlines()[0] == "error: unknown method 'lra'"
    assert "Traceback" not in done.stderr


def test_run_outside_a_project_exits_2_without_a_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tunetrail.cli", "run", "--json", "--workers", "2"]
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert "is not inside a TuneTrail project" in done.stderr
    assert "Traceback" not in done.stderr


def test_run_without_its_program_beside_it_says_what_to_do(tmp_path: Path) -> None:
    # -S: packages are there, but nothing that is installed by a link to a checkout.
    packages = Path(typer.__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-S", "-P", "-m", "tunetrail.cli", "run"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{packages}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "'pipelines.compare' is not installed beside this tunetrail" in done.stderr
    assert "dvc repro && tunetrail sync" in done.stderr


def test_plans_example_keeps_its_lines(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("plan", "--help") == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert "movie, amazon × lora × 1, 2, 3; about 12 s each" in lines
    assert "parameter methods.lora.learning_rate changed: 0.001 → 0.003" in lines


# Completion --------------------------------------------------------------------------------------

#: What bash starts for a line, and whether it had to import torch for the answer.
COMPLETING = """
import sys
from tunetrail.cli import main
try:
    main()
finally:
    heavy = {"torch", "transformers", "pandas", "dvc", "mlflow", "prefect"} & set(sys.modules)
    print(*heavy, file=sys.stderr)
"""


def completed(line: str, folder: Path) -> list[str]:
    """What the shell offers at the end of ``line``."""
    words = line.split(" ")
    done = subprocess.run(
        [sys.executable, "-c", COMPLETING],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT / "src"),
            "_TUNETRAIL_COMPLETE": "complete_bash",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(words) - 1),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr.strip() == "", "completion has to be quick"
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("tunetrail me", ["methods", "mend"]),
        ("tunetrail methods l", ["lora", "lorta"]),
        ("tunetrail methods ", methods.names()),
        ("tunetrail tasks a", ["acl_arc", "agnews", "amazon"]),
        ("tunetrail ingest ", ["tickets", "movie"]),
        ("tunetrail ingest ti", ["tickets"]),
    ],
)
def test_names_are_completed_quickly(line: str, expected: list[str], tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("tasks: {tickets: {}, movie: {}}\n")
    assert completed(line, tmp_path) == expected


@pytest.mark.parametrize("content", [None, "tasks: [", "tasks:", "- a"])
def test_without_a_readable_plan_no_task_is_offered(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "params.yaml").write_text(content)
    assert completed("tunetrail ingest ", tmp_path) == []


def test_completion_can_be_installed(tmp_path: Path) -> None:
    # From bash, which is what it looks for; the last command keeps bash there meanwhile.
    command = f"{shlex.quote(sys.executable)} -m tunetrail.cli --install-completion; exit $?"
    done = subprocess.run(
        ["bash", "-c", command],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    scripts = [path.read_text() for path in tmp_path.rglob("*.sh")]
    assert any("_TUNETRAIL_COMPLETE=complete_bash" in script for script in scripts)


# Logging -----------------------------------------------------------------------------------------

LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d (INFO|DEBUG) {1,4}tunetrail\.tasks: .+")

LIBRARY = """
import logging, sys
from tunetrail.logs import configure
configure(int(sys.argv[1]))
logging.getLogger("library").setLevel(logging.INFO)
logging.getLogger("library").info("from a library")
logging.getLogger("library").warning("a warning of a library")
logging.getLogger("prefect.flow_runs").error("what the flow tells itself")
logging.getLogger("tunetrail.x").info("from tunetrail")
logging.getLogger("tunetrail.x").debug("a detail")
"""


@pytest.mark.parametrize(("flags", "lines"), [((), 0), (("-v",), 1), (("-vv",), 2)])
def test_verbose_logs_to_standard_error(flags: tuple[str, ...], lines: int) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tunetrail.cli", *flags, "tasks", "--json"],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=True,
    )
    json.loads(done.stdout)
    assert len(done.stderr.splitlines()) == lines
    assert all(LINE.fullmatch(line) for line in done.stderr.splitlines())


@pytest.mark.parametrize(
    ("verbosity", "expected"),
    [
        ("0", ["a warning of a library"]),
        ("1", ["a warning of a library", "from tunetrail"]),
        (
            "2",
            [
                "from a library",
                "a warning of a library",
                "what the flow tells itself",
                "from tunetrail",
                "a detail",
            ],
        ),
    ],
)
def test_libraries_are_quiet_unless_asked_twice(verbosity: str, expected: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIBRARY, verbosity],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert [line.partition(": ")[2] for line in done.stderr.splitlines()] == expected
