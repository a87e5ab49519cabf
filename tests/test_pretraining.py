"""Continued pretraining: masks, heads, checkpoints, what starts from them, what is never seen."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from tests.conftest import ROOT, new_project
from tests.test_params import write
from tests.test_prepare_resolve import ROWS, Case
from tests.tiny import (
    VOCABULARY,
    family_config,
    make_rows,
    write_base,
    write_family,
    write_model,
    write_tokenizer,
)
from tunetrail.cli import main
from tunetrail.errors import TrainingDiverged, TuneTrailError
from tunetrail.files import file_digest, read_json, tree_digest
from tunetrail.modeling.adapter import load_adapter
from tunetrail.modeling.base import check_base, checkpoint_folder, read_base
from tunetrail.modeling.classifier import build_classifier
from tunetrail.modeling.masked_lm import load_masked_lm, save_masked_lm
from tunetrail.params import check_sources, read_params
from tunetrail.pretraining import DomainText, Objective
from tunetrail.run import Numerics, planned_runs
from tunetrail.splits import assign_sets
from tunetrail.stages import compare, evaluate, export, select, train
from tunetrail.stages.corpus import corpus
from tunetrail.stages.ingest import ingest
from tunetrail.stages.pretrain import pretrain
from tunetrail.stages.resolve import resolve
from tunetrail.stages.tune import tune
from tunetrail.task import load_task, read_task
from tunetrail.training.masking import Vocabulary, hide, read_text, read_vocabulary, set_aside

pytestmark = pytest.mark.usefixtures("fresh_accelerate")

FP32 = Numerics(precision="fp32", threads=1)
SPECIAL = frozenset(range(5))
TINY = Vocabulary(len(VOCABULARY), VOCABULARY.index("[MASK]"), SPECIAL)
FAMILIES = [
    "albert", "bert", "deberta-v2", "distilbert", "electra", "modernbert", "mpnet", "roberta",
]  # fmt: skip

WORDS = "the quick brown fox jumps over a lazy dog while seven grey cats sleep near old walls"


def objective(**changes: Any) -> Objective:
    settings = {
        "budget": {"steps": 6}, "head_steps": 4, "learning_rate": 1e-3,
        "training": {"batch_size": 8}, "held_out": 0.2,
    }  # fmt: skip
    return Objective.model_validate(settings | changes)


def write_text(path: Path, rows: int = 60) -> Path:
    """Tokens as the prepare stage leaves them, with a label that nobody may need."""
    made = make_rows(rows, longest=20)
    frame = pd.DataFrame({"id": made.ids, "label": ["not a number"] * rows})
    frame["input_ids"] = [list(map(int, t)) for t in made.tokens]
    frame["token_type_ids"] = [list(map(int, s)) for s in made.segments]
    frame.to_parquet(path, index=False)
    return path


@pytest.fixture
def text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Text, in an own working directory (checkpoints go there)."""
    monkeypatch.chdir(tmp_path)
    return write_text(tmp_path / "train.parquet")


# Masks -------------------------------------------------------------------------------------------


def test_masks_are_those_of_transformers_collator(tmp_path: Path) -> None:
    """The same tokens, many times: rates of every fate agree with the library's own masking."""
    from transformers import AutoTokenizer, DataCollatorForLanguageModeling

    write_tokenizer(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    tokens = np.random.default_rng(0).integers(5, len(VOCABULARY), size=(400, 250))
    tokens[:, 0], tokens[:, -1], tokens[:, 100] = 2, 3, 1  # [CLS], [SEP], [UNK]
    torch.manual_seed(0)
    theirs = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15)(
        [{"input_ids": row.tolist()} for row in tokens]
    )
    seen, chosen = hide(
        tokens, np.ones_like(tokens, dtype=bool), 0.15, TINY, np.random.default_rng(1)
    )

    def rates(shown: np.ndarray, picked: np.ndarray) -> list[float]:
        masked = picked & (shown == TINY.mask)
        kept = picked & (shown == tokens)
        return [
            float(x) for x in (picked.mean(), *((m.sum() / picked.sum()) for m in (masked, kept)))
        ]

    expected = rates(theirs["input_ids"].numpy(), theirs["labels"].numpy() != -100)
    assert rates(seen, chosen) == pytest.approx(expected, abs=0.012)
    assert expected == pytest.approx([0.15, 0.8, 0.1], abs=0.03)
    for never in (0, -1, 100):
        assert not chosen[:, never].any()
    assert (seen[~chosen] == tokens[~chosen]).all()


