"""The workflows of CI: what they may do, that they are valid, and that what they call works."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from tests.conftest import BIN, ROOT
from tests.repository import MAKE, git
from tunetrail.cli.app import app

FILES = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
WORKFLOWS: dict[str, dict[Any, Any]] = {
    path.name: yaml.safe_load(path.read_text(encoding="utf-8")) for path in FILES
}
JOBS = [(name, job) for name, flow in WORKFLOWS.items() for job in flow["jobs"]]
PINNED = re.compile(r"uses: ([\w.-]+/[\w.-]+)@([0-9a-f]{40}) # v\d+\.\d+\.\d+")

#: Everything that any job may write, and nothing else.
WRITES = {
    ("changes.yml", "comment"): {"pull-requests"},
    ("retrain.yml", "propose"): {"contents", "pull-requests"},
    ("release.yml", "attest"): {"id-token", "attestations"},
    ("release.yml", "release"): {"contents"},
}


def job(name: str, label: str) -> dict[str, Any]:
    found: dict[str, Any] = WORKFLOWS[name]["jobs"][label]
    return found


def triggers(name: str) -> dict[str, Any]:
    found: dict[str, Any] = WORKFLOWS[name][True]  # YAML reads `on` as true
    return found


def steps() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for name, label in JOBS:
        for step in job(name, label)["steps"]:
            yield name, label, step


def make_targets() -> set[str]:
    text = "".join((ROOT / name).read_text() for name in ("Makefile", ".ci/targets.mk"))
    return set(re.findall(r"^([a-z-]+):", text, re.MULTILINE))


def make(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """`make` of this checkout in another folder, with the environment of the tests."""
    path = f"{folder / 'stub'}{os.pathsep}{BIN}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path} | variables
    return subprocess.run(
        [*MAKE, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_action_is_pinned_to_a_commit_and_names_its_version(path: Path) -> None:
    lines = [line for line in path.read_text().splitlines() if "uses:" in line]
    assert lines
    assert [line for line in lines if not PINNED.search(line)] == []


def test_an_action_is_one_commit_everywhere() -> None:
    pins = {found.groups() for path in FILES for found in PINNED.finditer(path.read_text())}
    assert len(dict(pins)) == len(pins)


@pytest.mark.parametrize(("name", "label"), JOBS)
def test_a_job_may_only_write_what_it_is_for(name: str, label: str) -> None:
    base, own = WORKFLOWS[name]["permissions"], job(name, label).get("permissions", {})
    assert set(base.values()) <= {"read"}
    assert {key for key, may in own.items() if may == "write"} == WRITES.get((name, label), set())


@pytest.mark.parametrize(("name", "label"), JOBS)
def test_a_job_ends_and_starts_once(name: str, label: str) -> None:
    assert job(name, label)["timeout-minutes"] <= 360
    assert "group" in WORKFLOWS[name]["concurrency"]


def test_no_trigger_gives_foreign_code_a_token_that_writes() -> None:
    for name in WORKFLOWS:
        assert not {"pull_request_target", "workflow_run", "issue_comment"} & set(triggers(name))
    condition = "github.event.pull_request.head.repo.full_name == github.repository"
    assert job("changes.yml", "comment")["if"] == condition
    for name, label in WRITES:
        if "pull_request" in triggers(name):  # and then it runs what the base has
            (checkout,) = (
                s for s in job(name, label)["steps"] if "/checkout@" in s.get("uses", "")
            )
            assert checkout["with"]["ref"] == "${{ github.event.pull_request.base.sha }}"


def test_secrets_are_in_no_workflow_of_pull_requests_and_each_in_one_step() -> None:
    seen = {
        secret: [
            (name, step["run"]) for name, _, step in steps() if f"secrets.{secret} " in str(step)
        ]
        for secret in re.findall(r"secrets\.(\w+)", str(WORKFLOWS))
    }
    assert seen == {
        "DVC_SSH_KEY": [("retrain.yml", "make remote")],
        "MLFLOW_TRACKING_PASSWORD": [("retrain.yml", "make retrain")],
    }
    assert "pull_request" not in triggers("retrain.yml")


def test_a_retraining_in_ci_asks_the_registry_that_is_configured() -> None:
    (step,) = (s for s in job("retrain.yml", "retrain")["steps"] if s.get("run") == "make retrain")
    assert step["env"]["MLFLOW_TRACKING_URI"] == "${{ vars.MLFLOW_TRACKING_URI }}"


def test_checkouts_leave_no_token_behind() -> None:
    checkouts = [step for *_, step in steps() if "actions/checkout" in step.get("uses", "")]
    assert checkouts
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)


def test_steps_are_make_targets_or_commands_without_values_of_github() -> None:
    commands = set(typer.main.get_command(app).commands)
    ran = [step["run"] for *_, step in steps() if "run" in step]
    for line in ran:
        assert "${{" not in line
        assert "\n" not in line
        program, *words = shlex.split(line)
        if program == "make":
            where = words[words.index("-C") + 1 :][1:] if "-C" in words else words
            assert where[0] in make_targets(), line
        elif program == "tunetrail":
            assert words[0] in commands, line
        else:
            assert re.fullmatch(r'cat [\w./-]+ >> "\$GITHUB_STEP_SUMMARY"', line), line


def test_paths_that_start_a_comparison_are_those_of_the_repository() -> None:
    paths = triggers("changes.yml")["pull_request"]["paths"]
    assert {"params.yaml", "dvc.yaml", "data/**", "src/tunetrail/methods/**"} <= set(paths)
    assert [path for path in paths if not (ROOT / path.removesuffix("/**")).exists()] == []


def test_actionlint_finds_nothing() -> None:
    done = actionlint(*FILES)
    assert done.returncode == 0, done.stdout


def test_zizmor_finds_nothing() -> None:
    done = zizmor(*FILES, ROOT / ".github" / "dependabot.yml")
    assert done.returncode == 0, done.stdout


def test_both_would_find_something(tmp_path: Path) -> None:
    bad = tmp_path / "bad.yml"
    text = (ROOT / ".github/workflows/changes.yml").read_text()
    text = text.replace("make small\n", "echo ${{ github.head_ref }}\n")
    bad.write_text(text.replace("pull-requests: write", "pull-request: write"))
    assert 'unknown permission scope "pull-request"' in actionlint(bad).stdout
    assert "template-injection" in zizmor(bad).stdout


def actionlint(*files: Path) -> subprocess.CompletedProcess[str]:
    options = ["-shellcheck=", "-pyflakes=", "-no-color"]  # steps are single commands
    return subprocess.run(
        [BIN / "actionlint", *options, *files], capture_output=True, text=True, check=False
    )


def zizmor(*files: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BIN / "zizmor", "--offline", "--no-progress", "--color=never", *files],
        capture_output=True,
        text=True,
        check=False,
    )


def release() -> Any:
    spec = importlib.util.spec_from_file_location("release", ROOT / ".ci" / "release.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def ready(tmp_path: Path) -> Path:
    """A folder whose version has a section in its changelog."""
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "x"\nversion = "1.2.0"\n')
    (tmp_path / "CHANGELOG.md").write_text(
        "# Changelog\n\n## [Unreleased]\n\n## [1.2.0] - 2026-11-26\n\n### Added\n\n- one\n\n"
        "## [1.1.0] - 2026-01-01\n\n- older\n"
    )
    return tmp_path


def test_a_release_has_the_section_of_its_version(ready: Path) -> None:
    release().check("v1.2.0", ready)
    assert release().section("v1.2.0", ready) == "### Added\n\n- one\n"


@pytest.mark.parametrize("tag", ["v1.2.1", "1.2.0", "v1.2"])
def test_a_tag_that_is_not_the_version_is_refused(ready: Path, tag: str) -> None:
    with pytest.raises(Exception, match=r"version in pyproject\.toml is '1\.2\.0'") as refused:
        release().check(tag, ready)
    assert "fix: delete the tag; set the version, or tag as 'v1.2.0'" in str(refused.value)


def test_a_version_without_a_dated_section_is_refused(ready: Path) -> None:
    changelog = ready / "CHANGELOG.md"
    changelog.write_text(changelog.read_text().replace("## [1.2.0] - 2026-11-26\n", ""))
    with pytest.raises(Exception, match=r"no section '## \[1.2.0\] - YYYY-MM-DD'"):
        release().check("v1.2.0", ready)


def test_make_refuses_the_tag_and_takes_it_as_text(tmp_path: Path) -> None:
    done = make(tmp_path, "check-tag", TAG="v0'; touch sign; '")
    assert done.returncode != 0
    assert "error: the tag is 'v0'; touch sign; ''" in done.stderr
    assert not (tmp_path / "sign").exists()


def test_the_changelog_keeps_to_its_form() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert text.startswith("# Changelog\n")
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert headings[0] == "[Unreleased]"
    dated = r"\[\d+\.\d+\.\d+\] - \d{4}-\d{2}-\d{2}"
    assert [h for h in headings[1:] if not re.fullmatch(dated, h)] == []
    kinds = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert set(re.findall(r"^### (.*)$", text, re.MULTILINE)) <= kinds


def test_the_wheel_of_a_release_is_whole(tmp_path: Path) -> None:
    for name in ("src", "pipelines", "data", "recipes", "examples", ".dvc/config"):
        copy(name, tmp_path)
    for name in (".dvcignore", ".gitignore", "dvc.yaml", "pyproject.toml", "README.md"):
        copy(name, tmp_path)
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "start")
    done = make(tmp_path, "dist")
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as files:
        # It comes from the source distribution, where links to the checkout would dangle.
        assert files.read("tunetrail/template/pipeline.yaml") == (ROOT / "dvc.yaml").read_bytes()
        assert "pipelines/compare.py" in files.namelist()
        (points,) = (name for name in files.namelist() if name.endswith("entry_points.txt"))
        assert b"tunetrail = tunetrail.cli:main" in files.read(points)
    (archive,) = (tmp_path / "dist").glob("*.tar.gz")
    with tarfile.open(archive) as files:
        assert not [member.name for member in files if member.issym()]


def copy(name: str, folder: Path) -> None:
    source, target = ROOT / name, folder / name
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        ignored = shutil.ignore_patterns(
            "__pycache__", "*.egg-info", "canonical", "validated", "prepared", "corpus"
        )
        shutil.copytree(source, target, symlinks=True, ignore=ignored)
    else:
        shutil.copyfile(source, target)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone with a remote, and a `gh` that writes down how it was called."""
    folder, origin = tmp_path / "clone", tmp_path / "origin.git"
    git(tmp_path, "init", "-q", "--bare", "-b", "main", str(origin))
    git(tmp_path, "clone", "-q", str(origin), str(folder))
    (folder / "params.yaml").write_text("seeds: [1]\n")
    (folder / "data").mkdir()
    (folder / "data" / "own.csv").write_text("text,label\n")
    git(folder, "switch", "-qc", "main")
    git(folder, "add", "params.yaml", "data")
    git(folder, "commit", "-qm", "start")
    git(folder, "push", "-q", "origin", "main")
    (folder / "build").mkdir()
    (folder / "build" / "changes.md").write_text("## Changes\n")
    (folder / "stub").mkdir()
    program = folder / "stub" / "gh"
    program.write_text(
        '#!/bin/sh\necho "$@" >> calls\n'
        'case "$*" in "pr list"*) cat open 2> /dev/null;; esac\ntrue\n'
    )
    program.chmod(0o755)
    return folder


