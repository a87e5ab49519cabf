"""A cell executed on another machine: what travels there, and back, through DVC's remote.

The other side has neither the project nor its files. It gets an :class:`Errand`, fetches what the
cell reads by digest, executes the same command, and leaves outputs and an entry of DVC's run cache
in the remote. The data goes first and the entry last, so an entry never names what is not there.
Everything is asked for by its path: nothing lists more of the remote than one execution.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from itertools import count
from pathlib import Path
from platform import python_version_tuple
from typing import Any
from urllib.parse import urlsplit

from filelock import FileLock, Timeout

from tunetrail.code import package_digest
from tunetrail.dag import Execution
from tunetrail.errors import TuneTrailError, masked
from tunetrail.files import stays_inside, write_text
from tunetrail.place import CODE, link_to
from tunetrail.repository import locked, md5_of, open_repo

#: Environment variable of a node: where it works.
FOLDER = "TUNETRAIL_NODE"

#: Bytes up to which an input travels with the errand: a request each would take longer.
_SMALL = 1 << 16

#: Distributions whose version may change a result, or the name under which DVC records it.
_DECISIVE = (
    "torch", "transformers", "tokenizers", "accelerate", "safetensors", "peft", "numpy", "scipy",
    "scikit-learn", "pyarrow", "optuna", "dvc",
)  # fmt: skip

_PACKAGES = ("tunetrail", "pipelines")

_log = logging.getLogger(__name__)

#: Options of a remote that are secrets by their name.
_SECRET = re.compile(r"(?<!ask_)pass(word|phrase)|secret|token$|_key(_id)?$|_string$|_header$")


class RemoteFailed(TuneTrailError):
    """DVC's remote did not answer as it should: worth another try."""


@dataclass(frozen=True)
class Terms:
    """What must be the same on both sides.

    Attributes:
        remote: Name of DVC's remote.
        options: Its options, as the project's shared configuration has them, without secrets.
        code: Digest of the installed code.
        versions: Distribution → version, of what decides results.
    """

    remote: str
    options: dict[str, str]
    code: str
    versions: dict[str, str]


@dataclass(frozen=True)
class Errand:
    """One cell for another machine.

    Attributes:
        name: DVC's name of the cell.
        execution: What is executed, and DVC's name for that.
        small: md5 → bytes of the small inputs.
        texts: File of the project → text, of those that say how to execute.
    """

    name: str
    execution: Execution
    small: dict[str, bytes]
    texts: dict[str, str]


@dataclass(frozen=True)
class Done:
    """How an errand ended.

    Attributes:
        entry: Name of the entry in the run cache, below that of the execution.
        executed: False where an equal execution was in the remote.
        seconds: That the command took, or the search.
    """

    entry: str
    executed: bool
    seconds: float


