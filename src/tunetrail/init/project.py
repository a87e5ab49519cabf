"""Write a project: parameters, pipeline, data, and what DVC and git need to know."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from pathlib import Path
from string import Template
from typing import Any

import yaml

from tunetrail.errors import TuneTrailError
from tunetrail.files import write_text
from tunetrail.init.proposal import Proposal
from tunetrail.init.roles import plain
from tunetrail.place import CODE, PIPELINE, link_code
from tunetrail.repository import allow_missing_git

_TEMPLATE = PIPELINE.parent


def write_project(folder: Path, proposal: Proposal) -> list[str]:
    """Write a project that can be run as it is.

    Returns:
        The files written, relative to ``folder``.

    Raises:
        TuneTrailError: One of the files is there already; nothing is written.
    """
    name = project_name(folder)
    source = _source(proposal)
    files = {
        "params.yaml": _params(proposal, name, source),
        "dvc.yaml": _template("pipeline.yaml"),
        "data/minilm.yaml": _template("minilm.yaml"),
        ".dvc/config": _template("dvc-config"),
        ".dvc/.gitignore": "/config.local\n/tmp\n/cache\n",
        ".dvcignore": _template("dvcignore"),
        ".gitignore": f"{_template('gitignore')}\n# The installed TuneTrail, see README\n/{CODE}\n",
        "README.md": Template(_template("readme.md")).substitute(project=name, source=source),
    }
    there = folder / source
    own = there.exists() and proposal.table.path.samefile(there)
    taken = [path for path in files if (folder / path).exists()]
    taken += [source] if there.exists() and not (own and proposal.copied) else []
    if taken:
        raise TuneTrailError(
            f"'{folder}' has a file '{taken[0]}' already", "give a new folder, or remove the file"
        )
    for path, text in files.items():
        write_text(folder / path, text)
    if not own:
        _write_data(proposal, there)
    allow_missing_git(folder)
    link_code(folder)
    return [*files, source]


def write_pipeline(folder: Path) -> None:
    """Write what is the same in every project: the pipeline, and settings of DVC and git."""
    files = {
        "dvc.yaml": "pipeline.yaml",
        ".dvc/config": "dvc-config",
        ".dvcignore": "dvcignore",
        ".gitignore": "gitignore",
    }
    for path, template in files.items():
        write_text(folder / path, _template(template))
    write_text(folder / ".dvc" / ".gitignore", "/config.local\n/tmp\n/cache\n")


def update_pipeline(folder: Path) -> bool:
    """Write ``dvc.yaml`` anew, after an upgrade; returns whether it changed.

    Raises:
        TuneTrailError: There is no project of this kind.
    """
    present = folder / "dvc.yaml"
    if not present.is_file() or not (folder / CODE).is_symlink():
        raise TuneTrailError(
            f"'{folder}' is not a project that `tunetrail init` made",
            "name its folder; a checkout of TuneTrail is updated with git",
        )
    text = _template("pipeline.yaml")
    changed = present.read_text(encoding="utf-8") != text
    write_text(present, text)
    link_code(folder)
    return changed


def failed_checks(folder: Path, task: str) -> str | None:
    """Read and validate the task as the pipeline will; what its gate says if it fails.

    Raises:
        TuneTrailError: The data cannot be read as the parameters say.
    """
    from tunetrail.params import read_params, task_of
    from tunetrail.stages.ingest import ingest
    from tunetrail.stages.validate import validate

    path = Path("params.yaml")
    with tempfile.TemporaryDirectory(prefix="tunetrail-") as scratch, contextlib.chdir(folder):
        canonical = Path(scratch) / "canonical"
        ingest(task_of(read_params(path), task, path), canonical)
        try:
            validate(canonical, Path(scratch) / "validated")
        except TuneTrailError as error:
            return error.problem
    return None


def project_name(folder: Path) -> str:
    """Name of the project in ``folder``: its own, without what a name cannot have."""
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "-", folder.absolute().name).lstrip("_.-")
    return plain or "project"


def _source(proposal: Proposal) -> str:
    path = proposal.table.path
    suffix = path.suffix if proposal.copied or path.suffix == ".parquet" else ".csv"
    return f"data/{path.stem}{suffix}"


def _write_data(proposal: Proposal, target: Path) -> None:
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    if proposal.copied:
        shutil.copyfile(proposal.table.path, temporary)
    elif target.suffix == ".parquet":
        proposal.rows.to_parquet(temporary, index=False)
    else:
        label = proposal.roles.label
        rows = proposal.rows.assign(**{label: plain(proposal.rows[label])})
        rows.to_csv(temporary, index=False)
    os.replace(temporary, target)


def _template(name: str) -> str:
    return (_TEMPLATE / name).read_text(encoding="utf-8")


def _params(proposal: Proposal, name: str, source: str) -> str:
    return Template(_template("params.yaml")).substitute(
        project=_yaml(name),
        max_length=proposal.max_length,
        max_length_reason=f"about {proposal.fitting:.0%} of the texts are not longer",
        tasks=_task(proposal, source),
    )


def _task(proposal: Proposal, source: str) -> str:
    """The task as YAML, a line a key, with the reasons as comments."""
    roles = proposal.roles
    columns = {
        "text": roles.text,
        "text_pair": roles.pair,
        "label": roles.label,
        "id": roles.id,
        "group": roles.group,
    }
    shape = proposal.table.format.model_dump(exclude_defaults=True) if proposal.copied else {}
    if shape.get("delimiter") == "\t" and source.endswith(".tsv"):
        del shape["delimiter"]
    values: dict[str, tuple[Any, str]] = {
        "title": (f"{proposal.table.path.stem}, {roles.label}", ""),
        "source": (source, "DVC watches it: a changed row runs this task again"),
        "format": ({k: list(v) if k == "names" else v for k, v in shape.items()}, ""),
        "columns": ({role: c for role, c in columns.items() if c is not None}, ""),
        "labels": (list(proposal.labels), f"{len(proposal.rows):,} rows"),
        "metrics": (
            list(proposal.metrics),
            f"the first one chooses; the largest class has {proposal.largest:.0%} of the rows",
        ),
        "split": (
            {"gate": proposal.gate} if proposal.gate else {},
            f"about {proposal.gate_rows:,} rows that train nothing: they decide whether a "
            "retrained model replaces the one that serves",
        ),
        "limits": (proposal.limits, "a first run in minutes; without limits: all rows"),
    }
    lines = [f"  {_yaml(proposal.name)}:"]
    for key, (value, comment) in values.items():
        if value:
            line = f"    {key}: {_yaml(value)}"
            lines.append(f"{line} # {comment}" if comment else line)
    return "\n".join(lines) + "\n"


def _yaml(value: Any) -> str:
    """One line of YAML."""
    text = yaml.safe_dump(
        value, default_flow_style=True, allow_unicode=True, sort_keys=False, width=float("inf")
    )
    return text.removesuffix("...\n").strip()
