"""Kind ``hub``: a dataset or a model on the Hugging Face Hub, pinned to a commit.

``huggingface_hub`` does the transfer, so its cache and its variables apply: ``HF_ENDPOINT``,
``HF_HOME``, ``HF_HUB_OFFLINE``, ``HF_TOKEN``. Only data, configuration, tokenizer and safetensors
files are downloaded: no code of a repository is ever executed, and no pickle ever read.
"""

from __future__ import annotations

import fnmatch
import glob
import logging
import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, get_args
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from tunetrail.errors import TuneTrailError, unknown
from tunetrail.files import check_file, stays_inside
from tunetrail.machine import from_machine
from tunetrail.settings import Settings
from tunetrail.sources._shards import CONVERTED, FORMATS, complete, join, layouts_of
from tunetrail.task import Split

_COMMIT = re.compile(r"[0-9a-f]{40}")
_REPO = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)
_REVISION = re.compile(r"[A-Za-z0-9][\w./-]*", re.ASCII)

#: What a model needs; everything else in its repository stays there.
_WEIGHTS = "*.safetensors"
_MODEL = (
    "config.json", "tokenizer*.json", "special_tokens_map.json", "added_tokens.json",
    "vocab*.json", "vocab*.txt", "merges.txt", "*.model", "*.safetensors.index.json", _WEIGHTS,
)  # fmt: skip
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