class Store:
    """DVC's cache here and its remote, by digest.

    Args:
        repo: DVC's view of the project.

    Raises:
        TuneTrailError: There is no remote, or it cannot keep a run cache.
    """

    def __init__(self, repo: Any) -> None:
        self._repo = repo
        self._cache = repo.cache.local
        self._entries = repo.stage_cache
        self._name = remote_name(repo)
        self._shown = masked(str(repo.config["remote"][self._name].get("url", "")))
        with self._asking():
            self._objects = repo.cloud.get_remote_odb(self._name)
            self._top = repo.cloud.get_remote_odb(self._name, hash_name="md5-dos2unix").path
        self._fs = self._objects.fs
        if self._fs.protocol in ("http", "https"):
            raise TuneTrailError(
                f"DVC's remote '{self._name}' ({self._shown}) is of a kind that keeps no run cache",
                "use a remote over SSH, S3 or a folder that all machines see",
            )
        self._there: set[str] = set()

    def small(self, md5: str) -> bytes | None:
        """An object of the cache that is small enough to travel by itself."""
        kept = Path(self._cache.oid_to_path(md5))
        if not _is_whole(kept, md5) or kept.stat().st_size > _SMALL:
            return None
        return kept.read_bytes()

    def check(self) -> None:
        """Ask the remote for something.

        Raises:
            RemoteFailed: It does not answer.
        """
        with self._asking():
            self._fs.exists(self._top)

    def push(self, md5: str) -> None:
        """Have the remote keep an object of the cache.

        Raises:
            TuneTrailError: The cache does not have it whole.
        """
        if md5 in self._there:
            return
        kept = Path(self._cache.oid_to_path(md5))
        if not _is_whole(kept, md5):
            raise TuneTrailError(
                f"the bytes with md5 {md5} are not whole in DVC's cache '{self._cache.path}'",
                "`tunetrail verify` names what is damaged",
            )
        target = self._objects.oid_to_path(md5)
        with self._asking():
            # By its size: somebody may have been killed while they wrote it.
            if self._size(target) != kept.stat().st_size:
                self._put(kept, target)
        self._there.add(md5)

    def fetch(self, md5: str) -> Path:
        """The object's file in the cache; from the remote if it is not there whole.

        Raises:
            RemoteFailed: The remote does not have these bytes.
        """
        kept = Path(self._cache.oid_to_path(md5))
        if _is_whole(kept, md5):
            return kept
        with _fresh(kept) as temporary:
            with self._asking(f"object {md5}"):
                self._fs.get_file(self._objects.oid_to_path(md5), str(temporary))
            self._check(md5, temporary)
            temporary.chmod(0o444)
        self._there.add(md5)
        return kept

    def _check(self, md5: str, file: Path) -> None:
        found = md5_of(file)
        if found != md5.removesuffix(".dir"):
            raise RemoteFailed(
                f"the copy of object {md5} in DVC's remote '{self._name}' ({self._shown}) is "
                f"damaged: its md5 is {found}",
                f"remove {self._objects.oid_to_path(md5)} there, and repeat the command: it is "
                "made or sent again",
            )

    def find(self, execution: Execution) -> str | None:
        """Name of an entry of an equal execution in the remote, all of whose outputs are there."""
        with self._asking():
            try:
                names = self._fs.ls(self._fs.join(self._top, *_parts(execution.key)), detail=False)
            except FileNotFoundError:
                return None
        for path in names:
            name = str(self._fs.name(path))
            # What else is there was left by somebody who was killed while they wrote.
            if re.fullmatch(r"[0-9a-f]{64}", name) and self._is_there(execution, name):
                return name
        return None

    def _is_there(self, execution: Execution, name: str) -> bool:
        try:
            wanted = self.objects(self.take(execution, name))
        except TuneTrailError as error:  # the entry or the list of a folder is not whole
            _log.info("%s", error.problem)
            return False
        with self._asking():
            return all(self._size(self._objects.oid_to_path(md5)) is not None for md5 in wanted)

    def take(self, execution: Execution, name: str) -> dict[str, Any]:
        """Get an entry of the run cache into the local one.

        Raises:
            RemoteFailed: The remote does not have it.
            TuneTrailError: It is another one than its name says.
        """
        from dvc.stage.cache import _get_cache_hash

        kept, place = self._entry(execution.key, name), _parts(execution.key)
        with self._asking(f"entry {execution.key}/{name}"):
            text = self._fs.cat_file(self._fs.join(self._top, *place, name)).decode()
        with locked(self._repo):  # whoever has it removes empty folders of the run cache
            write_text(kept, text)
        entry: dict[str, Any] | None = self._entries._load_cache(execution.key, name)
        if (
            entry is None
            or _get_cache_hash(dict(entry)) != name
            or _get_cache_hash(dict(entry), key=True) != execution.key
        ):
            kept.unlink(missing_ok=True)
            raise TuneTrailError(
                f"the entry {execution.key}/{name} of the run cache in DVC's remote "
                f"'{self._name}' ({self._shown}) is not the one that its name says",
                "remove it there: what it is about is executed again",
            )
        return entry

    def give(self, execution: Execution, name: str) -> None:
        """Have the remote keep an entry of the local run cache, and before that its outputs."""
        entry = self._entries._load_cache(execution.key, name)
        for md5 in self.objects(entry):
            self.push(md5)
        with self._asking():
            target = self._fs.join(self._top, *_parts(execution.key), name)
            self._put(self._entry(execution.key, name), target)

    def objects(self, entry: dict[str, Any]) -> list[str]:
        """Every object that an entry's outputs consist of, the lists of folders included."""
        found = []
        for out in entry["outs"]:
            found.append(out["md5"])
            if out["md5"].endswith(".dir"):
                listed = json.loads(self.fetch(out["md5"]).read_text(encoding="utf-8"))
                found += [file["md5"] for file in listed]
        return list(dict.fromkeys(found))

    def _entry(self, key: str, name: str) -> Path:
        return Path(self._entries._get_cache_path(key, name))

    def _size(self, path: str) -> int | None:
        try:
            return int(self._fs.info(path)["size"])
        except FileNotFoundError:
            return None

    def _put(self, source: Path, target: str) -> None:
        with source.open("rb") as content:  # of an open file, DVC makes the target in one step
            self._fs.put_file(content, target, size=source.stat().st_size)

    @contextmanager
    def _asking(self, wanted: str = "") -> Iterator[None]:
        """Let whatever a remote raises come out as one error that names it."""
        where = f"DVC's remote '{self._name}' ({self._shown})"
        try:
            yield
        except TuneTrailError:
            raise
        except FileNotFoundError:
            raise RemoteFailed(
                f"{where} does not have {wanted or 'its folder'}",
                "`dvc push` sends what this machine has; then repeat the command",
            ) from None
        except Exception as error:  # each kind of remote has errors of its own
            said = " ".join(str(error).split()) or type(error).__name__
            raise RemoteFailed(
                f"{where} does not answer as it should: {said}",
                "check it with `dvc push` on the machine that says so (credentials are its own), "
                "and repeat the command: what is done is kept",
            ) from None


