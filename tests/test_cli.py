"""The command line: help, JSON for programs, and answers to typing mistakes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer
import yaml

from tunetrail import methods
from tunetrail.cli import app, main
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
    assert set(stages) <= set(COMMANDS)


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
        assert set(entry) == {"title", "paper", "mergeable", "options"}
        assert all(option["description"] for option in entry["options"])


def test_methods_json_of_one_method_has_its_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("methods", "lora", "--json") == 0
    listed = json.loads(capsys.readouterr().out)
    assert list(listed) == ["lora"]
    shown = {option["name"]: option["default"] for option in listed["lora"]["options"]}
    assert shown == methods.resolve("lora", {}, "test").model_dump(mode="json")


def test_method_page_names_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("methods", "lora") == 0
    shown = capsys.readouterr().out
    assert "arXiv 2106.09685" in shown
    assert "rank of the update" in shown


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
        (("methds",), "No such command 'methds'", "Did you mean 'methods'?"),
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
