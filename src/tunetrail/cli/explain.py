"""``tunetrail explain``: where a registered model comes from, and whether that still stands."""

from __future__ import annotations

import contextlib
import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from tunetrail.cli import names
from tunetrail.cli.output import print_json, print_table
from tunetrail.cli.root import JsonOption, app
from tunetrail.errors import TuneTrailError, unknown

#: Characters of a digest for people: enough to find it, few enough to read. JSON has all.
_DIGEST = 12

#: Why files of the project are not compared.
_ELSEWHERE = "this is not the folder of the project that registered it"

#: Columns that lines are filled to at most.
_WIDEST = 100

Json = dict[str, Any]


@app.command()
def explain(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="models:/NAME@ALIAS, models:/NAME/VERSION, or a task: its champion.",
            autocompletion=names.planned_tasks,
        ),
    ],
    check: Annotated[
        bool, typer.Option("--check", help="Compare every digest; exits 1 at the first break.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Walk back from a registered model to its data, and show how to make it again.

    Data and validation, base model, the run and all it was compared with, how it was chosen, the
    verdict, the certificate of the exported file, environment, commit, commands. It is stored with
    the version, so the registry is enough; `--check` also reads the files of the project, where
    this is the project.

    \b
    Examples:
      tunetrail explain movie
      tunetrail explain models:/sentiment-movie@champion --check
    """
    from tunetrail.tracking.lineage import opened, read_lineage, stored_files

    root = _project()
    with contextlib.chdir(root or Path.cwd()):
        uri = model if model.startswith("models:") else _champion(model, root)
        with opened(uri, whole=check) as version:
            found = _broken_in_registry(stored_files(version)[:1], version)
            if found is not None:  # what it says cannot be believed
                _tell_break(found, as_json)
                raise typer.Exit(1)
            lineage = read_lineage(version)
            here = root is not None and _is_project_of(lineage)
            reproduce = _reproduction(lineage, here)
            if check:
                intact = _check(lineage, version, reproduce, here, as_json)
                raise typer.Exit(0 if intact else 1)
        if as_json:
            registered = {"version": version.number, "aliases": list(version.aliases)}
            print_json({**lineage, "reproduce": reproduce, "registered": registered})
        else:
            _show(lineage, version, reproduce)


def _project() -> Path | None:
    from tunetrail.place import project_root

    try:
        return project_root(Path.cwd())
    except TuneTrailError:  # a registry does without
        return None


def _champion(task: str, root: Path | None) -> str:
    """The URI of a task's champion."""
    from tunetrail.files import read_json

    if root is None:
        raise TuneTrailError(
            f"'{task}' is no models:/… and this is not inside a TuneTrail project",
            "name the registered model, such as models:/sentiment-movie@champion, or change into "
            "the project",
        )
    receipt = read_json(Path("receipt.json"))
    models, refused = (
        {entry["task"]: entry for entry in receipt[key]} for key in ("models", "refused")
    )
    if task in refused:
        entry = refused[task]
        raise TuneTrailError(
            f"what was chosen for '{task}' is not registered: {entry['reason']}",
            f"an earlier one, if there is any: tunetrail explain models:/{entry['name']}@champion",
        )
    if task not in models:
        raise unknown("task", task, [*models, *refused], "receipt.json")
    return f"models:/{models[task]['name']}@champion"


def _is_project_of(lineage: Json) -> bool:
    """Whether the project here is the one that registered it, by its name."""
    from tunetrail.settings import read_yaml

    return bool(read_yaml(Path("params.yaml")).get("project") == lineage["project"])


def _reproduction(lineage: Json, here: bool) -> list[Json]:
    """The stored commands; with the commit that records the results, where git here has one.

    What is registered is usually committed afterwards: the commit of then lacks it.
    """
    from tunetrail.files import file_digest
    from tunetrail.lineage.reproduction import checkout
    from tunetrail.provenance import recording_commit

    stored: list[Json] = lineage["reproduce"]
    link = next(link for link in lineage["links"] if link["step"] == "comparison")
    comparison = Path(link["path"])
    if not here or not comparison.is_file() or file_digest(comparison) != link["sha256"]:
        return stored
    md5 = hashlib.md5(comparison.read_bytes(), usedforsecurity=False).hexdigest()
    lock = comparison.parent.with_name("dvc.lock")
    commit = recording_commit(f"md5: {md5}", lock.as_posix())
    if commit is None:
        return stored
    return [
        checkout(commit, []),
        *(c for c in stored if not c["command"].startswith("git checkout")),
    ]


# The check --------------------------------------------------------------------------------------


def _check(lineage: Json, version: Any, reproduce: list[Json], here: bool, as_json: bool) -> bool:
    """Compare every digest and say what came out; whether all is as it was."""
    from tunetrail.dag import Dag
    from tunetrail.lineage.chain import first_break, read_links
    from tunetrail.place import CHAMPIONS
    from tunetrail.tracking.lineage import exported_files, stored_files

    project = Path.cwd()
    chain = list(read_links(lineage))
    in_registry = [*stored_files(version), *exported_files(version, lineage)]
    whole: Counter[str] = Counter()
    broken = None
    if here:
        first = reproduce[0]["command"]
        commit = first.removeprefix("git checkout ") if first.startswith("git checkout ") else ""
        recorded = Dag(project).recorded()
        champion = CHAMPIONS / lineage["model"]["task"]
        if any(Path(link.path).is_relative_to(champion) for link in chain):
            own = Dag(project / champion).recorded()
            recorded |= own
            # What it has by a link counts as it was for it, not for the last whole comparison.
            for path in (Path(name) for name in own if Path(name).is_symlink()):
                recorded[path.relative_to(champion).as_posix()] = own[path.as_posix()]
        with _progress(len(chain)) as advance:

            def looked_at(link: Any) -> None:
                whole[link.step] += 1
                advance()

            broken = first_break(chain, project, recorded, commit, looked_at)
    if broken is None:
        broken = _broken_in_registry(in_registry, version)
        if broken is None:
            whole["registry"] = len(in_registry)
    unread = 0 if here else len(chain)
    if as_json:
        print_json(
            {
                "model": f"models:/{version.name}/{version.number}",
                "intact": broken is None,
                "compared": dict(whole),
                "not_compared": {"files": unread, "reason": _ELSEWHERE} if unread else None,
                "break": None if broken is None else asdict(broken),
            }
        )
        return broken is None
    for step, count in whole.items():
        typer.echo(f"ok      {step}: {count} {'file' if count == 1 else 'files'}")
    if unread:
        typer.echo(f"skipped {unread} files of the project: {_ELSEWHERE}")
    if broken is not None:
        _tell_break(broken, as_json)
    else:
        of = "Registry copy and project are" if here else "The registry's copy is"
        typer.echo(f"{of} as models:/{version.name}/{version.number} was registered.")
    return broken is None


def _broken_in_registry(files: Sequence[tuple[str, Path, str]], version: Any) -> Any:
    from tunetrail.lineage.chain import first_break_in_registry

    return first_break_in_registry(files, version.name, version.number)


def _tell_break(found: Any, as_json: bool) -> None:
    from tunetrail.report.text import wrapped

    if as_json:
        print_json({"intact": False, "break": asdict(found)})
        return
    typer.echo(
        f"BROKEN  {found.step}: {found.file}\n"
        f"  expected {found.algorithm} {found.expected}\n"
        f"  actual   {found.algorithm} {found.actual or '(there is no such file)'}\n"
        + wrapped(f"  fix: {found.fix}", indent="       ")
    )


@contextlib.contextmanager
def _progress(files: int) -> Iterator[Any]:
    """A bar over files that are read, on a terminal."""
    from tqdm import tqdm

    with tqdm(total=files, disable=None, unit="file", desc="digests", leave=False) as bar:
        yield bar.update


# The explanation --------------------------------------------------------------------------------


def _show(lineage: Json, version: Any, reproduce: list[Json]) -> None:
    from tunetrail.lineage import words

    task = lineage["comparison"]["task"]
    aliases = f" ({', '.join(version.aliases)})" if version.aliases else ""
    _heading(f"{version.name}, version {version.number}{aliases}")
    _facts({"task": task["title"], "predicts": task["predicts"], "method": words.title(lineage)})
    _made_from(lineage)
    _judged(lineage)
    _made_with(lineage)
    _heading("Make it again")
    for command in reproduce:
        typer.echo(f"{command['command']}\n    # {command['what']}")
    _heading("Chain")
    steps = Counter(link["step"] for link in lineage["links"])
    _paragraph(", ".join(f"{step} {count}" for step, count in steps.items()))
    _paragraph(
        f"Files with a digest each: `tunetrail explain models:/{version.name}/{version.number} "
        "--check` compares them, and those in the registry."
    )


def _made_from(lineage: Json) -> None:
    """Data, base model and the run itself."""
    from tunetrail.lineage import words
    from tunetrail.report import text

    data, base, run = lineage["data"], lineage["comparison"]["base"], lineage["run"]
    spec = run["spec"]
    sets = (
        f"{name}: {text.plural(card['rows'], 'row')} ({words.rows_by_label(card)})"
        for name, card in words.sets(lineage).items()
    )
    _heading("Data")
    _facts(
        {
            "source": words.origin(data["source"]),
            "licence": data["licence"],
            "digest": _short(data["digest"]),
            "rows": f"{text.count(data['rows'])} in all",
            "used": "\n".join(sets),
            "validation": "\n".join(words.validation(lineage)),
        }
    )
    _heading("Base model")
    _facts(
        {
            "source": words.origin(base["source"]),
            "model": f"{base['architecture']} {base['layers']}×{base['hidden_size']}, "
            f"up to {spec['base']['max_length']} tokens",
            "digest": _short(base["digest"]),
            "start": spec["start"] if isinstance(spec["start"], str) else spec["start"]["name"],
        }
    )
    _heading("Run")
    _facts(
        {
            "digest": _short(run["digest"]),
            "seed": str(spec["seed"]),
            "method": f"{spec['method']['name']}, {words.options(spec['method']['options'])}",
            "budget": words.budget(lineage),
            "training": words.options(spec["training"]),
            "numerics": words.options(spec["numerics"]),
            "code": _short(spec["code"]),
            "data": f"train and selection {_short(spec['data']['fit'])}, "
            f"test {_short(spec['data']['test'])}",
        }
    )


def _judged(lineage: Json) -> None:
    """All runs, how one of them was chosen, and what is known of it."""
    from tunetrail.lineage import words
    from tunetrail.report import text

    compared = lineage["comparison"]
    task, baseline = compared["task"], compared["baseline"]
    _heading("Compared runs")
    _runs(task)
    _heading("Selection")
    _paragraph(words.how_selected(lineage))
    _methods(lineage)
    _heading("Verdict")
    _paragraph(words.verdict(lineage))
    if lineage["model"]["label"] != baseline and len(task["verdicts"]) > 1:
        _paragraph(text.verdict_sentence(task, baseline, compared["margin"]))
    _heading("Certificate of the ONNX file")
    _paragraph(words.certificate(lineage))
    _facts({"sha256": lineage["certificate"]["onnx_sha256"]})


def _made_with(lineage: Json) -> None:
    """Environment and code."""
    environment, git = lineage["environment"], lineage["git"]
    lock = environment["lock"]
    _heading("Environment")
    _facts(
        {
            "Python": f"{environment['python']}, {environment['platform']}",
            "packages": ", ".join(f"{k} {v}" for k, v in environment["versions"].items())
            + f"; {len(environment['packages'])} in all, with --json",
            "lock": f"{lock['file']} {_short(lock['sha256'])}" if lock else "none",
        }
    )
    _heading("Code")
    changes = f"with changes in {', '.join(git['changed'])}" if git["git_dirty"] else "clean"
    _facts({"commit": f"{git['git_commit']}, {changes}" if git["git_commit"] else "no git"})


def _runs(task: Json) -> None:
    from tunetrail.report import text

    metric, several = task["primary"], len(task["budgets"]) > 1
    of = task["metric_titles"][metric]
    header = ["method", *(["budget"] if several else []), "seed", "run"]
    rows = [
        [
            label,
            *([budget] if several else []),
            str(run["seed"]),
            _short(run["run"]),
            text.score(run["selection"][metric]),
            text.score(run["test"][metric]),
        ]
        for label, method in task["methods"].items()
        for budget, result in method["budgets"].items()
        for run in result["runs"]
    ]
    first = len(header)
    header += [f"selection {of}", f"test {of}"]
    print_table(header, rows, right={first, first + 1})


def _methods(lineage: Json) -> None:
    from tunetrail.lineage import words
    from tunetrail.report import text

    task, chosen = lineage["comparison"]["task"], lineage["choice"]["winner"]
    titles, means = text.titles(task), words.selection_means(lineage)
    rows = []
    for label, mean in means.items():
        summary = task["methods"][label]["summary"][task["primary"]]
        why = "chosen" if label == chosen else words.why_not(label, lineage)
        cells = [text.score(mean), text.score(summary["mean"]), text.interval(summary)]
        rows.append([titles[label], *cells, str(summary["count"]), why])
    header = ["method", "selection", "test", "95% interval", "seeds", "why"]
    print_table(header, rows, right={1, 2, 3, 4})


def _short(digest: str) -> str:
    return digest[:_DIGEST]


def _heading(title: str) -> None:
    typer.echo()
    typer.secho(title, bold=True)


def _facts(facts: Mapping[str, str]) -> None:
    from tunetrail.report.text import wrapped

    indent = max(map(len, facts)) + 2
    for name, value in facts.items():
        lines = (
            wrapped(f"{' ' * indent}{line}", _width(), " " * (indent + 2)).lstrip()
            for line in value.split("\n")
        )
        typer.echo(f"{name:<{indent}}" + f"\n{' ' * indent}".join(lines))


def _paragraph(words: str) -> None:
    from tunetrail.report.text import wrapped

    typer.echo(wrapped(words, _width()))


def _width() -> int:
    from rich.console import Console

    return min(Console().width, _WIDEST)