def calls(folder: Path) -> list[str]:
    path = folder / "calls"
    found = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return found


def test_retrained_results_become_one_branch_and_one_pull_request(clone: Path) -> None:
    done = make(clone, "propose")
    assert done.returncode != 0
    assert "pathspec 'dvc.lock' did not match" in done.stderr
    assert calls(clone) == []
    (clone / "dvc.lock").write_text("stages: first\n")
    (clone / "data" / "own.csv.dvc").write_text("outs: []\n")  # new rows: DVC has them now
    (clone / "data" / ".gitignore").write_text("/own.csv\n")
    done = make(clone, "propose")
    assert done.returncode == 0, done.stderr
    assert calls(clone)[-1] == (
        "pr create --head retrained --title Retrained --body-file build/changes.md"
    )
    assert git(clone, "show", "origin/retrained:dvc.lock") == "stages: first\n"
    changed = git(clone, "diff", "--name-status", "origin/main", "origin/retrained").split("\n")
    assert changed == [
        "A\tdata/.gitignore",
        "D\tdata/own.csv",
        "A\tdata/own.csv.dvc",
        "A\tdvc.lock",
        "",
    ]
    # The next week, from main again: the branch is replaced and the pull request edited.
    git(clone, "switch", "-q", "main")
    (clone / "dvc.lock").write_text("stages: second\n")
    (clone / "open").write_text("7\n")
    done = make(clone, "propose")
    assert done.returncode == 0, done.stderr
    assert calls(clone)[-1] == "pr edit 7 --body-file build/changes.md"
    git(clone, "fetch", "-q")
    assert git(clone, "rev-list", "--count", "origin/main..origin/retrained") == "1\n"
    # Nothing new: nobody is bothered.
    done = make(clone, "propose")
    assert (done.returncode, calls(clone)) == (0, [])
    assert "Nothing changed" in done.stdout


