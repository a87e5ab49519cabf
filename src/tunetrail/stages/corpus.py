"""corpus: text of a domain, without what tasks hold out, cut into tokens for pretraining.

The one place where pretraining text meets selection and test texts: what is (nearly) in them is
left out here, so that the pretrain stage needs none of them.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from tunetrail.errors import TuneTrailError, unknown
from tunetrail.files import file_digest, replacing, scratch, write_json
from tunetrail.layout import CARD, DATA, TASK, TEXT
from tunetrail.modeling.base import read_base
from tunetrail.near_duplicates import near_duplicates, plain
from tunetrail.pretraining import DomainText
from tunetrail.sources import read_source
from tunetrail.splits import assign_sets, position
from tunetrail.tables import READERS, read_lines, read_table
from tunetrail.task import Format, read_task

#: A text that shares so many words in a row with a held-out text contains a part of it (the length
#: that GPT-3's test sets were searched with, arXiv 2005.14165); a shorter held-out text counts as a
#: whole, unless it is a phrase that anybody may have written.
_RUN, _PHRASE = 13, 5

#: Texts that are tokenised at once.
_BATCH = 500


def corpus(domain: DomainText, canonical: Path, base: Path, max_length: int, out: Path) -> None:
    """Write ``text.parquet`` (tokens in windows of at most ``max_length``) and its card to ``out``.

    Left out are blank and repeated texts, and every text that is nearly the same as a text outside
    the training set of any task in ``canonical``, or contains such a text or a run of its words.

    Args:
        domain: Where the text is.
        canonical: Folder of what the ingest stage wrote for each task.
        base: What the base stage wrote.
        max_length: Tokens of a window.
        out: Folder to write.

    Raises:
        TuneTrailError: Unreadable source, missing column, or nothing to train on is left.
    """
    weights, _ = read_base(base)
    source = read_source(domain.text)
    with scratch() as unpacked:
        read = _texts(source.fetch(unpacked), domain)
    texts = list(dict.fromkeys(" ".join(text.split()) for text in read))
    dropped: dict[str, int] = {}
    for folder in sorted(path.parent for path in canonical.glob(f"*/{TASK}")):
        kept = without(texts, held_out_texts(folder), domain.near_duplicate)
        dropped[folder.name] = len(texts) - len(kept)
        texts = kept
    texts = sorted(texts, key=lambda text: position(text, "order"))[: domain.limit]
    if len(texts) < 2:
        raise TuneTrailError(
            f"'{domain.text}' has {len(read)} texts; {len(texts)} of them can be pretrained on "
            f"({sum(dropped.values())} are in a task's selection or test set)",
            "name more text of the domain",
        )
    with replacing(out) as folder:
        tokens = _tokenise(texts, weights, max_length)
        tokens.to_parquet(folder / TEXT, index=False)
        card = {
            "source": source.provenance(),
            "texts": {"read": len(read), "kept": len(texts), "held_out_by_task": dropped},
            "windows": len(tokens),
            "tokens": int(tokens["input_ids"].map(len).sum()),
            "digest": file_digest(folder / TEXT),
        }
        write_json(folder / CARD, card)


def held_out_texts(canonical: Path) -> set[str]:
    """Every text of a task, of pairs both, that is not in its training set. Labels are not read."""
    columns = ["id", "group", "split", "text", "text_pair"]
    frame = pd.read_parquet(canonical / DATA, columns=columns)
    rows = frame[assign_sets(frame, read_task(canonical)) != "train"]
    return {text for column in ("text", "text_pair") for text in rows[column].dropna()}


def without(texts: Sequence[str], held_out: set[str], threshold: float) -> list[str]:
    """``texts`` without those that are (nearly) in ``held_out``, or contain a part of one.

    Args:
        texts: Any texts.
        held_out: What must not be seen.
        threshold: Similarity from which two texts are nearly the same.
    """
    units = {text: (plain(text),) for text in texts}
    hidden = {(plain(text),) for text in held_out}
    similar = near_duplicates(units.values(), hidden, threshold)
    runs: dict[int, set[tuple[str, ...]]] = {}
    for text in held_out:
        words = plain(text, None).split()
        if len(words) >= _PHRASE:
            size = min(_RUN, len(words))
            runs.setdefault(size, set()).update(_runs(words, size))

    def contains(text: str) -> bool:
        words = plain(text, None).split()
        return any(run in wanted for size, wanted in runs.items() for run in _runs(words, size))

    return [text for text in texts if units[text] not in similar and not contains(text)]


def _runs(words: Sequence[str], size: int) -> Iterator[tuple[str, ...]]:
    return (tuple(words[i : i + size]) for i in range(len(words) - size + 1))


def _texts(content: Path, domain: DomainText) -> list[str]:
    """Every text of the source that has a word, as it is written."""
    if domain.files is not None:
        paths = [content / name for name in domain.files]
    elif content.is_file():
        paths = [content]
    else:
        paths = [p for p in sorted(content.rglob("*")) if p.suffix.lower() in READERS]
    if not paths:
        raise TuneTrailError(
            f"no text files in '{domain.text}'", f"add files of {', '.join(sorted(READERS))}"
        )
    texts: list[str] = []
    for path in paths:
        if not path.is_file():
            raise TuneTrailError(f"'{path.name}' is not in '{domain.text}'", "correct 'files'")
        texts += _column(path, domain)
    return [text for text in texts if plain(text)]


def _column(path: Path, domain: DomainText) -> list[str]:
    if path.suffix.lower() == ".txt" and domain.format is None:
        return read_lines(path)
    frame = read_table(path, domain.format or Format())
    names = [str(name) for name in frame.columns]
    if names.count(domain.column) != 1:
        raise unknown("column", domain.column, names, f"'{path.name}' in '{domain.text}'")
    texts = frame[domain.column].dropna()
    odd = texts.map(lambda value: not isinstance(value, str))
    if odd.any():
        raise TuneTrailError(
            f"'{path.name}' in '{domain.text}': column '{domain.column}' holds "
            f"{str(texts[odd].iloc[0])[:80]!r}, not a text",
            "name the column of the texts in 'column'",
        )
    return [str(text) for text in texts]


def _tokenise(texts: Sequence[str], model: Path, max_length: int) -> pd.DataFrame:
    """Columns ``text`` (its digest), ``input_ids`` and ``token_type_ids``, a row a window."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model, local_files_only=True)
    columns: dict[str, list[Any]] = {"text": [], "input_ids": [], "token_type_ids": []}
    for start in range(0, len(texts), _BATCH):
        batch = texts[start : start + _BATCH]
        encoded = tokenizer(
            list(batch),
            truncation=True,
            max_length=max_length,
            return_overflowing_tokens=True,
            return_token_type_ids=True,
        )
        names = [hashlib.sha256(text.encode()).hexdigest() for text in batch]
        columns["text"] += [names[i] for i in encoded["overflow_to_sample_mapping"]]
        columns["input_ids"] += encoded["input_ids"]
        columns["token_type_ids"] += encoded["token_type_ids"]
    return pd.DataFrame(columns)
