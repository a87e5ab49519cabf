"""Hub sources against a server on the loopback interface that answers as the Hub does."""

from __future__ import annotations

import io
import json
import logging
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from huggingface_hub import constants

from tests.conftest import BIN, ROOT, SHARED_DATA, new_project
from tests.hub_server import Hub, sha256
from tests.tiny import write_model
from tunetrail.errors import TuneTrailError
from tunetrail.params import check_sources, read_params, task_of
from tunetrail.settings import read_yaml
from tunetrail.sources import read_source
from tunetrail.sources.hub import HubSource
from tunetrail.stages.base import fetch_base
from tunetrail.stages.ingest import ingest
from tunetrail.task import TaskSpec

GLUE, BERT = "nyu-mll/glue", "google/tiny-bert"
COMMIT = re.compile("[0-9a-f]{40}")


def parquet(frame: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False)
    return buffer.getvalue()


def pairs(rows: int, start: int = 0) -> pd.DataFrame:
    """Pairs of sentences, every second one a paraphrase."""
    numbers = range(start, start + rows)
    return pd.DataFrame(
        {
            "sentence1": [f"Shares of company {n} rose on Friday ." for n in numbers],
            "sentence2": [f"On Friday , company {n} gained {n % 2} points ." for n in numbers],
            "label": [n % 2 for n in numbers],
        }
    )


def mrpc() -> dict[str, pd.DataFrame]:
    """MRPC itself where it is on this machine."""
    folder = SHARED_DATA / "glue" / "mrpc"
    if folder.is_dir():
        return {s: pd.read_parquet(folder / f"{s}.parquet") for s in SPLITS}
    return {"train": pairs(40), "validation": pairs(10, 40), "test": pairs(20, 50)}


SPLITS = ("train", "validation", "test")


def shards(config: str, frames: dict[str, pd.DataFrame]) -> dict[str, bytes]:
    """The usual layout of a dataset repository."""
    return {f"{config}/{s}-00000-of-00001.parquet": parquet(f) for s, f in frames.items()}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache and no token. The client reads these variables when it is imported."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return tmp_path / "cache"


