"""gate_set: freeze the rows that decide between a champion and its challenger."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from tunetrail.errors import TuneTrailError
from tunetrail.files import file_digest, read_json, replacing, write_json
from tunetrail.kinds import kind_of
from tunetrail.layout import CARD, DATA, RESULT, TASK
from tunetrail.splits import GATE, assign_sets
from tunetrail.task import read_task

#: A generation of fewer rows could settle nothing.
FEWEST = 30


def gate_set(canonical: Path, validated: Path, generation: int, out: Path) -> None:
    """Write ``data.parquet``, ``card.json`` and the frozen ``task.json`` to ``out``.

    Rows that are there stay as they are, whatever the data says by now: decisions have to rest on
    the same rows. A generation is frozen when it is first asked for, from the rows of the gate's
    share that belong to none before it. Rows of that share that come later are the reserve: no set
    ever has them, and the next generation takes them.

    Args:
        canonical: What the ingest stage wrote.
        validated: What the validate stage wrote.
        generation: Number of the generation that decides, from 1.
        out: Folder to write; what it holds is kept.

    Raises:
        TuneTrailError: Validation did not pass, a generation is skipped or taken back, or there are
            too few rows for a new one.
    """
    task = read_task(canonical)
    if not read_json(validated / RESULT)["passed"]:
        raise TuneTrailError(f"task '{task.name}' did not pass validation", "correct the data")
    frame = pd.read_parquet(canonical / DATA)
    share = frame[assign_sets(frame, task) == GATE].drop(columns="split")
    frozen = pd.read_parquet(out / DATA) if (out / DATA).is_file() else None
    last = 0 if frozen is None or frozen.empty else int(frozen["generation"].max())
    new = share if frozen is None else share[~share["id"].isin(set(frozen["id"]))]
    if task.split.gate and generation != last:
        if generation != last + 1:
            raise TuneTrailError(
                f"gate.generation is {generation}; the last one of task '{task.name}' is {last}",
                f"set it to {last} to keep that one"
                + (f", or to {last + 1} for a new one" if last else ""),
            )
        if len(new) < FEWEST:
            raise TuneTrailError(
                f"task '{task.name}': a new generation of the gate would have {len(new)} rows; "
                f"{FEWEST} are the least",
                "raise split.gate, or wait for more data"
                if not last
                else f"stay with generation {last} until more data has come",
            )
        added = new.assign(generation=generation)
        frozen = added if frozen is None or frozen.empty else pd.concat([frozen, added])
        new = new.iloc[:0]
    elif frozen is None:
        frozen = share.iloc[:0].assign(generation=0)
    gone = int((~frozen["id"].isin(set(frame["id"]))).sum())
    with replacing(out) as folder:
        frozen.to_parquet(folder / DATA, index=False)
        deciding = frozen[frozen["generation"] == generation]
        write_json(folder / TASK, task.model_dump(mode="json"))
        card: dict[str, Any] = {
            "task": task.name,
            "generation": generation,
            "rows": len(deciding),
            "reserve": len(new),
            "no_more_in_the_data": gone,
            "digest": file_digest(folder / DATA),
            **(kind_of(task).card(deciding["label"]) if len(deciding) else {}),
        }
        write_json(folder / CARD, card)
