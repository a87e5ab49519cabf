"""Tasks whose answers are spans of a text: labels, gate, windows, loss, decoding, certificate."""

from __future__ import annotations

import itertools
import json
import string
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import new_project
from tests.tiny import VOCABULARY, make_spec, move, run_model
from tunetrail import methods, metrics
from tunetrail.errors import TuneTrailError
from tunetrail.files import read_json, tree_digest, write_json
from tunetrail.kinds import kind_of
from tunetrail.kinds.spans import best_span
from tunetrail.layout import CARD, CERTIFICATE, DATA, METRICS, PREDICTIONS, RESULT, RUN, SERVING
from tunetrail.run import PlannedRun, RunSpec, write_run
from tunetrail.stages import export as export_stage
from tunetrail.stages.evaluate import evaluate
from tunetrail.stages.export import export
from tunetrail.stages.ingest import ingest
from tunetrail.stages.prepare import prepare
from tunetrail.stages.train import train, training_rows
from tunetrail.stages.validate import validate
from tunetrail.task import load_task
from tunetrail.training.loop import TrainStep
from tunetrail.training.predict import predict_logits
from tunetrail.training.rows import Rows, Window, read_rows

pytestmark = pytest.mark.usefixtures("in_empty_folder", "fresh_accelerate")

LENGTH = 32
GOLDEN = json.loads(
    (Path(__file__).parent / "golden" / "scores" / "squad.json").read_text(encoding="utf-8")
)
#: Words of one letter each, so that a token is a letter of the tiny vocabulary.
WORDS = list(string.ascii_lowercase)


def table(count: int, seed: int = 0) -> pd.DataFrame:
    """Questions of a letter; the answer is the one digit of the context."""
    generator = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        words = list(generator.permutation(WORDS * 2)[: generator.integers(12, 45)])
        place = int(generator.integers(2, len(words)))
        words[place] = str(generator.integers(9))
        answers = {"text": [words[place]], "answer_start": [2 * place]}
        asked = f"{generator.choice(WORDS)} ?"
        rows.append({"who": f"w{number}", "q": asked, "c": " ".join(words), "a": answers})
    return pd.DataFrame(rows)


def own_task(name: str, **changes: Any) -> Any:
    columns = {"id": "who", "text": "q", "text_pair": "c", "label": "a"}
    declared = {"source": name, "columns": columns, "answers": {"stride": 4}, **changes}
    return load_task("own", declared, "test")


def ingested(frame: pd.DataFrame, folder: Path, **changes: Any) -> Path:
    frame.to_parquet("data.parquet")
    ingest(own_task("data.parquet", **changes), folder / "canonical")
    return folder / "canonical"


def prepared(base: Path, folder: Path, count: int = 60, **changes: Any) -> Path:
    canonical = ingested(table(count), folder, **changes)
    validate(canonical, folder / "validated")
    prepare(canonical, folder / "validated", base, LENGTH, folder / "prepared")
    return folder / "prepared"


def answer_spec(name: str = "lora", **changes: Any) -> RunSpec:
    data = make_spec().data.model_dump() | {
        "labels": [],
        "answers": {"stride": 4, "max_length": 3},
        "metrics": ["f1_squad", "exact_match"],
        **changes.pop("data", {}),
    }
    own = {"digest": "b" * 64, "max_length": LENGTH, "pooling": "none", **changes.pop("base", {})}
    return make_spec(name, changes.pop("options", {}), data=data, base=own, **changes)


# -- metrics --------------------------------------------------------------------------------------


def as_array(values: list[Any]) -> np.ndarray:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: case["case"])
def test_one_answer_scores_as_by_the_official_script(case: dict[str, Any]) -> None:
    truths, found = as_array([tuple(case["answers"])]), as_array([case["prediction"]])
    scores = metrics.score_each(("exact_match", "f1_squad"), truths, found)
    assert scores["exact_match"].tolist() == [case["exact_match"]]
    assert scores["f1_squad"].tolist() == pytest.approx([case["f1"]], abs=1e-12)


def test_many_answers_score_as_by_the_official_script() -> None:
    truths = as_array([tuple(case["answers"]) for case in GOLDEN["cases"]])
    found = as_array([case["prediction"] for case in GOLDEN["cases"]])
    scores = metrics.score_all(("exact_match", "f1_squad"), truths, found, 0)
    assert 100 * scores["exact_match"] == pytest.approx(GOLDEN["percent"]["exact_match"])
    assert 100 * scores["f1_squad"] == pytest.approx(GOLDEN["percent"]["f1"])


