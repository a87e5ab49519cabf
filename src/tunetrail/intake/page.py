"""A page about a version, beside the gate's own: what is new, and how far it is from the rest."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

from tunetrail.files import write_text
from tunetrail.intake.drift import QUANTILES
from tunetrail.intake.record import Version
from tunetrail.report.page import page, table
from tunetrail.task import TaskSpec

PAGE = "version.html"


def write_page(version: Version, task: TaskSpec, out: Path) -> None:
    """Write :data:`PAGE` to ``out``, where ``index.html`` is the gate's page."""
    difference = version.difference or {}
    rows = difference.get("rows", {})
    body = "".join(
        f"<p>{html.escape(line)}</p>"
        for line in (
            f"{version.rows} rows; " + ", ".join(f"{n} {what}" for what, n in rows.items()),
            "From " + ", ".join(f"{one.name} ({one.rows} rows)" for one in version.files),
            *version.reasons,
            *version.notes,
        )
    )
    new = difference.get("new_rows", {})
    if "labels" in new:
        body += _labels(difference["label_counts"], new["labels"])
    spread = [("numbers to predict", new["numbers"])] if "numbers" in new else []
    spread += [(f"characters of {c}", lengths) for c, lengths in new.get("lengths", {}).items()]
    if spread:
        body += _spread(spread)
    if "words" in new:
        body += _words(new["words"])
    body += '<p><a href="index.html">Every check of the gate</a></p>'
    text = page(
        f"Version {version.number} of {task.title or task.name}", body, subtitle=version.status
    )
    write_text(out / PAGE, text)


def _labels(counts: dict[str, Any], new: dict[str, Any]) -> str:
    rows = [
        [name, str(counts["before"][name]), str(new["new"][name]), str(counts["after"][name])]
        for name in counts["before"]
    ]
    said = f"Distance of the new rows: {_shown(new['distance'])}, p {_shown(new['p'])}"
    return f"<p>{said}</p>" + table(
        "Labels", ["label", "before", "new rows", "after"], rows, numeric={1, 2, 3}
    )


def _spread(measured: list[tuple[str, dict[str, Any]]]) -> str:
    middle = QUANTILES.index(0.5)
    rows = [
        [
            what,
            *(_shown(found[side][middle] if found[side] else None) for side in ("before", "new")),
            _shown(found["distance"]),
            _shown(found["p"]),
        ]
        for what, found in measured
    ]
    header = ["of the new rows", "median before", "median new", "KS distance", "p"]
    return table("Lengths and numbers", header, rows, numeric={1, 2, 3, 4})


def _words(found: dict[str, Any]) -> str:
    rows = [
        [what, _shown(found[key][measure]), _shown(found[key]["by_chance"])]
        for what, key, measure in (
            ("share of unknown words", "unknown", "share"),
            ("Jensen–Shannon distance", "frequencies", "distance"),
        )
    ]
    return table("Words", ["of the new rows", "new", "most by chance"], rows, numeric={1, 2})


def _shown(number: float | None) -> str:
    return "–" if number is None else f"{number:g}"
