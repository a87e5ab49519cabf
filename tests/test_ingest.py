"""Ingest: any file to one canonical table, nothing guessed, every fault named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tunetrail.errors import TuneTrailError
from tunetrail.files import file_digest
from tunetrail.stages.ingest import ingest
from tunetrail.task import TaskSpec

TEXTS = ["NA", "null", "01", "", " a  b ", "1e5", "2020-01-01", 'say "hi", then\tleave', "naïve ☃"]
FRAME = pd.DataFrame({"text": TEXTS, "label": ["neg", "pos", "pos"] * 3})


def write_json_lines(frame: pd.DataFrame, path: Path) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in frame.to_dict("records")))


WRITERS: dict[str, Callable[[pd.DataFrame, Path], None]] = {
    ".csv": lambda frame, path: frame.to_csv(path, index=False),
    ".tsv": lambda frame, path: frame.to_csv(path, index=False, sep="\t"),
    ".jsonl": write_json_lines,
    ".json": lambda frame, path: path.write_text(json.dumps(frame.to_dict("records"))) and None,
    ".parquet": lambda frame, path: frame.to_parquet(path, index=False),
}


def task(source: Path, **changes: Any) -> TaskSpec:
    declared = {
        "name": "toy",
        "source": source,
        "columns": {"text": "text", "label": "label"},
        "labels": ["neg", "pos"],
    }
    return TaskSpec.model_validate({**declared, **changes})


def canonical(source: Path, **changes: Any) -> pd.DataFrame:
    out = source.parent / "canonical"
    ingest(task(source, **changes), out)
    return pd.read_parquet(out / "data.parquet")


def from_csv(tmp_path: Path, text: str, **changes: Any) -> pd.DataFrame:
    (tmp_path / "data.csv").write_text(text, encoding="utf-8")
    return canonical(tmp_path / "data.csv", **changes)


def refused(tmp_path: Path, text: str, **changes: Any) -> TuneTrailError:
    """The error for a CSV file; nothing may be left behind."""
    with pytest.raises(TuneTrailError) as caught:
        from_csv(tmp_path, text, **changes)
    assert not (tmp_path / "canonical").exists()
    return caught.value


# Formats ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", WRITERS)
def test_single_file_keeps_every_text_as_it_is(suffix: str, tmp_path: Path) -> None:
    WRITERS[suffix](FRAME, tmp_path / f"data{suffix}")
    rows = canonical(tmp_path / f"data{suffix}")
    assert list(rows.columns) == ["id", "group", "split", "text", "text_pair", "label"]
    assert rows["text"].tolist() == TEXTS
    assert rows["label"].tolist() == [0, 1, 1] * 3
    assert rows["id"].tolist() == [str(i) for i in range(9)]
    assert rows["split"].isna().all()
    assert rows["text_pair"].isna().all()


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize("texts", [["01", "1e5", "-0"], ["2020-01-01", "2020-01-02", "12:00"]])
def test_texts_that_all_look_like_numbers_or_dates_stay_text(
    texts: list[str], suffix: str, tmp_path: Path
) -> None:
    frame = pd.DataFrame({"date": texts, "label": ["neg", "pos", "pos"]})
    WRITERS[suffix](frame, tmp_path / f"data{suffix}")
    rows = canonical(tmp_path / f"data{suffix}", columns={"text": "date", "label": "label"})
    assert rows["text"].tolist() == texts


@pytest.mark.parametrize("suffix", WRITERS)
def test_folder_of_split_files_keeps_the_splits(suffix: str, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    parts = {"train": FRAME[:5], "validation": FRAME[5:7], "test": FRAME[7:]}
    for split, part in parts.items():
        WRITERS[suffix](part, folder / f"{split}{suffix}")
    rows = canonical(folder).set_index("id")
    assert set(rows.index) == {
        *(f"train-{i}" for i in range(5)),
        *(f"{split}-{i}" for split in ("validation", "test") for i in range(2)),
    }
    for split, part in parts.items():
        kept = rows[rows["split"] == split]
        assert kept.loc[[f"{split}-{i}" for i in range(len(part))], "text"].tolist() == list(
            part["text"]
        )


def test_folder_with_one_file_of_any_name_is_not_split(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "README.md").write_text("not data")
    WRITERS[".csv"](FRAME, tmp_path / "data" / "reviews.csv")
    assert canonical(tmp_path / "data")["split"].isna().all()


def test_declared_files_are_found_below_the_source(tmp_path: Path) -> None:
    (tmp_path / "data" / "deep").mkdir(parents=True)
    WRITERS[".csv"](FRAME[:4], tmp_path / "data" / "deep" / "a.csv")
    WRITERS[".csv"](FRAME[4:], tmp_path / "data" / "b.csv")
    rows = canonical(tmp_path / "data", files={"train": "deep/a.csv", "test": "b.csv"})
    assert rows["split"].value_counts().to_dict() == {"train": 4, "test": 5}


def test_csv_without_header_or_quoting(tmp_path: Path) -> None:
    rows = from_csv(
        tmp_path,
        'a;pos;"unpaired\nb;neg;it\'s "fine"\n',
        format={"delimiter": ";", "names": ["id", "label", "text"], "quoting": False},
        columns={"text": "text", "label": "label", "id": "id"},
    )
    assert rows["id"].tolist() == ["a", "b"]
    assert rows["text"].tolist() == ['"unpaired', 'it\'s "fine"']


def test_text_pairs_are_kept_side_by_side(tmp_path: Path) -> None:
    rows = from_csv(
        tmp_path,
        "first,second,label\nNA,null,pos\na,b,neg\na,c,neg\n",
        columns={"text": "first", "text_pair": "second", "label": "label"},
    )
    assert rows["text"].tolist() == ["NA", "a", "a"]
    assert rows["text_pair"].tolist() == ["null", "b", "c"]
    assert rows["group"].nunique() == 3  # a pair is one text


@pytest.mark.parametrize(
    "text",
    ["label,text\npos,hello, world\nneg,bye\n", "label,text\nneg,bye\npos,hello, world\n"],
    ids=["first row", "later row"],
)
def test_row_with_too_many_fields_is_refused_not_cut(text: str, tmp_path: Path) -> None:
    error = refused(tmp_path, text)
    assert "'data.csv' cannot be read" in error.problem
    assert "'format.delimiter' and 'format.quoting'" in error.fix


# Labels ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rating", "label"),
    [
        ("-4", 0),
        ("-0.51", 0),
        ("-0.5", 1),  # a threshold belongs to the class above it
        ("-0.49", 1),
        ("0", 1),
        ("0.49", 1),
        ("0.5", 2),
        ("0.51", 2),
        ("4e0", 2),
    ],
)
def test_bins_cut_a_number_at_their_thresholds(rating: str, label: int, tmp_path: Path) -> None:
    rows = from_csv(
        tmp_path, f"text,label\na,{rating}\n", labels=["neg", "mid", "pos"], bins=[-0.5, 0.5]
    )
    assert rows["label"].tolist() == [label]


def test_class_names_and_class_indices_are_the_same_labels(tmp_path: Path) -> None:
    by_name = from_csv(tmp_path, "text,label\na,pos\nb,neg\n")
    by_index = from_csv(tmp_path, "text,label\na,1\nb,0\n")
    assert by_name["label"].tolist() == by_index["label"].tolist() == [1, 0]


def test_names_that_look_like_indices_are_names(tmp_path: Path) -> None:
    rows = from_csv(tmp_path, "text,label\na,1\nb,0\n", labels=["1", "0"])
    assert rows["label"].tolist() == [0, 1]


def test_whole_floats_are_class_indices(tmp_path: Path) -> None:
    # What pandas makes of whole numbers as soon as one is missing.
    frame = pd.DataFrame({"text": ["a", "b", "c"], "label": [1.0, None, 0.0]})
    frame.to_parquet(tmp_path / "data.parquet")
    labels = canonical(tmp_path / "data.parquet")["label"]
    assert labels.isna().tolist() == [False, True, False]
    assert labels.dropna().tolist() == [1, 0]


def test_missing_texts_and_labels_stay_missing(tmp_path: Path) -> None:
    rows = [{"text": None, "label": "pos"}, {"text": "a", "label": None}]
    write_json_lines(pd.DataFrame(rows, dtype=object), tmp_path / "data.jsonl")
    kept = canonical(tmp_path / "data.jsonl")
    assert kept["text"].isna().tolist() == [True, False]
    assert kept["label"].isna().tolist() == [False, True]


@pytest.mark.parametrize("hidden", [-1, -1.0, None, "-1"])
@pytest.mark.parametrize("split", ["validation", "test"])
def test_split_without_any_label_is_left_out_and_named(
    split: str, hidden: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    FRAME.to_parquet(folder / "train.parquet")
    unlabelled = pd.DataFrame({"text": ["a", "b"], "label": [hidden] * 2})
    unlabelled.to_parquet(folder / f"{split}.parquet")
    assert set(canonical(folder)["split"]) == {"train"}
    card = json.loads((tmp_path / "canonical" / "card.json").read_text())
    assert card["source"]["left out"] == f"{split} (2 rows, none has a label)"
    assert card["rows"] == len(FRAME)


def test_minus_one_is_a_number_where_the_range_has_it(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    pd.DataFrame({"text": ["c", "d"], "label": [0, 1]}).to_parquet(folder / "train.parquet")
    pd.DataFrame({"text": ["a", "b"], "label": [-1, -1]}).to_parquet(folder / "test.parquet")
    assert set(canonical(folder, labels=[], range=[-1, 1])["split"]) == {"train", "test"}
    assert set(canonical(folder, labels=[], range=[0, 1])["split"]) == {"train"}


def test_split_with_one_label_is_kept(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    FRAME.to_parquet(folder / "train.parquet")
    pd.DataFrame({"text": ["a", "b"], "label": [None, "pos"]}).to_parquet(folder / "test.parquet")
    assert canonical(folder)["split"].value_counts().to_dict() == {"train": 9, "test": 2}
    card = json.loads((tmp_path / "canonical" / "card.json").read_text())
    assert "left out" not in card["source"]


def test_minus_one_that_is_a_class_is_a_label(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    frame = pd.DataFrame({"text": ["a", "b"], "label": ["-1", "1"]})
    frame.to_parquet(folder / "train.parquet")
    frame[:1].to_parquet(folder / "test.parquet")
    kept = canonical(folder, labels=["-1", "1"])
    assert kept["split"].value_counts().to_dict() == {"train": 2, "test": 1}


def test_training_rows_without_any_label_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    pd.DataFrame({"text": ["a"], "label": [-1]}).to_parquet(folder / "train.parquet")
    with pytest.raises(TuneTrailError, match="unknown label '-1'"):
        canonical(folder)


# Groups and ids --------------------------------------------------------------------------------


def test_group_is_the_part_before_the_separator(tmp_path: Path) -> None:
    text = "id,text,label\n7_1,a,pos\n7_2,b,neg\n8_1_x,c,neg\n9,d,pos\n"
    columns = {"id": "id", "text": "text", "label": "label", "group": "id"}
    rows = from_csv(tmp_path, text, columns=columns, group_separator="_")
    assert rows["group"].tolist() == ["7", "7", "8", "9"]
    assert rows["id"].tolist() == ["7_1", "7_2", "8_1_x", "9"]
    whole = from_csv(tmp_path, text, columns=columns)
    assert whole["group"].tolist() == ["7_1", "7_2", "8_1_x", "9"]


def test_equal_texts_are_a_group_where_none_is_declared(tmp_path: Path) -> None:
    groups = from_csv(tmp_path, "text,label\na,pos\nb,neg\na,neg\n")["group"]
    assert groups[0] == groups[2] != groups[1]


def test_row_without_an_id_is_refused(tmp_path: Path) -> None:
    rows = [{"id": "x", "text": "a", "label": "pos"}, {"id": None, "text": "b", "label": "neg"}]
    write_json_lines(pd.DataFrame(rows, dtype=object), tmp_path / "data.jsonl")
    columns = {"id": "id", "text": "text", "label": "label"}
    with pytest.raises(TuneTrailError, match="row 2"):
        canonical(tmp_path / "data.jsonl", columns=columns)


# The card --------------------------------------------------------------------------------------


def test_card_describes_the_data(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "train.csv").write_text("text,label\nab,pos\nabcd,pos\nabcdef,neg\n")
    (folder / "test.csv").write_text("text,label\na,neg\n")
    canonical(folder, title="A toy", domain="toys", labels=["neg", "pos", "odd"])
    out = tmp_path / "canonical"
    card = json.loads((out / "card.json").read_text())
    source = card.pop("source")
    assert source["kind"] == "files"
    assert source["path"] == folder.as_posix()
    assert card == {
        "task": "toy",
        "title": "A toy",
        "domain": "toys",
        "licence": "unknown",
        "digest": file_digest(out / "data.parquet"),
        "rows": 4,
        "rows_by_split": {"train": 3, "test": 1},
        "labels": {"neg": 2, "pos": 2, "odd": 0},
        "characters": {"median": 3.0, "longest": 6},
    }


def test_task_is_frozen_next_to_the_data(tmp_path: Path) -> None:
    from_csv(tmp_path, "text,label\na,pos\nb,neg\n", title="A toy")
    frozen = json.loads((tmp_path / "canonical" / "task.json").read_text())
    assert TaskSpec.model_validate(frozen) == task(tmp_path / "data.csv", title="A toy")


def test_same_source_gives_the_same_bytes(tmp_path: Path) -> None:
    text = "text,label\na,pos\nb,neg\n"
    digests = set()
    for _ in range(2):
        from_csv(tmp_path, text)
        digests.add(file_digest(tmp_path / "canonical" / "data.parquet"))
    assert len(digests) == 1


# Errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["text", "text_pair", "label", "id", "group"])
def test_missing_column_names_role_and_nearest(role: str, tmp_path: Path) -> None:
    columns = {"text": "text", "label": "label", role: "sentnce"}
    error = refused(tmp_path, "text,label,sentence\na,pos,b\n", columns=columns)
    assert error.problem == f"task 'toy': data.csv: unknown column 'sentnce' (columns.{role})"
    assert error.fix == "did you mean 'sentence'? valid: label, sentence, text"


@pytest.mark.parametrize(
    ("values", "row", "value", "count"),
    [
        (["pos", "neg", "postive"], 3, "postive", 1),
        (["neutral", "pos", "other"], 1, "neutral", 2),
        (["0", "2", "1"], 2, "2", 1),
        (["pos", "", "neg"], 2, "", 1),
        (["Pos", "Neg", "Neg"], 1, "Pos", 3),
    ],
)
def test_label_outside_the_declared_set_names_row_and_value(
    values: list[str], row: int, value: str, count: int, tmp_path: Path
) -> None:
    text = "text,label\n" + "".join(f"text {i},{v}\n" for i, v in enumerate(values))
    error = refused(tmp_path, text)
    assert error.problem == (
        f"task 'toy': data.csv: column 'label', row {row}: unknown label '{value}': "
        f"{count} of 3 rows are outside the declared set"
    )
    assert "valid: neg, pos" in error.fix


@pytest.mark.parametrize("value", ["good", "nan", "1,5"])
def test_text_under_bins_names_row_and_value(value: str, tmp_path: Path) -> None:
    error = refused(tmp_path, f'text,label\na,1.5\nb,"{value}"\n', bins=[0.0])
    assert error.problem == (
        f"task 'toy': data.csv: column 'label': row 2 is '{value}', not a number"
    )
    assert "without 'bins'" in error.fix


def test_unknown_format_lists_the_known_ones(tmp_path: Path) -> None:
    (tmp_path / "data.xlsx").write_bytes(b"PK")
    with pytest.raises(TuneTrailError) as caught:
        canonical(tmp_path / "data.xlsx")
    assert caught.value.problem == "'data.xlsx' has an unknown format"
    assert ".csv, .json, .jsonl, .ndjson, .parquet, .tsv, .txt" in caught.value.fix


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "task 'toy': no data files in '.*data'"),
        (["notes.md"], "task 'toy': no data files in '.*data'"),
        (["one.csv", "two.csv"], "task 'toy': no data files in '.*data'"),
        (["test.csv"], "task 'toy': there is no train file, only test"),
        (["test.csv", "validation.csv"], "there is no train file, only test, validation"),
        (["train.csv", "train.jsonl", "test.csv"], "train.csv.*train.jsonl"),
    ],
)
def test_folder_that_is_not_a_dataset_is_refused(
    files: list[str], message: str, tmp_path: Path
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    for name in files:
        WRITERS.get(Path(name).suffix, WRITERS[".csv"])(FRAME, folder / name)
    with pytest.raises(TuneTrailError, match=message):
        canonical(folder)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"train": "trian.csv"}, "files.train .*'trian.csv'.* not in the source"),
        ({"test": "data.csv"}, "there is no train file, only test"),
        ({"all": "data.csv", "test": "data.csv"}, "'files' names both 'all' and a split"),
    ],
)
def test_declared_files_that_cannot_be_are_refused(
    files: dict[str, str], message: str, tmp_path: Path
) -> None:
    WRITERS[".csv"](FRAME, tmp_path / "data.csv")
    with pytest.raises(TuneTrailError, match=message):
        canonical(tmp_path, files=files)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("data.csv", b""),
        ("data.csv", b'text,label\n"a,pos\n'),
        ("data.csv", "text,label\né,pos\n".encode("latin-1")),
        ("data.jsonl", b'{"text": \n'),
        ("data.parquet", b"text,label\n"),
    ],
)
def test_unreadable_file_is_named(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TuneTrailError, match=f"'{name}' cannot be read: "):
        canonical(tmp_path / name)


def test_file_without_rows_is_refused(tmp_path: Path) -> None:
    assert "'data.csv' has no rows" in refused(tmp_path, "text,label\n").problem


def test_failure_leaves_the_earlier_result_in_place(tmp_path: Path) -> None:
    from_csv(tmp_path, "text,label\na,pos\nb,neg\n")
    before = file_digest(tmp_path / "canonical" / "data.parquet")
    with pytest.raises(TuneTrailError):
        from_csv(tmp_path, "text,label\na,good\n")
    assert file_digest(tmp_path / "canonical" / "data.parquet") == before
    assert {p.name for p in tmp_path.iterdir()} == {"data.csv", "canonical"}
