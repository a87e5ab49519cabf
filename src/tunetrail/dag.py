"""DVC's graph of stages: what is stale and why, and recording what was executed elsewhere.

Only this module, ``repository``, ``lockfile``, ``datafiles`` and ``exchange`` touch DVC's Python
API, parts of which are semi-private; DVC is pinned to one minor series and a test compares the lock
file with that of plain ``dvc repro``. One thread uses a :class:`Dag`; commands may run anywhere
meanwhile.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from tunetrail.errors import TuneTrailError
from tunetrail.files import write_json
from tunetrail.lockfile import LockFile
from tunetrail.machine import require_room
from tunetrail.place import CODE, check_pipeline, link_code, project_of
from tunetrail.repository import locked, md5_of, open_repo, unreadable

#: Seconds between two writes of dvc.lock while cells are recorded one after the other.
_WRITTEN_EVERY = 2.0

_PHRASES = {"modified": "changed", "deleted": "is gone", "new": "is new"}


@dataclass(frozen=True)
class Cell:
    """One stage of the graph, with its matrix values filled in.

    Attributes:
        name: DVC's name, such as ``train@movie-lora-1``.
        command: The shell command of the stage.
        upstream: Names of the cells whose outputs it reads.
        alone: Whether nothing else may run beside it (it measures time).
        inputs: Paths that it reads, relative to the project.
        outputs: Paths that it writes.
    """

    name: str
    command: str
    upstream: frozenset[str]
    alone: bool
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()

    @property
    def stage(self) -> str:
        """Name of the stage, such as ``train``."""
        return self.name.partition("@")[0]

    @property
    def trains(self) -> bool:
        """Whether it trains a run."""
        return self.stage in ("train", "train_more")


@dataclass(frozen=True)
class Execution:
    """What decides what a cell gives.

    Attributes:
        key: DVC's name for it (sha256, hex): command, inputs and parameters by their content.
        definition: The stage as a dvc.yaml has it.
        inputs: Every file that it reads and that is not code, relative to the project → md5.
    """

    key: str
    definition: dict[str, Any]
    inputs: dict[str, str]


class Dag:
    """The graph of the DVC project in ``root``, or of what trains a champion again there.

    The folders of champions have graphs of their own, and are no part of the project's. Paths are
    relative to the folder that DVC works in, which is the project.

    Attributes:
        cells: Name → cell, upstream cells first.
        discarded: Outputs whose copies in DVC's cache :meth:`begin` found damaged and removed.
    """

    #: The only reason of a cell that dvc.lock knows nothing of.
    NEVER = "never executed here"

    def __init__(self, root: Path) -> None:
        from dvc.exceptions import DvcException

        link_code(project_of(root))
        self._root = root
        self._repo = open_repo(root)
        try:
            graph = self._repo.index.graph
        except DvcException as error:
            raise unreadable(root, error) from None
        check_pipeline(root)
        import networkx

        self._root = Path(self._repo.root_dir)
        self._stages: dict[str, Any] = {}
        self.cells: dict[str, Cell] = {}
        self.discarded: list[str] = []
        # DVC's edges point from a stage to what it depends on. Beyond that, dvc.yaml's own order.
        place = {stage.addressing: i for i, stage in enumerate(self._repo.index.stages)}
        champion = project_of(root) != root.absolute()
        for stage in networkx.lexicographical_topological_sort(
            graph.reverse(copy=False), key=lambda s: place[s.addressing]
        ):
            if stage.is_data_source:  # of `dvc add`: a file that is given, which nothing executes
                continue
            folder = Path(stage.path).parent.resolve()
            if folder != root.resolve() and (champion or project_of(folder) != folder):
                continue
            name = stage.addressing
            self._stages[name] = stage
            self.cells[name] = Cell(
                name=name,
                command=stage.cmd,
                upstream=frozenset(
                    s.addressing for s in graph.successors(stage) if not s.is_data_source
                ),
                alone=bool((stage.meta or {}).get("alone")),
                inputs=tuple(self._shown(dep) for dep in stage.deps),
                outputs=tuple(self._shown(out) for out in stage.outs),
            )
        made = [PurePosixPath(path) for cell in self.cells.values() for path in cell.outputs]
        #: Outputs, and the folders that have some.
        self._produced = {str(part) for path in made for part in (path, *path.parents)}
        #: Each dvc.yaml has its own.
        self._lock_files: dict[Path, LockFile] = {}
        self._claimed, self._written = False, 0.0

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Let no other DVC command write outputs meanwhile: it says at once who works on them.

        Meanwhile dvc.lock is written every few seconds (:meth:`due`), and when the block is left.
        What is recorded is in the run cache at once, which is where a killed process is taken up.

        Only for a process that runs once in a project: what such a process left when it was killed
        is cleared away.

        Raises:
            TuneTrailError: Another DVC command is writing outputs.
        """
        from dvc.rwlock import RWLOCK_FILE, rwlock

        # By folders: DVC reads and writes the list of them several times for every cell.
        made = [PurePosixPath(path) for cell in self.cells.values() for path in cell.outputs]
        outputs = [str(self._root / place) for place in {PurePosixPath(*p.parts[:2]) for p in made}]
        folder, hardlink = self._repo.tmp_dir, self._repo.config["core"].get("hardlink_lock", False)
        with self._locked():
            _forget_killed(Path(folder) / RWLOCK_FILE)
            # As readers: others may still look (`dvc status`, `tunetrail plan`).
            held = rwlock(folder, self._repo.fs, " ".join(sys.argv), outputs, [], hardlink)
            held.__enter__()
        self._claimed = True
        try:
            yield
        finally:
            self._claimed = False
            try:
                self.write()
            finally:
                # Somebody may have deleted the list meanwhile.
                with self._locked(), suppress(AssertionError):
                    held.__exit__(None, None, None)

    def due(self) -> float | None:
        """Seconds until dvc.lock is to be written (:meth:`write`); None where it has everything."""
        if all(lock.is_written for lock in self._lock_files.values()):
            return None
        return max(0.0, self._written + _WRITTEN_EVERY - time.monotonic())

    def write(self) -> None:
        """Write what was recorded to dvc.lock.

        Raises:
            OSError: It cannot be written; the next time it is tried again.
        """
        if self.due() is not None:
            with self._locked():
                self._write()

    def _write(self) -> None:
        self._written = time.monotonic()
        for lock in self._lock_files.values():
            if not lock.is_written:
                lock.write()

    def changes(self, name: str) -> list[str]:
        """Why the cell is stale, one phrase a reason; empty when it is up to date.

        The answer is about the files as they are now: an upstream cell that is stale as well may
        still change it.
        """
        stage = self._stages[name]
        with self._locked():
            status = stage.status().get(stage.addressing, [])
        if not status:
            return []
        if not any(item.hash_info for item in (*stage.deps, *stage.outs)):
            return [self.NEVER]
        items = {str(item): item for item in (*stage.deps, *stage.outs)}
        reasons: list[str] = []
        for entry in status:
            if isinstance(entry, str):  # "changed command"
                reasons.append(entry)
                continue
            for states in entry.values():
                for path, state in states.items():
                    if isinstance(state, dict):
                        dep = items[path]
                        reasons += _changed_parameters(dep.hash_info.value or {}, dep.read_params())
                    else:
                        what = self._kind(items[path], stage)
                        reasons.append(f"{what} {_PHRASES.get(state, state)}")
        return reasons

    def _kind(self, item: Any, stage: Any) -> str:
        """What a person would call an input or output of a stage."""
        path = self._shown(item)
        if item in stage.outs:
            return f"output {path}"
        if path == CODE.as_posix():
            return "code of TuneTrail"
        if Path(path).is_relative_to(CODE):
            return f"code {Path(path).relative_to(CODE)}"
        if path in self._produced:
            return f"input {path}"
        return f"{'folder' if (self._root / path).is_dir() else 'file'} {path}"

    def _shown(self, item: Any) -> str:
        """Path of an input or output, relative to the project if it is inside."""
        path = Path(item.fs_path)
        inside = path.is_relative_to(self._root)
        return (path.relative_to(self._root) if inside else path).as_posix()

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
            earlier = self._earlier(stage)
            # The disk was full, or a kill came before dvc.lock was written: the outputs are there.
            if self._lacks_cache_only(stage) or self._are_there(earlier):
                self._save(stage)
                return True
            stage.remove_outs(ignore_remove=False, force=False)
            self._discard_damaged([*stage.outs, *earlier])
            try:
                self._repo.stage_cache.restore(stage)
            except RunCacheNotFoundError:
                stage.save_deps()
                return False
            self._save(stage)
            return True

    def execution(self, name: str) -> Execution:
        """What is to be executed, of a cell that :meth:`begin` announced."""
        from dvc.stage.cache import _get_stage_hash
        from dvc.stage.serialize import to_pipeline_file

        stage = self._stages[name]
        definition = json.loads(json.dumps(to_pipeline_file(stage)[stage.name]))
        inputs: dict[str, str] = {}
        for dep in stage.deps:
            path = Path(self._shown(dep))
            if dep.hash_info.name != "md5" or path.is_relative_to(CODE):  # parameters, or code
                continue
            if dep.hash_info.isdir:
                listed = {Path(path, *parts): digest.value for parts, _, digest in dep.obj}
            else:
                listed = {path: dep.hash_info.value}
            inputs |= {file.as_posix(): md5 for file, md5 in listed.items()}
        return Execution(_get_stage_hash(stage), definition, inputs)

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

    def recorded(self) -> dict[str, str]:
        """File, relative to the project → its md5 in dvc.lock.

        They are all outputs, file by file, and inputs that are one file. Where DVC's cache lacks
        the list of a folder, nothing is known of its files.
        """
        found: dict[str, str] = {}
        with self._locked():
            for stage in self._stages.values():
                for dep in stage.deps:
                    if dep.hash_info and dep.hash_info.name == "md5" and not dep.hash_info.isdir:
                        found[self._shown(dep)] = dep.hash_info.value
                for out in stage.outs:
                    for parts, digest in _listed(out).items():
                        found[Path(self._shown(out), *parts).as_posix()] = digest
        return found

    def _earlier(self, stage: Any) -> list[Any]:
        """The outputs that the run cache knows for the stage and its inputs as they are now."""
        cache = self._repo.stage_cache
        recorded = [dep.hash_info for dep in stage.deps]
        stage.save_deps()
        entry = cache._load(stage)
        for dep, old in zip(stage.deps, recorded, strict=True):
            dep.hash_info = old
        return list(cache._create_stage(entry, wdir=stage.wdir).outs) if entry else []

    def _are_there(self, outs: list[Any]) -> bool:
        """Whether there are any, and the workspace has them, byte for byte."""
        if not outs or _differ(outs):
            return False
        self._discard_damaged(outs)
        return not _differ(outs)

    def _discard_damaged(self, outs: list[Any]) -> None:
        """Remove what is damaged of the cached outputs that a stage may be restored from."""
        for out in {str(out.hash_info): out for out in outs}.values():
            damaged = list(_damaged(out))
            for path in damaged:
                path.unlink(missing_ok=True)  # two of its files may share a copy
            if damaged:
                self.discarded.append(str(out))

    def _save(self, stage: Any) -> None:
        """Record the stage; in dvc.lock at once, or within seconds while it is claimed."""
        stage.save()
        # Before it goes to the cache: should there be no room for that, only that is repeated.
        path = Path(stage.dvcfile.path).with_suffix(".lock")
        self._lock_files.setdefault(path, LockFile(path)).put(stage)
        if not self._claimed or self.due() == 0:
            self._write()
        stage.commit()
        for out in stage.outs:
            if out.use_cache and out.changed_cache():
                kept = Path(self._repo.cache.local.path)
                require_room(kept, out.meta.size or 0, f"DVC's copy of {out}")
                raise TuneTrailError(
                    f"DVC could not put {out} into its cache '{kept}'", "repeat the command"
                )

    @staticmethod
    def _lacks_cache_only(stage: Any) -> bool:
        """Whether the outputs in the workspace are those of dvc.lock and its inputs of now."""
        return not (stage.changed_stage() or stage.changed_deps() or _differ(stage.outs))

    def _locked(self) -> AbstractContextManager[None]:
        return locked(self._repo)