def test_padding_is_never_chosen_and_a_seed_decides_the_masks() -> None:
    tokens = np.full((50, 40), 9)
    real = np.zeros_like(tokens, dtype=bool)
    real[:, :10] = True
    draws = [hide(tokens, real, 0.5, TINY, np.random.default_rng(s)) for s in (1, 1, 2)]
    assert not draws[0][1][:, 10:].any()
    assert (draws[0][0] == draws[1][0]).all()
    assert (draws[0][0] != draws[2][0]).any()


def test_the_vocabulary_is_the_tokenizers(base: Path, tmp_path: Path) -> None:
    assert read_vocabulary(base / "model") == TINY
    shutil.copytree(base / "model", tmp_path / "model")
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        file = tmp_path / "model" / name
        if file.is_file():
            content = json.loads(file.read_text())
            content.pop("mask_token", None)
            file.write_text(json.dumps(content))
    with pytest.raises(TuneTrailError, match="names no mask token"):
        read_vocabulary(tmp_path / "model")


def test_equal_texts_are_set_aside_together(text: Path) -> None:
    rows = read_text(text)
    twice = rows.take(np.repeat(np.arange(len(rows)), 2))
    kept, held = set_aside(twice, 0.2, seed=3)
    assert not set(kept.ids) & set(held.ids)
    assert len(set(held.ids)) == math.ceil(0.2 * len(set(rows.ids)))
    with pytest.raises(TuneTrailError, match="there are 1 different texts to pretrain on"):
        set_aside(rows.take(np.zeros(5, dtype=np.int64)), 0.1, seed=3)


