"""The rows that decide between a champion and its challenger: frozen, and what is in reserve."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from pydantic import Field

from tunetrail.errors import TuneTrailError
from tunetrail.files import digest_of, read_json, write_json
from tunetrail.layout import DATA
from tunetrail.settings import Settings, parse
from tunetrail.splits import GATE, assign_sets, text_keys
from tunetrail.task import TaskSpec, read_task

#: A generation of fewer rows could settle nothing.
FEWEST = 30

#: Characters of a text's digest that are kept.
_LENGTH = 16


class Frozen(Settings):
    """The record of a task's rows, ``data/gate/TASK.json``."""

    task: str
    generations: dict[int, tuple[str, ...]] = Field(
        description="number → digests of the texts of its rows"
    )


@dataclass(frozen=True)
class GateSet:
    """The rows of a generation.

    Attributes:
        task: The task they belong to.
        rows: Canonical rows, one a text, in the order of the data.
        digest: Of which texts they are.
        generation: Its number.
        reserve: Rows of the gate's share that no generation has.
        gone: Frozen rows that the data has no more.
    """

    task: TaskSpec
    rows: pd.DataFrame
    digest: str
    generation: int
    reserve: int
    gone: int


def gate_set(canonical: Path, record: Path, generation: int) -> GateSet | None:
    """The rows that decide. A generation is frozen when it is first asked for.

    It then has the rows of the gate's share that belong to none before it, and ``record`` says
    which, by digests of their texts. Later rows of that share are the reserve.

    Args:
        canonical: What the ingest stage wrote.
        record: File of the digests; written where the generation is new.
        generation: Number of the one that decides, from 1.

    Returns:
        None where the task keeps no rows for the gate.

    Raises:
        TuneTrailError: A generation is skipped or taken back, there are too few rows for a new one,
            or the record is damaged.
    """
    task = read_task(canonical)
    if not task.split.gate:
        return None
    frame = pd.read_parquet(canonical / DATA)
    share = frame[assign_sets(frame, task) == GATE]
    keys = text_keys(share).map(lambda key: digest_of(key)[:_LENGTH])
    share = share[~keys.duplicated()]
    keys = keys[share.index]
    frozen = _read(record, task.name)
    last = max(frozen.generations, default=0)
    known = {digest for digests in frozen.generations.values() for digest in digests}
    new = keys[~keys.isin(known)]
    if generation != last:
        _check(task.name, generation, last, len(new))
        frozen = Frozen(
            task=task.name, generations={**frozen.generations, generation: tuple(sorted(new))}
        )
        write_json(record, frozen.model_dump(mode="json"))
        new = new.iloc[:0]
    digests = frozen.generations[generation]
    rows = share[keys.isin(set(digests))].reset_index(drop=True)
    return GateSet(task, rows, digest_of(digests), generation, len(new), len(digests) - len(rows))


def _read(record: Path, task: str) -> Frozen:
    if not record.is_file():
        return Frozen(task=task, generations={})
    return parse(Frozen, read_json(record), str(record))


def _check(task: str, generation: int, last: int, new: int) -> None:
    """Whether a new generation can be frozen."""
    if generation != last + 1:
        raise TuneTrailError(
            f"gate.generation is {generation}; the last one of task '{task}' is {last}",
            f"set it to {last} to keep that one, or to {last + 1} for a new one"
            if last
            else "set it to 1: it is the first one",
        )
    if new < FEWEST:
        raise TuneTrailError(
            f"task '{task}': a new generation of the gate would have {new} rows; {FEWEST} are the "
            "least",
            f"stay with generation {last} until more data has come"
            if last
            else "raise split.gate, or wait for more data",
        )