def _differ(outs: list[Any]) -> bool:
    """Whether some of these are not in the workspace as they were recorded."""
    return any(out.workspace_status() for out in outs)


def _damaged(out: Any) -> Iterator[Path]:
    """Files of a recorded output, and their copies in DVC's cache, that have other bytes."""
    listing = _listing(out)
    if listing is not None and not _is_whole(listing, out):
        yield listing
    for parts, digest in _listed(out).items():
        for path in (Path(out.cache.oid_to_path(digest)), Path(out.fs_path, *parts)):
            if path.is_file() and md5_of(path) != digest:
                yield path


def _listed(out: Any) -> dict[tuple[str, ...], str]:
    """Path below a recorded output → md5; nothing where the list of a folder is not whole."""
    from dvc_data.hashfile.tree import Tree

    if not out.hash_info:
        return {}
    if not out.hash_info.isdir:
        return {(): out.hash_info.value}
    listing = _listing(out)
    if listing is None or not _is_whole(listing, out):
        return {}
    return {parts: entry.value for parts, _, entry in Tree.load(out.cache, out.hash_info)}


def _listing(out: Any) -> Path | None:
    """The list of a recorded folder in DVC's cache; None of a file, or where it is not there."""
    if not out.hash_info or not out.hash_info.isdir:
        return None
    listing = Path(out.cache.oid_to_path(out.hash_info.value))
    return listing if listing.is_file() else None


def _is_whole(listing: Path, out: Any) -> bool:
    return bool(f"{md5_of(listing)}.dir" == out.hash_info.value)


def _forget_killed(file: Path) -> None:
    """Drop this program's entries from DVC's list of who works on what, and a list cut off."""
    try:
        entries: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return
    except ValueError:
        file.unlink()
        return
    readers = {
        path: kept
        for path, who in entries.get("read", {}).items()
        if (kept := [one for one in who if not one["cmd"].startswith(sys.argv[0])])
    }
    write_json(file, {**entries, "read": readers})


def _changed_parameters(before: Any, now: Any, key: str = "") -> Iterator[str]:
    """One phrase a parameter that is not what the last execution used."""
    if isinstance(before, dict) and isinstance(now, dict):
        for name in dict.fromkeys([*now, *before]):
            inner = f"{key}.{name}" if key else str(name)
            if name not in before:
                yield f"parameter {inner} is new: {now[name]}"
            elif name not in now:
                yield f"parameter {inner} is gone; it was {before[name]}"
            else:
                yield from _changed_parameters(before[name], now[name], inner)
    elif before != now:
        yield f"parameter {key} changed: {before} → {now}"


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