@pytest.fixture
def hub(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    served = Hub()
    monkeypatch.setenv("HF_ENDPOINT", served.url)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    # The client waits 23 seconds in all before it gives up; the waiting is not what is tested.
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    yield served
    served.stop()


@pytest.fixture
def fetch(tmp_path: Path) -> Callable[[HubSource], Path]:
    """Fetch into a new folder."""
    count = iter(range(100))

    def fetched(wanted: HubSource) -> Path:
        scratch = tmp_path / "deep" / "down" / f"scratch{next(count)}"
        scratch.mkdir(parents=True)
        return wanted.fetch(scratch)

    return fetched


Fetch = Callable[[HubSource], Path]


def source(revision: str, **changes: Any) -> HubSource:
    declared = {"repo": GLUE, "type": "dataset", "config": "mrpc", "revision": revision}
    declared |= changes
    if declared["type"] == "model":
        declared = {"repo": BERT} | {k: v for k, v in declared.items() if k != "config"}
        declared |= {"repo": changes.get("repo", BERT)}
    return HubSource.model_validate(declared)


def rows(folder: Path) -> dict[str, int]:
    return {p.name: len(pd.read_parquet(p)) for p in sorted(folder.iterdir())}


def refused(wanted: HubSource, fetch: Fetch) -> TuneTrailError:
    with pytest.raises(TuneTrailError) as caught:
        fetch(wanted)
    return caught.value


# Datasets --------------------------------------------------------------------------------------


def test_splits_of_a_configuration_arrive_as_they_are(hub: Hub, fetch: Fetch) -> None:
    frames = mrpc()
    files = {"README.md": b"# GLUE", **shards("mrpc", frames), **shards("cola", frames)}
    commit = hub.add(f"datasets/{GLUE}", files)
    wanted = source(commit, licence="see the corpora")
    folder = fetch(wanted)
    assert {p.stem for p in folder.iterdir()} == set(SPLITS)
    for split, frame in frames.items():
        pd.testing.assert_frame_equal(pd.read_parquet(folder / f"{split}.parquet"), frame)
    assert wanted.provenance() == {
        "kind": "hub",
        "repository": GLUE,
        "type": "dataset",
        "config": "mrpc",
        "revision": commit,
        "licence": "see the corpora",
    }
    contents = [r for r in hub.requests if "/resolve/" in r]
    assert contents
    assert all("/mrpc/" in r for r in contents), "nothing else is downloaded"


def test_shards_of_a_split_are_joined_in_their_order(hub: Hub, fetch: Fetch) -> None:
    whole = pairs(30)
    parts = [whole[:11], whole[11:20], whole[20:]]
    files = {f"mrpc/train-{i:05}-of-00003.parquet": parquet(p) for i, p in enumerate(parts)}
    # The order of a listing is not the order of the rows.
    commit = hub.add(f"datasets/{GLUE}", dict(reversed(files.items())))
    joined = pd.read_parquet(fetch(source(commit)) / "train.parquet")
    pd.testing.assert_frame_equal(joined, whole)


def test_missing_shard_is_refused_before_any_download(hub: Hub, fetch: Fetch) -> None:
    files = {f"mrpc/train-{i:05}-of-00003.parquet": parquet(pairs(2)) for i in (0, 2)}
    error = refused(source(hub.add(f"datasets/{GLUE}", files)), fetch)
    assert "split 'train' has 2 of 3 shards" in error.problem
    assert not [r for r in hub.requests if "/resolve/" in r]


def test_shards_with_other_columns_are_refused(hub: Hub, fetch: Fetch) -> None:
    frames = [pairs(2), pairs(2).drop(columns="sentence2")]
    files = {f"mrpc/train-{i:05}-of-00002.parquet": parquet(f) for i, f in enumerate(frames)}
    error = refused(source(hub.add(f"datasets/{GLUE}", files)), fetch)
    assert "the shards of split 'train' do not fit each other" in error.problem


@pytest.mark.parametrize(
    ("config", "names"),
    [
        (None, ["train.parquet", "test.parquet"]),
        (None, ["data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet"]),
        ("mrpc", ["mrpc/train/0000.parquet", "mrpc/test/0000.parquet", "cola/train/0000.parquet"]),
        (
            "data",
            [
                "data/train-00000-of-00001-0123456789abcdef.parquet",
                "data/test-00000-of-00001-fedcba9876543210.parquet",
                "more/train.parquet",
            ],
        ),
    ],
    ids=["top", "one folder", "converted by the Hub", "older upload"],
)
def test_layouts_of_repositories_are_understood(
    config: str | None, names: list[str], hub: Hub, fetch: Fetch
) -> None:
    files = {name: parquet(pairs(4 + i)) for i, name in enumerate(names)}
    commit = hub.add(f"datasets/{GLUE}", files)
    assert rows(fetch(source(commit, config=config))) == {"test.parquet": 5, "train.parquet": 4}


def test_split_under_another_name_is_mapped(hub: Hub, fetch: Fetch) -> None:
    sizes = {"train": 9, "validation_matched": 3, "validation_mismatched": 4, "test_matched": 2}
    commit = hub.add(f"datasets/{GLUE}", shards("mnli", {s: pairs(n) for s, n in sizes.items()}))
    mapping = {"validation": "validation_matched", "test": "validation_mismatched"}
    wanted = source(commit, config="mnli", splits=mapping)
    assert rows(fetch(wanted)) == {
        "test.parquet": 4,
        "train.parquet": 9,
        "validation.parquet": 3,
    }
    assert wanted.provenance()["splits"] == (
        "validation is validation_matched, test is validation_mismatched"
    )


@pytest.mark.parametrize("ending", ["", "\n"])
def test_json_lines_are_read_where_there_is_no_parquet(ending: str, hub: Hub, fetch: Fetch) -> None:
    lines = [json.dumps(row) for row in pairs(5).to_dict("records")]
    files = {
        "mrpc/train-00000-of-00002.jsonl": ("\n".join(lines[:2]) + ending).encode(),
        "mrpc/train-00001-of-00002.jsonl": ("\n".join(lines[2:]) + ending).encode(),
        "cola/train.parquet": parquet(pairs(1)),
    }
    folder = fetch(source(hub.add(f"datasets/{GLUE}", files)))
    frame = pd.read_json(folder / "train.jsonl", lines=True)
    pd.testing.assert_frame_equal(frame, pairs(5))


def test_csv_shards_are_refused(hub: Hub, fetch: Fetch) -> None:
    files = {f"mrpc/train-{i:05}-of-00002.csv": b"a,b\n1,2\n" for i in range(2)}
    error = refused(source(hub.add(f"datasets/{GLUE}", files)), fetch)
    assert "split 'train' is 2 .csv files, which cannot be joined exactly" in error.problem


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"config": "mprc"},
            "unknown config 'mprc'\n  fix: did you mean 'mrpc'? valid: cola, mrpc",
        ),
        ({"config": None}, "has several configurations\n  fix: set 'config': cola, mrpc"),
        ({"splits": {"test": "tset"}}, "unknown split 'tset'\n  fix: did you mean 'test'?"),
        (
            {"config": "cola"},
            "has no split 'train', only dev\n  fix: say which one it is: 'splits:",
        ),
    ],
)
def test_what_the_repository_does_not_have_is_named(
    changes: dict[str, Any], message: str, hub: Hub, fetch: Fetch
) -> None:
    files = shards("mrpc", mrpc()) | shards("cola", {"dev": pairs(3)})
    error = refused(source(hub.add(f"datasets/{GLUE}", files), **changes), fetch)
    assert str(error).startswith(f"dataset '{GLUE}' at ")
    assert message in str(error)
    assert not [r for r in hub.requests if "/resolve/" in r]


