"""DVC's graph of stages: what is stale and why, and recording what was executed elsewhere.

The only module that touches DVC's Python API, parts of which are semi-private; DVC is pinned to
one minor series and a test compares the lock file with that of plain ``dvc repro``. One thread
uses a :class:`Dag`; commands may run anywhere meanwhile.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunetrail.errors import TuneTrailError


@dataclass(frozen=True)
class Cell:
    """One stage of the graph, with its matrix values filled in.

    Attributes:
        name: DVC's name, such as ``train@movie-lora-1``.
        command: The shell command of the stage.
        upstream: Names of the cells whose outputs it reads.
        alone: Whether nothing else may run beside it (it measures time).
    """

    name: str
    command: str
    upstream: frozenset[str]
    alone: bool

    @property
    def stage(self) -> str:
        """Name of the stage, such as ``train``."""
        return self.name.partition("@")[0]


class Dag:
    """The graph of the DVC project in ``root``."""

    def __init__(self, root: Path) -> None:
        from dvc.exceptions import DvcException
        from dvc.repo import Repo

        logging.getLogger("dvc").setLevel(logging.ERROR)
        allow_missing_git(root)
        try:
            self._repo = Repo(str(root))
            graph = self._repo.index.graph
        except DvcException as error:
            raise TuneTrailError(
                f"DVC cannot read the project in '{root}': {' '.join(str(error).split())}",
                "correct params.yaml or dvc.yaml; `dvc status` shows DVC's own message",
            ) from None
        import networkx

        self._stages: dict[str, Any] = {}
        self.cells: dict[str, Cell] = {}
        # DVC's edges point from a stage to what it depends on. Beyond that, dvc.yaml's own order.
        place = {stage.addressing: i for i, stage in enumerate(self._repo.index.stages)}
        for stage in networkx.lexicographical_topological_sort(
            graph.reverse(copy=False), key=lambda s: place[s.addressing]
        ):
            name = stage.addressing
            self._stages[name] = stage
            self.cells[name] = Cell(
                name=name,
                command=stage.cmd,
                upstream=frozenset(s.addressing for s in graph.successors(stage)),
                alone=bool((stage.meta or {}).get("alone")),
            )

    def changes(self, name: str) -> list[str]:
        """Why the cell is stale, one phrase a reason; empty when it is up to date.

        The answer is about the files as they are now: an upstream cell that is stale as well may
        still change it.
        """
        stage = self._stages[name]
        with self._locked():
            status = stage.status()
        reasons: list[str] = []
        for entry in status.get(stage.addressing, []):
            if isinstance(entry, str):
                reasons.append(entry)
                continue
            for kind, paths in entry.items():
                what = kind.removeprefix("changed ").removesuffix("s").replace("dep", "input")
                for path, state in paths.items():
                    reasons += _phrases(what.replace("out", "output"), path, state)
        return reasons

    def begin(self, name: str) -> bool:
        """Clear the cell's outputs for a new execution, or restore them from the run cache.

        Returns:
            True when the outputs of an earlier equal execution were restored and recorded.
        """
        from dvc.stage.cache import RunCacheNotFoundError

        stage = self._stages[name]
        with self._locked():
            stage.remove_outs(ignore_remove=False, force=False)
            try:
                self._repo.stage_cache.restore(stage)
            except RunCacheNotFoundError:
                stage.save_deps()
                return False
            self._save(stage)
            return True

    def record(self, name: str) -> None:
        """Record an execution that :meth:`begin` announced: hashes, cache, run cache, dvc.lock.

        Raises:
            TuneTrailError: An input changed while the cell was executed, or an output is missing.
        """
        stage = self._stages[name]
        with self._locked():
            before = [dep.hash_info for dep in stage.deps]
            missing = [str(out) for out in stage.outs if not out.exists]
            if missing:
                raise TuneTrailError(
                    f"{name} did not write {', '.join(missing)}", "this is a defect of the stage"
                )
            stage.save_deps()
            changed = [
                str(dep)
                for dep, old in zip(stage.deps, before, strict=True)
                if dep.hash_info != old
            ]
            if changed:
                raise TuneTrailError(
                    f"{name}: {', '.join(changed)} changed while it ran, so the result is not kept",
                    "repeat the command",
                )
            self._save(stage)

    def _save(self, stage: Any) -> None:
        stage.save()
        stage.commit()
        stage.dump(update_pipeline=False)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with self._repo.lock, self._repo.scm_context():
            yield


def _phrases(what: str, path: str, state: Any) -> list[str]:
    if isinstance(state, dict):  # parameters: file → key → state
        return [f"parameter {key} {value}" for key, value in state.items()]
    return [f"{what} {path} {state}"]


def allow_missing_git(root: Path = Path()) -> None:
    """Tell DVC, in its local configuration, to do without git where there is none (an archive)."""
    local = root / ".dvc" / "config.local"
    if not (root / ".git").exists() and (root / ".dvc").is_dir() and not local.exists():
        local.write_text("[core]\n    no_scm = true\n", encoding="utf-8")


def project_root(start: Path) -> Path:
    """The folder of the project that ``start`` is in.

    Raises:
        TuneTrailError: There is no ``dvc.yaml`` here or above.
    """
    for folder in (start, *start.parents):
        if (folder / "dvc.yaml").is_file():
            return folder
    raise TuneTrailError(
        f"'{start}' is not inside a TuneTrail project (no dvc.yaml here or above)",
        "change into the project's folder",
    )


def stale_cells(dag: Dag) -> dict[str, list[str]]:
    """Every cell that would be looked at again now, with the reasons that are known already.

    A cell below a stale one is listed with that cell as the reason: whether it has to be executed
    is only known once its inputs are there.
    """
    stale: dict[str, list[str]] = {}
    for name, cell in dag.cells.items():
        reasons = dag.changes(name)
        reasons += [f"after {above}" for above in sorted(cell.upstream) if above in stale]
        if reasons:
            stale[name] = reasons
    return stale
