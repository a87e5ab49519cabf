"""Pointers of the kind ``files``: whatever fsspec reads, and no secret in a committed file."""

from __future__ import annotations

import importlib.util
import io
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import pandas as pd
import pytest
import yaml

from tunetrail.errors import TuneTrailError
from tunetrail.files import file_digest, tree_digest
from tunetrail.sources import read_source
from tunetrail.sources.files import FilesSource
from tunetrail.stages.ingest import ingest
from tunetrail.task import TaskSpec

#: A text of a row looks like a page with links, which is no folder for all that.
ROWS = b'text,label\nsee <a href="other.csv">this</a>,pos\nno,neg\n'
MORE = b"text,label\nfine,pos\n"
TREE = {"train.csv": ROWS, "test.csv": MORE, "notes/read.txt": b"no data\n"}


class Quiet(SimpleHTTPRequestHandler):
    """Serves a folder without a word, whatever query follows the name."""

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "served"
    for name, content in TREE.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    with zipfile.ZipFile(folder / "all.zip", "w") as bundle:
        for name, content in TREE.items():
            bundle.writestr(f"data/{name}", content)
    return folder


@pytest.fixture
def web(tree: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Address of a server that offers the tree."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tree)))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def memory(tree: Path) -> Iterator[str]:
    """The tree in fsspec's memory."""
    system = fsspec.filesystem("memory")
    for path in tree.rglob("*"):
        if path.is_file():
            system.pipe_file(f"/rows/{path.relative_to(tree).as_posix()}", path.read_bytes())
    yield "memory://rows"
    system.rm("/rows", recursive=True)


def source(url: str, **more: Any) -> FilesSource:
    return FilesSource.model_validate({"url": url, **more})


def fetch(wanted: FilesSource, tmp_path: Path) -> Path:
    scratch = tmp_path / "deep" / "down" / "scratch"
    scratch.mkdir(parents=True)
    return wanted.fetch(scratch)


def contents(folder: Path) -> dict[str, bytes]:
    files = (p for p in folder.rglob("*") if p.is_file())
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}


# What comes back -------------------------------------------------------------------------------


@pytest.fixture(params=["file", "memory", "http", "zip in memory", "zip over http"])
def place(request: pytest.FixtureRequest, tree: Path) -> tuple[str, str]:
    """What stands before and after a name in the tree, in a URL of each kind."""
    if request.param == "file":
        return f"file://{tree}/", ""
    if request.param == "memory":
        return f"{request.getfixturevalue('memory')}/", ""
    web = request.getfixturevalue("web") if "http" in request.param else ""
    if request.param == "http":
        return f"{web}/", ""
    # The server knows no ranges, without which an archive is fetched as a whole.
    within = f"simplecache::{web}" if web else request.getfixturevalue("memory")
    archive = f"{within}/all.zip"
    return "zip://data/", f"::{archive}"


def test_file_is_fetched_under_its_name(place: tuple[str, str], tmp_path: Path) -> None:
    before, after = place
    wanted = source(f"{before}train.csv{after}")
    path = fetch(wanted, tmp_path)
    assert (path.name, path.read_bytes()) == ("train.csv", ROWS)
    assert wanted.provenance() == {
        "kind": "files",
        "url": f"{before}train.csv{after}",
        "sha256": file_digest(path),
        "licence": "unknown",
    }


def test_glob_becomes_a_folder(place: tuple[str, str], tmp_path: Path) -> None:
    before, after = place
    folder = fetch(source(f"{before}*.csv{after}"), tmp_path)
    assert contents(folder) == {n: c for n, c in TREE.items() if n.endswith(".csv")}


def test_glob_that_finds_one_file_is_a_folder_too(place: tuple[str, str], tmp_path: Path) -> None:
    before, after = place
    assert contents(fetch(source(f"{before}tr*.csv{after}"), tmp_path)) == {"train.csv": ROWS}


@pytest.mark.parametrize("end", ["", "/"])
def test_folder_is_fetched_whole(end: str, memory: str, tree: Path, tmp_path: Path) -> None:
    for number, url in enumerate((f"{memory}{end}", f"file://{tree}{end}")):
        folder = fetch(source(url), tmp_path / str(number))
        assert contents(folder) == contents(tree)
    (tmp_path / "zip").mkdir()
    archived = fetch(source(f"zip://data{end}::{memory}/all.zip"), tmp_path / "zip")
    assert contents(archived) == TREE


