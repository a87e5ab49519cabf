"""A cell executed elsewhere, through a DVC remote that is a folder: each step, and what breaks it.

The other side is a folder that shares nothing with the project. DVC is the real one.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.sharing import flip
from tunetrail import exchange
from tunetrail.dag import Dag
from tunetrail.errors import TuneTrailError
from tunetrail.exchange import Done, Errand, RemoteFailed, Store, Terms
from tunetrail.repository import open_repo

_DVC = [sys.executable, "-m", "dvc"]

#: `large` does not travel with the errand; `double` reads a part of what `make` wrote.
_STAGES: dict[str, Any] = {
    "make": {
        "cmd": "mkdir made && yes row | head -c 100000 > made/large && echo 3 > made/number",
        "deps": ["given"],
        "outs": ["made"],
    },
    "double": {
        "cmd": "mkdir twice && cat made/large made/large > twice/large && cat words > twice/words",
        "deps": ["made", "words"],
        "params": ["factor"],
        "outs": ["twice"],
    },
}


def dvc(root: Path, *arguments: str) -> str:
    done = subprocess.run([*_DVC, *arguments], cwd=root, capture_output=True, text=True, check=True)
    return done.stdout


def write_project(root: Path, remote: Path | None) -> Path:
    (root / ".dvc").mkdir(parents=True)
    lines = ["[core]", "no_scm = true", "analytics = false"]
    if remote is not None:
        lines += ["remote = shared", "['remote \"shared\"']", f"url = {remote}"]
    (root / ".dvc" / "config").write_text("\n".join(lines) + "\n")
    (root / "given").write_text("given\n")
    (root / "params.yaml").write_text("factor: 2\n")
    (root / "words.src").write_text("words\n")
    words = {"cmd": "cp words.src words", "deps": ["words.src"], "outs": ["words"]}
    (root / "dvc.yaml").write_text(json.dumps({"stages": {**_STAGES, "word": words}}))
    return root


class Head:
    """The project's side, up to the cell `double`, which is to be executed elsewhere."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.repo = open_repo(root)
        self.store = Store(self.repo)
        self.dag = Dag(root)
        for name in ("make", "word"):
            assert not self.dag.begin(name)
            shell(self.dag.cells[name].command, root, root)
            self.dag.record(name)
        assert not self.dag.begin("double")
        self.execution = self.dag.execution("double")
        self.errand = exchange.errand(self.store, root, "double", self.execution)
        self.terms = exchange.terms(root)


@pytest.fixture
def remote(tmp_path: Path) -> Path:
    return tmp_path / "remote"


@pytest.fixture
def head(tmp_path: Path, remote: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Head]:
    root = write_project(tmp_path / "head", remote)
    monkeypatch.chdir(root)  # where DVC's lock is written from
    made = Head(root)
    yield made
    made.repo.close()


def shell(command: str, folder: Path, log: Path) -> None:
    subprocess.run(command, shell=True, cwd=folder, check=True)


def refuse(command: str, folder: Path, log: Path) -> None:
    pytest.fail("a command was executed")


def perform(head: Head, node: Path, execute: Any = shell, **changed: Any) -> Done:
    errand: Errand = dataclasses.replace(head.errand, **changed)
    return exchange.perform(errand, head.terms, node, execute)


def executions(node: Path) -> int:
    return (node / "executions.log").read_text().count(" begins ")


def entries(remote: Path) -> list[Path]:
    return [path for path in (remote / "runs").rglob("*") if path.is_file()]


def in_remote(remote: Path, text: str) -> Path:
    (found,) = (p for p in (remote / "files").rglob("*") if p.is_file() and p.read_text() == text)
    return found


def test_a_cell_is_executed_once_and_the_project_has_nothing_left_to_do(
    head: Head, remote: Path, tmp_path: Path
) -> None:
    done = perform(head, tmp_path / "node")
    assert done.executed
    assert executions(tmp_path / "node") == 1
    assert not (head.root / "twice").exists()
    exchange.bring(head.store, head.execution, done)
    assert head.dag.begin("double")
    assert (head.root / "twice" / "words").read_text() == "words\n"
    assert "Running stage" not in dvc(head.root, "repro")
    assert dvc(head.root, "status", "--json").strip() == "{}"

    # Another node, and another project with equal inputs: nothing is executed for them.
    assert perform(head, tmp_path / "other", refuse) == dataclasses.replace(
        done, executed=False, seconds=pytest.approx(0, abs=60)
    )


