"""Speed and memory of the data gate on 100,000 rows of real text.

Every text column of every Parquet file below a folder, passages cut into sentences, without
repetitions; labels are drawn. Ingested and split like a user's file, then validated; the part that
finds near-duplicates is timed once more by itself.

    python -m benchmarks.validate_speed --data FOLDER
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import pandas as pd

from tunetrail.files import read_json
from tunetrail.layout import DATA, RESULT
from tunetrail.provenance import provenance
from tunetrail.splits import position
from tunetrail.stages.ingest import ingest
from tunetrail.stages.validate import validate, with_facts, with_near_leaks
from tunetrail.task import TaskSpec

_PASSAGE = 100  # words


def real_texts(folder: Path, rows: int) -> list[str]:
    """``rows`` different texts, the same ones every time."""
    found: set[str] = set()
    for path in folder.rglob("*.parquet"):
        columns = pd.read_parquet(path).select_dtypes("str")
        for _, column in columns.items():
            words = column.str.split().str.len()
            if words.median() > 3:  # not a title, an id or the name of a class
                found.update(column[words <= _PASSAGE])
                passages = column[words > _PASSAGE]
                found.update(s for text in passages for s in re.split(r"(?<=[.!?])\s+", text))
    visible = [text for text in found if text.strip()]
    return sorted(visible, key=lambda text: position(text, "benchmark"))[:rows]


def main() -> None:
    """Measure, print and write the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with Parquet files")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, help="write the result here as JSON")
    options = parser.parse_args()
    texts = real_texts(options.data, options.rows)
    if len(texts) < options.rows:
        print(f"skipped: '{options.data}' has {len(texts)} texts, fewer than {options.rows}")
        return
    labels = ["a" if position(text, "label") < 0.5 else "b" for text in texts]
    seconds: dict[str, list[float]] = {"gate": [], "near_duplicates": []}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        pd.DataFrame({"text": texts, "label": labels}).to_parquet(folder / "rows.parquet")
        task = TaskSpec.model_validate(
            {
                "name": "texts",
                "source": folder / "rows.parquet",
                "columns": {"text": "text", "label": "label"},
                "labels": ["a", "b"],
            }
        )
        ingest(task, folder / "canonical")
        for repeat in range(options.repeats):
            started = time.perf_counter()
            validate(folder / "canonical", folder / "validated")
            seconds["gate"].append(time.perf_counter() - started)
            frame = with_facts(pd.read_parquet(folder / "canonical" / DATA), task)
            frame = frame.drop(columns=["similar_to", "similarity", "nearly_leaks"])
            started = time.perf_counter()
            with_near_leaks(frame, task.checks.near_duplicate)
            seconds["near_duplicates"].append(time.perf_counter() - started)
            print(repeat, {name: round(values[-1], 1) for name, values in seconds.items()})
        gate = read_json(folder / "validated" / RESULT)

    medians = {name: statistics.median(values) for name, values in seconds.items()}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # kilobytes on Linux
    result: dict[str, Any] = {
        "rows": gate["rows"],
        "sets": gate["sets"],
        "mean_words": round(float(pd.Series(texts).str.split().str.len().mean()), 1),
        "dropped_by_check": gate["dropped_by_check"],
        "seconds": seconds,
        "median_seconds": {
            "gate": round(medians["gate"], 1),
            "near_duplicates": round(medians["near_duplicates"], 1),
            "other_checks": round(medians["gate"] - medians["near_duplicates"], 1),
        },
        "peak_memory_gib": round(peak / 2**20, 2),
        **provenance(),
    }
    print(json.dumps(result, indent=2))
    if options.out:
        options.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