def test_whole_archive_is_a_folder(memory: str, tmp_path: Path) -> None:
    folder = fetch(source(f"zip://::{memory}/all.zip"), tmp_path)
    assert contents(folder) == {f"data/{name}": content for name, content in TREE.items()}


def test_query_of_a_web_address_is_no_part_of_the_name(web: str, tmp_path: Path) -> None:
    path = fetch(source(f"{web}/train.csv?version=2&part[]=a*"), tmp_path)
    assert (path.name, path.read_bytes()) == ("train.csv", ROWS)


def test_pointer_feeds_a_task(
    memory: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pointer = tmp_path / "rows.yaml"
    declared = {"kind": "files", "url": f"{memory}/*.csv", "version": "2026-01", "licence": "MIT"}
    pointer.write_text(yaml.safe_dump(declared))
    task = {
        "name": "toy",
        "source": pointer,
        "columns": {"text": "text", "label": "label"},
        "labels": ["neg", "pos"],
    }
    ingest(TaskSpec.model_validate(task), tmp_path / "canonical")
    rows = pd.read_parquet(tmp_path / "canonical" / "data.parquet")
    assert rows["split"].value_counts().to_dict() == {"train": 2, "test": 1}
    card = yaml.safe_load((tmp_path / "canonical" / "card.json").read_text())
    digest = card["source"].pop("sha256")
    assert len(digest) == 64
    assert card["source"] == declared
    assert card["licence"] == "MIT"
    assert capfd.readouterr() == ("", ""), "no bars without a terminal"


def test_storage_options_reach_the_protocol(memory: str, tmp_path: Path) -> None:
    # dirfs takes the folder that names are relative to.
    wanted = source("dir://train.csv", options={"path": "/rows", "target_protocol": "memory"})
    assert fetch(wanted, tmp_path).read_bytes() == ROWS


# Digests ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["train.csv", "*.csv"])
def test_pinned_digest_is_checked(name: str, memory: str, tmp_path: Path) -> None:
    first = fetch(source(f"{memory}/{name}"), tmp_path / "first")
    digest = tree_digest(first) if first.is_dir() else file_digest(first)
    pinned = source(f"{memory}/{name}", sha256=digest)
    fetch(pinned, tmp_path / "second")
    fsspec.filesystem("memory").pipe_file("/rows/train.csv", b"text,label\nother,pos\n")
    with pytest.raises(TuneTrailError) as caught:
        fetch(pinned, tmp_path / "third")
    assert f"{memory}/{name} has the wrong digest" in caught.value.problem
    assert f"required sha256 {digest}" in caught.value.problem
    changed = fetch(source(f"{memory}/{name}"), tmp_path / "fourth")
    actual = tree_digest(changed) if changed.is_dir() else file_digest(changed)
    assert f"actual   sha256 {actual}" in caught.value.problem


# What is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url", ["file:///nowhere/rows.csv", "memory://nowhere/rows.csv", "zip://x.csv::memory://no.zip"]
)
def test_missing_file_is_named(url: str, tmp_path: Path) -> None:
    with pytest.raises(TuneTrailError) as caught:
        fetch(source(url), tmp_path)
    assert str(caught.value) == f"{url} does not exist\n  fix: correct 'url'"


def test_missing_page_and_silent_server_are_named(web: str, tmp_path: Path) -> None:
    with pytest.raises(TuneTrailError, match=r"/nothing\.csv does not exist"):
        fetch(source(f"{web}/nothing.csv"), tmp_path / "a")
    with pytest.raises(TuneTrailError) as caught:
        fetch(source("http://127.0.0.1:9/rows.csv"), tmp_path / "b")
    assert caught.value.problem.startswith("http://127.0.0.1:9/rows.csv cannot be fetched: ")
    assert "check the address, the network" in caught.value.fix


def test_archive_on_a_server_without_ranges_is_explained(web: str, tmp_path: Path) -> None:
    with pytest.raises(TuneTrailError) as caught:
        fetch(source(f"zip://data/train.csv::{web}/all.zip"), tmp_path)
    assert "doesn't appear to support range requests" in caught.value.problem
    assert caught.value.fix.endswith("without range requests: '::simplecache::http…'")


