"""Dataset versions: what becomes one, what is turned away, and what is left as it was."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import BIN, Project
from tests.intake_project import (
    HEADER,
    drop,
    kept,
    rows,
    settled,
    state,
    tickets,
    write,
)
from tunetrail.cli import main
from tunetrail.dag import Dag
from tunetrail.errors import TuneTrailError
from tunetrail.intake import intake, restore, versions
from tunetrail.params import read_params, task_of


@pytest.fixture(scope="module")
def with_ids(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return tickets(tmp_path_factory.mktemp("ids") / "project")


@pytest.fixture(scope="module")
def without_ids(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return tickets(tmp_path_factory.mktemp("rows") / "project", ids=False)


@pytest.fixture
def project(with_ids: Project, tmp_path: Path) -> Project:
    """120 tickets with ids."""
    return with_ids.copy(tmp_path / "project")


@pytest.fixture
def plain(without_ids: Project, tmp_path: Path) -> Project:
    """120 tickets; the task does not say that they have ids."""
    return without_ids.copy(tmp_path / "plain")


def data(project: Project) -> list[tuple[str, ...]]:
    lines = (project.root / "data" / "own.csv").read_text().splitlines()
    return [tuple(line.replace('"', "").rsplit(",", 1)) for line in lines[1:]]


def lines(content: list[tuple[str, str, str]]) -> list[tuple[str, ...]]:
    return [(f"{name},{text}", label) for name, text, label in content]


def run(project: Project, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Exit code of a command in the project."""
    monkeypatch.chdir(project.root)
    try:
        return main(arguments)
    except SystemExit as leaving:
        return int(leaving.code or 0)


# Accepted ----------------------------------------------------------------------------------------


def test_new_rows_become_a_version_that_dvc_keeps(project: Project) -> None:
    before = (project.root / "data" / "own.csv").read_bytes()
    drop(project, "b.csv", rows([121, 122]))
    drop(project, "a.csv", rows([120]))
    version = intake(project.root, "own")
    assert version is not None
    assert (version.number, version.accepted, version.reasons) == (2, True, ())
    assert version.path == project.root / "data" / "versions" / "own" / "0002.json"
    assert data(project) == lines(rows(range(123)))
    assert kept(project).read_bytes() == (project.root / "data" / "own.csv").read_bytes()
    taken = project.root / "data" / "incoming" / "own" / "taken" / "0002"
    assert sorted(path.name for path in taken.iterdir()) == ["a.csv", "b.csv"]
    record = json.loads(version.path.read_text())
    assert [one["name"] for one in record["files"]] == ["a.csv", "b.csv"]
    assert record["difference"]["rows"] == {"before": 120, "added": 3, "removed": 0, "changed": 0}
    assert record["card"]["labels"] == {"billing": 41, "bug": 41, "other": 41}
    assert (record["against"], record["origin"], record["rows"]) == (1, "added", 123)
    found = versions(project.root, "own")[0]
    assert (found.number, found.origin, found.rows) == (1, "found", 120)
    cache = project.root / ".dvc" / "cache" / "files" / "md5" / found.md5[:2] / found.md5[2:]
    assert cache.read_bytes() == before


def test_dvc_itself_finds_nothing_to_do_and_git_lets_go_of_the_file(project: Project) -> None:
    drop(project, "a.csv", rows([120]))
    version = intake(project.root, "own")
    assert version is not None
    assert (
        project.command("dvc", "status", "data/own.csv.dvc").stdout.strip().endswith("up to date.")
    )
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=project.root, capture_output=True, text=True, check=True
    ).stdout.split()
    assert "data/own.csv" not in tracked
    assert (project.root / "data" / ".gitignore").read_text() == "/own.csv\n"
    assert any(
        note.startswith("git: it does not have data/own.csv any more") for note in version.notes
    )
    shown = project.command("git", "status", "--short", "--", "data").stdout.split("\n")
    assert sorted(shown) == [
        "", "?? data/.gitignore", "?? data/own.csv.dvc", "?? data/versions/", "D  data/own.csv",
    ]  # fmt: skip