class HubSource(Settings):
    """A repository on the Hub."""

    kind: Literal["hub"] = "hub"
    repo: str = Field(description="owner/name")
    type: Literal["dataset", "model"] = Field(description="what kind of repository it is")
    revision: str = Field(
        description="commit (40 hex digits); a branch or tag works and is not reproducible"
    )
    config: str | None = Field(
        default=None, description="a dataset's configuration: the folder its files are in"
    )
    splits: dict[Split, str] = Field(
        default_factory=dict, description="split → its name in the repository, where they differ"
    )
    files: dict[str, Annotated[str, Field(pattern="^[0-9a-f]{64}$")]] = Field(
        default_factory=dict, description="sha256 of files in the repository, checked as well"
    )
    licence: str = Field(default="unknown", description="licence of the content")

    @field_validator("repo")
    @classmethod
    def _is_a_repository(cls, value: str) -> str:
        if not _REPO.fullmatch(value) or ".." in value or "--" in value:
            raise ValueError("must be the name of a repository, like nyu-mll/glue")
        return value

    @field_validator("revision")
    @classmethod
    def _is_a_revision(cls, value: str) -> str:
        if not _REVISION.fullmatch(value) or ".." in value:
            raise ValueError("must be a commit, branch or tag")
        return value

    @model_validator(mode="after")
    def _fits_the_type(self) -> HubSource:
        if self.type == "model" and (self.config is not None or self.splits):
            raise ValueError("'config' and 'splits' belong to datasets")
        return self

    @cached_property
    def commit(self) -> str:
        """The commit that ``revision`` is now; a branch or tag is looked up once."""
        return self.revision if _COMMIT.fullmatch(self.revision) else self._resolve(self.revision)

    def fetch(self, scratch: Path) -> Path:
        """Download what is not in the cache yet.

        A dataset becomes one file a split (``train.parquet`` and so on), a model its folder.
        """
        if self.commit != self.revision:
            logging.getLogger(__name__).warning(
                "%s: '%s' is commit %s and may move: write 'revision: %s' in the pointer to pin it",
                self.repo, self.revision, self.commit, self.commit,
            )  # fmt: skip
        names = self._names()
        folder = scratch / self.type
        folder.mkdir()
        if self.type == "model":
            wanted = self._model_files(names)
            for name, path in self._download(wanted).items():
                (folder / name).symlink_to(path)
            return folder
        splits = self._split_files(names)
        local = self._download([name for shards in splits.values() for name in shards])
        for split, shards in splits.items():
            join([local[name] for name in shards], folder, split)
        return folder

    def provenance(self) -> dict[str, str]:
        """Repository, commit, and how the pointer named the commit if it did so otherwise."""
        found = {
            "kind": self.kind,
            "repository": self.repo,
            "type": self.type,
            "config": self.config or "",
            "splits": ", ".join(f"{ours} is {theirs}" for ours, theirs in self.splits.items()),
            "revision": self.commit,
            "licence": self.licence,
        }
        if self.commit != self.revision:
            found["asked for"] = f"{self.revision} (not pinned)"
        return {key: value for key, value in found.items() if value}

    # What to take ------------------------------------------------------------------------------

    def _model_files(self, names: list[str]) -> list[str]:
        """The files of a model, all of them at the top of the repository."""
        wanted = _matching(names, _MODEL)
        if not _matching(wanted, [_WEIGHTS]):
            pickles = ", ".join(_matching(names, _PICKLES))
            raise TuneTrailError(
                f"{self._what} has no .safetensors weights"
                + (f", only pickles, which are never loaded ({pickles})" if pickles else ""),
                "choose a revision that has them (the Hub offers its own conversions as "
                "refs/pr/N), or convert the weights and name their folder as the source",
            )
        for needed in ("config.json", "tokenizer.json"):
            if needed not in wanted:
                raise TuneTrailError(
                    f"{self._what} has no {needed}",
                    "choose a repository of a transformers encoder with a fast tokenizer",
                )
        return wanted

    def _split_files(self, names: list[str]) -> dict[Split, list[str]]:
        """Split → its shards, in order, in the best format that there is."""
        layouts: dict[str, dict[str, list[str]]] = {}
        for suffix in FORMATS:
            layouts = layouts_of(name for name in names if name.endswith(suffix))
            if layouts and self.config in {None, *layouts}:
                break
        else:
            raise self._no_data(names)
        if self.config is None and len(layouts) > 1:
            raise TuneTrailError(
                f"{self._what} has several configurations", f"set 'config': {', '.join(layouts)}"
            )
        found = layouts[self.config] if self.config else next(iter(layouts.values()))
        chosen: dict[Split, list[str]] = {}
        for split in get_args(Split):
            theirs = self.splits.get(split, split)
            if theirs in found:
                chosen[split] = complete(found[theirs], theirs, self._what)
            elif split in self.splits:
                raise unknown("split", theirs, found, self._what)
        if "train" not in chosen:
            raise TuneTrailError(
                f"{self._what} has no split 'train', only {', '.join(sorted(found))}",
                "say which one it is: 'splits: {train: …}'",
            )
        return chosen

    def _no_data(self, names: list[str]) -> TuneTrailError:
        """Why there is nothing to read, and where the Hub has it as Parquet."""
        configs = {c for s in FORMATS for c in layouts_of(n for n in names if n.endswith(s))}
        if configs:
            return unknown("config", str(self.config), configs, self._what)
        scripts = _matching(names, ["*.py"])
        problem = f"{self._what} has no data files ({', '.join(FORMATS)})"
        if scripts:
            problem += f", only a script, which is never executed ({', '.join(scripts)})"
        try:
            converted = self._resolve(CONVERTED)
        except TuneTrailError:  # there is no conversion, or no connection
            converted = self.commit
        if converted == self.commit:
            return TuneTrailError(problem, "choose a repository with data files")
        return TuneTrailError(
            problem, f"the Hub has converted it to Parquet: set 'revision: {converted}'"
        )

    # The Hub -----------------------------------------------------------------------------------

    @property
    def _what(self) -> str:
        return f"{self.type} '{self.repo}' at {self.revision}"

    @property
    def _api(self) -> Any:
        from huggingface_hub import HfApi

        return HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None)

    def _resolve(self, revision: str) -> str:
        """The commit of a branch or tag, from the cache where the Hub is out of reach."""
        with self._explained([]):
            found = self._api.resolve_revision(self.repo, repo_type=self.type, revision=revision)
            return str(found.resolved)

    def _names(self) -> list[str]:
        """Every file of the commit; the list is kept in the Hub's cache."""
        from huggingface_hub import get_cached_repo_tree
        from huggingface_hub.errors import CachedRepoTreeNotFoundError
        from huggingface_hub.hf_api import RepoFile

        try:
            tree = get_cached_repo_tree(self.repo, repo_type=self.type, revision=self.commit)
        except CachedRepoTreeNotFoundError:
            with self._explained(list(self.files)):
                tree = list(
                    self._api.list_repo_tree(
                        self.repo, repo_type=self.type, revision=self.commit, recursive=True
                    )
                )
        names = sorted(entry.path for entry in tree if isinstance(entry, RepoFile))
        for name in names:
            if not stays_inside(name):
                raise TuneTrailError(
                    f"{self._what} has a file '{name}', which would leave its folder",
                    "check where it comes from; nothing was downloaded",
                )
        return names

    def _download(self, names: list[str]) -> dict[str, Path]:
        """Name in the repository → file in the Hub's cache, with the pinned digests checked."""
        for name in self.files:
            if name not in names:
                raise unknown("file", name, names, f"{self._what}: files")
        from huggingface_hub.utils import disable_progress_bars

        # The client draws one of its bars even where nobody sees it.
        quiet = nullcontext() if sys.stderr.isatty() else disable_progress_bars()
        with quiet, self._explained(names):
            folder = self._api.snapshot_download(
                self.repo,
                repo_type=self.type,
                revision=self.commit,
                allow_patterns=[glob.escape(name) for name in names],
            )
        found = {name: Path(folder) / name for name in names}
        for name, expected in self.files.items():
            check_file(found[name], name, expected)
        return found

    @contextmanager
    def _explained(self, wanted: list[str]) -> Iterator[None]:
        """Whatever the transfer raises, as an error a user can act on.

        Args:
            wanted: Names of the files that are being fetched, as far as they are known.
        """
        from huggingface_hub import errors

        # HTTPError is the base of the errors of the HTTP client, whichever the Hub's client uses.
        expected = (errors.HTTPError, errors.RevisionResolutionError, errors.XetDownloadError)
        try:
            yield
        except (*expected, OSError) as error:
            raise from_machine(error) or self._problem(error, wanted) from None

    def _problem(self, error: Exception, wanted: list[str]) -> TuneTrailError:
        from huggingface_hub import errors, get_token

        # "Not in the cache" has a cause: why it could not be fetched.
        wrapped = isinstance(error, errors.LocalEntryNotFoundError | errors.RevisionResolutionError)
        cause = error.__cause__ if wrapped and error.__cause__ else error
        status = getattr(getattr(cause, "response", None), "status_code", None)
        page = f"{_endpoint()}/{'datasets/' if self.type == 'dataset' else ''}{self.repo}"
        if isinstance(cause, errors.GatedRepoError):
            return TuneTrailError(
                f"{self._what} is gated (HTTP {status})",
                f"accept its terms on {page}, then set HF_TOKEN to a token of that account",
            )
        if isinstance(cause, errors.RevisionNotFoundError):
            return TuneTrailError(
                f"{self.type} '{self.repo}' has no revision '{self.revision}'",
                f"correct 'revision'; {page}/commits/main lists the commits",
            )
        if status in {401, 403}:
            token = "the token in use has no access: set HF_TOKEN to one that has"
            return TuneTrailError(
                f"{self._what} is not shown to this user (HTTP {status} from {_endpoint()})",
                "correct 'repo' and 'type'; if it is private or gated, "
                + (token if get_token() else "set HF_TOKEN to a token that has access"),
            )
        if status == 404:
            return TuneTrailError(
                f"{self._what} is not on {_endpoint()} (HTTP 404)", "correct 'repo' and 'type'"
            )
        if status is not None:
            return TuneTrailError(
                f"{_endpoint()} answered HTTP {status} for {self._what}", "try again later"
            )
        return self._missing(cause, wanted)

    def _missing(self, error: BaseException, wanted: list[str]) -> TuneTrailError:
        """What is not in the cache while the Hub is out of reach."""
        from huggingface_hub import constants, is_offline_mode, try_to_load_from_cache

        def cached(name: str) -> bool:
            path = try_to_load_from_cache(
                self.repo, name, revision=self.commit, repo_type=self.type
            )
            return isinstance(path, str)

        if is_offline_mode():
            reason = f"HF_HUB_OFFLINE keeps {_endpoint()} from being asked"
            way = "unset HF_HUB_OFFLINE"
        else:
            detail = " ".join(str(error).split())[:200] or type(error).__name__
            reason = f"{_endpoint()} cannot be reached ({detail})"
            way = "restore the connection"
        absent = [name for name in wanted if not cached(name)]
        scope = f"the files of config '{self.config}'" if self.config else "the files"
        return TuneTrailError(
            f"{self._what} is not complete in the cache, and {reason}\n"
            f"  cache   {constants.HF_HUB_CACHE}\n"
            f"  missing {', '.join(absent) or f'the list of files, and {scope}'}",
            f"{way} for one run, or bring the cache (HF_HOME) of a machine that has them",
        )


def _endpoint() -> str:
    """Address of the Hub, for messages: without the credentials that it may contain."""
    from huggingface_hub import constants

    address = urlsplit(os.environ.get("HF_ENDPOINT") or constants.ENDPOINT)
    return address._replace(netloc=address.netloc.rpartition("@")[2]).geturl().rstrip("/")


def _matching(names: Iterable[str], patterns: Iterable[str]) -> list[str]:
    """The names at the top of a repository that match a pattern."""
    top = [name for name in names if "/" not in name]
    return [name for name in top if any(fnmatch.fnmatchcase(name, p) for p in patterns)]
