"""Which column is the text, which the label: told from values, and from names where they say so.

Nothing here knows a language. Where more than one answer is plausible, the candidates are named and
the user chooses.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd

from tunetrail.errors import TuneTrailError, unknown

_TEXT_NAMES = re.compile(
    r"text|message|sentence|body|content|review|comment|description|tweet|utterance|abstract|post"
)
_LABEL_NAMES = re.compile(r"labels?|class|category|target|sentiment|intent|topic|gold|y")
_ID_NAMES = re.compile(r"(.*[_ .-])?(id|idx|index|uuid|guid|key|nr|no|number)|unnamed: 0|")
_GROUP_NAMES = re.compile(
    r"(.*[_ .-])?(group|user|customer|client|author|speaker|patient|account|thread|conversation|"
    r"session|document|doc|article|parent|page|product)([_ .-]?(id|key|nr|no|number|name))?"
)
_DATE = re.compile(r"\d{4}-\d\d?-\d\d?|\d\d?[./]\d\d?[./]\d{2,4}")

#: Ends of names that make two columns a pair, such as sentence1 and sentence2.
_PAIR_ENDS = (("1", "2"), ("a", "b"), ("_left", "_right"))
_PAIR_NAMES = (("premise", "hypothesis"), ("question", "passage"), ("query", "document"))

#: Mean lengths in bytes, so that 5 characters of Chinese count like three short English words.
_LEAST_TEXT = 15
_LONGEST_LABEL = 60
_MOST_CLASSES = 100
_ROWS_PER_CLASS = 4
_LEAST_GROUPS = 20


@dataclass(frozen=True)
class Column:
    """What the values of a column look like.

    Attributes:
        name: Its name.
        values: Different values, most frequent first, with their counts.
        missing: Rows without a value.
        length: Mean length of a value in bytes (UTF-8).
        spaced: Share of values with a blank inside, or in a script that writes without.
        numeric: Share of values that are numbers.
        whole: Whether all numbers are whole.
        dates: Share of values that begin with a date.
    """

    name: str
    values: pd.Series
    missing: int
    length: float
    spaced: float
    numeric: float
    whole: bool
    dates: float

    @property
    def rows(self) -> int:
        """Rows with a value."""
        return int(self.values.sum())

    @property
    def looks_like_text(self) -> bool:
        """Longer than a word, rarely repeated."""
        return (
            self.rows > 0
            and self.numeric < 0.5
            and self.spaced > 0.3
            and self.length >= _LEAST_TEXT
            and len(self.values) > 0.3 * self.rows
        )

    @property
    def looks_like_label(self) -> bool:
        """A few short values, each of them often."""
        return (
            1 < len(self.values) <= min(_MOST_CLASSES, self.rows / _ROWS_PER_CLASS)
            and self.length <= _LONGEST_LABEL
            and (self.numeric < 1 or self.whole)
        )

    def sample(self) -> str:
        """A few values, for a message."""
        shown = [repr(str(value)[:20]) for value in self.values.index[:3]]
        more = ", …" if len(self.values) > 3 else ""
        return f"{self.name} ({len(self.values)} different: {', '.join(shown)}{more})"


@dataclass(frozen=True)
class Roles:
    """The columns of a task.

    Attributes:
        text: The text, or the first of a pair.
        pair: The second of a pair.
        label: The class.
        id: A unique name of each row.
        group: Rows of one group stay together.
        other_texts: Columns that could have been the text as well.
    """

    text: str
    label: str
    pair: str | None = None
    id: str | None = None
    group: str | None = None
    other_texts: tuple[str, ...] = ()


def plain(values: pd.Series) -> pd.Series:
    """Cells as text, as the ingest stage reads labels; what is missing or blank is NaN."""

    def text(value: object) -> str:
        whole = isinstance(value, float) and value.is_integer()
        return str(int(value)) if whole else str(value)  # type: ignore[call-overload]

    shown = values.map(text, na_action="ignore")
    return shown.where(shown.notna() & (shown.str.strip() != ""))


def look_at(name: str, values: pd.Series) -> Column:
    """Describe a column."""
    present = plain(values).dropna()
    numbers = pd.to_numeric(present, errors="coerce")
    lengths = present.map(lambda text: len(text.encode(errors="replace"))).astype(float)
    dense = lengths > 1.5 * present.str.len()
    return Column(
        name=name,
        values=present.value_counts(),
        missing=len(values) - len(present),
        length=float(lengths.mean()) if len(present) else 0.0,
        spaced=float((present.str.contains(r"\s") | dense).mean()) if len(present) else 0.0,
        numeric=float(numbers.notna().mean()) if len(present) else 0.0,
        whole=bool((numbers.dropna() % 1 == 0).all()),
        dates=float(present.str.match(_DATE).mean()) if len(present) else 0.0,
    )


def assign(rows: pd.DataFrame, given: dict[str, str | None]) -> Roles:
    """The role of each column.

    Args:
        rows: The data.
        given: Roles (``text``, ``pair``, ``label``, ``id``, ``group``) that the user has named.

    Raises:
        TuneTrailError: A given column does not exist, or a role has none or several candidates.
    """
    for role, name in given.items():
        if name is not None and name not in rows.columns:
            error = unknown("column", name, rows.columns, f"--{role}")
            raise TuneTrailError(error.problem, error.fix)
    named = [name for name in given.values() if name is not None]
    twice = next((name for name in named if named.count(name) > 1), None)
    if twice is not None:
        raise TuneTrailError(
            f"column '{twice}' is given two roles", "give each role its own column"
        )
    columns = {name: look_at(name, rows[name]) for name in rows.columns}
    free = {name: c for name, c in columns.items() if name not in given.values()}
    label = given.get("label") or _label(free, columns)
    free.pop(label, None)
    texts = [c for c in free.values() if c.looks_like_text]
    pair = given.get("pair")
    text = given.get("text")
    if text is None and pair is None:
        text, pair = _pair(texts)
    if text is None:
        text = _text(texts, columns)
    taken = {text, pair, label}
    free = {name: c for name, c in free.items() if name not in taken}
    id_ = given.get("id") or next((n for n, c in free.items() if _is_id(c, len(rows))), None)
    free.pop(id_ or "", None)
    group = given.get("group") or next((n for n, c in free.items() if _is_group(c)), None)
    others = tuple(c.name for c in texts if c.name not in taken)
    return Roles(text=text, pair=pair, label=label, id=id_, group=group, other_texts=others)


def _label(free: dict[str, Column], columns: dict[str, Column]) -> str:
    candidates = [c for c in free.values() if c.looks_like_label and not c.looks_like_text]
    # A customer's number may have few values as well; it is the label if nothing else can be.
    apart = [c for c in candidates if not (_is_name_of_rows(c) or c.dates > 0.5)]
    candidates = apart or candidates
    named = [c for c in candidates if _LABEL_NAMES.fullmatch(_lower(c.name))]
    chosen = named if len(named) == 1 else candidates
    if len(chosen) == 1:
        return chosen[0].name
    if candidates:
        raise TuneTrailError(
            f"{len(candidates)} columns could be the label: {_samples(candidates)}",
            f"say which: --label {shlex.quote(candidates[0].name)}",
        )
    raise TuneTrailError(
        "no column looks like a label (a few short values, each of them often); "
        f"there are {_samples(columns.values())}",
        "say which it is: --label COLUMN; a number becomes classes with `bins` (README, By hand)",
    )


def _pair(texts: Sequence[Column]) -> tuple[str | None, str | None]:
    """Two texts whose names say that they belong together."""
    by_name = {_lower(c.name): c.name for c in texts}
    for first, name in by_name.items():
        partners = [second for a, second in _PAIR_NAMES if a == first]
        partners += [first.removesuffix(a) + b for a, b in _PAIR_ENDS if first.endswith(a)]
        for partner in partners:
            if partner in by_name:
                return name, by_name[partner]
    return None, None


def _text(texts: Sequence[Column], columns: dict[str, Column]) -> str:
    if not texts:
        raise TuneTrailError(
            "no column looks like text (several words, rarely repeated); "
            f"there are {_samples(columns.values())}",
            "say which it is: --text COLUMN",
        )
    named = [c for c in texts if _TEXT_NAMES.search(_lower(c.name))]
    return max(named or texts, key=lambda c: c.length).name


def _is_name_of_rows(column: Column) -> bool:
    name = _snake(column.name)
    return bool(_ID_NAMES.fullmatch(name) or _GROUP_NAMES.fullmatch(name))


def _is_id(column: Column, rows: int) -> bool:
    unique = len(column.values) == rows
    return unique and _ID_NAMES.fullmatch(_snake(column.name)) is not None


def _is_group(column: Column) -> bool:
    if column.missing or not _GROUP_NAMES.fullmatch(_snake(column.name)):
        return False
    repeated = _LEAST_GROUPS <= len(column.values) < column.rows
    return repeated and column.values.iloc[0] <= 0.2 * column.rows


def _samples(columns: Iterable[Column]) -> str:
    return "; ".join(column.sample() for column in columns)


def _lower(name: str) -> str:
    return name.strip().lower()


def _snake(name: str) -> str:
    """``customerId`` as ``customer_id``."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name.strip()).lower()
