"""DVC's graph of stages: what is stale and why, and recording what was executed elsewhere.

The only module that touches DVC's Python API, parts of which are semi-private; DVC is pinned to
one minor series and a test compares the lock file with that of plain ``dvc repro``. One thread
uses a :class:`Dag`; commands may run anywhere meanwhile.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunetrail.errors import TuneTrailError
from tunetrail.files import scratch, write_text


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
    """The graph of the DVC project in ``root``.

    Attributes:
        cells: Name → cell, upstream cells first.
        discarded: Outputs whose copies in DVC's cache :meth:`begin` found damaged and removed.
    """

    def __init__(self, root: Path) -> None:
        from dvc.exceptions import DvcException
        from dvc.repo import Repo

        logging.getLogger("dvc").setLevel(logging.ERROR)
        allow_missing_git(root)
        self._root = root
        try:
            self._repo = Repo(str(root))
            self._mend()
            graph = self._repo.index.graph
        except DvcException as error:
            raise _unreadable(root, error) from None
        import networkx

        self._stages: dict[str, Any] = {}
        self.cells: dict[str, Cell] = {}
        self.discarded: list[str] = []
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

        DVC believes what is in its cache; here every byte is compared before it is restored, and
        what is damaged is removed, so that the cell is executed.

        Returns:
            True when the outputs of an earlier equal execution were restored and recorded.
        """
        from dvc.stage.cache import RunCacheNotFoundError

        stage = self._stages[name]
        with self._locked():
            stage.remove_outs(ignore_remove=False, force=False)
            self._discard_damaged(stage)
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

    def damaged(self) -> Iterator[tuple[str, Path]]:
        """Files with other bytes than dvc.lock says, each with the output that it belongs to.

        These are outputs and their copies in DVC's cache (which may be one file on disk). Every
        byte is read: DVC itself goes by the time of a file, and believes its cache.
        """
        with self._locked():
            for stage in self._stages.values():
                for out in stage.outs:
                    yield from ((str(out), path) for path in _damaged(out))

    def _discard_damaged(self, stage: Any) -> None:
        """Remove what is damaged of the cached outputs that the stage may be restored from."""
        cache = self._repo.stage_cache
        recorded = [dep.hash_info for dep in stage.deps]
        stage.save_deps()
        entry = cache._load(stage)
        for dep, old in zip(stage.deps, recorded, strict=True):
            dep.hash_info = old
        cached = cache._create_stage(entry, wdir=stage.wdir).outs if entry else []
        for out in {str(out.hash_info): out for out in [*stage.outs, *cached]}.values():
            damaged = list(_damaged(out))
            for path in damaged:
                path.unlink(missing_ok=True)  # two of its files may share a copy
            if damaged:
                self.discarded.append(str(out))

    def _save(self, stage: Any) -> None:
        """Record the stage; dvc.lock is replaced in one step, which DVC does not do."""
        from dvc.dvcfile import Lockfile

        stage.save()
        stage.commit()
        lock = Path(stage.dvcfile.path).with_suffix(".lock")
        with scratch() as folder:
            draft = folder / lock.name
            if lock.exists():
                shutil.copyfile(lock, draft)
            Lockfile(self._repo, str(draft)).dump(stage)
            write_text(lock, draft.read_text(encoding="utf-8"))

    def _mend(self) -> None:
        """Remove what DVC stumbles over when it was killed while it wrote."""
        from dvc.lock import make_lock

        folder = Path(self._repo.tmp_dir)
        held = folder / "rwlock"
        with self._locked():
            with make_lock(str(folder / "rwlock.lock"), tmp_dir=str(folder)):
                try:
                    json.loads(held.read_text(encoding="utf-8"))
                except FileNotFoundError:
                    pass
                except ValueError:  # cut off; whoever held anything by it is gone
                    held.unlink()
            for entry in Path(self._repo.stage_cache.cache_dir).glob("*/*"):
                if not any(entry.iterdir()):
                    entry.rmdir()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        from dvc.lock import LockError

        try:
            with self._repo.lock, self._repo.scm_context():
                yield
        except LockError as error:
            raise TuneTrailError(
                f"another command of DVC is at work in '{self._root}': {_one_line(error)}",
                "wait for it or stop it, then repeat the command",
            ) from None


def _damaged(out: Any) -> Iterator[Path]:
    """Files of a recorded output, and their copies in DVC's cache, that have other bytes."""
    from dvc_data.hashfile.tree import Tree

    if not out.hash_info:
        return
    files: dict[tuple[str, ...], str] = {(): out.hash_info.value}
    if out.hash_info.isdir:
        listing = Path(out.cache.oid_to_path(out.hash_info.value))
        if not listing.is_file():
            return
        if f"{_md5(listing)}.dir" != out.hash_info.value:
            yield listing
            return
        files = {parts: entry.value for parts, _, entry in Tree.load(out.cache, out.hash_info)}
    for parts, digest in files.items():
        for path in (Path(out.cache.oid_to_path(digest)), Path(out.fs_path, *parts)):
            if path.is_file() and _md5(path) != digest:
                yield path


def _md5(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "md5").hexdigest()


def _unreadable(root: Path, error: Exception) -> TuneTrailError:
    if Path(getattr(error, "path", "")).name == "dvc.lock":
        return TuneTrailError(
            f"dvc.lock in '{root}' cannot be read: {_one_line(error)}",
            "DVC may have been killed while it wrote it: delete dvc.lock (or take it from git) and "
            "repeat the command; results come back from DVC's cache",
        )
    return TuneTrailError(
        f"DVC cannot read the project in '{root}': {_one_line(error)}",
        "correct params.yaml or dvc.yaml; `dvc status` shows DVC's own message",
    )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


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