# -- labels ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "form",
    [
        lambda answers: answers,
        lambda answers: [
            {"text": text, "answer_start": start}
            for text, start in zip(answers["text"], answers["answer_start"], strict=True)
        ],
        json.dumps,
    ],
    ids=["SQuAD's", "a list", "JSON text"],
)
def test_answers_may_be_written_in_three_ways(form: Any, tmp_path: Path) -> None:
    frame = table(30)
    canonical = ingested(frame.assign(a=frame["a"].map(form)), tmp_path)
    labels = pd.read_parquet(canonical / DATA)["label"].map(json.loads).tolist()
    assert labels == frame["a"].tolist()
    assert read_json(canonical / CARD)["answers"] == {"mean": 1.0, "most": 1}


@pytest.mark.parametrize(
    "cell",
    ['"Denver"', "Denver", '{"text": "Denver", "answer_start": 3}', '{"text": ["a"]}',
     '{"text": ["a", "b"], "answer_start": [0]}', '{"text": [""], "answer_start": [0]}'],
)  # fmt: skip
def test_cells_that_hold_no_answers_are_refused(cell: str, tmp_path: Path) -> None:
    frame = table(30)
    frame["a"] = frame["a"].map(json.dumps)
    frame.loc[2, "a"] = cell
    with pytest.raises(TuneTrailError, match=r"row 3 is .*, not answers .*\n.*as SQuAD does"):
        ingested(frame, tmp_path)


