"""What ``tunetrail init`` does and shows."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import textwrap
from pathlib import Path
from typing import Any

import typer

from tunetrail.cli.output import print_json
from tunetrail.errors import TuneTrailError
from tunetrail.init.project import failed_checks, update_pipeline, write_project
from tunetrail.init.proposal import GATE_ROWS, Proposal, propose
from tunetrail.init.reading import read_table
from tunetrail.init.roles import assign

_WIDTH = 80


def project(
    folder: Path,
    data: Path,
    given: dict[str, str | None],
    name: str | None,
    delimiter: str | None,
    header: bool | None,
    encoding: str | None,
    as_json: bool,
) -> None:
    """Make a project and say what it consists of.

    Raises:
        TuneTrailError: The file cannot be read, or a column's role is not clear.
    """
    if delimiter is not None:
        delimiter = {"\\t": "\t", "tab": "\t"}.get(delimiter, delimiter)
        if len(delimiter) != 1:
            raise TuneTrailError(f"--delimiter is '{delimiter}'", "give one character, or tab")
    table = read_table(data, delimiter, header, encoding)
    proposal = propose(table, assign(table.rows, given), name)
    if not as_json:
        typer.echo(_inferred(proposal))
    files = write_project(folder, proposal)
    failed = failed_checks(folder, proposal.name)
    if as_json:
        print_json(_facts(folder, proposal, files, failed))
    else:
        typer.echo(_written(folder, proposal, files, failed))


def updated(folder: Path) -> None:
    """Write a project's pipeline anew."""
    changed = update_pipeline(folder)
    typer.echo(
        f"{folder / 'dvc.yaml'} {'is written anew' if changed else 'was up to date'}; "
        "`tunetrail plan` shows what that makes stale."
    )


def _facts(folder: Path, proposal: Proposal, files: list[str], failed: str | None) -> Any:
    roles, table = proposal.roles, proposal.table
    return {
        "folder": str(folder),
        "task": proposal.name,
        "rows": len(proposal.rows),
        "left_out": proposal.left_out,
        "encoding": table.encoding,
        "format": table.format.model_dump(exclude_defaults=True),
        "columns": {
            "text": roles.text,
            "text_pair": roles.pair,
            "label": roles.label,
            "id": roles.id,
            "group": roles.group,
        },
        "labels": proposal.labels,
        "metrics": list(proposal.metrics),
        "gate": proposal.gate,
        "limits": proposal.limits,
        "max_length": proposal.max_length,
        "warnings": list(proposal.warnings),
        "checks_failed": failed,
        "files": files,
    }


def _inferred(proposal: Proposal) -> str:
    """What was inferred, a line a thing, with the option that overrides it."""
    table, roles = proposal.table, proposal.roles
    lengths = table.rows[roles.text].astype(str).str.len()
    also = ", ".join(roles.other_texts) if roles.pair is None else ""
    limits = ", ".join(f"{name} {limit}" for name, limit in proposal.limits.items())
    rows = {
        "file": f"{table.path.name}: {len(table.rows):,} rows, {table.described()}",
        "text": f"{roles.text} (median {lengths.median():.0f} characters, longest {lengths.max()})"
        + (f"; {also} could be it, too (--text, --pair)" if also else ""),
        "pair": roles.pair,
        "label": f"{roles.label}: {_classes(proposal.labels)}",
        "group": roles.group and f"{roles.group}: rows with the same value stay in one split",
        "id": roles.id,
        "metrics": f"{', '.join(proposal.metrics)}; the first one chooses (the largest class has "
        f"{proposal.largest:.0%} of the rows)",
        "length": f"texts are cut to {proposal.max_length} tokens; about {proposal.fitting:.0%} "
        "are not longer",
        "gate": _gate(proposal),
        "limits": limits and f"{limits} rows, so that a first run takes minutes",
    }
    lines = [f"{role:<8} {what}" for role, what in rows.items() if what]
    lines += [f"warning  {warning}" for warning in proposal.warnings]
    return "\n".join(_wrapped(line) for line in lines)


def _gate(proposal: Proposal) -> str:
    if proposal.gate:
        return (
            f"{proposal.gate:.0%} of the rows, about {proposal.gate_rows:,}, train nothing: they "
            "decide whether a retrained model replaces the one that serves"
        )
    return (
        f"none: {GATE_ROWS:,} rows that train nothing would be too large a part of "
        f"{len(proposal.rows):,}; a retrained model then replaces the last one unasked"
    )


def _classes(labels: dict[str, int]) -> str:
    shown = [f"{label} {count:,}" for label, count in list(labels.items())[:8]]
    more = f" and {len(labels) - 8} more" if len(labels) > 8 else ""
    return f"{len(labels)} classes ({', '.join(shown)}{more})"


def _written(folder: Path, proposal: Proposal, files: list[str], failed: str | None) -> str:
    lines = ["", f"Written to {folder}: {', '.join(files)}"]
    if failed is None:
        lines.append("The data passes validation.")
    else:
        lines += [
            "The data does not pass validation yet:",
            *textwrap.indent(failed, "  ").splitlines(),
            f"Correct {files[-1]}, or accept a check in params.yaml, with your reason:",
            f"  tasks.{proposal.name}.waive: {{CHECK: why this fault is accepted}}",
        ]
    lines += ["", "Next:", f"  cd {shlex.quote(str(folder))}"]
    if shutil.which("tunetrail") is None:
        activate = Path(os.path.relpath(Path(sys.executable).parent / "activate", folder))
        lines.append(f"  source {shlex.quote(str(activate))}")
    lines += [
        "  tunetrail plan     # what will be executed, and about how long it takes",
        "  tunetrail run      # execute it",
    ]
    return "\n".join(line if line.startswith(" ") else _wrapped(line) for line in lines)


def _wrapped(line: str) -> str:
    return textwrap.fill(
        line, _WIDTH, subsequent_indent=" " * 9, break_on_hyphens=False, break_long_words=False
    )