def test_small_inputs_travel_with_the_errand_and_large_ones_through_the_remote(
    head: Head, remote: Path, tmp_path: Path
) -> None:
    assert sorted(head.errand.small.values()) == [b"3\n", b"words\n"]
    assert head.errand.texts == {"params.yaml": "factor: 2\n"}
    kept = [path for path in remote.rglob("*") if path.is_file()]
    assert [path.stat().st_size for path in kept] == [100_000]


def test_nodes_share_no_file_with_the_project(head: Head, tmp_path: Path) -> None:
    elsewhere = tmp_path / "moved"
    head.root.rename(elsewhere)
    done = perform(head, tmp_path / "node")
    elsewhere.rename(head.root)
    exchange.bring(head.store, head.execution, done)
    assert head.dag.begin("double")


@pytest.mark.parametrize("what", ["list", "file"])
def test_an_entry_whose_data_is_gone_does_not_count(
    head: Head, remote: Path, tmp_path: Path, what: str
) -> None:
    first = perform(head, tmp_path / "node")
    if what == "list":
        (gone,) = (remote / "files").rglob("*.dir")
    else:
        gone = in_remote(remote, "words\n")
    gone.unlink()
    again = perform(head, tmp_path / "other")
    assert (again.executed, again.entry) == (True, first.entry)
    assert gone.exists()


def test_an_entry_that_is_not_what_its_name_says_does_not_count(
    head: Head, remote: Path, tmp_path: Path
) -> None:
    done = perform(head, tmp_path / "node")
    (entry,) = entries(remote)
    whole = entry.read_text()
    entry.write_text(whole.replace("twice", "other"))
    with pytest.raises(TuneTrailError, match=rf"{done.entry} .* is not the one that its name says"):
        exchange.bring(head.store, head.execution, done)
    assert perform(head, tmp_path / "other").executed
    assert entry.read_text() == whole


def test_a_half_written_object_is_sent_again(head: Head, remote: Path, tmp_path: Path) -> None:
    perform(head, tmp_path / "node")
    (entry,) = entries(remote)
    entry.unlink()  # somebody was killed before it
    half = next(p for p in (remote / "files").rglob("*") if p.stat().st_size == 200_000)
    half.chmod(0o644)
    half.write_bytes(b"row")
    done = perform(head, tmp_path / "other")
    assert half.stat().st_size == 200_000
    exchange.bring(head.store, head.execution, done)


def test_where_the_data_cannot_be_sent_there_is_no_entry(
    head: Head, remote: Path, tmp_path: Path
) -> None:
    def block(command: str, folder: Path, log: Path) -> None:
        shell(command, folder, log)
        shutil.rmtree(remote / "files")
        (remote / "files").write_text("in the way")

    with pytest.raises(RemoteFailed, match=r"DVC's remote 'shared' .* does not answer as"):
        perform(head, tmp_path / "node", block)
    assert entries(remote) == []


def test_a_damaged_input_is_named_and_nothing_is_executed(
    head: Head, remote: Path, tmp_path: Path
) -> None:
    large = next(p for p in (remote / "files").rglob("*") if p.is_file())
    flip(large)
    with pytest.raises(RemoteFailed, match="is damaged: its md5 is") as caught:
        perform(head, tmp_path / "node", refuse)
    assert str(large) in caught.value.fix
    assert not list((tmp_path / "node" / "cache").rglob("*.tmp"))


def test_a_damaged_output_does_not_reach_the_project(
    head: Head, remote: Path, tmp_path: Path
) -> None:
    done = perform(head, tmp_path / "node")
    flip(next(p for p in (remote / "files").rglob("*") if p.stat().st_size == 200_000))
    with pytest.raises(RemoteFailed, match="is damaged"):
        exchange.bring(head.store, head.execution, done)
    assert not head.dag.begin("double")