def remote_name(repo: Any) -> str:
    """DVC's default remote.

    Raises:
        TuneTrailError: There is none.
    """
    name = repo.config["core"].get("remote")
    if not name or name not in repo.config["remote"]:
        raise TuneTrailError(
            "the project has no default remote of DVC, through which its machines exchange files",
            "`dvc remote add --default NAME URL`, with a URL that all of them reach",
        )
    return str(name)


def terms(root: Path) -> Terms:
    """What machines that work for the project in ``root`` must agree with.

    Raises:
        TuneTrailError: The project has no default remote in its shared configuration.
    """
    repo = open_repo(root)
    try:
        name = remote_name(repo)
        options = repo.config.load_one("repo")["remote"].get(name)
    finally:
        repo.close()
    if not options or "url" not in options:
        raise TuneTrailError(
            f"DVC's remote '{name}' is not in .dvc/config, the part of the configuration that "
            "other machines get",
            f"`dvc remote add --force --default {name} URL`; secrets stay in .dvc/config.local",
        )
    url = urlsplit(options["url"])
    if url.password or url.query:
        raise TuneTrailError(
            f"the url of DVC's remote '{name}' holds a secret: {masked(options['url'])}",
            "leave it out there; each machine has its own credentials (environment, SSH agent, "
            "`dvc remote modify --global`)",
        )
    shared = {
        key: str(getattr(value, "def_path", value))  # of a path with ~, which each expands itself
        for key, value in options.items()
        if not _SECRET.search(key)
    }
    return Terms(name, shared, package_digest(*_PACKAGES), _versions())


def check_terms(agreed: Terms) -> None:
    """Check that what is installed here gives the results of the machine that sent the terms.

    Raises:
        TuneTrailError: It is other code, or another version of what decides results.
    """
    own = _versions()
    differing = [
        f"{name} {own.get(name, 'missing')} (there {agreed.versions.get(name, 'missing')})"
        for name in sorted(agreed.versions.keys() | own.keys())
        if own.get(name) != agreed.versions.get(name)
    ]
    if differing:
        raise TuneTrailError(
            f"other versions than where the run was started: {', '.join(differing)}",
            "install the same requirements.lock on every machine",
        )
    code = package_digest(*_PACKAGES)
    if code != agreed.code:
        raise TuneTrailError(
            "other code of TuneTrail than where the run was started\n"
            f"  here  {code}\n  there {agreed.code}",
            "install the same version on every machine, and restart its workers",
        )