# Heads of the families ---------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_loss_is_transformers_own(family: str, tmp_path: Path) -> None:
    """Only hidden tokens go through the head; the loss is that of the whole computation."""
    bare = write_family(tmp_path / "bare", family)
    model = load_masked_lm(bare, seed=1).eval()
    rows = make_rows(6, longest=12)
    batch = rows.batch(np.arange(6))
    tokens, real = batch["input_ids"].numpy(), batch["attention_mask"].numpy() == 1
    seen, chosen = hide(tokens, real, 0.3, TINY, np.random.default_rng(0))
    batch["input_ids"] = torch.from_numpy(seen)
    with torch.inference_mode():
        logits = model(**batch, chosen=torch.from_numpy(chosen))
    assert logits.shape == (chosen.sum(), len(VOCABULARY))
    ours = torch.nn.functional.cross_entropy(logits, torch.from_numpy(tokens[chosen]))

    from transformers import AutoModelForMaskedLM

    save_masked_lm(model, bare, written := tmp_path / "written")
    plain = AutoModelForMaskedLM.from_pretrained(written, attn_implementation="eager").eval()
    if not getattr(plain.config, "type_vocab_size", 0) or family == "distilbert":
        batch.pop("token_type_ids")
    labels = torch.from_numpy(np.where(chosen, tokens, -100))
    with torch.inference_mode():
        theirs = plain(**batch, labels=labels).loss
    assert float(ours) == pytest.approx(float(theirs), abs=2e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_head_that_is_there_is_used_and_another_made(family: str, tmp_path: Path) -> None:
    bare = write_family(tmp_path / "bare", family)
    new = load_masked_lm(bare, seed=1)
    assert new.new_head
    decoder = new.model.get_output_embeddings().weight
    assert decoder is new.model.get_input_embeddings().weight, "tied to the embeddings"
    trunk = {id(p) for p in new.model.base_model.parameters()}
    alone = {n: p for n, p in new.named_parameters() if id(p) not in trunk}
    assert any(p.ndim == 2 for p in alone.values()), "a dense layer before the decoder"
    assert all(p.numel() < decoder.numel() for p in alone.values())
    again = load_masked_lm(bare, seed=1).state_dict()
    assert all(torch.equal(v, again[k]) for k, v in new.state_dict().items())

    save_masked_lm(new, bare, whole := tmp_path / "whole")
    check_base(whole)
    own = load_masked_lm(whole, seed=2)
    assert not own.new_head
    assert all(torch.equal(v, again[k]) for k, v in own.state_dict().items())
    trunks = [build_classifier(f, classes=2, pooling="mean", seed=0) for f in (bare, whole)]
    states = [model.state_dict() for model in trunks]
    assert all(torch.equal(v, states[1][k]) for k, v in states[0].items())

    # Checkpoints of the time before: the bias of the decoder has one of its two names.
    weights = load_file(whole / "model.safetensors")
    tied = [k for k in weights if k.endswith("decoder.bias")]
    if len(weights) > 1 and tied and tied[0].replace("decoder.", "") in weights:
        save_file({k: v for k, v in weights.items() if k not in tied}, whole / "model.safetensors",
                  metadata={"format": "pt"})  # fmt: skip
        assert not load_masked_lm(whole, seed=2).new_head


def test_a_pooler_is_kept(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    save_masked_lm(load_masked_lm(folder, seed=0), folder, out := tmp_path / "out")
    before, after = (
        build_classifier(f, classes=2, pooling="cls", seed=0).state_dict() for f in (folder, out)
    )
    assert torch.equal(before["trunk.pooler.dense.weight"], after["trunk.pooler.dense.weight"])
    assert {p.name for p in out.iterdir()} == {p.name for p in folder.iterdir()}


def test_a_decoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TuneTrailError, match="'gpt2' is a decoder: there is no masked-language"):
        load_masked_lm(write_family(tmp_path, "gpt2"), seed=0)
    assert family_config("gpt2").model_type == "gpt2"


# The stage ---------------------------------------------------------------------------------------


def test_it_learns_and_leaves_a_base_model(base: Path, text: Path) -> None:
    learns = objective(budget={"epochs": 15}, head_steps=30)
    pretrain(learns, FP32, text, base, Path("out"))
    found = read_json(Path("out/pretrain.json"))
    loss = found["held_out_loss"]
    assert loss["after"] < loss["before"] - 0.1
    assert found["held_out"][0] == [0, loss["before"]]
    assert found["held_out"][-1] == [found["steps"], loss["after"]]
    assert found["head"] == "new"
    assert found["steps"] == 15 * math.ceil(found["texts"]["train"] / 8)
    rows = read_text(text)
    train_rows, held = set_aside(rows, 0.2, 0)
    assert found["texts"] == {"train": len(train_rows), "held_out": len(held)}
    assert found["tokens"] == 15 * int(train_rows.lengths.sum())
    assert found["spec"]["base"] == tree_digest(base / "model")
    model, card = read_base(Path("out"))
    assert card["digest"] == tree_digest(model)
    assert card | {"digest": ""} == read_base(base)[1] | {"digest": ""}

    pretrain(objective(), FP32, text, Path("out"), Path("further"))
    further = read_json(Path("further/pretrain.json"))
    assert further["head"] == "own"
    assert further["loss"]["head"] == []
    assert further["held_out_loss"]["before"] == pytest.approx(loss["after"], abs=1e-4)
    assert further["pretraining"] != found["pretraining"]


def test_the_new_head_is_trained_before_the_trunk_is_touched(base: Path, text: Path) -> None:
    still = objective(budget={"steps": 1}, learning_rate=1e-30, head_steps=20)
    pretrain(still, FP32, text, base, Path("out"))
    before, after = (
        build_classifier(f / "model", classes=2, pooling="cls", seed=0).trunk.state_dict()
        for f in (base, Path("out"))
    )
    assert all(torch.allclose(v, after[k], rtol=0, atol=1e-20) for k, v in before.items())
    found = read_json(Path("out/pretrain.json"))
    assert found["loss"]["head"][-1][1] < found["loss"]["head"][0][1]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_killed_in_either_phase_it_ends_with_the_same_weights(
    precision: Any, base: Path, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numerics = Numerics(precision=precision, threads=1)
    pretrain(objective(), numerics, text, base, Path("whole"))
    assert not list(Path(".tunetrail/checkpoints").glob("*"))
    monkeypatch.setenv("TUNETRAIL_CHECKPOINT_SECONDS", "0")
    ticks = count()
    monkeypatch.setattr(time, "monotonic", lambda: float(next(ticks)))  # every step is shown
    seen: list[tuple[int, int]] = []
    deaths: Iterator[tuple[int, int]] = iter([(3, 4), (2, 6), (5, 6)])
    for death in deaths:

        def interrupt(step: int, steps: int, loss: float, death: Any = death) -> None:
            seen.append((step, steps))
            if (step, steps) == death:
                raise InterruptedError

        with pytest.raises(InterruptedError):
            pretrain(objective(), numerics, text, base, Path("killed"), interrupt)
    pretrain(objective(), numerics, text, base, Path("killed"), lambda *s: seen.append(s[:2]))
    assert seen == [
        (1, 4), (2, 4), (3, 4), (3, 4), (4, 4), (1, 6), (2, 6), (2, 6), (3, 6), (4, 6), (5, 6),
        (5, 6), (6, 6),
    ]  # fmt: skip
    assert tree_digest(Path("killed")) == tree_digest(Path("whole"))


def test_a_diverging_loss_is_told(base: Path, text: Path) -> None:
    wild = objective(learning_rate=1e30)
    with pytest.raises(TrainingDiverged, match=r"loss became \w+ at step \d.*\n.*learning_rate"):
        pretrain(wild, FP32, text, base, Path("out"))
    assert not Path("out").exists()


def test_every_setting_is_part_of_what_identifies_a_checkpoint(base: Path, text: Path) -> None:
    digests = set()
    variants: list[dict[str, Any]] = [
        {}, {"seed": 1}, {"budget": {"steps": 7}}, {"mask": 0.2}, {"held_out": 0.3},
        {"learning_rate": 2e-3}, {"head_steps": 3}, {"training": {"batch_size": 4}},
    ]  # fmt: skip
    for number, changes in enumerate(variants):
        pretrain(objective(**changes), FP32, text, base, Path(str(number)))
        digests.add(read_json(Path(f"{number}/pretrain.json"))["pretraining"])
    assert len(digests) == len(variants)


# Text of a domain --------------------------------------------------------------------------------


def domain_case(folder: Path, texts: list[str], **changes: Any) -> pd.DataFrame:
    """The kept windows of a corpus beside a task of 120 short rows."""
    case = Case(folder)
    case.prepared()
    (folder / "canonical-all").mkdir()
    shutil.copytree(folder / "canonical", folder / "canonical-all" / "own")
    (folder / "text.txt").write_text("\n".join(texts) + "\n")
    domain = DomainText.model_validate(
        {"text": folder / "text.txt", "budget": {"steps": 1}} | changes
    )
    corpus(domain, folder / "canonical-all", folder / "base", 16, folder / "corpus")
    return pd.read_parquet(folder / "corpus" / "text.parquet")


LONG_TEST_ROW = (
    "this unusually long sentence about reviews of films contains far more than thirteen words in "
    "a row and is kept for the test set"
)


def test_a_corpus_leaves_out_what_tasks_hold_out(tmp_path: Path) -> None:
    base, data = write_base(tmp_path / "base"), tmp_path / "data"
    data.mkdir()
    held_out = f"{LONG_TEST_ROW},yes\nsix plain words make one row,no\nshort,yes\n"
    for split, rows in {"train": ROWS, "test": f"text,label\n{held_out}"}.items():
        (data / f"{split}.csv").write_text(rows)
    declared = {
        "source": data,
        "columns": {"text": "text", "label": "label"},
        "labels": ["no", "yes"],
    }
    ingest(load_task("own", declared, "test"), tmp_path / "canonical" / "own")
    leaking = [
        LONG_TEST_ROW.upper() + "!",
        LONG_TEST_ROW.replace("films", "movies"),  # nearly the same
        f"An abstract begins. Then {LONG_TEST_ROW.split(' films ')[1]}, and it goes on for long.",
        "a document in which six plain words make one row of many",
        *selection_texts(tmp_path / "canonical" / "own")[:2],
    ]
    fine = [
        "short texts of others are about short things",
        "a row of the training set may be here",
        " ".join(LONG_TEST_ROW.split()[:12]) + " but ends before the thirteenth",
    ]
    (tmp_path / "text.txt").write_text("\n".join([*leaking, *fine, fine[0], "  ", "..."]) + "\n")
    domain = DomainText.model_validate({"text": tmp_path / "text.txt", "budget": {"steps": 1}})
    corpus(domain, tmp_path / "canonical", base, 64, tmp_path / "corpus")
    assert read_json(tmp_path / "corpus" / "card.json")["texts"] == {
        "read": len(leaking) + len(fine) + 1,
        "kept": len(fine),
        "held_out_by_task": {"own": len(leaking)},
    }


def selection_texts(canonical: Path) -> list[str]:
    """Texts of the selection set, by the rule of the split itself."""
    frame = pd.read_parquet(canonical / "data.parquet")
    return list(frame.loc[assign_sets(frame, read_task(canonical)) == "selection", "text"])


def test_long_texts_are_cut_into_windows_without_losing_a_word(tmp_path: Path) -> None:
    texts = [f"{WORDS} {number} {WORDS}" for number in "abc"]
    windows = domain_case(tmp_path, texts)
    assert windows["input_ids"].map(len).max() == 16
    assert windows["text"].nunique() == 3
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "base" / "model")
    for text in texts:
        whole = tokenizer(text)["input_ids"][1:-1]
        parts = [
            [int(i) for i in row[1:-1]] for _, group in windows.groupby("text", sort=False)
            for row in [np.concatenate([[0], *(g[1:-1] for g in group["input_ids"]), [0]])]
        ]  # fmt: skip
        assert whole in parts


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"files": ["other.txt"]}, "'other.txt' is not in"),
        ({"format": {"names": ["a", "b"], "delimiter": "|"}, "column": "c"}, "unknown column 'c'"),
        ({"limit": 2, "near_duplicate": 0.5}, ""),
    ],
)
def test_corpus_settings(changes: dict[str, Any], problem: str, tmp_path: Path) -> None:
    texts = [f"{letter}|{WORDS} {letter * 9}" for letter in "xyz"]
    if not problem:
        assert domain_case(tmp_path, texts, **changes)["text"].nunique() == 2
        return
    (tmp_path / "folder").mkdir()
    with pytest.raises(TuneTrailError, match=problem):
        domain_case(tmp_path, texts, **changes)


