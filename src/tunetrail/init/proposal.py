"""A task and parameters for a data file whose columns are known: what a first run should use."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from tunetrail.errors import TuneTrailError
from tunetrail.init.reading import Table
from tunetrail.init.roles import Roles, plain
from tunetrail.task import Shares, built_in_tasks

#: Bytes of UTF-8 a token, over languages and tokenizers; and the tokens that frame a text.
_BYTES_PER_TOKEN = 4
_FRAME = 3

#: Lengths that are suggested, and the share of texts that should fit.
_LENGTHS = (32, 64, 128, 256)
_FITTING = 0.95

#: Tokens of all training rows that keep the first comparison (six methods, three seeds, two
#: epochs) within minutes on two cores, and what follows for the other sets.
_TOKENS = 32_000
_TRAIN_BOUNDS = (200, 1000)
_SELECTION_SHARE, _TEST_SHARE = 0.3, 0.6

#: Rows that a gate between champion and challenger needs (docs/retraining.md: an equal model then
#: passes in two of three cases), how many it gets at most, and the largest share that is proposed.
GATE_ROWS = 1000
_GATE_MOST, _GATE_SHARE = 3000, 0.2

#: Above this share of an even one, the largest class makes accuracy a poor judge.
_EVEN = 1.3

_FEW_ROWS = 10


@dataclass(frozen=True)
class Proposal:
    """Everything that goes into a project, and why.

    Attributes:
        name: Of the task.
        table: The data as it was read.
        roles: Its columns.
        rows: The rows that can be used: with text and label.
        labels: Class → rows, in the order of the task's ``labels``.
        metrics: The first one chooses.
        gate: Share of the rows that decides between champion and challenger; 0: too few rows.
        limits: Rows a set, where that is fewer than there are.
        max_length: Tokens a text is cut to.
        fitting: Share of texts that are not cut, estimated from their length in bytes.
        warnings: What a person should know before a first run.
    """

    name: str
    table: Table
    roles: Roles
    rows: pd.DataFrame
    labels: dict[str, int]
    metrics: tuple[str, ...]
    gate: float
    limits: dict[str, int]
    max_length: int
    fitting: float
    warnings: tuple[str, ...]

    @property
    def left_out(self) -> int:
        """Rows without text or label."""
        return len(self.table.rows) - len(self.rows)

    @property
    def largest(self) -> float:
        """Share of the largest class."""
        return max(self.labels.values()) / len(self.rows)

    @property
    def gate_rows(self) -> int:
        """Rows that the gate gets, about: the share is drawn by groups."""
        return round(self.gate * len(self.rows))

    @property
    def copied(self) -> bool:
        """Whether the data goes into the project byte for byte."""
        return self.left_out == 0 and self.table.encoding in {"utf-8", "utf-8-sig"}


def propose(table: Table, roles: Roles, name: str | None) -> Proposal:
    """Settle everything that the user has not.

    Raises:
        TuneTrailError: Fewer than two classes, hardly fewer classes than rows, or a name that a
            task cannot have.
    """
    texts = [plain(table.rows[c]) for c in (roles.text, roles.pair) if c is not None]
    labels = plain(table.rows[roles.label])
    usable = labels.notna()
    for text in texts:
        usable &= text.notna()
    rows, labels = table.rows[usable], labels[usable]
    counts = labels.value_counts()
    if len(counts) < 2:
        raise TuneTrailError(
            f"column '{roles.label}' has {len(counts)} different values in {len(rows)} rows that "
            "have a text",
            "a classifier needs at least two classes; another column: --label",
        )
    if len(counts) > len(rows) / 2:
        raise TuneTrailError(
            f"column '{roles.label}' has {len(counts)} different values in {len(rows)} rows: too "
            "many for classes",
            "another column: --label; a number becomes classes with `bins` (README, By hand)",
        )
    classes = {label: int(counts[label]) for label in sorted(counts.index, key=_natural)}
    tokens = sum(text[usable].map(_tokens) for text in texts) + _FRAME
    max_length = next((n for n in _LENGTHS if (tokens <= n).mean() >= _FITTING), _LENGTHS[-1])
    gate = _gate(len(rows))
    balanced = counts.iloc[0] / len(rows) <= _EVEN / len(counts)
    return Proposal(
        name=_task_name(name, table.path),
        table=table,
        roles=roles,
        rows=rows,
        labels=classes,
        metrics=("accuracy", "f1_macro") if balanced else ("f1_macro", "accuracy"),
        gate=gate,
        limits=_limits(len(rows) * (1 - gate), float(tokens.clip(upper=max_length).mean())),
        max_length=max_length,
        fitting=float((tokens <= max_length).mean()),
        warnings=tuple(_warnings(classes, len(table.rows) - len(rows))),
    )


def _tokens(text: str) -> float:
    return len(text.encode(errors="replace")) / _BYTES_PER_TOKEN


def _gate(rows: int) -> float:
    """The share of the rows that is kept for the gate; 0 where that would be too few to decide."""
    share = round(min(_GATE_SHARE, _GATE_MOST / rows), 2) or 0.01
    return share if share * rows >= GATE_ROWS else 0.0


def _limits(rows: float, tokens: float) -> dict[str, int]:
    low, high = _TRAIN_BOUNDS
    train = min(max(round(_TOKENS / tokens, -1), low), high)
    shares = Shares()
    rest = rows * (1 - shares.test)
    sizes = {
        "train": rest * (1 - shares.selection),
        "selection": rest * shares.selection,
        "test": rows * shares.test,
    }
    wanted = {
        "train": int(train),
        "selection": int(train * _SELECTION_SHARE),
        "test": int(train * _TEST_SHARE),
    }
    return {name: limit for name, limit in wanted.items() if limit < sizes[name]}


def _warnings(classes: dict[str, int], left_out: int) -> list[str]:
    found = []
    if left_out:
        found.append(f"{left_out} rows without text or label are left out of the project's copy")
    rare = [label for label, count in classes.items() if count < _FEW_ROWS]
    if rare:
        found.append(
            f"fewer than {_FEW_ROWS} rows each: {', '.join(rare[:5])}"
            f"{f' and {len(rare) - 5} more classes' if len(rare) > 5 else ''}; too few to learn "
            "or to judge"
        )
    spellings: dict[str, list[str]] = {}
    for label in classes:
        spellings.setdefault(" ".join(label.split()).casefold(), []).append(label)
    for alike in spellings.values():
        if len(alike) > 1:
            found.append(
                f"the classes {', '.join(map(repr, alike))} differ in case or blanks only: one "
                "class spelled twice?"
            )
    return found


def _natural(label: str) -> tuple[int, int, str, str]:
    """Whole numbers by value and first, then by alphabet."""
    number = re.fullmatch(r"-?\d+", label)
    return (0, int(label), "", label) if number else (1, 0, label.casefold(), label)


def _task_name(given: str | None, path: Path) -> str:
    if given is not None:
        if not re.fullmatch(r"[A-Za-z0-9]\w*", given, re.ASCII):
            raise TuneTrailError(
                f"--task-name is '{given}': it names a folder", "use letters, digits and '_'"
            )
        if given in built_in_tasks():
            raise TuneTrailError(
                f"--task-name is '{given}', which is a task that comes with TuneTrail",
                "give another name",
            )
        return given
    name = re.sub(r"\W+", "_", path.stem, flags=re.ASCII).strip("_").lower() or "own"
    return f"{name}_own" if name in built_in_tasks() else name