def test_questions_about_one_context_stay_in_one_set(base: Path, tmp_path: Path) -> None:
    frame = pd.concat([table(40), table(40).assign(q="x ?", who=lambda f: f["who"] + "b")])
    canonical = ingested(frame, tmp_path)
    data = pd.read_parquet(canonical / DATA)
    assert data.groupby("text_pair")["group"].nunique().max() == 1
    assert data["group"].nunique() == 40


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"columns": {"text": "q", "label": "a"}}, "name its column in 'columns.text_pair'"),
        ({"labels": ["a", "b"]}, "give either 'labels' .classes. or 'range' .a number. or 'answer"),
        ({"answers": {"strid": 3}}, "unknown key 'strid'\n.*did you mean 'stride'"),
    ],
)
def test_declarations_that_contradict_themselves(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(TuneTrailError, match=message):
        own_task("x.csv", **changes)


# -- gate -----------------------------------------------------------------------------------------


def displaced(count: int) -> pd.DataFrame:
    frame = table(80)
    for row in range(count):
        frame.at[row, "a"] = {"text": ["nowhere"], "answer_start": [0]}
    return frame


def test_answers_that_are_not_at_their_place_stop_the_pipeline(tmp_path: Path) -> None:
    canonical = ingested(displaced(3), tmp_path)
    with pytest.raises(
        TuneTrailError,
        match=r"spans: every answer is in its context, at its place; 3 rows, 3\.75%",
    ):
        validate(canonical, tmp_path / "validated")


@pytest.mark.parametrize("accepted", [{"checks": {"spans": 0.1}}, {"waive": {"spans": "known"}}])
def test_accepted_ones_are_left_out_of_train_alone(
    accepted: dict[str, Any], base: Path, tmp_path: Path
) -> None:
    canonical = ingested(displaced(20), tmp_path, **accepted | {"checks": {"spans": 0.3}})
    validate(canonical, tmp_path / "validated")
    gate = read_json(tmp_path / "validated" / RESULT)
    wrong = {f"w{row}" for row in range(20)}
    prepare(canonical, tmp_path / "validated", base, LENGTH, tmp_path / "prepared")
    fit = tmp_path / "prepared" / "fit"
    assert not wrong & set(read_rows(fit / "train.parquet").ids)
    kept = set(read_rows(fit / "selection.parquet").ids)
    kept |= set(read_rows(tmp_path / "prepared" / "test" / "test.parquet").ids)
    assert wrong & kept == wrong - set(gate["dropped"])
    assert wrong & kept
    assert gate["dropped_by_check"]["spans"] == len(wrong & set(gate["dropped"]))


def test_a_question_without_an_answer_fails_the_gate(tmp_path: Path) -> None:
    frame = table(40)
    frame.at[5, "a"] = {"text": [], "answer_start": []}
    canonical = ingested(frame, tmp_path)
    with pytest.raises(TuneTrailError, match="nulls in label: 'label' is never missing; 1 rows"):
        validate(canonical, tmp_path / "validated")


# -- windows --------------------------------------------------------------------------------------


def test_windows_cover_the_context_and_point_at_the_answer(base: Path, tmp_path: Path) -> None:
    frame = table(60).set_index("who")
    out = prepared(base, tmp_path)
    rows = read_rows(out / "fit" / "train.parquet")
    assert rows.windows is not None
    assert len(rows) > len(set(rows.ids)), "some contexts need several windows"
    assert max(rows.lengths) <= LENGTH
    seen: dict[str, list[Window]] = {}
    pointed: dict[str, set[str]] = {}
    for name, window, label in zip(rows.ids, rows.windows, rows.labels, strict=True):
        seen.setdefault(name, []).append(window)
        pointed.setdefault(name, set())
        if label.any():
            begin, end = window.offsets[label[0], 0], window.offsets[label[1], 1]
            pointed[name].add(window.context[begin:end])
    for name, windows in seen.items():
        context, answers = frame.loc[name, "c"], frame.loc[name, "a"]["text"]
        assert all(w.context == context and w.answers == tuple(answers) for w in windows)
        covered = [set(w.offsets[w.offsets[:, 0] >= 0, 0].tolist()) for w in windows]
        assert set.union(*covered) == set(range(0, len(context), 2)), "every letter is a token"
        assert all(len(a & b) == 4 for a, b in itertools.pairwise(covered)), "stride"
        assert pointed[name] == set(answers)
    card = read_json(out / "fit" / CARD)["sets"]["train"]
    assert card["rows"] == len(seen)
    assert card["windows"] == len(rows)


def test_the_answer_that_most_annotators_gave_is_trained(base: Path, tmp_path: Path) -> None:
    frame = table(60)
    for row in range(len(frame)):
        context = frame.at[row, "c"]
        answers = {"text": [context[:3], context[4:5], context[4:5]], "answer_start": [0, 4, 4]}
        frame.at[row, "a"] = answers
    canonical = ingested(frame, tmp_path)
    validate(canonical, tmp_path / "validated")
    prepare(canonical, tmp_path / "validated", base, 64, tmp_path / "prepared")
    rows = read_rows(tmp_path / "prepared" / "fit" / "train.parquet")
    for window, (begin, end) in zip(rows.windows or [], rows.labels, strict=True):
        assert (window.offsets[begin, 0], window.offsets[end, 1]) == (4, 5)


def test_a_long_question_leaves_half_of_the_room(base: Path, tmp_path: Path) -> None:
    frame = table(60).assign(q=" ".join(WORDS * 3))
    canonical = ingested(frame, tmp_path)
    validate(canonical, tmp_path / "validated")
    prepare(canonical, tmp_path / "validated", base, LENGTH, tmp_path / "prepared")
    rows = read_rows(tmp_path / "prepared" / "fit" / "train.parquet")
    first = rows.tokens[0].tolist()
    assert first.index(VOCABULARY.index("[SEP]")) == 1 + LENGTH // 2


@pytest.mark.parametrize(
    ("card", "stride", "message"),
    [
        ({"architecture": "gpt2"}, 4, "in 'gpt2', a decoder, no token sees what follows it\n.*enc"),
        (
            {},
            12,
            r"answers.stride is 12: with base.max_length 32 .* only 12 tokens .*\n.*6 or less",
        ),
    ],
)
def test_what_cannot_be_is_refused_before_training(
    card: dict[str, str], stride: int, message: str, base: Path, tmp_path: Path
) -> None:
    canonical = ingested(table(40), tmp_path, answers={"stride": stride})
    validate(canonical, tmp_path / "validated")
    other = tmp_path / "base"
    other.mkdir()
    (other / "model").symlink_to(base / "model")
    write_json(other / "card.json", read_json(base / "card.json") | card)
    with pytest.raises(TuneTrailError, match=message):
        prepare(canonical, tmp_path / "validated", other, LENGTH, tmp_path / "prepared")


def test_a_share_of_the_rows_is_one_of_questions(base: Path, tmp_path: Path) -> None:
    fit = prepared(base, tmp_path) / "fit"
    everything = read_rows(fit / "train.parquet")
    spec = answer_spec(budget={"epochs": 1, "fraction": 0.5})
    drawn = training_rows(spec, fit)
    assert len(set(drawn.ids)) == -(-len(set(everything.ids)) // 2)
    assert all(everything.ids.count(name) == drawn.ids.count(name) for name in drawn.ids)


# -- loss and decoding ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rows(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Rows:
    folder = tmp_path_factory.mktemp("rows")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return read_rows(prepared(base, folder) / "test" / "test.parquet")


def test_logits_and_loss_are_those_of_transformers(base: Path, rows: Rows) -> None:
    from transformers import BertForQuestionAnswering

    spec = answer_spec("full")
    model = run_model(spec, base)
    step = TrainStep(model, spec, 1e-3, 10)
    model.eval()
    theirs = BertForQuestionAnswering.from_pretrained(base / "model").eval()
    theirs.qa_outputs.load_state_dict(model.head.linear.state_dict())
    # transformers' loss counts padding as tokens; rows of one length have none.
    longest = max(rows.lengths)
    index = np.flatnonzero(rows.lengths == longest)[:6]
    begin, end = torch.from_numpy(rows.labels[index]).T
    out = theirs(**rows.batch(index), start_positions=begin, end_positions=end)
    with torch.inference_mode():
        logits = model(**rows.batch(index))
    assert logits.shape == (len(index), longest, 2)
    torch.testing.assert_close(logits[..., 0], out.start_logits, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(logits[..., 1], out.end_logits, atol=1e-5, rtol=1e-5)
    step.start(1)
    assert float(step(rows, [index])) == pytest.approx(out.loss.item(), rel=1e-5)


def test_padding_changes_neither_logits_nor_loss(base: Path, rows: Rows) -> None:
    spec = answer_spec("head")
    model = run_model(spec, base).eval()
    short, long = int(np.argmin(rows.lengths)), int(np.argmax(rows.lengths))
    size = int(rows.lengths[short])
    assert size < rows.lengths[long]
    with torch.inference_mode():
        alone = model(**rows.batch(np.array([short])))[0]
        padded = model(**rows.batch(np.array([short, long])))[0]
    torch.testing.assert_close(padded[:size], alone, atol=1e-5, rtol=1e-5)
    assert (padded[size:] < alone.min() - 1000).all()
    label = torch.from_numpy(rows.labels[[short]])
    kind = kind_of(spec.data)
    expected = float(kind.loss(alone[None], label))
    assert float(kind.loss(padded[None], label)) == pytest.approx(expected, rel=1e-5)


OFFSETS = np.array([[-1, -1], [-1, -1], [0, 3], [4, 7], [8, 11], [12, 15], [-1, -1]])


@pytest.mark.parametrize(
    ("starts", "ends", "expected"),
    [
        ([9, 9, 0, 5, 0, 0, 9], [9, 9, 0, 0, 4, 0, 9], (4, 11, 9.0)),  # outside does not count
        ([0, 0, 0, 0, 0, 5, 0], [0, 0, 4, 0, 0, 1, 0], (12, 15, 6.0)),  # the end is not before
        ([0, 0, 5, 0, 0, 0, 0], [0, 0, 0, 0, 1, 4, 0], (0, 11, 6.0)),  # four tokens are too many
        ([0, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0], (0, 3, 0.0)),  # of equals the first
    ],
)
def test_the_best_span_is_valid(
    starts: list[float], ends: list[float], expected: tuple[int, int, float]
) -> None:
    logits = np.array([starts, ends], dtype=np.float32).T
    assert best_span(logits, OFFSETS, longest=3) == expected


@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(1, 5))
def test_no_valid_span_is_better(seed: int, tokens: int, longest: int) -> None:
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(tokens + 2, 2)).astype(np.float32)
    places = np.arange(tokens) * 5
    offsets = np.concatenate([[[-1, -1]], np.stack([places, places + 4], 1), [[-1, -1]]])
    begin, end, score = best_span(logits, offsets, longest)
    valid = {
        (5 * (i - 1), 5 * (j - 1) + 4): float(logits[i, 0]) + float(logits[j, 1])
        for i in range(1, tokens + 1)
        for j in range(i, min(i + longest, tokens + 1))
    }
    assert score == pytest.approx(max(valid.values()))
    assert valid[begin, end] == pytest.approx(score)


def test_the_best_window_of_a_question_answers(base: Path) -> None:
    context = "abc def ghi jkl"
    offsets = np.array([[-1, -1], [0, 3], [4, 7]]), np.array([[-1, -1], [8, 11], [12, 15]])
    windows = [Window(context, ("x",), o) for o in offsets] + [Window("zz", ("y",), offsets[0])]
    tokens = [np.array([2, 6, 7])] * 3
    found = Rows(["one", "one", "two"], np.zeros((3, 2), np.int64), tokens, tokens, windows)
    logits = np.zeros((3, 3, 2), np.float32)
    logits[0, 1] = logits[2, 1] = 1.0
    logits[1, 2] = 2.0
    kind = kind_of(answer_spec().data)
    assert kind.decide(found, logits).tolist() == ["jkl", "zz"]
    assert kind.truths(found).tolist() == [("x",), ("y",)]
    assert kind.details(found, logits)["score"].tolist() == [4.0, 2.0]
    assert kind.constant({}, found).tolist() == [context, "zz"]


# -- methods --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", methods.names())
def test_a_method_leaves_every_token_at_its_place(name: str, base: Path, rows: Rows) -> None:
    """Another token changes the hidden state at its own place most, wherever prompts are put."""
    model = run_model(answer_spec(name), base)
    move(model, 0.02)
    model.eval()
    index = np.argsort(rows.lengths)[-6:]
    batch = rows.batch(index)
    with torch.inference_mode():
        assert model(**batch).shape == (6, int(max(rows.lengths)), 2)
        model.head = torch.nn.Identity()
        before = model(**batch)
        for place in (1, 5, 14, 20):
            changed = dict(batch, input_ids=batch["input_ids"].clone())
            changed["input_ids"][:, place] = VOCABULARY.index("9")
            moved = (model(**changed) - before).abs().sum((0, 2))
            assert int(moved.argmax()) == place


# -- to the certificate ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained, evaluated and exported run."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        data = prepared(base, folder, count=200)
        spec = answer_spec(
            "full",
            base={"digest": tree_digest(base / "model")},
            data={"fit": tree_digest(data / "fit"), "test": tree_digest(data / "test")},
            options={"learning_rate": 3e-3},
            budget={"epochs": 20},
        )
        write_run(folder / RUN, PlannedRun("full", "full", spec))
        train(folder / RUN, base, data / "fit", folder / "adapter")
        evaluate(folder / RUN, base, folder / "adapter", data / "test", folder / "scores")
        export(folder, base, data / "test", 1e-4, folder / "onnx")
    return folder


def test_every_question_keeps_its_own_scores(finished: Path) -> None:
    scores = read_json(finished / "scores" / METRICS)
    found = pd.read_parquet(finished / "scores" / PREDICTIONS)
    assert list(found) == ["id", "label", "prediction", "score", "f1_squad", "exact_match"]
    assert found["id"].is_unique
    right = [p in truths for p, truths in zip(found["prediction"], found["label"], strict=True)]
    assert found["exact_match"].tolist() == [float(r) for r in right]
    assert scores["exact_match"] == pytest.approx(np.mean(right))
    assert scores["f1_squad"] == pytest.approx(found["f1_squad"].mean())
    frame = table(200).set_index("who")
    for name, text in zip(found["id"], found["prediction"], strict=True):
        assert text in frame.loc[name, "c"]


def test_answers_are_learnt(finished: Path, base: Path) -> None:
    spec = answer_spec("full")
    rows = read_rows(finished / "prepared" / "test" / "test.parquet")
    kind = kind_of(spec.data)
    untrained = kind.decide(rows, predict_logits(run_model(spec, base), rows))
    before = metrics.score_all(("f1_squad",), kind.truths(rows), untrained, 0)["f1_squad"]
    after = read_json(finished / "scores" / METRICS)["f1_squad"]
    assert after > before + 0.3


def test_the_exported_model_keeps_its_answers(finished: Path) -> None:
    certificate = read_json(finished / "onnx" / CERTIFICATE)
    assert certificate["passed"] is True
    assert certificate["prediction_flips"] == 0
    assert certificate["metrics_onnx"] == certificate["metrics_torch"]
    assert certificate["rows"] == len(read_rows(finished / "prepared" / "test" / "test.parquet"))
    assert read_json(finished / "onnx" / SERVING)["answers"] == {"stride": 4, "max_length": 3}
    session = export_stage.open_session(finished / "onnx" / "model.onnx", threads=1)
    inputs = {k: torch.ones(3, 11, dtype=torch.int64) for k in export_stage._INPUTS}
    assert export_stage.ask(session, inputs).shape == (3, 11, 2)


def test_the_served_model_answers_like_the_evaluated_one(finished: Path) -> None:
    from tunetrail.tracking.served_model import TextModel

    found = pd.read_parquet(finished / "scores" / PREDICTIONS).set_index("id")
    asked = table(200).set_index("who").loc[found.index]
    served = TextModel()
    served.load_context(type("Context", (), {"artifacts": {"export": str(finished / "onnx")}}))
    inputs = asked.rename(columns={"q": "question", "c": "context"})[["question", "context"]]
    answers = served.predict(None, inputs)
    assert answers["answer"].tolist() == found["prediction"].tolist()
    np.testing.assert_allclose(answers["score"], found["score"], atol=1e-3)
    for answer, start, context in zip(
        answers["answer"], answers["start"], inputs["context"], strict=True
    ):
        assert context[start : start + len(answer)] == answer


# -- the shipped commands -------------------------------------------------------------------------

PEOPLE = ["Anna", "Boris", "Clara", "David", "Elena", "Farid", "Greta", "Hamid", "Irene", "Jonas"]
PLACES = ["Lisbon", "Oslo", "Nairobi", "Lima", "Kyoto", "Cairo", "Quebec", "Hanoi", "Porto", "Riga"]
THINGS = ["violins", "lamps", "carpets", "bicycles", "clocks", "mirrors", "tents", "kettles"]


def sales(count: int) -> pd.DataFrame:
    """Sentences of who sold how much of what, and where, and questions about them, as a CSV has."""
    generator = np.random.default_rng(0)
    rows = []
    for number in range(count):
        person, place, thing = (str(generator.choice(w)) for w in (PEOPLE, PLACES, THINGS))
        amount = str(generator.integers(11, 999))
        opening = f"Order {number} was closed on day {generator.integers(1, 99)}. "
        context = f"{opening}In {place} {person} sold {amount} {thing} to an old friend."
        questions = {
            f"Who sold {thing}?": person,
            f"Where did {person} sell {thing}?": place,
            f"How many {thing} did {person} sell?": amount,
            f"What did {person} sell in {place}?": thing,
        }
        question = str(generator.choice(list(questions)))
        answer = questions[question]
        start = context.index(answer, len(opening))
        label = json.dumps({"text": [answer], "answer_start": [start]})
        rows.append({"asked": question, "note": context, "found": label})
    return pd.DataFrame(rows)


@pytest.mark.pipeline
def test_a_csv_of_questions_becomes_a_model_that_answers(tmp_path: Path) -> None:
    project = new_project(tmp_path / "project")
    sales(420).to_csv(project.root / "data" / "sales.csv", index=False)
    project.change(
        project="sales",
        tasks={
            "sales": {
                "source": "data/sales.csv",
                "columns": {"text": "asked", "text_pair": "note", "label": "found"},
                "answers": {"stride": 8, "max_length": 4},
                # Made-up sentences are alike; they would be dropped.
                "checks": {"near_duplicate": 1.0},
            }
        },
        methods={
            "lora": {"learning_rate": 3e-3},
            # Steps too small to change a weight: the head as the seed draws it.
            "untrained": {"method": "head", "learning_rate": 1e-12},
        },
        seeds=[1],
        budgets={"few": {"epochs": 3}},
        training={"batch_size": 8},
    )
    project.run()
    scores = project.json("comparison/scores.json")["sales"]
    assert scores["lora"]["f1_squad"] > scores["untrained"]["f1_squad"] + 0.4
    certificate = project.json("runs/export/sales/lora/certificate.json")
    assert certificate["passed"]
    assert certificate["prediction_flips"] == 0
    task = project.json("comparison/comparison.json")["tasks"]["sales"]
    assert task["majority_title"] == "the whole context"
    assert task["majority"]["exact_match"] == 0
    report = (project.root / "comparison" / "report.html").read_text()
    assert "answers, as spans of the context" in report
    assert "the whole context" in report

    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{project.root / '.tunetrail/mlflow/mlflow.db'}")
    model = mlflow.pyfunc.load_model("models:/sales-sales@champion")
    found = pd.read_parquet(
        project.root / "runs/evaluate/sales/lora/few/1/predictions.parquet"
    ).set_index("id")
    texts = pd.read_parquet(project.root / "data/canonical/sales/data.parquet").set_index("id")
    asked = texts.loc[found.index].rename(columns={"text": "question", "text_pair": "context"})
    served = model.predict(asked[["question", "context"]])
    assert served["answer"].tolist() == found["prediction"].tolist()