def test_too_little_domain_text_is_told(tmp_path: Path) -> None:
    with pytest.raises(TuneTrailError, match=r"has 1 texts; 1 of them can be pretrained on"):
        domain_case(tmp_path, [WORDS])


# Parameters --------------------------------------------------------------------------------------

TEXT = {"text": "text.txt", "budget": {"steps": 3}}


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("methods", {"full": {}, "t": {"method": "full", "start": "tapt"}},
         "methods.t: unknown start 'tapt'"),
        ("methods", {"full": {"start": "pretrainde"}}, "did you mean 'pretrained'"),
        ("pretraining", {"task": {"bio": {"budget": {"steps": 3}}}},
         "pretraining.task: unknown model 'bio'"),
        ("pretraining", {"domain": {"tapt": TEXT}}, "'tapt' has a meaning of its own"),
        ("pretraining", {"domain": {"a-b": TEXT}}, "'a-b' names a folder"),
        ("pretraining", {"domain": {"bio": {**TEXT, "text": "data.csv"}}},
         "pretraining.domain.bio: 'data.csv' is the data of task 'movie', its test set included"),
        ("pretraining", {"domain": {"bio": {**TEXT, "text": "."}}}, "is the data of task 'movie'"),
        ("pretraining", {"task": {"base": {"budget": {"steps": 3, "epochs": 1}}}},
         "give exactly one of 'epochs', 'steps' and 'minutes'"),
        ("pretraining", {"task": {"base": {}}}, "'pretraining.task.base.budget' is missing"),
        ("pretraining", {"task": {"base": {"budget": {"steps": 3}, "maks": 0.1}}},
         "unknown key 'maks'"),
        ("pretraining", {"after": {}}, "unknown key 'after'"),
    ],
)  # fmt: skip
def test_wrong_parameters_are_refused(
    key: str, value: Any, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    write(tmp_path, key, value)
    assert main(["ingest", "movie", "out"]) == 2
    shown = capsys.readouterr().err
    assert problem in shown
    assert "\n  fix: " in shown


def test_every_start_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    how = {"budget": {"epochs": 1}}
    path = write(
        tmp_path, "pretraining", {"domain": {"bio": TEXT}, "task": {"base": how, "bio": how}}
    )
    params = read_params(path)
    assert params.pretraining.starts() == ["pretrained", "bio", "tapt", "bio+tapt"]
    (tmp_path / "base").mkdir()
    (tmp_path / "data.csv").write_text("")
    with pytest.raises(TuneTrailError, match=r"pretraining.domain.bio.text: source 'text.txt'"):
        check_sources(params, path)
    (tmp_path / "text.txt").write_text("a text\n")
    (tmp_path / "base" / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(TuneTrailError, match="'llama' is a decoder"):
        check_sources(params, path)
    places = {start: checkpoint_folder(start, Path("models/base"), "own").as_posix()
              for start in params.pretraining.starts()}  # fmt: skip
    assert places == {
        "pretrained": "models/base",
        "bio": "models/bio",
        "tapt": "data/prepared/own/tapt/base",
        "bio+tapt": "data/prepared/own/tapt/bio",
    }


# Runs that start from a checkpoint ---------------------------------------------------------------


class Started:
    """A finished, tuned plan in a folder: a method, also from TAPT, and full from TAPT."""

    def __init__(self, root: Path, rows: str = ROWS, method: str = "lora") -> None:
        how = {"budget": {"steps": 3}, "head_steps": 2, "training": {"batch_size": 8}}
        methods: dict[str, Any] = {
            method: {}, f"{method}_tapt": {"method": method, "start": "tapt"},
            "full_tapt": {"method": "full", "start": "tapt"},
        }  # fmt: skip
        self.case = Case(
            root, rows, methods=methods, baseline=method, pretraining={"task": {"base": how}},
            base={"source": str(root), "max_length": 16},
            seeds=[1, 2], budgets={"full": {"steps": 3}}, tuning={"trials": {"full": 3}},
            numerics={"precision": "fp32", "threads": 1},
        )  # fmt: skip
        self.root = root
        self.base = root / "models" / "base"
        (root / "models").mkdir()
        (root / "base").rename(self.base)
        (root / "base").symlink_to(self.base)
        self.data = root / "data" / "prepared" / "own"
        self.data.parent.mkdir(parents=True)
        self.case.prepared().rename(self.data)
        self.tapt = self.data / "tapt" / "base"
        self.plan = root / "plan"

    def pretrain(self, text: Path | None = None) -> None:
        how = self.case.params.pretraining.task["base"]
        pretrain(how, FP32, text or self.data / "fit" / "train.parquet", self.base, self.tapt)

    def tune(self) -> None:
        for label in self.case.params.methods:
            out = self.data / "tuned" / label / "full"
            params, path, task = self.case.params, self.case.path, self.data / "tapt"
            tune(params, path, label, "full", self.base, self.data / "fit", task, out)

    def train(self) -> None:
        self.tune()
        canonical = self.root / "canonical"
        resolve(self.case.params, self.case.path, canonical, self.base, self.data, self.plan)
        for run in planned_runs(self.plan):
            out = self.root / "runs" / run.place
            train.train(self.plan / run.file, self.base, self.data / "fit", out)
        select.select(self.plan, self.root / "runs", self.root / "select")


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Started:
    monkeypatch.chdir(tmp_path)
    return Started(tmp_path)


@pytest.mark.parametrize("method", ["lora", "unipelt"])
def test_a_run_starts_from_the_checkpoint_it_names(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    started = Started(tmp_path, method=method)
    with pytest.raises(TuneTrailError, match=r"tapt/base/card.json does not exist"):
        started.train()
    started.pretrain()
    started.train()
    runs = {run.method: run for run in planned_runs(started.plan) if run.seed == 1}
    checkpoint = read_json(started.tapt / "pretrain.json")
    assert runs[method].spec.start == "pretrained"
    assert runs[method].spec.base.digest == tree_digest(started.base / "model")
    adapted = f"{method}_tapt"
    for label in (adapted, "full_tapt"):
        spec = runs[label].spec
        assert spec.model_dump()["start"] == {"name": "tapt", "digest": checkpoint["pretraining"]}
        assert spec.base.digest == tree_digest(started.tapt / "model")
        assert read_json(started.root / "runs" / runs[label].place / "adapter.json")[
            "base"
        ] == spec.base.digest  # fmt: skip
    planned = {run.method: [run] for run in runs.values()}
    assert compare._pretraining("own", planned, started.base) == {
        "tapt": {key: checkpoint[key] for key in
                 ("pretraining", "head", "texts", "steps", "tokens", "held_out_loss")}
    }  # fmt: skip
    # The exported model has the checkpoint's weights under the adapter, merged or not.
    for label in (adapted, "full_tapt"):
        selected = started.root / "select" / label
        out = started.root / "export" / label
        export.export(selected, started.base, started.data / "test", 1e-4, out)
        assert read_json(out / "certificate.json")["passed"]
    spec, place = runs[adapted].spec, started.root / "runs" / runs[adapted].place
    model = evaluate.trained_model(spec, started.base, place)
    weights = load_file(started.tapt / "model" / "model.safetensors")
    name = "embeddings.word_embeddings.weight"
    assert torch.equal(model.trunk.get_submodule("embeddings.word_embeddings").weight,
                       weights[f"bert.{name}"])  # fmt: skip
    # On another base the adapter is refused.
    other = runs[method].spec
    with pytest.raises(TuneTrailError, match="adapter of another base"):
        load_adapter(model, place, run=spec.digest, base=other.base.digest)


def test_a_checkpoint_that_changed_afterwards_is_refused(started: Started) -> None:
    started.pretrain()
    started.train()
    run = next(run for run in planned_runs(started.plan) if run.method == "lora_tapt")
    shutil.copytree(started.base / "model", started.tapt / "model", dirs_exist_ok=True)
    with pytest.raises(TuneTrailError, match=r"tapt/base/model is not the base model of this run"):
        train.train(started.plan / run.file, started.base, started.data / "fit", Path("again"))


def test_a_plan_without_pretraining_has_the_runs_it_had(tmp_path: Path) -> None:
    """The default start is written as it always was, so that no finished run is repeated."""
    case = Case(tmp_path)
    case.plan()
    spec = json.loads((tmp_path / "plan/lora/full/1.json").read_text())["spec"]
    assert spec["start"] == "pretrained"


# What is never seen ------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["dapt", "tapt", "tune", "train", "cost", "select"])
def test_no_stage_that_trains_or_chooses_is_given_test(stage: str) -> None:
    described = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"][stage]
    described = described.get("do", described)
    prepared = [dep for dep in described["deps"] if dep.startswith("data/")]
    allowed = ("/fit", "/fit/train.parquet", "/tapt", "data/corpus/${key}/text.parquet")
    assert all(dep.endswith(allowed) for dep in prepared)
    given = [word for word in described["cmd"].split() if word.startswith("data/")]
    own = [out for out in described["outs"] if out.startswith("data/")]
    assert set(given) <= {*prepared, *own}, "a command is given what is no dependency"


def test_nothing_that_trains_or_chooses_can_open_test(started: Started) -> None:
    """Pretraining does not even get the selection set; training and choosing get no test set."""
    alone = started.root / "alone.parquet"
    shutil.copyfile(started.data / "fit" / "train.parquet", alone)
    hidden = started.root / "hidden"
    (started.data / "fit").rename(hidden)
    (started.data / "test").rename(started.root / "test")
    started.pretrain(alone)
    hidden.rename(started.data / "fit")
    canonical = started.root / "canonical"
    canonical.rename(started.root / "elsewhere")
    started.tune()
    (started.root / "elsewhere").rename(canonical)
    (started.root / "test").rename(started.data / "test")  # resolve records its digest
    case = started.case
    resolve(case.params, case.path, canonical, started.base, started.data, started.plan)
    shutil.rmtree(started.data / "test")
    shutil.rmtree(canonical)
    for run in planned_runs(started.plan):
        out = started.root / "runs" / run.place
        train.train(started.plan / run.file, started.base, started.data / "fit", out)
    select.select(started.plan, started.root / "runs", started.root / "select")


def test_test_labels_change_no_weight_and_no_choice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[dict[str, Any]] = []
    ids: set[str] = set()
    for name in ("as_is", "swapped"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        rows = ROWS
        if name == "swapped":
            lines = ROWS.splitlines()
            other = {"yes": "no", "no": "yes"}
            for i in map(int, ids):
                text, label = lines[i + 1].split(",")
                lines[i + 1] = f"{text},{other[label]}"
            rows = "\n".join(lines) + "\n"
        project = Started(tmp_path / name, rows)
        test = pd.read_parquet(project.data / "test" / "test.parquet")
        ids = set(test["id"])
        project.pretrain()
        project.train()
        choice = read_json(project.root / "select" / "choice.json")
        runs = planned_runs(project.plan)
        found.append(
            {
                "labels": test["label"].tolist(),
                "checkpoint": tree_digest(project.tapt),
                "trials": {
                    trial.name: read_json(trial)
                    for trial in project.data.glob("tuned/*/full/trials/*.json")
                },
                "chosen": {
                    label: read_json(project.data / "tuned" / label / "full/ledger.json")["chosen"]
                    for label in project.case.params.methods
                },
                "weights": {
                    str(run.place): file_digest(
                        project.root / "runs" / run.place / "adapter.safetensors"
                    )
                    for run in runs
                },
                "winner": choice["winner"],
                "seeds": choice["seeds"],
                "selection": {
                    label: [run["selection"] for run in tried]
                    for label, tried in choice["runs"].items()
                },
            }
        )
    before, after = found
    assert len(ids) > 10
    assert len(before["trials"]) == 9
    assert [1 - label for label in before.pop("labels")] == after.pop("labels")
    assert before == after


def test_test_labels_change_no_domain_text(tmp_path: Path) -> None:
    digests = []
    for name in ("as_is", "swapped"):
        (tmp_path / name).mkdir()
        texts = [f"{WORDS} {letter * 9}" for letter in "xyz"]
        domain_case(tmp_path / name, texts)
        canonical = tmp_path / name / "canonical-all" / "own" / "data.parquet"
        if name == "swapped":
            frame = pd.read_parquet(canonical)
            frame["label"] = 1 - frame["label"]
            frame.to_parquet(canonical, index=False)
        domain = DomainText.model_validate(
            {"text": tmp_path / name / "text.txt", "budget": {"steps": 1}}
        )
        out = tmp_path / name / "again"
        corpus(domain, canonical.parent.parent, tmp_path / name / "base", 16, out)
        digests.append(file_digest(out / "text.parquet"))
    assert digests[0] == digests[1]


@pytest.mark.pipeline
def test_two_methods_share_one_pretraining_and_neither_needs_test(tmp_path: Path) -> None:
    """The shipped flow on the real model: TAPT of real reviews, then two methods from it."""
    project = new_project(tmp_path / "project")
    movie = project.params["tasks"]["movie"]
    project.change(
        tasks={"movie": movie | {"limits": {"train": 200, "selection": 30, "test": 40}}},
        methods={
            "head": {},
            "head_tapt": {"method": "head", "start": "tapt"},
            "lora": {"start": "tapt"},
        },
        pretraining={"task": {"base": {"budget": {"steps": 50}, "head_steps": 60}}},
        seeds=[1],
        cost={"steps": 1},
    )
    first = project.run()
    names = [name.partition("@")[0] for name in first["executed"]]
    assert names.count("tapt") == 1
    assert names.count("train") == 3
    again = project.run()
    assert again["executed"] == again["restored"] == []
    loss = project.json("data/prepared/movie/tapt/base/pretrain.json")["held_out_loss"]
    assert loss["after"] < loss["before"] - 0.2
    task = project.json("comparison/comparison.json")["tasks"]["movie"]
    assert [method["start"] for method in task["methods"].values()] == [
        "pretrained",
        "tapt",
        "tapt",
    ]
    assert task["pretraining"]["tapt"]["held_out_loss"] == loss

    kept = project.params["pretraining"]
    project.change(pretraining={"task": {"base": {"budget": {"steps": 51}, "head_steps": 60}}})
    planned = json.loads(project.command("tunetrail", "plan", "--json").stdout)
    reason = "parameter pretraining.task.base.budget.steps changed: 50 → 51"
    assert {run["method"]: run["stale"] for run in planned["runs"]} == {
        "head": [], "head_tapt": [reason], "lora": [reason],
    }  # fmt: skip
    project.change(pretraining=kept)

    shutil.rmtree(project.root / "data/prepared/movie/test")
    (project.root / "data/prepared/movie/fit/selection.parquet").unlink()
    done = project.command(
        "tunetrail", "pretrain", "--after", "base", "data/prepared/movie/fit/train.parquet",
        "models/base", "again",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert project.json("again/pretrain.json")["held_out_loss"] == loss