def test_what_a_killed_errand_left_is_cleared_away(head: Head, tmp_path: Path) -> None:
    def die(command: str, folder: Path, log: Path) -> None:
        (folder / "twice").mkdir()
        (folder / "twice" / "half").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        perform(head, tmp_path / "node", die)
    room = tmp_path / "node" / "rooms" / "0"
    (room / "twice").mkdir()  # as after SIGKILL
    (room / "twice" / "half").write_text("half")
    exchange.bring(head.store, head.execution, perform(head, tmp_path / "node"))
    assert head.dag.begin("double")
    assert not (head.root / "twice" / "half").exists()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"code": "0" * 64}, "other code of TuneTrail than where the run was started\n  here  "),
        ({"versions": {"python": "2.7"}}, r"python 3\.\d+ \(there 2.7\).*torch .* \(there missing"),
    ],
)
def test_other_code_and_other_versions_are_refused(
    head: Head, tmp_path: Path, changed: dict[str, Any], words: str
) -> None:
    other: Terms = dataclasses.replace(head.terms, **changed)
    with pytest.raises(TuneTrailError, match=words):
        exchange.perform(head.errand, other, tmp_path / "node", refuse)
    with pytest.raises(TuneTrailError, match=words):
        exchange.try_out(other, tmp_path / "node")
    assert not (tmp_path / "node").exists()


def test_other_inputs_than_the_sender_names_are_refused(head: Head, tmp_path: Path) -> None:
    with pytest.raises(TuneTrailError, match="has other inputs here"):
        perform(head, tmp_path / "node", refuse, texts={"params.yaml": "factor: 3\n"})


def test_a_path_out_of_the_project_is_refused(head: Head, tmp_path: Path) -> None:
    wrong = dataclasses.replace(head.execution, inputs={"../../escaped": "0" * 32})
    with pytest.raises(TuneTrailError, match=r"'../../escaped' leads out of the project"):
        perform(head, tmp_path / "node", refuse, execution=wrong)


def test_an_input_that_changed_meanwhile_is_noticed(head: Head, tmp_path: Path) -> None:
    done = perform(head, tmp_path / "node")
    (head.root / "words").unlink()
    (head.root / "words").write_text("others\n")
    exchange.bring(head.store, head.execution, done)
    assert not head.dag.begin("double")


def test_secrets_stay_where_they_are(head: Head, remote: Path) -> None:
    config = head.root / ".dvc" / "config"
    whole = config.read_text()
    ssh = whole.replace(str(remote), "ssh://example.org/store")
    config.write_text(ssh + "user = me\nport = 22\npassword = planted\nkeyfile = ~/.ssh/key\n")
    found = exchange.terms(head.root)
    assert found.options == {
        "url": "ssh://example.org/store", "user": "me", "port": "22", "keyfile": "~/.ssh/key"
    }  # fmt: skip
    config.write_text(ssh.replace("ssh://", "ssh://me@"))  # who one is, is no secret
    assert exchange.terms(head.root).options["url"] == "ssh://me@example.org/store"
    config.write_text(whole.replace(str(remote), "ssh://me:planted@example.org/store"))
    with pytest.raises(TuneTrailError, match="holds a secret") as caught:
        exchange.terms(head.root)
    assert "planted" not in str(caught.value)


def test_without_a_remote_that_others_can_use_it_says_so(head: Head, remote: Path) -> None:
    config = head.root / ".dvc" / "config"
    whole = config.read_text()
    config.write_text("[core]\nno_scm = true\n")
    with pytest.raises(TuneTrailError, match="no default remote of DVC") as caught:
        exchange.terms(head.root)
    assert "dvc remote add --default NAME URL" in caught.value.fix
    (head.root / ".dvc" / "config.local").write_text(whole)
    with pytest.raises(TuneTrailError, match=r"'shared' is not in \.dvc/config"):
        exchange.terms(head.root)
    (head.root / ".dvc" / "config.local").unlink()
    config.write_text(whole.replace(str(remote), "http://127.0.0.1:1/store"))
    repo = open_repo(head.root)
    with pytest.raises(TuneTrailError, match="of a kind that keeps no run cache"):
        Store(repo)
    config.write_text(whole.replace(str(remote), "ssh://127.0.0.1:1/store"))
    repo = open_repo(head.root)
    with pytest.raises(RemoteFailed, match=r"'shared' \(ssh://127.0.0.1:1/store\) does not answer"):
        Store(repo).check()
