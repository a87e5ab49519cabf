"""Models of one base on one session: as evaluated, and refused where they cannot share."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.served import Exported, Server, conforms, export_tiny, serving
from tests.tiny import write_base
from tunetrail.errors import TuneTrailError
from tunetrail.files import file_digest, read_json, write_json
from tunetrail.layout import ADAPTER, CERTIFICATE, MODEL, SERVING, SHARED
from tunetrail.serving.models import open_model, open_models
from tunetrail.serving.sharing import Part, part_of, share

pytestmark = pytest.mark.usefixtures("fresh_accelerate")

#: Name → kind, method and options of a tiny model; with a rate at which the method learns.
TINY: dict[str, tuple[str, str, dict[str, Any]]] = {
    "digits": ("classes", "lora", {"rate": 2e-2}),
    "parity": ("parity", "lora", {"rate": 2e-2}),
    "narrow": ("classes", "lora", {"rate": 2e-2, "rank": 4}),
    "scaled": ("classes", "ia3", {"rate": 5e-2}),
    "biases": ("classes", "bitfit", {"rate": 2e-2}),
    "number": ("number", "lora", {"rate": 2e-2}),
    "sparse": ("classes", "dsee", {"rate": 2e-2}),
    "whole": ("classes", "full", {}),
}

Exports = Callable[[str], Exported]


@pytest.fixture(scope="module")
def exports(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Exports:
    """The tiny export of a name, made once."""
    made: dict[str, Exported] = {}

    def of(name: str) -> Exported:
        if name not in made:
            kind, method, options = TINY[name]
            folder = tmp_path_factory.mktemp(name)
            made[name] = export_tiny(kind, base, folder, method=method, **options)
        return made[name]

    return of


@pytest.fixture(scope="module")
def part(base: Path, exports: Exports) -> Callable[[str], Part]:
    def of(name: str) -> Part:
        folder = exports(name).folder
        place = folder.parent
        return Part(name, None, folder, place, place / "prepared" / "test", base)

    return of


@pytest.fixture(scope="module")
def shared(part: Callable[[str], Part], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models whose heads differ in size."""
    out = tmp_path_factory.mktemp("shared") / "both"
    share([part("parity"), part("digits")], out)
    return out


@pytest.fixture(scope="module")
def server(shared: Path) -> Iterator[Server]:
    with serving(str(shared), "--max-rows", "64") as running:
        yield running


def test_each_model_answers_as_it_was_evaluated(
    server: Server, shared: Path, exports: Exports
) -> None:
    for _ in range(2):  # taking turns
        for name in ("digits", "parity"):
            answer = server.post({"rows": exports(name).rows()}, f"/models/{name}/predict")
            assert answer.status == 200, answer.content
            assert answer.content["model"] == name
            found = answer.content["predictions"]
            assert len(found) == len(exports(name).texts) > 10
            assert all(exports(name).agrees(place, each) for place, each in enumerate(found))
    assert (shared / MODEL).stat().st_size > 10 * (shared / "digits" / ADAPTER).stat().st_size


def test_the_models_are_told(server: Server, shared: Path, exports: Exports) -> None:
    told = {model["name"]: model for model in server.get("/models").content}
    assert list(told) == ["digits", "parity"]
    for name, model in told.items():
        certificate = read_json(exports(name).folder / CERTIFICATE)
        assert (model["run"], model["sha256"]) == (certificate["run"], certificate["onnx_sha256"])
        assert model["adapter"] == file_digest(shared / name / ADAPTER)
        assert model["version"] is None
        written = next(m for m in read_json(shared / SHARED)["models"] if m["name"] == name)
        assert written["largest_logit_difference"] < written["tolerance"] == 1e-4
        assert written["rows"] == len(exports(name).texts)
    assert told["parity"]["labels"] == ["even", "odd"]
    assert [model["name"] for model in server.ready["models"]] == ["digits", "parity"]
    for path in ("/predict", "/model"):
        answer = server.post({}, path) if path == "/predict" else server.get(path)
        assert answer.status == 404
        assert answer.content == {
            "problem": "2 models are served here",
            "fix": "POST /models/NAME/predict, with one of: digits, parity",
        }
    answer = server.post({"rows": []}, "/models/parities/predict")
    assert answer.status == 404
    assert answer.content["problem"] == "unknown model 'parities'"
    assert answer.content["fix"].startswith("did you mean 'parity'?")


def test_clients_of_different_models_are_answered_right_and_in_batches(
    shared: Path, exports: Exports
) -> None:
    names = ["digits", "parity"]
    with (
        serving(str(shared), "--max-wait-ms", "1000", "--max-batch", "16") as server,
        ThreadPoolExecutor(32) as pool,
    ):

        def ask(number: int) -> bool:
            name, place = names[number % 2], number % len(exports("digits").texts)
            row = exports(name).rows()[place]
            answer = server.post({"rows": [row]}, f"/models/{name}/predict")
            return exports(name).agrees(place, answer.content["predictions"][0])

        right = list(pool.map(ask, range(64)))
        batches = server.metric("tunetrail_serve_batch_rows_count")
        assert server.metric("tunetrail_serve_rows_total") == 64
    assert all(right)
    # The models alternate: requests of one are joined past those of the other.
    assert batches <= 32


