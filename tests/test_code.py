"""Which code a result depends on, as TuneTrail, grimp and dvc.yaml see it."""

from __future__ import annotations

import importlib
import itertools
import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import grimp
import pytest
import yaml

import tunetrail
from tunetrail import code, methods
from tunetrail.stages.freezing import training_code

ROOT = Path(__file__).parent.parent
STAGES: dict[str, Any] = {
    name: stage.get("do", stage)
    for name, stage in yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].items()
}

#: Packages and modules whose code decides what a stage writes.
DECIDING = {
    "stages",
    "sources",
    "tables",
    "report",
    "splits",
    "verdicts",
    "task",
    "metrics",
    "kinds",
}


@cache
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("tunetrail", cache_dir=None)


def needed(*modules: str) -> set[str]:
    """``modules``, all they import, and the packages around them, according to grimp."""
    found: set[str] = set()
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name and name not in found:
            found.add(name)
            waiting += graph().find_modules_directly_imported_by(name)
            waiting.append(name.rpartition(".")[0])
    return found


@pytest.mark.parametrize(
    "module", sorted(f"tunetrail.{part}" for part in ("stages.train", "methods.lora", "cli", "dag"))
)
def test_sources_are_what_grimp_finds(module: str) -> None:
    assert set(code.sources(module)) == needed(module)


def test_every_source_is_the_file_of_its_module() -> None:
    found = code.sources("tunetrail.stages.train")
    assert {"tunetrail.stages.train", "tunetrail.training.loop", "tunetrail"} <= set(found)
    for name, path in found.items():
        assert path == Path(importlib.import_module(name).__file__ or "")


@pytest.mark.parametrize("name", methods.names())
def test_training_needs_no_method_but_its_own(name: str) -> None:
    others = {f"tunetrail.methods.{other}" for other in methods.names() if other != name}
    assert not others & set(code.sources("tunetrail.stages.train"))
    assert f"tunetrail.methods.{name}" not in code.sources("tunetrail.stages.train")


def test_code_digest_tells_methods_and_metrics_apart() -> None:
    digests = [training_code(name, ("accuracy",)) for name in methods.names()]
    digests += [training_code("lora", ("f1",)), training_code("lora", ("accuracy", "f1"))]
    assert len(set(digests)) == len(digests)
    assert training_code("lora", ("accuracy",)) == training_code("lora", ("accuracy",))


#: Prints the digests of two methods before and after each of the edits.
EDITING = """
import sys
from tunetrail.code import code_digest

def show():
    print(*(code_digest("tunetrail.stages.train", f"tunetrail.methods.{m}") for m in METHODS))

METHODS = ("lora", "head")
show()
for name in sys.argv[1:]:
    with open(name, "a") as handle:
        handle.write("# edited\\n")
    show()
"""


def test_edit_changes_the_digests_of_the_methods_that_use_the_file(tmp_path: Path) -> None:
    copied = tmp_path / "src" / "tunetrail"
    shutil.copytree(Path(tunetrail.__file__).parent, copied)
    edits = ["methods/lora.py", "modeling/dropout.py", "report/html.py", "methods/full.py"]
    done = subprocess.run(
        [sys.executable, "-c", EDITING, *edits],
        cwd=copied,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    shown = [line.split() for line in done.stdout.splitlines()]
    changed = [
        tuple(new != old for new, old in zip(after, before, strict=True))
        for before, after in itertools.pairwise(shown)
    ]
    neither = (False, False)
    assert changed == [(True, False), (True, True), neither, neither]


def test_no_module_imports_relatively() -> None:
    # ``code.sources`` follows absolute imports only.
    package = Path(tunetrail.__file__).parent
    relative = re.compile(r"^\s*from\s+\.", re.MULTILINE)
    assert [p.name for p in package.rglob("*.py") if relative.search(p.read_text())] == []


# dvc.yaml --------------------------------------------------------------------------------------


def own_code(stage: str) -> set[str]:
    """Modules below the ``deps`` of a stage."""
    listed = [ROOT / dep for dep in STAGES[stage]["deps"] if dep.startswith("src/")]
    return {
        name
        for name in graph().modules
        if (path := module_file(name)) and any(path == d or d in path.parents for d in listed)
    }


def module_file(name: str) -> Path | None:
    plain = ROOT / "src" / Path(*name.split("."))
    return next((p for p in (plain.with_suffix(".py"), plain / "__init__.py") if p.exists()), None)


def frozen_code(stage: str) -> set[str]:
    """Modules whose digest is in a frozen run that the stage depends on."""
    if not any(dep.startswith(("plan", "runs/select")) for dep in STAGES[stage]["deps"]):
        return set()
    metrics = [name for name in graph().modules if name.startswith("tunetrail.metrics.")]
    return needed("tunetrail.stages.train", *metrics)


def test_every_code_dependency_in_dvc_yaml_exists() -> None:
    listed = {dep for stage in STAGES.values() for dep in stage["deps"] if dep.startswith("src/")}
    assert [dep for dep in sorted(listed) if not (ROOT / dep).exists()] == []


def command(stage: str) -> str:
    """The module of a stage: its `tunetrail` subcommand."""
    return f"tunetrail.stages.{STAGES[stage]['cmd'].split()[1]}"


@pytest.mark.parametrize("stage", STAGES)
def test_change_of_a_stages_code_makes_it_stale(stage: str) -> None:
    deciding = {
        name
        for name in needed(command(stage))
        if len(parts := name.split(".")) > 1
        and parts[1] in DECIDING
        # An empty package file decides nothing.
        and name != "tunetrail.stages"
    }
    assert command(stage) in deciding
    missing = sorted(deciding - own_code(stage) - frozen_code(stage))
    assert missing == [], f"not under deps of '{stage}': {', '.join(missing)}"


#: What every stage is built on; no stage lists it.
PLUMBING = {"errors", "files", "layout", "machine", "settings", "code", "run"}

#: Describe a base model, and compute nothing.
DESCRIBING = {"modeling.base", "modeling.sites"}


@pytest.mark.parametrize("stage", ["dapt", "tapt"])
def test_all_code_that_pretrains_makes_it_stale(stage: str) -> None:
    """No plan freezes the digest of this code: dvc.yaml alone says when to repeat the stage."""
    packages = {"", "modeling", "training", "stages"}
    known = {f"tunetrail.{name}".rstrip(".") for name in packages | PLUMBING | DESCRIBING}
    assert needed("tunetrail.stages.pretrain") - known == own_code(stage)