def test_the_file_is_no_link_into_the_cache(project: Project) -> None:
    drop(project, "a.csv", rows([120]))
    intake(project.root, "own")
    file = project.root / "data" / "own.csv"
    assert os.stat(file).st_nlink == 1
    file.write_text("changed in place")
    assert kept(project).read_text() != "changed in place"


def test_a_known_id_is_new_only_with_other_content(project: Project) -> None:
    changed = [("T5", "quite another text about an invoice", "bug")]
    drop(project, "a.csv", [*rows([3]), *changed, *rows([120])])
    version = intake(project.root, "own")
    assert version is not None
    assert version.difference is not None
    assert version.difference["rows"] == {"before": 120, "added": 1, "removed": 0, "changed": 1}
    assert version.repeated == 1
    expected = rows(range(121))
    expected[5] = changed[0]
    assert data(project) == lines(expected)


def test_columns_may_come_in_another_order(project: Project) -> None:
    drop(
        project,
        "a.csv",
        [(label, name, text) for name, text, label in rows([120])],
        header=("queue", "id", "message"),
    )
    assert intake(project.root, "own") is not None
    assert data(project) == lines(rows(range(121)))


def test_replace_takes_the_file_for_the_whole(project: Project, tmp_path: Path) -> None:
    whole = write(tmp_path / "whole.csv", [*rows(range(60)), *rows(range(120, 140))])
    version = intake(project.root, "own", [whole], replace=True)
    assert version is not None
    assert version.difference is not None
    assert version.origin == "replaced"
    assert version.difference["rows"] == {"before": 120, "added": 20, "removed": 60, "changed": 0}
    assert "rows: 60 of 120 are gone (level 10%)" in version.notes
    assert data(project) == lines([*rows(range(60)), *rows(range(120, 140))])
    assert not whole.exists()


def test_a_task_may_be_given_instead_of_its_name(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project.root)
    path = Path("params.yaml")
    spec = task_of(read_params(path), "own", path)
    drop(project, "a.csv", rows([120]))
    version = intake(Path(), spec, None, False)
    assert version is not None
    assert version.path.is_absolute()


# Nothing new -------------------------------------------------------------------------------------


def test_without_new_rows_there_is_no_version(project: Project) -> None:
    before = state(project.root)
    assert intake(project.root, "own") is None
    assert state(project.root) == before
    drop(project, "a.csv", rows([7, 3]))
    before = state(project.root)
    assert intake(project.root, "own") is None
    whole = write(project.root / "whole.csv", rows(range(120)))
    assert intake(project.root, "own", [whole], replace=True) is None
    assert state(project.root) == before


def test_files_that_are_not_whole_are_left_alone(project: Project) -> None:
    folder = project.root / "data" / "incoming" / "own"
    for name in (".hidden.csv", "a.csv.tmp", "b.csv.part", "c.csv~"):
        drop(project, name, rows([130]))
    (folder / "taken").mkdir()
    growing = drop(project, "d.csv", rows([131]))
    stop = threading.Event()

    def write_on() -> None:
        while not stop.wait(0.05):
            with growing.open("a") as handle:
                handle.write("T,more,bug\n")

    writer = threading.Thread(target=write_on)
    writer.start()
    time.sleep(0.2)
    drop(project, "e.csv", rows([120]))
    try:
        version = intake(project.root, "own")
        with pytest.raises(TuneTrailError, match=r"d\.csv' is still being written"):
            intake(project.root, "own", [growing])
    finally:
        stop.set()
        writer.join()
    assert version is not None
    assert [one.name for one in version.files] == ["e.csv"]
    left = {path.name for path in folder.iterdir() if path.is_file()}
    assert left == {".hidden.csv", "a.csv.tmp", "b.csv.part", "c.csv~", "d.csv"}


# Rejected ----------------------------------------------------------------------------------------