def test_a_champion_that_was_trained_alone_is_proposed_without_its_results(clone: Path) -> None:
    folder = clone / "champions" / "own"
    (folder / "runs").mkdir(parents=True)
    for name in ("dvc.lock", "dvc.yaml", "params.yaml", "runs/model"):
        (folder / name).write_text(f"{name}\n")
    (folder / ".gitignore").write_text("/runs/\n")
    done = make(clone, "propose")  # dvc.lock of the whole comparison was never committed
    assert done.returncode == 0, done.stderr
    changed = git(clone, "diff", "--name-only", "origin/main", "origin/retrained").split()
    names = (".gitignore", "dvc.lock", "dvc.yaml", "params.yaml")
    assert changed == [f"champions/own/{name}" for name in names]


def test_what_is_proposed_begins_with_the_report_of_the_retraining(clone: Path) -> None:
    (clone / ".tunetrail").mkdir()
    (clone / ".tunetrail" / "retrain.md").write_text("# movie\n\nNew champion of movie.\n")
    (clone / "comparison").mkdir()
    (clone / "comparison" / "table.md").write_text("| method |\n")
    done = make(clone, "retrained")
    assert done.returncode == 0, done.stderr
    text = (clone / "build" / "changes.md").read_text()
    assert text == "# movie\n\nNew champion of movie.\n\n| method |\n"