def _versions() -> dict[str, str]:
    found = {"python": ".".join(python_version_tuple()[:2])}
    for name in _DECISIVE:
        try:
            # Without the build: one of a machine with a GPU works for one without.
            found[name] = version(name).partition("+")[0]
        except PackageNotFoundError:
            continue
    return found


def errand(store: Store, root: Path, name: str, execution: Execution) -> Errand:
    """What another machine needs for a cell; larger inputs are in the remote afterwards.

    Raises:
        TuneTrailError: An input is damaged in DVC's cache.
        RemoteFailed: The remote does not take an input.
    """
    small = {}
    for md5 in dict.fromkeys(execution.inputs.values()):
        if (content := store.small(md5)) is not None:
            small[md5] = content
        else:
            store.push(md5)
    named = [".dvcignore", *(["params.yaml"] if "params" in execution.definition else [])]
    files = [root / file for file in named]
    texts = {file.name: file.read_text(encoding="utf-8") for file in files if file.is_file()}
    return Errand(name, execution, small, texts)


def bring(store: Store, execution: Execution, done: Done) -> None:
    """Get what an errand left in the remote into this machine's cache and run cache.

    Raises:
        RemoteFailed: The remote does not have it.
    """
    for md5 in store.objects(store.take(execution, done.entry)):
        store.fetch(md5)


def perform(
    task: Errand, agreed: Terms, node: Path, execute: Callable[[str, Path, Path], None]
) -> Done:
    """Do an errand on this machine, one at a time in a process.

    Args:
        task: What to do.
        agreed: Terms of whoever sent it.
        node: Folder that this machine works in (see :func:`node_folder`).
        execute: Runs a command, given the folder to run it in and a file for its output.

    Raises:
        TuneTrailError: This machine has other code, or the command refused its input.
        RemoteFailed: The remote lacks an input, or does not take an output.
    """
    check_terms(agreed)
    started, execution = time.monotonic(), task.execution
    with _room(node) as room, _project(room, node, agreed, task) as repo:
        store = Store(repo)
        if (found := store.find(execution)) is not None:
            return Done(found, False, time.monotonic() - started)
        _furnish(room, store, task)
        (stage,) = repo.index.stages
        with locked(repo):
            _expect(stage, execution)
        started = time.monotonic()
        _note(node, "begins", task)
        execute(execution.definition["cmd"], room, node / "logs" / f"{task.name}.log")
        seconds = time.monotonic() - started
        _note(node, f"ended after {seconds:.1f} s", task)
        with locked(repo), chdir(room):  # DVC reads an entry as a dvc.yaml of the working folder
            name = _record(stage)
        store.give(execution, name)
        return Done(name, True, seconds)


def try_out(agreed: Terms, node: Path) -> None:
    """Check that errands can be done here.

    Raises:
        TuneTrailError: Other code or versions, or no way to the remote.
    """
    check_terms(agreed)
    with _room(node) as room, _project(room, node, agreed) as repo:
        Store(repo).check()


def node_folder() -> Path:
    """Where this machine keeps what it fetched and made for others, and its logs."""
    own = os.environ.get(FOLDER)
    if own:
        return Path(own).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tunetrail" / "node"


@contextmanager
def _room(node: Path) -> Iterator[Path]:
    """An empty folder for one errand. There are as many as there were errands at a time."""
    rooms = node / "rooms"
    rooms.mkdir(parents=True, exist_ok=True)
    for number in count():
        room = rooms / str(number)
        try:
            with FileLock(f"{room}.lock", timeout=0):
                room.mkdir(exist_ok=True)
                _clear(room)  # of what a killed one left
                try:
                    yield room
                finally:
                    _clear(room)
                return
        except Timeout:
            continue


def _clear(room: Path) -> None:
    """Remove all but DVC's own folder, which knows digests of files by their inode."""
    for path in room.iterdir():
        if path.is_dir() and not path.is_symlink():
            if path.name != ".dvc":
                shutil.rmtree(path)
        else:
            path.unlink()