def test_without_ids_equal_rows_are_judged_by_the_gate(plain: Project) -> None:
    before = state(plain.root)
    file = drop(plain, "again.csv", rows(range(40)))
    content = file.read_bytes()
    version = intake(plain.root, "own")
    assert version is not None
    assert not version.accepted
    assert version.repeated == 40
    (reason,) = version.reasons
    assert reason.startswith(
        "duplicates: no row is repeated; 40 rows, 25.00% (limit 5.00%); such as "
    )
    assert "again.csv row 1, again.csv row 2" in reason
    after = state(plain.root)
    assert (plain.root / "data/incoming/own/rejected/0001/again.csv").read_bytes() == content
    new = {
        "data/versions/own/0001.json",
        "data/incoming/own/rejected/0001/again.csv",
        *(
            f".tunetrail/versions/own/0001/{n}"
            for n in ("index.html", "result.json", "version.html")
        ),
    }
    assert {name: after[name] for name in before} == before
    assert after.keys() - before.keys() == new


def test_a_rejected_version_is_passed_over_by_the_next(plain: Project) -> None:
    drop(plain, "again.csv", rows(range(40)))
    intake(plain.root, "own")
    drop(plain, "good.csv", rows(range(120, 125)))
    intake(plain.root, "own")
    drop(plain, "more.csv", rows(range(125, 130)))
    version = intake(plain.root, "own")
    assert version is not None
    known = versions(plain.root, "own")
    assert [(v.number, v.status, v.origin, v.against) for v in known] == [
        (1, "rejected", "added", None),
        (2, "accepted", "found", None),
        (3, "accepted", "added", 2),
        (4, "accepted", "added", 3),
    ]
    assert data(plain) == lines(rows(range(130)))


