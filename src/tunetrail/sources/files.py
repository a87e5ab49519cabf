"""Kind ``files``: data on this machine, or behind any URL that fsspec can read.

A plain path is used where it is. A pointer file with ``kind: files`` names a URL (``https://``,
``s3://``, ``gs://``, ``zip://…::https://…``, and so on). Credentials are found by its protocol and
never stand in the pointer, which is committed.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qsl, urlsplit

from pydantic import Field, PrivateAttr, field_validator

from tunetrail.errors import TuneTrailError, unknown
from tunetrail.files import check_digest, file_digest, stays_inside, tree_digest
from tunetrail.machine import from_machine
from tunetrail.settings import Settings

#: Words that make a storage option, or a parameter of a URL, a secret.
_SECRET = {
    "auth", "authorization", "cookie", "credential", "credentials", "key", "pass", "passphrase",
    "passwd", "password", "pwd", "sas", "secret", "sig", "signature", "token",
}  # fmt: skip


@dataclass(frozen=True)
class LocalFiles:
    """A file or folder on this machine, read where it is."""

    path: Path
    kind: str = "files"

    def fetch(self, scratch: Path) -> Path:
        """The path itself; nothing is copied."""
        return self.path

    def provenance(self) -> dict[str, str]:
        """Path (as given) and the digest of the bytes now there."""
        return {
            "kind": self.kind,
            "path": self.path.as_posix(),
            "sha256": _digest(self.path),
            "licence": "unknown",
        }


class FilesSource(Settings):
    """A file, or the files of a folder or a glob, behind a URL."""

    kind: Literal["files"] = "files"
    url: str = Field(description="any URL that fsspec reads; with a glob or a folder: its files")
    sha256: str | None = Field(
        default=None, pattern="^[0-9a-f]{64}$", description="digest of the file or folder, checked"
    )
    version: str = Field(
        default="", description="any text; a new one makes what was read from the URL stale"
    )
    options: dict[str, Any] = Field(
        default_factory=dict, description="storage options for fsspec, without secrets"
    )
    licence: str = Field(default="unknown", description="licence of the content")

    _actual: str = PrivateAttr(default="")

    @field_validator("url")
    @classmethod
    def _readable(cls, value: str) -> str:
        from fsspec.registry import known_implementations

        if "://" not in value:
            raise ValueError(
                "not a URL (a file on this machine is a source itself: write its path instead of "
                "the pointer's)"
            )
        for part in value.split("::"):
            protocol = part.partition("://")[0]
            if protocol == "hf":
                raise ValueError("use a pointer of the kind 'hub' for the Hugging Face Hub")
            if protocol not in known_implementations:
                raise unknown("protocol", protocol, known_implementations, "url")
            try:
                parsed = urlsplit(part)
            except ValueError:
                continue  # brackets of a glob, not of an address
            if parsed.password is not None:
                raise _secret("a password in the URL")
            for name, _ in parse_qsl(parsed.query):
                if _is_secret(name):
                    raise _secret(f"the parameter '{name}' of the URL")
        return value

    @field_validator("options")
    @classmethod
    def _without_secrets(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name in _keys(value):
            if _is_secret(name):
                raise _secret(f"the storage option '{name}'")
        return value

    def fetch(self, scratch: Path) -> Path:
        """Download to ``scratch``; a glob or a folder becomes a folder."""
        target = scratch / "files"
        with self._explained():
            files, single = self._download(target)
        if not files:
            raise TuneTrailError(f"{self.url} matches no file", "correct 'url'")
        found = files[0] if single else target
        self._actual = _digest(found)
        if self.sha256 is not None:
            check_digest(self.url, self.sha256, self._actual)
        return found

    def provenance(self) -> dict[str, str]:
        """URL, version, and the digest of what was fetched."""
        found = {"kind": self.kind, "url": self.url, "version": self.version}
        found |= {"sha256": self._actual or self.sha256 or "", "licence": self.licence}
        return {key: value for key, value in found.items() if value}

    def _download(self, target: Path) -> tuple[list[Path], bool]:
        """The local files, and whether the URL names one file and not a set of them."""
        import fsspec
        from fsspec.callbacks import TqdmCallback

        system, path = fsspec.url_to_fs(self.url, **self.options)
        web = {"http", "https"} & {system.protocol, *system.protocol}
        # What follows the question mark of a web address belongs to no name.
        name = path.partition("?")[0] if web else path
        single = False
        if glob.has_magic(name):
            root = re.split(r"[*?\[]", name)[0].rpartition("/")[0]
            found = system.glob(path, detail=True)
            remote = sorted(p for p, about in found.items() if about["type"] == "file")
        elif self.url.split("::")[0].endswith("/") or (not web and system.isdir(path)):
            root = name.rstrip("/")
            remote = sorted(system.find(path))
        else:
            root = name.rpartition("/")[0]
            remote, single = [path], True
        local = []
        for file in remote:
            relative = (name if single else file).removeprefix(root).lstrip("/")
            if not stays_inside(relative):
                raise TuneTrailError(
                    f"{self.url} has a file '{relative}', which would leave its folder",
                    "check where it comes from",
                )
            local.append(target / relative)
            local[-1].parent.mkdir(parents=True, exist_ok=True)
        bar = TqdmCallback(tqdm_kwargs={"disable": None, "desc": "files", "leave": False})
        system.get(remote, [str(file) for file in local], callback=bar)
        return local, single

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Whatever a protocol raises, as an error a user can act on."""
        try:
            yield
        except TuneTrailError:
            raise
        except ImportError as error:
            missing = getattr(error.__cause__, "name", None) or error.name
            raise TuneTrailError(
                f"{self.url} needs a package that is not installed ({error})",
                f"pip install {missing}" if missing else "install what it names",
            ) from None
        except FileNotFoundError:
            raise TuneTrailError(f"{self.url} does not exist", "correct 'url'") from None
        except PermissionError as error:
            raise TuneTrailError(
                f"{self.url} may not be read: {error}",
                "give access by the environment or the provider's credential file",
            ) from None
        except Exception as error:  # every protocol has transport errors of its own
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            whole = "; an archive on a server without range requests: '::simplecache::http…'"
            raise from_machine(error) or TuneTrailError(
                f"{self.url} cannot be fetched: {reason}",
                "check the address, the network and the 'options'" + whole * ("::" in self.url),
            ) from None


def _digest(path: Path) -> str:
    return tree_digest(path) if path.is_dir() else file_digest(path)


def _keys(value: Any) -> Iterator[str]:
    """Every key of nested storage options."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield str(key)
            yield from _keys(inner)


def _is_secret(name: str) -> bool:
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)
    return any(word.lower() in _SECRET for word in re.findall(r"[A-Za-z0-9]+", words))


def _secret(what: str) -> TuneTrailError:
    return TuneTrailError(
        f"{what} is a secret, and a pointer file is committed",
        "remove it (and withdraw it if it was shared): use the environment or the provider's "
        "credential file, for example AWS_PROFILE or GOOGLE_APPLICATION_CREDENTIALS",
    )