@contextmanager
def _project(room: Path, node: Path, agreed: Terms, task: Errand | None = None) -> Iterator[Any]:
    """A DVC project with one stage, in ``room``; its cache is that of the node."""
    from dvc.config import Config

    (room / ".dvc").mkdir(exist_ok=True)
    write_text(room / ".dvc" / "config", "")
    with Config(str(room / ".dvc")).edit("repo") as config:
        config["core"] = {
            "remote": agreed.remote,
            "analytics": False,
            "check_update": False,
            "site_cache_dir": str(node / "state"),
        }
        config["cache"] = {"dir": str(node / "cache"), "type": "hardlink,copy"}
        config["remote"] = {agreed.remote: agreed.options}
    stages = {}
    if task is not None:
        for name, text in task.texts.items():
            write_text(room / _inside(name), text)
        stages = {"errand": task.execution.definition}
        if CODE.as_posix() in json.dumps(stages):
            link_to(room / CODE, Path(__file__).resolve().parent)
    # JSON is YAML.
    write_text(room / "dvc.yaml", json.dumps({"stages": stages}))
    repo = open_repo(room, mend=False)
    try:
        yield repo
    finally:
        repo.close()


def _furnish(room: Path, store: Store, task: Errand) -> None:
    """Put the inputs of a cell where it reads them, byte for byte."""
    for path, md5 in task.execution.inputs.items():
        target = room / _inside(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        if md5 in task.small:
            target.write_bytes(task.small[md5])
        else:
            os.link(store.fetch(md5), target)


def _inside(path: str) -> str:
    if not stays_inside(path):
        raise TuneTrailError(
            f"'{path}' leads out of the project", "only files of the project can be sent"
        )
    return path


def _expect(stage: Any, execution: Execution) -> None:
    """Check that DVC will record the execution under the name that the sender expects.

    Raises:
        TuneTrailError: It would be recorded as another one.
    """
    from dvc.stage.cache import _get_stage_hash

    stage.save_deps()
    if _get_stage_hash(stage) != execution.key:
        raise TuneTrailError(
            f"`{stage.cmd}` has other inputs here than where the run was started, though code and "
            "versions are equal",
            "look for files that do not belong to TuneTrail in its installed folder, on both",
        )


def _record(stage: Any) -> str:
    """Put an execution into the node's cache and run cache; name of the entry."""
    from dvc.stage.cache import _get_cache_hash
    from dvc.stage.serialize import to_single_stage_lockfile

    missing = [str(out) for out in stage.outs if not out.exists]
    if missing:
        raise TuneTrailError(
            f"`{stage.cmd}` did not write {', '.join(missing)}", "this is a defect of the stage"
        )
    stage.save()
    stage.commit()
    return str(_get_cache_hash(to_single_stage_lockfile(stage)))


def _note(node: Path, what: str, task: Errand) -> None:
    """Add a line to the node's own account of what it did."""
    line = f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {task.name} {what} {task.execution.key}\n"
    with (node / "executions.log").open("a", encoding="utf-8") as log:
        log.write(line)


def _parts(key: str) -> tuple[str, str, str]:
    """Folder of an execution's entries, below the remote."""
    return "runs", key[:2], key


@contextmanager
def _fresh(target: Path) -> Iterator[Path]:
    """A temporary file that becomes ``target``; several machines' processes may make one."""
    unique = base64.b32encode(os.urandom(10)).decode()
    temporary = target.with_name(f".{target.name}.{unique}.tmp")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield temporary
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _is_whole(kept: Path, md5: str) -> bool:
    """Whether a file of the cache is there with its own bytes."""
    try:
        state = kept.stat()
    except FileNotFoundError:
        return False
    return _digest(kept, state.st_ino, state.st_mtime_ns, state.st_size) == md5.removesuffix(".dir")


@cache
def _digest(kept: Path, inode: int, time: int, size: int) -> str:
    """md5 of a file as it was then: models are read by every run."""
    return md5_of(kept)