def test_script_is_never_fetched_and_the_conversion_is_named(hub: Hub, fetch: Fetch) -> None:
    name = f"datasets/{GLUE}"
    commit = hub.add(name, {"glue.py": b"raise SystemExit", "README.md": b""})
    error = refused(source(commit), fetch)
    assert "only a script, which is never executed (glue.py)" in error.problem
    assert error.fix == "choose a repository with data files"
    converted = hub.push(name, {"mrpc/train/0000.parquet": parquet(pairs(7))}, CONVERTED)
    error = refused(source(commit), fetch)
    assert error.fix == f"the Hub has converted it to Parquet: set 'revision: {converted}'"
    assert rows(fetch(source(converted))) == {"train.parquet": 7}
    assert not [r for r in hub.requests if "glue.py" in r]


CONVERTED = "refs/convert/parquet"

TASK = {
    "name": "mrpc",
    "columns": {"text": "sentence1", "text_pair": "sentence2", "label": "label"},
    "labels": ["not_equivalent", "equivalent"],
}


def test_unlabelled_test_split_is_left_out_and_the_card_says_so(hub: Hub, tmp_path: Path) -> None:
    frames = {"train": pairs(20), "validation": pairs(6), "test": pairs(5).assign(label=-1)}
    commit = hub.add(f"datasets/{GLUE}", shards("mrpc", frames))
    pointer = tmp_path / "mrpc.yaml"
    pointer.write_text(yaml.safe_dump({"kind": "hub", **source(commit).model_dump(mode="json")}))
    ingest(TaskSpec.model_validate({**TASK, "source": pointer}), tmp_path / "canonical")
    card = json.loads((tmp_path / "canonical" / "card.json").read_text())
    assert card["rows_by_split"] == {"train": 20, "validation": 6}
    assert card["source"]["left out"] == "test (5 rows, none has a label)"
    assert card["source"]["revision"] == commit


