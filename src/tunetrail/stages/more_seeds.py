"""Further seeds for verdicts that are open, until all are settled. Not a stage of the pipeline.

Verdicts read the test set, so these runs may only make verdicts more exact: the seed that is
shipped and the winner are chosen among the runs that all methods have.
"""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from typing import Any

from tunetrail.errors import TuneTrailError
from tunetrail.files import read_json, write_text
from tunetrail.layout import COMPARISON
from tunetrail.params import AddedRun, Params, read_params


def give_more_seeds(path: Path, comparison: Path) -> list[AddedRun]:
    """Add the next seed of every open pair to ``more_seeds.added`` of ``params.yaml``.

    Args:
        path: ``params.yaml``; everything else in it stays as it is, comments too.
        comparison: Folder that the compare stage wrote for it.

    Returns:
        The runs that were added; none where all is settled, or as far as ``most`` and ``runs`` go.
    """
    params = read_params(path)
    if not params.more_seeds.most:
        return []
    added = next_runs(params, read_json(comparison / COMPARISON))
    if added:
        _write(path, added)
    return added


def next_runs(params: Params, comparison: dict[str, Any]) -> list[AddedRun]:
    """One further seed for each pair that seeds can settle, those first that need the fewest.

    A pair is a method and the baseline on one task; the baseline gets every seed that some method
    gets. Pairs that miss test rows get none.

    Args:
        params: The parameters.
        comparison: What the compare stage wrote.

    Raises:
        TuneTrailError: It is older than the parameters.
    """
    more = params.more_seeds
    there = {run.name for run in more.added.values()}
    found: list[AddedRun] = []
    for _, task, method in _open_pairs(params, comparison):
        own = sum(run.task == task and run.method == method for run in more.added.values())
        if len(params.seeds) + own != len(comparison["tasks"][task]["verdicts"][method]["by_seed"]):
            raise TuneTrailError(
                f"the comparison does not have all seeds of '{method}' on '{task}' yet",
                "execute what is stale first: `tunetrail run` or `dvc repro`",
            )
        if len(params.seeds) + own >= more.most:
            continue
        seed = max(params.seeds) + 1 + own
        pair = [
            run
            for label in (params.baseline, method)
            if (run := AddedRun(task=task, method=label, seed=seed)).name not in there
        ]
        if more.runs is None or len(there) + len(pair) <= more.runs:
            found += pair
            there |= {run.name for run in pair}
    return found


def _open_pairs(params: Params, comparison: dict[str, Any]) -> list[tuple[int, str, str]]:
    """Seeds that are missing, task and method of each pair that seeds can settle."""
    return sorted(
        (record["needs"]["seeds"], task, label)
        for task in params.tasks
        for label, record in comparison["tasks"][task]["verdicts"].items()
        if record["outcome"] == "open" and not record["needs"]["rows"]
    )


def _write(path: Path, added: list[AddedRun]) -> None:
    from ruamel.yaml import YAML
    from ruamel.yaml.comments import CommentedMap

    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096
    content = yaml.load(path.read_text(encoding="utf-8"))
    more = content["more_seeds"]  # it has `most`, or nothing would be added
    more.fa.set_block_style()
    runs = more.setdefault("added", CommentedMap())
    runs.fa.set_block_style()
    for run in added:
        runs[run.name] = CommentedMap(run.model_dump())
        runs[run.name].fa.set_flow_style()
    text = StringIO()
    yaml.dump(content, text)
    write_text(path, text.getvalue())
