"""What is stored of a winner: its card, the chain of files, and how a break of it is found."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests import finished
from tests.conftest import BIN
from tests.sharing import git
from tunetrail.errors import TuneTrailError
from tunetrail.files import tree_digest, write_json
from tunetrail.lineage import words
from tunetrail.lineage.card import model_card
from tunetrail.lineage.chain import Break, Link, first_break, first_break_in_registry
from tunetrail.lineage.reproduction import commands
from tunetrail.lineage.slices import slices
from tunetrail.provenance import environment, git_changes, recording_commit

COMMIT = "ab" * 20


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


# The card ----------------------------------------------------------------------------------------


def section(card: str, heading: str) -> str:
    return card.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def test_a_card_has_its_sections_in_order() -> None:
    card = model_card(finished.lineage())
    assert re.findall(r"^## (.*)", card, re.MULTILINE) == [
        "Intended use", "Out of scope", "Scores", "Scores by label", "Limits", "Data", "Training",
        "Size and speed", "Load and serve", "Where it comes from",
    ]  # fmt: skip
    assert card.startswith("# sentiment-movie: Movie reviews\n\nfull fine-tuning (arXiv")
    assert "Sorting texts into 2 classes: bad, good." in section(card, "Intended use")
    assert "(domain: reviews)" in section(card, "Intended use")
    assert "Decisions about people without a person" in section(card, "Out of scope")
    data = section(card, "Data")
    assert "files, path data/own.csv. Licence: MIT. 1,240 rows in all" in data
    assert "1 of 3 checks passed; tolerated: duplicates, 2 rows, 0.20% (limit 5.00%)" in data
    assert "waived: conflicts, 7 rows: published <so>" in data
    assert "dropped from train and selection: 2 rows" in data
    limits = section(card, "Limits")
    assert "cut to 128 tokens; 1.2% of the test rows" in limits
    assert "Classes without a row in selection: good." in limits
    assert "Languages: those of the data" in limits
    assert "batch_size 16, schedule linear" in section(card, "Training")
    assert "(licence: Apache-2.0)" in section(card, "Training")
    assert "takes 4.90 ms (median;" in section(card, "Size and speed")
    assert "ONNX file 86.2 MiB, opset 18" in section(card, "Size and speed")
    assert 'load_model("models:/sentiment-movie@champion")' in section(card, "Load and serve")
    comes = section(card, "Where it comes from")
    assert finished.digest("movie", "full", "full", 2) in comes
    assert f"git commit: {'0f' * 20}, with changes that are not in it" in comes


@pytest.mark.parametrize("label", list(finished.METHODS))
def test_every_score_of_a_method_stands_beside_its_interval(label: str) -> None:
    lineage = finished.lineage(label)
    card = model_card(lineage)
    summary = lineage["comparison"]["task"]["methods"][label]["summary"]["accuracy"]
    interval = f"[{summary['low']:.3f}, {summary['high']:.3f}]"
    (row,) = [line for line in card.splitlines() if line.startswith("| accuracy ")]
    assert f"{summary['mean']:.3f}" in row
    assert interval in row
    assert f"Test accuracy of the method: {summary['mean']:.3f} {interval} over 3 seeds." in card
    assert not re.search(r"\b(best|state of the art|outperforms)\b", card, re.IGNORECASE)


def test_one_seed_has_no_interval_and_the_card_says_so() -> None:
    lineage = finished.lineage()
    task = lineage["comparison"]["task"]
    for summary in task["methods"]["full"]["summary"].values():
        summary |= {"std": None, "count": 1, "low": None, "high": None}
    for record in task["verdicts"].values():
        record |= {"low": None, "high": None, "outcome": "open", "needs": None}
    card = model_card(lineage)
    assert "one seed, so without an interval" in section(card, "Scores")
    assert "Only 1 seed: there is no interval." in section(card, "Limits")
    label = finished.lineage("lora")
    label["comparison"]["task"]["verdicts"]["lora"] |= {"low": None, "outcome": "open"}
    assert "one seed, so without an interval" in words.verdict(label)


def test_few_rows_of_a_label_are_said_to_be_few() -> None:
    lineage = finished.lineage()
    assert words.small_samples(lineage) == [
        "Fewer than 30 test rows: good (20). Scores of these say little."
    ]
    lineage["slices"][1]["rows"] = 30
    assert words.small_samples(lineage) == []


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        ("win", "LoRA has a higher score: test accuracy differs by +0.020 [+0.010, +0.030]."),
        ("lose", "LoRA has a lower score: test accuracy differs by +0.020 [+0.010, +0.030]."),
        ("tie", "LoRA ties within ±0.01: test accuracy differs by +0.020 [+0.010, +0.030]."),
        ("open", "LoRA is not told apart (needs about 2 more seeds): test accuracy differs by"),
    ],
)
def test_the_verdict_is_a_sentence_with_its_interval(outcome: str, said: str) -> None:
    lineage = finished.lineage("lora")
    lineage["comparison"]["task"]["verdicts"]["lora"] |= {
        "outcome": outcome, "difference": 0.02, "low": 0.01, "high": 0.03,
        "needs": {"seeds": 2, "rows": 0} if outcome == "open" else None,
    }  # fmt: skip
    assert words.verdict(lineage).startswith(f"Against full fine-tuning, {said}")


def test_of_the_baseline_the_verdicts_on_the_others_are_told() -> None:
    lineage = finished.lineage("full")
    assert words.verdict(lineage).startswith("Against full fine-tuning: ")
    lineage["comparison"]["task"]["verdicts"] = {}
    assert "There is no verdict" in words.verdict(lineage)


def test_the_choice_is_explained_by_selection_scores() -> None:
    lineage = finished.lineage()
    means = words.selection_means(lineage)
    runs = lineage["choice"]["runs"]
    assert means["full"] == pytest.approx(
        sum(run["selection"]["accuracy"] for run in runs["full"]) / 3
    )
    assert list(means.values()) == sorted(means.values(), reverse=True)
    assert words.how_selected(lineage) == (
        f"full fine-tuning has the highest mean accuracy on the selection set "
        f"({means['full']:.3f} over 3 seeds), and seed 2 the highest of them "
        f"({runs['full'][1]['selection']['accuracy']:.3f}). The test set had no part in it."
    )
    gap = means["full"] - means["head"]
    assert words.why_not("head", lineage) == f"{gap:.3f} lower"
    for run, other in zip(runs["lora"], runs["full"], strict=True):
        run["selection"] = other["selection"]
    assert words.why_not("lora", lineage) == "equal: first by name"


def test_a_refused_winner_says_why_on_its_card() -> None:
    lineage = finished.lineage()
    lineage["model"]["reason"] = "ONNX logits differ by 0.3"
    assert "**Not registered:** ONNX logits differ by 0.3." in model_card(lineage)


def test_numbers_and_answers_have_cards_too() -> None:
    number = finished.lineage()
    number["comparison"]["task"] |= {
        "labels": [], "range": [0, 5], "predicts": "a number from 0 to 5",
    }  # fmt: skip
    number["data"]["paired"] = True
    spread = {"mean": 2.5, "std": 1.25, "lowest": 0.0, "highest": 5.0}
    for card in number["data"]["sets"].values():
        card |= {"labels": {}, "numbers": spread}
    number["slices"] = [
        {"of": "0 to 1.66667", "rows": 50, "measure": "mean absolute error", "score": 0.4,
         "low": None, "high": None}
    ]  # fmt: skip
    card = model_card(number)
    assert "Predicting a number from 0 to 5 for pairs of texts." in card
    assert "mean 2.5, deviation 1.25, from 0 to 5" in card
    assert '{"text": ["…"], "text_pair": ["…"]}' in card
    assert "belong to no class" not in card
    answers = finished.lineage()
    answers["comparison"]["task"] |= {"labels": [], "range": None}
    answers["slices"] = []
    for found in answers["data"]["sets"].values():
        found |= {"labels": {}, "answers": {"mean": 1.5, "most": 4}}
    card = model_card(answers)
    assert "Finding the answer to a question in a context" in card
    assert "1.5 answers a question, 4 at most" in card
    assert '{"question": ["…"], "context": ["…"]}' in card
    assert "Scores by label" not in card


# Slices ------------------------------------------------------------------------------------------


def test_the_share_found_of_a_class_has_wilsons_interval() -> None:
    predictions = pd.DataFrame(
        {"label": [0] * 10 + [1] * 4, "prediction": [0] * 8 + [1] * 2 + [1] * 4}
    )
    one, two, none = slices(predictions, {"labels": ["a", "b", "c"], "range": None})
    assert (one["of"], one["rows"], one["score"]) == ("a", 10, 0.8)
    # Wilson's interval of 8 out of 10 and of 4 out of 4, from its formula by hand.
    assert (one["low"], one["high"]) == (
        pytest.approx(0.490, abs=5e-4), pytest.approx(0.943, abs=5e-4)
    )  # fmt: skip
    assert (two["score"], two["high"]) == (1.0, 1.0)
    assert two["low"] == pytest.approx(0.510, abs=5e-4)
    assert (none["rows"], none["score"], none["low"]) == (0, None, None)


def test_the_error_of_a_number_is_that_of_each_third_of_its_range() -> None:
    predictions = pd.DataFrame({"label": [0.0, 1.0, 3.0, 6.0], "prediction": [0.5, 1.0, 5.0, 5.0]})
    found = slices(predictions, {"labels": [], "range": [0, 6]})
    assert [(r["of"], r["rows"], r["score"]) for r in found] == [
        ("0 to 2", 2, 0.25), ("2 to 4", 1, 2.0), ("4 to 6", 1, 1.0)
    ]  # fmt: skip
    assert slices(predictions, {"labels": [], "range": None}) == []


# The chain ---------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path) -> list[Link]:
    """A chain of three files, as they are on disk."""
    chain = []
    for step, cell in (("source data", ""), ("training", "train@a"), ("export", "export@a")):
        path = tmp_path / step.replace(" ", "-")
        path.write_bytes(np.random.default_rng(len(step)).bytes(100))
        chain.append(Link(step, path.name, sha256(path), cell))
    return chain


def check(
    root: Path, chain: list[Link], recorded: dict[str, str] | None = None
) -> tuple[Break | None, list[str]]:
    seen: list[str] = []
    if recorded is None:
        recorded = {link.path: md5(root / link.path) for link in chain}
    found = first_break(chain, root, recorded, COMMIT, lambda link: seen.append(link.step))
    return found, seen


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[50] ^= 1
    path.write_bytes(content)


def test_an_intact_chain_has_no_break(tmp_path: Path, files: list[Link]) -> None:
    assert check(tmp_path, files) == (None, ["source data", "training", "export"])


def test_the_first_break_is_the_one_that_comes_first_in_the_chain(
    tmp_path: Path, files: list[Link]
) -> None:
    recorded = {link.path: md5(tmp_path / link.path) for link in files}
    for link in reversed(files):
        damage(tmp_path / link.path)
        found, seen = check(tmp_path, files, recorded)
        assert found is not None
        assert (found.file, found.algorithm, found.expected) == (link.path, "sha256", link.sha256)
        assert found.actual == sha256(tmp_path / link.path)
        assert len(seen) == files.index(link)


def test_each_kind_of_break_has_its_way_out(tmp_path: Path, files: list[Link]) -> None:
    recorded = {link.path: md5(tmp_path / link.path) for link in files}
    source, training, export = (tmp_path / link.path for link in files)
    before = export.read_bytes()
    damage(export)
    found, _ = check(tmp_path, files, recorded)
    assert found is not None
    assert found.kind == "damaged"
    assert "`tunetrail verify --discard`" in found.fix
    assert "`dvc repro export@a`" in found.fix
    found, _ = check(tmp_path, files, {**recorded, "export": md5(export)})
    assert found is not None
    assert found.kind == "other", "dvc.lock records it: a later result"
    assert f"`git checkout {COMMIT}`, then `dvc checkout`" in found.fix
    export.write_bytes(before)
    found, _ = check(tmp_path, files, {**recorded, "export": "0" * 32})
    assert found is not None
    assert (found.algorithm, found.kind, found.actual) == ("md5", "damaged", md5(export))
    training.unlink()
    found, _ = check(tmp_path, files, recorded)
    assert found is not None
    assert (found.kind, found.actual, found.expected) == ("missing", "", files[1].sha256)
    assert "`dvc pull train@a`" in found.fix
    damage(source)
    found, _ = check(tmp_path, files, recorded)
    assert found is not None
    assert found.kind == "source"
    assert f"git checkout {COMMIT} -- source-data" in found.fix


def test_without_dvcs_record_a_file_is_compared_all_the_same(
    tmp_path: Path, files: list[Link]
) -> None:
    damage(tmp_path / "export")
    found, _ = check(tmp_path, files, {})
    assert found is not None
    assert (found.file, found.kind) == ("export", "damaged")


def test_a_folder_is_compared_as_a_tree_and_a_pointer_by_dvcs_record(tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "a.csv").write_text("one")
    pointer = tmp_path / "pointer.yaml"
    pointer.write_text("kind: hub")
    chain = [
        Link("source data", "texts", tree_digest(folder), ""),
        Link("source data", "pointer.yaml", None, ""),
    ]
    recorded = {"pointer.yaml": md5(pointer)}
    assert check(tmp_path, chain, recorded)[0] is None
    pointer.write_text("kind: files")
    found, _ = check(tmp_path, chain, recorded)
    assert found is not None
    assert (found.file, found.algorithm) == ("pointer.yaml", "md5")
    (folder / "b.csv").write_text("two")
    found, _ = check(tmp_path, chain, recorded)
    assert found is not None
    assert found.file == "texts"


def test_a_damaged_copy_in_the_registry_is_named_with_its_version(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"weights")
    good = ("artifacts/lora/model.onnx", path, sha256(path))
    assert first_break_in_registry([good], "sentiment-own", "3") is None
    path.write_bytes(b"Weights")
    found = first_break_in_registry([good], "sentiment-own", "3")
    assert found is not None
    assert found.file == "models:/sentiment-own/3: artifacts/lora/model.onnx"
    assert (found.expected, found.actual) == (good[2], sha256(path))
    assert "delete version 3 of 'sentiment-own' in MLflow" in found.fix
    path.unlink()
    found = first_break_in_registry([good], "sentiment-own", "3")
    assert found is not None
    assert found.actual == ""


# Commands and provenance -------------------------------------------------------------------------


def test_the_commands_say_what_the_commit_lacks() -> None:
    git_state: dict[str, Any] = {"git_commit": COMMIT, "changed": []}
    made_with: dict[str, Any] = {"python": "3.11.7", "lock": None}
    found = commands("own", "lora", git_state, made_with)
    assert [c["command"] for c in found] == [
        f"git checkout {COMMIT}", "dvc pull", "dvc repro export@own-lora", "dvc repro register",
        "tunetrail sync",
    ]  # fmt: skip
    assert found[0]["what"] == "code, parameters and dvc.lock of the results"
    many = [f"file{number}" for number in range(7)]
    dirty = commands("own", "lora", {**git_state, "changed": many}, made_with)[0]["what"]
    assert dirty == (
        "NOT all: file0, file1, file2, file3, file4 and 2 more had changes that this commit lacks"
    )
    lock = {"file": "requirements.lock", "sha256": ""}
    found = commands("own", "lora", {"git_commit": None, "changed": []}, made_with | {"lock": lock})
    assert found[0]["command"] == "pip install -r requirements.lock"


def test_the_commit_that_records_a_result_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert (git_changes(), recording_commit("md5: 1", "dvc.lock")) == ([], None)
    git(tmp_path, "init", "-q")
    lock = tmp_path / "dvc.lock"
    for number in (1, 2, 3):
        lock.write_text(f"md5: {number}\n")
        git(tmp_path, "add", "dvc.lock")
        git(tmp_path, "commit", "-q", "-m", f"{number}")
    done = subprocess.run(["git", "rev-parse", "HEAD~1"], capture_output=True, text=True)
    assert recording_commit("md5: 2", "dvc.lock") == done.stdout.strip()
    assert recording_commit("md5: 4", "dvc.lock") is None
    assert git_changes() == []
    lock.write_text("other")
    assert git_changes() == ["dvc.lock"]


def test_the_environment_has_every_package_and_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = environment()
    assert found["lock"] is None
    assert found["packages"]["numpy"] == np.__version__
    assert found["versions"].items() <= found["packages"].items()
    (tmp_path / "requirements.lock").write_text("numpy==2\n")
    expected = {"file": "requirements.lock", "sha256": sha256(tmp_path / "requirements.lock")}
    assert environment()["lock"] == expected
    assert json.loads(json.dumps(environment())) == environment()


# The command, without a registry -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("models:/sentiment-own", "'models:/sentiment-own' does not name a registered version"),
        ("models:/a@b@c", "models:/NAME/VERSION or models:/NAME@ALIAS"),
        ("models:/sentiment-own@champion", "there is no registry here:"),
        ("own", "'own' is no models:/… and this is not inside a TuneTrail project"),
    ],
)
def test_what_cannot_be_explained_is_named(model: str, said: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [BIN / "python", "-m", "tunetrail.cli", "explain", model],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_old_receipt_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tunetrail.tracking.sync import bring_up_to_date

    monkeypatch.chdir(tmp_path)
    write_json(Path("receipt.json"), {"project": "sentiment", "runs": [{"against": {}}]})
    with pytest.raises(TuneTrailError, match=r"'receipt.json' is of another version of TuneTrail"):
        bring_up_to_date(Path("receipt.json"))
    assert not Path(".tunetrail").exists()
