"""Kind ``package``: a member of a distribution on the configured Python package index.

The distribution is downloaded and unpacked, never installed, and none of its code runs. Index,
mirrors and certificates are those that pip is configured with on this machine.
"""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from tunetrail.errors import TuneTrailError
from tunetrail.files import STATE_DIR, check_file, file_digest, stays_inside
from tunetrail.machine import from_machine
from tunetrail.settings import Settings


class PackageSource(Settings):
    """A pinned member of a wheel or source distribution."""

    kind: Literal["package"] = "package"
    name: str = Field(description="distribution name on the package index")
    version: str = Field(description="exact version")
    sha256: str = Field(pattern="^[0-9a-f]{64}$", description="digest of the distribution file")
    member: str = Field(description="file, archive or folder inside the distribution")
    files: dict[str, str] = Field(
        default_factory=dict, description="sha256 of files below the member, checked as well"
    )
    licence: str = Field(default="unknown", description="licence of the content")

    @field_validator("member")
    @classmethod
    def _inside(cls, value: str) -> str:
        if not stays_inside(value):
            raise ValueError("must be a path inside the distribution")
        return value

    def fetch(self, scratch: Path) -> Path:
        """Unpack the member into ``scratch``; an archive inside the distribution is opened too."""
        archive = self._download()
        unpacked = scratch / "distribution"
        _unpack(archive, unpacked)
        top = [p for p in unpacked.iterdir() if p.is_dir()]
        found = next(
            (p for p in (unpacked / self.member, *(t / self.member for t in top)) if p.exists()),
            None,
        )
        if found is None:
            raise TuneTrailError(
                f"'{self.member}' is not in {archive.name}", "correct 'member' in the source file"
            )
        if found.is_file() and found.name.endswith((".zip", ".tar.gz", ".tgz", ".tar")):
            inner = scratch / "member"
            _unpack(found, inner)
            found = inner
        for name, expected in self.files.items():
            check_file(found / name, Path(name).name, expected)
        return found

    def provenance(self) -> dict[str, str]:
        """Distribution, version, member and the digest that was checked."""
        return {
            "kind": "package",
            "package": f"{self.name}=={self.version}",
            "member": self.member,
            "sha256": self.sha256,
            "licence": self.licence,
        }

    def _download(self) -> Path:
        """The distribution file, from the download cache when it is there and intact."""
        cached = cache_folder() / self.sha256
        for path in cached.glob("*"):
            if not path.name.startswith(".") and file_digest(path) == self.sha256:
                return path
        # Imported here: it is only needed when there is something to download.
        from unearth import PackageFinder

        options = _pip_configuration()
        finder = PackageFinder(
            session=_client(options),
            index_urls=[*options["index-url"], *options["extra-index-url"]],
            find_links=options["find-links"],
            ignore_compatibility=True,
        )
        requirement = f"{self.name}=={self.version}"
        try:
            links = [match.link for match in finder.find_matches(requirement)]
        except Exception as error:  # any transport error of the index client
            raise self._unreachable(str(error)) from None
        if not links:
            raise self._unreachable("no such distribution was offered")
        digests = {
            link.filename: (link.hash_option or {}).get("sha256", [None])[0] for link in links
        }
        wanted = [link for link in links if digests[link.filename] == self.sha256]
        if not wanted and all(digests.values()):
            offered = "; ".join(f"{name} {digest}" for name, digest in digests.items())
            raise TuneTrailError(
                f"{requirement}: no file has the required digest\n"
                f"  required sha256 {self.sha256}\n  offered  sha256 {offered}",
                "the index serves other bytes than were pinned: check where they come from "
                "before you change 'sha256'",
            )
        link = (wanted or links)[0]
        cached.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".", dir=cached) as folder:
            temporary = Path(folder) / link.filename
            try:
                _stream(finder.session, link, temporary)
            except Exception as error:  # any transport error of the index client
                raise from_machine(error) or self._unreachable(str(error)) from None
            check_file(temporary, link.filename, self.sha256)
            target: Path = cached / link.filename
            os.replace(temporary, target)
        return target

    def _unreachable(self, reason: str) -> TuneTrailError:
        return TuneTrailError(
            f"{self.name}=={self.version} cannot be fetched from the package index: {reason}",
            "check the network, and the index with `pip config list`",
        )


def cache_folder() -> Path:
    """Where downloads are kept, by digest, for every project of this user."""
    chosen = os.environ.get("TUNETRAIL_CACHE")
    if chosen:
        return Path(chosen)
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tunetrail"
    try:
        home.mkdir(parents=True, exist_ok=True)
        writable = os.access(home, os.W_OK)
    except OSError:
        writable = False
    return home if writable else STATE_DIR / "cache"


def index_urls() -> list[str]:
    """The package indexes that pip is configured with on this machine."""
    options = _pip_configuration()
    return [*options["index-url"], *options["extra-index-url"]]


def _pip_configuration() -> dict[str, list[str]]:
    """Index settings as pip resolves them here (files and environment)."""
    keys = ("index-url", "extra-index-url", "find-links", "trusted-host", "cert")
    options: dict[str, list[str]] = {key: [] for key in keys}
    listing = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    ).stdout
    # The environment wins over configuration files, in whatever order pip prints them.
    for line in sorted(listing.splitlines(), key=lambda text: text.startswith(":env:")):
        name, _, value = line.partition("=")
        key = name.rsplit(".", 1)[-1]
        if key in options:
            options[key] = value.strip("'\"").replace("\\n", " ").split()
    if not options["index-url"]:
        from pip._internal.models.index import PyPI

        options["index-url"] = [PyPI.simple_url]
    return options


def _client(options: dict[str, list[str]]):  # type: ignore[no-untyped-def]
    from unearth.fetchers import PyPIClient

    verify = ssl.create_default_context(cafile=options["cert"][0]) if options["cert"] else True
    return PyPIClient(verify=verify, trusted_hosts=options["trusted-host"])


def _stream(session, link, target: Path) -> None:  # type: ignore[no-untyped-def]
    """Download ``link`` to ``target`` with a progress bar on a terminal."""
    from tqdm import tqdm

    if link.is_file:
        shutil.copyfile(link.file_path, target)
        return
    with session.get_stream(link.normalized) as response, target.open("wb") as handle:
        response.raise_for_status()
        size = int(response.headers.get("content-length") or 0) or None
        bar = tqdm(total=size, unit="B", unit_scale=True, desc=link.filename, disable=None)
        with bar:
            for block in response.iter_bytes(1 << 16):
                bar.update(handle.write(block))


def _unpack(archive: Path, target: Path) -> None:
    """Unpack zip, wheel or tar; members that would leave ``target`` are refused."""
    target.mkdir(parents=True)
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as bundle:
                bundle.extractall(target)
        elif tarfile.is_tarfile(archive):
            with tarfile.open(archive) as bundle:
                bundle.extractall(target, filter="data")
        else:
            raise TuneTrailError(f"{archive.name} is neither zip nor tar", "check the source file")
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        raise from_machine(error) or TuneTrailError(
            f"{archive.name} cannot be unpacked: {error}", "check where the file comes from"
        ) from None