def test_the_service_of_several_models_behaves_as_its_document_says(server: Server) -> None:
    assert conforms(server, examples=20) == {
        "/models/digits/predict", "/models/parity/predict", "/models", "/health", "/ready",
        "/metrics",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["scaled", "biases"])
def test_other_methods_share_a_base_too(
    name: str, part: Callable[[str], Part], exports: Exports, tmp_path: Path
) -> None:
    """A folder of one model; to which others may come."""
    share([part(name)], tmp_path / "shared")
    model = open_model(str(tmp_path / "shared"))
    found = model.predictor(exports(name).texts["text"].tolist())
    expected = exports(name).predictions["prediction"]
    assert found["label"] == [model.predictor.labels[place] for place in expected]


def refused(parts: list[Part], out: Path) -> tuple[str, str]:
    """Problem and fix; nothing is left."""
    with pytest.raises(TuneTrailError) as caught:
        share(parts, out)
    assert not out.exists() or not list(out.iterdir())
    return caught.value.problem, caught.value.fix


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("narrow", "rank 8 and 4"),
        ("scaled", "method lora and ia3"),
        ("number", "range None and (0.0, 2.0)"),
    ],
)
def test_models_that_cannot_share_are_told_why(
    name: str, reason: str, part: Callable[[str], Part], tmp_path: Path
) -> None:
    problem, fix = refused([part("digits"), part(name)], tmp_path / "shared")
    assert problem == f"'digits' and '{name}' cannot share a base: {reason}"
    assert "folder of their own" in fix


def test_models_of_different_bases_cannot_share(
    part: Callable[[str], Part], tmp_path: Path
) -> None:
    other = write_base(tmp_path / "base", intermediate_size=48)
    made = export_tiny("classes", other, tmp_path / "other", rate=2e-2, method="lora")
    place = made.folder.parent
    foreign = Part("other", None, made.folder, place, place / "prepared" / "test", other)
    problem, _ = refused([part("digits"), foreign], tmp_path / "shared")
    digests = [read_json(b / "card.json")["digest"][:12] for b in (part("digits").base, other)]
    wanted = f"'digits' and 'other' cannot share a base: base {digests[0]} and {digests[1]}"
    assert problem == wanted


def test_what_trains_its_base_has_none_to_share(
    part: Callable[[str], Part], tmp_path: Path
) -> None:
    problem, fix = refused([part("whole")], tmp_path / "shared")
    assert problem.startswith("'whole' trained ")
    assert problem.endswith(" parameters: there is no base to share")
    assert fix == f"serve it by itself: tunetrail serve {part('whole').export}"


def test_what_cannot_be_an_input_is_refused(part: Callable[[str], Part], tmp_path: Path) -> None:
    """ONNX Runtime cannot compute DSEE where what it trains is an input."""
    problem, _ = refused([part("sparse")], tmp_path / "shared")
    assert problem.startswith("'sparse' cannot be computed from an adapter: ")


def test_another_model_than_the_certified_one_is_refused(
    part: Callable[[str], Part], exports: Exports, tmp_path: Path
) -> None:
    """The export is of another training; its certificate claims to be of this one."""
    export = tmp_path / "export"
    other = export_tiny("classes", part("digits").base, tmp_path / "other", 1e-2, "lora")
    shutil.copytree(other.folder, export)
    run = read_json(exports("digits").folder / CERTIFICATE)["run"]
    write_json(export / CERTIFICATE, read_json(export / CERTIFICATE) | {"run": run})
    problem, _ = refused([replace(part("digits"), export=export)], tmp_path / "shared")
    assert "'digits' on a shared base is not the model that was certified: logits differ" in problem
    assert "(tolerance 0.0001)" in problem


def test_names_and_places_are_checked_first(part: Callable[[str], Part], tmp_path: Path) -> None:
    digits = part("digits")
    problem, _ = refused([digits, digits], tmp_path / "shared")
    assert problem == "two models are called 'digits'"
    problem, _ = refused([replace(digits, name="a/b")], tmp_path / "shared")
    assert problem.startswith("the model 'a/b' cannot be a part of a path")
    (tmp_path / "mine").mkdir()
    problem, _ = refused([digits], tmp_path / "mine")
    assert problem.endswith("which is there and was not written by `tunetrail share`")
    with pytest.raises(TuneTrailError, match="is not a folder of the export stage in its project"):
        part_of(str(tmp_path))


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", [MODEL, f"parity/{ADAPTER}", f"digits/{SERVING}"])
def test_only_what_was_compared_is_opened(name: str, shared: Path, tmp_path: Path) -> None:
    shutil.copytree(shared, tmp_path / "shared")
    _flip(tmp_path / "shared" / name)
    with pytest.raises(TuneTrailError) as caught:
        open_models(str(tmp_path / "shared"))
    assert f"{name} is not the file that was compared" in caught.value.problem
    assert "tunetrail share" in caught.value.fix
    (tmp_path / "shared" / name).unlink()
    with pytest.raises(TuneTrailError, match=f"is not whole: {name} is missing"):
        open_models(str(tmp_path / "shared"))


def test_a_file_of_rows_needs_one_model(shared: Path) -> None:
    with pytest.raises(TuneTrailError, match="has 2 models: digits, parity"):
        open_model(str(shared))