def test_glob_without_a_match_is_named(memory: str, tmp_path: Path) -> None:
    with pytest.raises(TuneTrailError, match=r"rows/\*\.tsv matches no file"):
        fetch(source(f"{memory}/*.tsv"), tmp_path)


@pytest.mark.parametrize("protocol", ["s3", "gs", "zip://rows.csv::s3"])
def test_protocol_without_its_package_names_it(protocol: str, tmp_path: Path) -> None:
    package = "gcsfs" if protocol == "gs" else "s3fs"
    if importlib.util.find_spec(package):
        pytest.skip(f"{package} is installed here")
    url = f"{protocol}://bucket/rows.csv"
    with pytest.raises(TuneTrailError) as caught:
        fetch(source(url), tmp_path)
    assert caught.value.problem.startswith(f"{url} needs a package that is not installed (")
    assert caught.value.fix == f"pip install {package}"


def test_names_that_would_leave_the_folder_are_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as bundle:
        bundle.writestr("data/train.csv", ROWS)
        bundle.writestr("data/../../../escape.txt", b"out")
    (tmp_path / "bad.zip").write_bytes(buffer.getvalue())
    with pytest.raises(TuneTrailError, match="which would leave its folder"):
        fetch(source(f"zip://::file://{tmp_path}/bad.zip"), tmp_path)
    assert not list(tmp_path.rglob("escape.txt"))


POINTER = {"kind": "files", "url": "https://example.org/rows.csv"}
SECRET = "Zm9yZ2V0IHRoaXM"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"url": "data/rows.csv"}, "'url' is 'data/rows.csv': not a URL (a file on this machine"),
        ({"url": "htps://x/y.csv"}, "url: unknown protocol 'htps'\n  fix: did you mean 'https'?"),
        ({"url": "zip://a::nope://b"}, "url: unknown protocol 'nope'"),
        ({"url": "hf://datasets/a/b/c.csv"}, "use a pointer of the kind 'hub'"),
        ({"sha256": "abc"}, "'sha256' is 'abc': string should match"),
        ({"path": "x"}, "unknown key 'path'"),
        ({"options": {"secret": SECRET}}, "the storage option 'secret' is a secret"),
        ({"options": {"AWS_ACCESS_KEY_ID": SECRET}}, "the storage option 'AWS_ACCESS_KEY_ID' is"),
        ({"options": {"accountKey": SECRET}}, "the storage option 'accountKey' is a secret"),
        (
            {"options": {"client_kwargs": {"headers": {"Authorization": SECRET}}}},
            "the storage option 'Authorization' is a secret",
        ),
        ({"options": {"s3": {"token": SECRET}}}, "the storage option 'token' is a secret"),
        ({"url": f"https://me:{SECRET}@example.org/x.csv"}, "a password in the URL is a secret"),
        (
            {"url": f"zip://a::sftp://me:{SECRET}@example.org/x"},
            "a password in the URL is a secret",
        ),
        (
            {"url": f"https://example.org/x.csv?X-Amz-Signature={SECRET}"},
            "the parameter 'X-Amz-Signature' of the URL is a secret",
        ),
        ({"url": f"https://example.org/x.csv?a=1&sig={SECRET}"}, "the parameter 'sig' of the URL"),
    ],
)
def test_malformed_pointer_names_file_and_key(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    pointer = tmp_path / "pointer.yaml"
    pointer.write_text(yaml.safe_dump(POINTER | changes))
    with pytest.raises(TuneTrailError) as caught:
        read_source(pointer)
    assert message in str(caught.value)
    assert caught.value.problem.startswith(str(pointer))
    assert SECRET not in str(caught.value)
    if "is a secret" in message:
        assert "use the environment or the provider's credential file" in caught.value.fix


@pytest.mark.parametrize(
    "options", [{"anon": True}, {"client_kwargs": {"region_name": "eu-west-1"}}, {"keypad": "x"}]
)
def test_other_options_are_no_secrets(options: dict[str, Any], tmp_path: Path) -> None:
    pointer = tmp_path / "pointer.yaml"
    pointer.write_text(yaml.safe_dump(POINTER | {"options": options}))
    assert read_source(pointer).options == options