def test_the_command_says_what_failed_and_what_to_do(
    plain: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    drop(plain, "again.csv", rows(range(40)))
    assert run(plain, monkeypatch, "intake", "own") == 1
    shown = capsys.readouterr().out
    assert shown.startswith("Version 1 of own: rejected, 160 rows (40 added)\n")
    assert "40 of the new rows were there already, cell by cell" in shown
    assert "failed: duplicates: no row is repeated; 40 rows, 25.00% (limit 5.00%)" in shown
    assert f"again.csv row 1: '{rows([0])[0][1]}'" in shown
    assert "data/own.csv is as it was." in shown
    assert "fix: correct the files in data/incoming/own/rejected/0001" in shown
    page = plain.root / ".tunetrail" / "versions" / "own" / "0001" / "version.html"
    assert "no row is repeated" in page.read_text()


# Refused -----------------------------------------------------------------------------------------


def _text(content: bytes, name: str = "new.csv") -> Callable[[Project], list[Path]]:
    def make(project: Project) -> list[Path]:
        path = drop(project, name, [])
        path.write_bytes(content)
        return [settled(path)]

    return make


def _rows(*content: tuple[str, ...], header: tuple[str, ...] = HEADER) -> Callable[..., list[Path]]:
    return lambda project: [drop(project, "new.csv", content, header=header)]


def _twice(project: Project) -> list[Path]:
    folder = project.root / "elsewhere"
    return [drop(project, "new.csv", rows([1])), write(folder / "new.csv", rows([2]))]


REFUSED = {
    "other columns": (
        _rows(("T1", "text", "bug"), header=("id", "message", "que")),
        r"'new.csv' has no column 'queue', has a column 'que', which the data has not\n  fix: give "
        r"it the columns of 'data/own.csv': id, message, queue \(in any order\)",
    ),
    "encoding": (
        _text("id,message,queue\nT1,Grüße,bug\n".encode("latin1")),
        r"line 2 is not UTF-8",
    ),
    "empty": (_text(b""), r"'new.csv' cannot be read: it is empty"),
    "no rows": (_text(b"id,message,queue\n"), r"'new.csv' has no rows"),
    "half a row": (_text(b"id,message,queue\nT500,half"), r"line 2 has 2 cells, the header 3"),
    "a label": (_rows(("T500", "text", "bugs")), r"new.csv: column 'queue', row 1: .* 'bugs'"),
    "an id twice": (
        _rows(("T500", "one", "bug"), ("T500", "two", "bug")),
        r"'T500' is the id of rows 1, 2",
    ),
    "no id": (_rows(("", "one", "bug")), r"row 1 has no id"),
    "another format": (
        _text(b"{}", "new.jsonl"),
        r"new.jsonl' is not of the format of 'data/own.csv' \(.csv\)",
    ),
    "one name": (_twice, r"two of the files are called 'new.csv'"),
    "the data itself": (
        lambda project: [project.root / "data" / "own.csv"],
        r"own.csv' is the data of the task itself",
    ),
    "a folder": (lambda project: [project.root / "data"], r"data' is a folder"),
    "nothing": (lambda project: [project.root / "gone.csv"], r"gone.csv' does not exist"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_taken_in_changes_nothing(project: Project, name: str) -> None:
    make, message = REFUSED[name]
    files = make(project)
    before = state(project.root)
    with pytest.raises(TuneTrailError, match=message):
        intake(project.root, "own", files)
    assert state(project.root) == before


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("data/hutto.yaml", "is a pointer to data elsewhere"),
        ("data", "is a folder"),
        ("../own.csv", "is not a file of the project itself"),
        ("data/gone.csv", "'data/gone.csv' does not exist"),
        ("params.txt.bak", "is not a data file"),
    ],
)
def test_only_a_data_file_of_the_project_has_versions(
    project: Project, source: str, message: str
) -> None:
    (project.root.parent / "own.csv").write_bytes((project.root / "data" / "own.csv").read_bytes())
    (project.root / "params.txt.bak").touch()
    own = project.params["tasks"]["own"]
    project.change(tasks={"own": own | {"source": source}})
    with pytest.raises(TuneTrailError, match=message):
        intake(project.root, "own")


def test_a_file_of_two_tasks_has_no_versions(project: Project) -> None:
    own = project.params["tasks"]["own"]
    project.change(tasks={"own": own, "other": own})
    with pytest.raises(TuneTrailError, match="tasks 'own' and 'other' have one source"):
        intake(project.root, "own")


def test_replace_with_two_files_is_refused(project: Project) -> None:
    drop(project, "a.csv", rows([1]))
    drop(project, "b.csv", rows([2]))
    with pytest.raises(
        TuneTrailError, match=r"--replace takes one file, and there are 2: a\.csv, b\.csv"
    ):
        intake(project.root, "own", replace=True)


def test_the_command_exits_2_for_what_it_cannot_read(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(project, monkeypatch, "intake", "other") == 2
    assert "unknown task 'other'" in capsys.readouterr().err
    assert run(project, monkeypatch, "intake", "own") == 0
    assert capsys.readouterr().out == "Nothing new in data/incoming/own: no version is made.\n"


def test_a_full_disk_changes_nothing_and_the_repetition_goes_on(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    drop(project, "a.csv", rows([120]))
    before = (project.root / "data" / "own.csv").read_bytes()
    real = shutil.copyfile

    def full(source: Path, target: Path, **more: bool) -> object:
        if Path(target).name.startswith(".own.csv."):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
        return real(source, target, **more)

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "copyfile", full)
        with pytest.raises(TuneTrailError, match="the disk is full"):
            intake(project.root, "own")
    assert (project.root / "data" / "own.csv").read_bytes() == before
    assert (project.root / "data" / "incoming" / "own" / "a.csv").exists()
    version = intake(project.root, "own")
    assert version is not None
    assert version.number == 2
    assert data(project) == lines(rows(range(121)))


def test_too_little_room_is_told_before_anything_is_done(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    drop(project, "a.csv", rows([120]))
    before = state(project.root)
    usage = shutil.disk_usage(project.root)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=100))
    with pytest.raises(TuneTrailError, match="a data version needs"):
        intake(project.root, "own")
    assert state(project.root) == before


# Restored ----------------------------------------------------------------------------------------


@pytest.fixture
def two(project: Project) -> Project:
    """Versions of 120, 121 and 122 tickets."""
    for number in (120, 121):
        drop(project, f"{number}.csv", rows([number]))
        intake(project.root, "own")
    return project


def test_every_version_can_be_put_back(two: Project) -> None:
    for number, count in ((1, 120), (3, 122), (2, 121)):
        version = restore(two.root, "own", number)
        assert version is not None
        assert (version.origin, version.restores) == ("restored", number)
        assert data(two) == lines(rows(range(count)))
        wanted = versions(two.root, "own")[number - 1]
        assert (version.sha256, version.md5) == (wanted.sha256, wanted.md5)
        assert kept(two).read_bytes() == (two.root / "data" / "own.csv").read_bytes()
    assert restore(two.root, "own", 2) is None
    assert [v.number for v in versions(two.root, "own")] == [1, 2, 3, 4, 5, 6]


def test_what_somebody_changed_by_hand_is_kept_before_it_goes(two: Project) -> None:
    file = write(two.root / "data" / "own.csv", rows(range(100)))
    content = file.read_bytes()
    restore(two.root, "own", 2)
    by_hand, back = versions(two.root, "own")[-2:]
    assert (by_hand.number, by_hand.origin, by_hand.rows, by_hand.against) == (4, "found", 100, 3)
    assert (back.number, back.restores, back.against) == (5, 2, 4)
    restore(two.root, "own", 4)
    assert file.read_bytes() == content


def test_a_deleted_file_comes_back(two: Project) -> None:
    (two.root / "data" / "own.csv").unlink()
    with pytest.raises(TuneTrailError, match=r"'data/own\.csv' does not exist\n.*--restore puts"):
        intake(two.root, "own")
    assert restore(two.root, "own", 3) is not None
    assert data(two) == lines(rows(range(122)))


def test_a_version_that_is_not_there_is_not_put_back(plain: Project) -> None:
    drop(plain, "again.csv", rows(range(40)))
    intake(plain.root, "own")
    with pytest.raises(TuneTrailError, match="version 1 of task 'own' was rejected"):
        restore(plain.root, "own", 1)
    with pytest.raises(TuneTrailError, match="unknown version '7'"):
        restore(plain.root, "own", 7)


def test_damaged_bytes_are_not_put_back_but_fetched_from_the_remote(
    two: Project, tmp_path: Path
) -> None:
    wanted = versions(two.root, "own")[0]
    copy = two.root / ".dvc" / "cache" / "files" / "md5" / wanted.md5[:2] / wanted.md5[2:]
    whole = copy.read_bytes()
    remote = tmp_path / "remote"
    place = remote / "files" / "md5" / wanted.md5[:2] / wanted.md5[2:]
    place.parent.mkdir(parents=True)
    place.write_bytes(whole)
    copy.chmod(0o644)
    copy.write_bytes(whole[:-9])
    with pytest.raises(
        TuneTrailError, match=r"neither in DVC's cache nor in its remote\n.*`dvc gc`"
    ):
        restore(two.root, "own", 1)
    assert data(two) == lines(rows(range(122)))
    two.command("dvc", "remote", "add", "--default", "shared", str(remote))
    assert restore(two.root, "own", 1) is not None
    assert (two.root / "data" / "own.csv").read_bytes() == whole


def test_the_commands_list_versions_and_put_one_back(
    two: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(two, monkeypatch, "versions", "own") == 0
    shown = capsys.readouterr().out
    assert [line.split()[0] for line in shown.splitlines()[3:] if line.strip()] == ["1", "2", "3"]
    assert "accepted (found)" in shown
    assert run(two, monkeypatch, "versions", "own", "--restore", "1", "--json") == 0
    back = json.loads(capsys.readouterr().out)
    assert (back["number"], back["restores"], back["reasons"]) == (4, 1, [])
    assert run(two, monkeypatch, "versions", "own", "--restore", "1") == 0
    assert capsys.readouterr().out == "The data of own is that of version 1 already.\n"
    assert run(two, monkeypatch, "versions", "own", "--json") == 0
    listed = json.loads(capsys.readouterr().out)
    assert [entry["number"] for entry in listed] == [1, 2, 3, 4]
    assert all((two.root / entry["path"]).is_file() for entry in listed)


# Beside others -----------------------------------------------------------------------------------


def test_two_intakes_at_once_come_one_after_the_other(project: Project, tmp_path: Path) -> None:
    files = [write(tmp_path / f"{n}.csv", rows([n])) for n in (120, 121)]
    context = multiprocessing.get_context("fork")
    both = [context.Process(target=intake, args=(project.root, "own", [file])) for file in files]
    for process in both:
        process.start()
    for process in both:
        process.join(120)
    assert [process.exitcode for process in both] == [0, 0]
    known = versions(project.root, "own")
    assert [(v.number, v.rows) for v in known] == [(1, 120), (2, 121), (3, 122)]
    assert sorted(data(project)) == sorted(lines(rows(range(122))))


def test_the_data_is_not_replaced_while_dvc_reads_it(project: Project) -> None:
    drop(project, "a.csv", rows([120]))
    before = (project.root / "data" / "own.csv").read_bytes()
    file = project.root / "data" / "own.csv"
    held = {"read": {str(file): [{"pid": os.getppid(), "cmd": "dvc repro"}]}, "write": {}}
    (project.root / ".dvc" / "tmp").mkdir(exist_ok=True)
    (project.root / ".dvc" / "tmp" / "rwlock").write_text(json.dumps(held))
    with pytest.raises(TuneTrailError, match=r"another DVC command is at work .*: dvc repro"):
        intake(project.root, "own")
    assert file.read_bytes() == before
    (project.root / ".dvc" / "tmp" / "rwlock").unlink()
    assert intake(project.root, "own") is not None
    assert data(project) == lines(rows(range(121)))


def test_a_decision_does_not_go_over_what_was_changed_since(project: Project) -> None:
    drop(project, "a.csv", rows([120]))
    held = {"read": {str(project.root / "data"): [{"pid": os.getppid(), "cmd": "x"}]}, "write": {}}
    (project.root / ".dvc" / "tmp").mkdir(exist_ok=True)
    (project.root / ".dvc" / "tmp" / "rwlock").write_text(json.dumps(held))
    with pytest.raises(TuneTrailError, match="another DVC command"):
        intake(project.root, "own")
    (project.root / ".dvc" / "tmp" / "rwlock").unlink()
    write(project.root / "data" / "own.csv", rows(range(100)))
    version = intake(project.root, "own")
    assert version is not None
    assert (version.number, version.against) == (2, 1)
    assert data(project) == lines([*rows(range(100)), *rows([120])])


def test_the_graph_has_no_stage_for_the_data(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project.root)
    drop(project, "a.csv", rows([120]))
    intake(project.root, "own")
    dag = Dag(project.root)
    assert [name for name in dag.cells if "own.csv" in name] == []
    assert dag.cells["ingest@own"].upstream == frozenset()
    assert project.command("dvc", "repro", "validate@own").returncode == 0
    again = project.command("dvc", "repro", "validate@own")
    assert "'data/own.csv.dvc' didn't change, skipping" in again.stdout
    assert "Stage 'ingest@own' didn't change, skipping" in again.stdout
    assert project.command("dvc", "status", "data/own.csv.dvc", "ingest@own").stdout.endswith(
        "up to date.\n"
    )
    assert Dag(project.root).changes("ingest@own") == []
    drop(project, "b.csv", rows([121]))
    intake(project.root, "own")
    dag = Dag(project.root)
    assert dag.changes("ingest@own") == ["file data/own.csv changed"]
    assert dag.begin("ingest@own") is False
    subprocess.run(
        [BIN / "python", "-m", "tunetrail.cli", *dag.cells["ingest@own"].command.split()[1:]],
        cwd=project.root, env=project.environment(), check=True,
    )  # fmt: skip
    dag.record("ingest@own")
    assert project.command("dvc", "status", "ingest@own").stdout.strip().endswith("up to date.")
    restore(project.root, "own", 2)
    assert Dag(project.root).begin("ingest@own") is True, "the run cache has it"
    write(project.root / "data" / "own.csv", rows(range(100)))
    assert list(Dag(project.root).damaged()) == [], "a file that is given may be changed by hand"


def test_dvc_learns_of_a_git_that_came_later(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project.root)
    shutil.move(project.root / ".git", project.root / "git")
    Dag(project.root)
    local = project.root / ".dvc" / "config.local"
    assert "no_scm" in local.read_text()
    shutil.move(project.root / "git", project.root / ".git")
    drop(project, "a.csv", rows([120]))
    intake(project.root, "own")
    assert not local.exists()
    assert (project.root / "data" / ".gitignore").read_text() == "/own.csv\n"