# Commits, branches and the cache ---------------------------------------------------------------


def test_branch_is_recorded_as_its_commit_with_a_note(
    hub: Hub, fetch: Fetch, caplog: pytest.LogCaptureFixture
) -> None:
    name = f"datasets/{GLUE}"
    first = hub.add(name, shards("mrpc", {"train": pairs(3)}))
    wanted = source("main")
    fetch(wanted)
    assert wanted.provenance()["revision"] == first
    assert wanted.provenance()["asked for"] == "main (not pinned)"
    assert caplog.messages == [
        f"{GLUE}: 'main' is commit {first} and may move: "
        f"write 'revision: {first}' in the pointer to pin it"
    ]
    second = hub.push(name, shards("mrpc", {"train": pairs(4)}))
    moved = source("main")
    assert rows(fetch(moved)) == {"train.parquet": 4}
    assert moved.provenance()["revision"] == second
    caplog.clear()
    pinned = source(first)
    assert rows(fetch(pinned)) == {"train.parquet": 3}
    assert "asked for" not in pinned.provenance()
    assert caplog.messages == []


@pytest.mark.parametrize("way", ["HF_HUB_OFFLINE", "nobody listens"])
def test_warm_cache_needs_no_connection(
    way: str, hub: Hub, fetch: Fetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = hub.add(f"datasets/{GLUE}", shards("mrpc", mrpc()))
    before = rows(fetch(source("main")))
    hub.requests.clear()
    if way == "HF_HUB_OFFLINE":
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    else:
        hub.stop()
    assert rows(fetch(source(commit, files={}))) == before
    by_branch = source("main")
    assert rows(fetch(by_branch)) == before
    assert by_branch.provenance()["revision"] == commit
    assert hub.requests == []


def test_pinned_and_complete_asks_nothing_even_online(hub: Hub, fetch: Fetch) -> None:
    commit = hub.add(f"datasets/{GLUE}", shards("mrpc", mrpc()))
    fetch(source(commit))
    hub.requests.clear()
    fetch(source(commit))
    assert hub.requests == []


def test_cold_cache_offline_says_what_is_missing(
    hub: Hub, cache: Path, fetch: Fetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    error = refused(source("a" * 40), fetch)
    assert error.problem == (
        f"dataset '{GLUE}' at {'a' * 40} is not complete in the cache, and "
        f"HF_HUB_OFFLINE keeps {hub.url} from being asked\n"
        f"  cache   {cache}\n  missing the list of files, and the files of config 'mrpc'"
    )
    assert error.fix == (
        "unset HF_HUB_OFFLINE for one run, or bring the cache (HF_HOME) of a machine that has them"
    )
    pinned = source("a" * 40, files={"mrpc/train.parquet": "0" * 64})
    assert "  missing mrpc/train.parquet" in refused(pinned, fetch).problem
    assert refused(source("main"), fetch).problem.startswith(
        f"dataset '{GLUE}' at main is not complete in the cache"
    )


def test_half_warm_cache_without_the_hub_names_the_files(
    hub: Hub, cache: Path, fetch: Fetch
) -> None:
    files = shards("mrpc", {"train": pairs(3)}) | shards("cola", {"train": pairs(3)})
    commit = hub.add(f"datasets/{GLUE}", files)
    fetch(source(commit))
    hub.stop()
    error = refused(source(commit, config="cola"), fetch)
    assert f"and {hub.url} cannot be reached (" in error.problem
    assert "missing cola/train-00000-of-00001.parquet" in error.problem
    assert "mrpc" not in error.problem
    assert error.fix.startswith("restore the connection for one run")


def test_credentials_in_the_endpoint_are_not_shown(
    hub: Hub, fetch: Fetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.stop()
    monkeypatch.setenv("HF_ENDPOINT", hub.url.replace("http://", "http://me:hidden@"))
    error = refused(source("a" * 40), fetch)
    assert f"{hub.url} cannot be reached" in error.problem
    assert "hidden" not in str(error)


def test_transfer_that_breaks_off_goes_on_where_it_was(
    hub: Hub, fetch: Fetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1024)
    frame = pairs(2000)
    commit = hub.add(f"datasets/{GLUE}", shards("mrpc", {"train": frame}))
    hub.cut = 1
    got = pd.read_parquet(fetch(source(commit)) / "train.parquet")
    pd.testing.assert_frame_equal(got, frame)
    assert re.fullmatch(r"bytes=[1-9]\d+-", hub.ranges[-1] or "")


# Refusals of the Hub ---------------------------------------------------------------------------


TOKEN = "hf_" + "S3cr3t" * 5


def test_private_repository_asks_for_a_token(
    hub: Hub, fetch: Fetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = hub.add(f"datasets/{GLUE}", shards("mrpc", mrpc()), token=TOKEN)
    error = refused(source(commit), fetch)
    assert error.problem == (
        f"dataset '{GLUE}' at {commit} is not shown to this user (HTTP 401 from {hub.url})"
    )
    assert error.fix == (
        "correct 'repo' and 'type'; if it is private or gated, "
        "set HF_TOKEN to a token that has access"
    )
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert set(rows(fetch(source(commit)))) == {f"{s}.parquet" for s in SPLITS}


def test_token_stays_with_the_hub_and_out_of_sight(
    hub: Hub,
    fetch: Fetch,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    files = shards("mrpc", {"train": pairs(3)})
    hub.add(f"datasets/{GLUE}", files, token=TOKEN)
    wanted = source("main")
    fetch(wanted)
    sent = dict(zip(hub.requests, hub.authorizations, strict=True))
    assert {r.split()[1].split("/")[1] for r, token in sent.items() if token} == {"api", "datasets"}
    assert {r.split()[1].split("/")[1] for r, token in sent.items() if not token} == {"cdn"}
    hub.add("datasets/other/private", files, token="hf_another")
    hub.add("datasets/other/gated", files, token="hf_another", gated=True)
    private = refused(source("main", repo="other/private"), fetch)
    assert "the token in use has no access: set HF_TOKEN to one that has" in private.fix
    gated = refused(source("main", repo="other/gated"), fetch)
    shown = capfd.readouterr()
    everything = [str(private), str(gated), str(wanted.provenance()), caplog.text, *shown]
    assert not [text for text in everything if TOKEN in text]


def test_gated_repository_names_its_page(hub: Hub, fetch: Fetch) -> None:
    hub.add(f"models/{BERT}", {"config.json": b"{}"}, token=TOKEN, gated=True)
    error = refused(source("main", type="model"), fetch)
    assert error.problem == f"model '{BERT}' at main is gated (HTTP 401)"
    assert error.fix == (
        f"accept its terms on {hub.url}/{BERT}, then set HF_TOKEN to a token of that account"
    )


def test_unknown_repository_is_named(
    hub: Hub, fetch: Fetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = refused(source("a" * 40, repo="nyu-mll/gleu"), fetch)
    assert "'nyu-mll/gleu'" in error.problem
    assert "HTTP 401" in error.problem, "the Hub does not tell strangers what exists"
    assert "correct 'repo' and 'type'" in error.fix
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    error = refused(source("main", repo="nyu-mll/gleu"), fetch)
    assert error.problem == f"dataset 'nyu-mll/gleu' at main is not on {hub.url} (HTTP 404)"


@pytest.mark.parametrize("revision", ["0" * 40, "v9"])
def test_unknown_revision_is_named(revision: str, hub: Hub, fetch: Fetch) -> None:
    hub.add(f"datasets/{GLUE}", shards("mrpc", mrpc()))
    error = refused(source(revision), fetch)
    assert error.problem == f"dataset '{GLUE}' has no revision '{revision}'"
    assert error.fix == (
        f"correct 'revision'; {hub.url}/datasets/{GLUE}/commits/main lists the commits"
    )


@pytest.mark.parametrize("step", ["the commit", "the list of files", "a file"])
def test_hub_that_is_broken_is_named(step: str, hub: Hub, fetch: Fetch) -> None:
    files = shards("mrpc", {"train": pairs(3)}) | shards("cola", {"train": pairs(3)})
    commit = hub.add(f"datasets/{GLUE}", files)
    if step == "a file":
        fetch(source(commit))
    hub.down = 503
    wanted = source("main" if step == "the commit" else commit, config="cola")
    error = refused(wanted, fetch)
    assert error.problem == (
        f"{hub.url} answered HTTP 503 for dataset '{GLUE}' at {wanted.revision}"
    )
    assert error.fix == "try again later"


# Digests and names -----------------------------------------------------------------------------


def test_pinned_digests_are_checked(hub: Hub, fetch: Fetch) -> None:
    files = shards("mrpc", {"train": pairs(3)})
    (name, content), *_ = files.items()
    commit = hub.add(f"datasets/{GLUE}", files)
    fetch(source(commit, files={name: sha256(content)}))
    error = refused(source(commit, files={name: sha256(b"other")}), fetch)
    assert f"{name} has the wrong digest" in error.problem
    assert f"required sha256 {sha256(b'other')}" in error.problem
    assert f"actual   sha256 {sha256(content)}" in error.problem
    error = refused(source(commit, files={"mrpc/trian.parquet": "0" * 64}), fetch)
    assert "files: unknown file 'mrpc/trian.parquet'" in error.problem
    assert f"valid: {name}" in error.fix


@pytest.mark.parametrize(
    "name", ["../../../escape.txt", "/escape.txt", "mrpc/../../escape.txt", "mrpc\\..\\escape.txt"]
)
@pytest.mark.parametrize("kind", ["dataset", "model"])
def test_names_that_would_leave_the_folder_are_refused(
    kind: str, name: str, hub: Hub, fetch: Fetch, tmp_path: Path
) -> None:
    files = {**shards("mrpc", {"train": pairs(3)}), name: b"out"}
    commit = hub.add(f"{kind}s/{GLUE}", files)
    error = refused(source(commit, type=kind, repo=GLUE), fetch)
    assert f"has a file '{name}', which would leave its folder" in error.problem
    assert not [r for r in hub.requests if "/resolve/" in r]
    assert not list(tmp_path.rglob("*escape.txt"))


# Models ----------------------------------------------------------------------------------------


@pytest.fixture
def bert(tmp_path: Path) -> dict[str, bytes]:
    """The files of a small model repository, with what such repositories also have."""
    folder = write_model(tmp_path / "bert")
    files = {p.name: p.read_bytes() for p in folder.iterdir()}
    others = ("README.md", "pytorch_model.bin", "tf_model.h5", "modeling.py", "onnx/model.onnx")
    return files | dict.fromkeys(others, b"not needed") | {"openvino/tokenizer.json": b"{}"}


def test_model_arrives_with_what_it_needs_alone(
    hub: Hub, fetch: Fetch, bert: dict[str, bytes]
) -> None:
    wanted = source(hub.add(f"models/{BERT}", bert), type="model", licence="Apache-2.0")
    folder = fetch(wanted)
    got = {p.name: p.read_bytes() for p in folder.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(got)
    assert got == {name: bert[name] for name in got}
    assert not set(got) & {"README.md", "pytorch_model.bin", "tf_model.h5", "modeling.py"}
    asked = {r.rpartition("/")[2] for r in hub.requests if "/resolve/" in r}
    assert asked == set(got)
    assert wanted.provenance() == {
        "kind": "hub",
        "repository": BERT,
        "type": "model",
        "revision": wanted.revision,
        "licence": "Apache-2.0",
    }


def test_repository_of_pickles_is_refused_before_any_download(
    hub: Hub, fetch: Fetch, bert: dict[str, bytes]
) -> None:
    del bert["model.safetensors"]
    commit = hub.add(f"models/{BERT}", bert)
    error = refused(source(commit, type="model"), fetch)
    assert error.problem == (
        f"model '{BERT}' at {commit} has no .safetensors weights, only pickles, "
        "which are never loaded (pytorch_model.bin)"
    )
    assert "choose a revision that has them" in error.fix
    assert not [r for r in hub.requests if "/resolve/" in r]


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_model_without_a_needed_file_is_refused_before_its_weights(
    name: str, hub: Hub, fetch: Fetch, bert: dict[str, bytes]
) -> None:
    del bert[name]
    error = refused(source(hub.add(f"models/{BERT}", bert), type="model"), fetch)
    assert f"has no {name}" in error.problem
    assert not [r for r in hub.requests if "/resolve/" in r]


# Pointers --------------------------------------------------------------------------------------


POINTER = {"kind": "hub", "repo": GLUE, "type": "dataset", "revision": "a" * 40}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"repo": "a/b/c"}, "'repo' is 'a/b/c': must be the name of a repository"),
        ({"repo": "../glue"}, "'repo' is '../glue': must be the name of a repository"),
        ({"repo": "https://x/y"}, "'repo' is 'https://x/y': must be the name of a repository"),
        ({"type": "space"}, "'type' is 'space': input should be 'dataset' or 'model'"),
        ({"revision": ""}, "'revision' is '': must be a commit, branch or tag"),
        ({"revision": "../main"}, "'revision' is '../main': must be a commit, branch or tag"),
        ({"type": "model", "config": "mrpc"}, "'config' and 'splits' belong to datasets"),
        ({"files": {"a": "0"}}, "'files.a' is '0': string should match"),
        ({"splits": {"dev": "x"}}, "'splits.dev.[key]' is 'dev': input should be 'train'"),
        ({"split": {}}, "unknown key 'split'\n  fix: did you mean 'splits'?"),
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


@pytest.mark.parametrize("key", ["repo", "type", "revision"])
def test_pointer_without_a_needed_key_is_refused(key: str, tmp_path: Path) -> None:
    pointer = tmp_path / "pointer.yaml"
    pointer.write_text(yaml.safe_dump({k: v for k, v in POINTER.items() if k != key}))
    with pytest.raises(TuneTrailError, match=f"'{key}' is missing"):
        read_source(pointer)


def test_example_plan_is_ready_to_be_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)  # its paths are those of a project, which its copy lies at the top of
    path = Path("examples/glue-roberta/params.yaml")
    params = read_params(path)
    check_sources(params, path)
    base = read_source(params.base.source)
    assert isinstance(base, HubSource)
    assert (base.repo, base.type) == ("FacebookAI/roberta-base", "model")
    assert COMMIT.fullmatch(base.revision)
    tasks = {name: task_of(params, name, path) for name in params.tasks}
    assert set(tasks) >= {"mrpc", "cola", "sst2", "rte"}
    for name, task in tasks.items():
        data = read_source(task.source)
        assert isinstance(data, HubSource)
        assert (data.repo, data.type, data.config) == (GLUE, "dataset", name)
        assert COMMIT.fullmatch(data.revision)
    assert {task.source.parent.as_posix() for task in tasks.values()} == {"data/glue"}


# Through the commands --------------------------------------------------------------------------


def command(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """An installed command, in a process that reads the client's variables itself."""
    own = {"PATH": f"{BIN}:/usr/bin:/bin", "HOME": str(folder), "HF_HOME": str(folder / "hf")}
    own |= {"PYTHONPATH": str(ROOT / "src"), "NO_PROXY": "127.0.0.1,localhost"}
    return subprocess.run(
        [str(Path(sys.executable).with_name("tunetrail")), *arguments],
        cwd=folder,
        env=own | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_variables_of_the_client_apply_to_the_command(
    hub: Hub, bert: dict[str, bytes], tmp_path: Path
) -> None:
    commit = hub.add(f"models/{BERT}", bert, token=TOKEN)
    pointer = {"kind": "hub", "repo": BERT, "type": "model", "revision": commit}
    (tmp_path / "bert.yaml").write_text(yaml.safe_dump(pointer))
    base = ("base", "bert.yaml", "models/base")
    offline = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "1"}

    cold = command(tmp_path, *base, **offline)
    assert (cold.returncode, cold.stdout) == (2, "")
    assert cold.stderr.startswith(
        f"error: model '{BERT}' at {commit} is not complete in the cache, and "
        f"HF_HUB_OFFLINE keeps {hub.url} from being asked\n  cache   {tmp_path}/hf/hub\n"
    )
    assert hub.requests == []
    first = command(tmp_path, *base, HF_ENDPOINT=hub.url, HF_TOKEN=TOKEN)
    assert (first.returncode, first.stdout, first.stderr) == (0, "", ""), "no bars without terminal"
    card = json.loads((tmp_path / "models/base/card.json").read_text())
    assert card["source"]["revision"] == commit
    assert list((tmp_path / "hf" / "hub").glob("models--*"))
    hub.stop()
    for environment in (offline, {"HF_ENDPOINT": hub.url}):
        again = command(tmp_path, *base, **environment)
        assert (again.returncode, again.stderr) == (0, "")


@pytest.mark.pipeline
def test_real_model_and_data_through_the_commands_of_a_project(hub: Hub, tmp_path: Path) -> None:
    """The shipped model from a Hub is the shipped model from a package, byte for byte."""
    scratch = tmp_path / "package"
    scratch.mkdir()
    shipped = read_source(ROOT / "data" / "minilm.yaml").fetch(scratch)
    files = {p.name: p.read_bytes() for p in shipped.iterdir() if p.is_file()}
    model = hub.add(f"models/{BERT}", files | {"pytorch_model.bin": b"no"})
    weights = read_yaml(ROOT / "data" / "minilm.yaml")["files"]
    frames = mrpc()
    frames["test"] = frames["test"].assign(label=-1)
    data = hub.add(f"datasets/{GLUE}", shards("mrpc", frames))
    project = new_project(tmp_path / "project")
    for name, revision, more in (
        ("bert", model, {"repo": BERT, "type": "model", "files": weights}),
        ("mrpc", data, {"repo": GLUE, "type": "dataset", "config": "mrpc"}),
    ):
        pointer = {"kind": "hub", "revision": revision, **more}
        (project.root / "data" / f"{name}.yaml").write_text(yaml.safe_dump(pointer))
    task = {k: v for k, v in TASK.items() if k != "name"} | {"source": "data/mrpc.yaml"}
    project.change(
        base={"source": "data/bert.yaml", "max_length": 64, "pooling": "mean"}, tasks={"mrpc": task}
    )
    environment = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "HF_TOKEN": ""}
    for arguments in (
        ("base", "data/bert.yaml", "models/base"),
        ("ingest", "mrpc", "data/canonical/mrpc"),
    ):
        done = project.command(str(BIN / "tunetrail"), *arguments, **environment)
        assert (done.returncode, done.stderr) == (0, "")
    fetch_base(ROOT / "data" / "minilm.yaml", tmp_path / "expected")
    expected = json.loads((tmp_path / "expected" / "card.json").read_text())
    card = project.json("models/base/card.json")
    assert card["source"]["repository"] == BERT
    kept = {p.name: p.read_bytes() for p in (project.root / "models/base/model").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(kept)
    assert kept == {name: files[name] for name in kept}
    assert {k: card[k] for k in card if k not in {"source", "digest"}} == {
        k: expected[k] for k in expected if k not in {"source", "digest"}
    }
    rows = pd.read_parquet(project.root / "data/canonical/mrpc/data.parquet")
    sizes = {s: len(f) for s, f in frames.items() if s != "test"}
    assert rows["split"].value_counts().to_dict() == sizes
    assert rows["label"].tolist() == [n for s in sizes for n in frames[s]["label"]]