def test_a_comment_is_the_one_that_was_there(clone: Path) -> None:
    assert make(clone, "comment", PR="12").returncode == 0
    assert calls(clone) == [
        "pr comment 12 --edit-last --create-if-none --body-file build/changes.md"
    ]


def test_the_remote_of_dvc_is_set_without_a_trace_in_git(clone: Path) -> None:
    subprocess.run([BIN / "dvc", "init", "-q"], cwd=clone, check=True)
    git(clone, "add", "-A")
    git(clone, "commit", "-qm", "dvc")
    url = "ssh://runner@example.org/results"
    key = {"DVC_REMOTE_URL": url, "DVC_SSH_KEY": "-----KEY-----", "HOME": str(clone / "stub")}
    assert "DVC_REMOTE_URL: set it to a folder" in make(clone, "remote", DVC_REMOTE_URL="").stderr
    done = make(clone, "remote", **key)
    assert "its host would be taken on trust without" in done.stderr
    done = make(clone, "remote", **key, DVC_SSH_HOST_KEY="example.org ssh-ed25519 AAAA")
    assert done.returncode == 0, done.stderr
    assert "KEY" not in done.stdout + done.stderr
    config = (clone / ".dvc" / "config.local").read_text()
    assert f"url = {url}" in config
    assert "verify = true" in config
    (stored,) = (Path(line.split(" = ")[1]) for line in config.splitlines() if "keyfile" in line)
    assert stored.stat().st_mode & 0o077 == 0
    assert git(clone, "status", "--porcelain", "--untracked-files=no") == ""
    assert git(clone, "check-ignore", str(stored))
