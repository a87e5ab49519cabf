"""The chain of files behind a model, with their digests, and looking whether they still are."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from tunetrail.files import file_digest, tree_digest

#: Of ``lineage.json``; another one is not read.
FORMAT = 1

#: What a broken link of the chain is called, and so the kinds of ways out.
Kind = Literal["missing", "damaged", "other", "source", "registry"]

#: The copy in the registry, and what sync stores beside it.
REGISTRY = "registry"


@dataclass(frozen=True)
class Link:
    """One file of the chain.

    Attributes:
        step: Part of the chain, such as ``evaluation``.
        path: Relative to the project; below the model's folder in the registry for its copy there.
        sha256: Digest of the file, or of the tree where a source is a folder. None where it is a
            pointer, which itself pins what it points to.
        cell: The stage in DVC's graph that writes it; empty for sources and the registry.
    """

    step: str
    path: str
    sha256: str | None
    cell: str


@dataclass(frozen=True)
class Break:
    """The first link that is not as it was.

    Attributes:
        step: As of the link.
        file: What is not as it was.
        kind: ``missing``; ``damaged``: it is not what its stage wrote; ``other``: it is what its
            stage wrote, later; ``source``: what is read, not written; ``registry``.
        algorithm: Of both digests.
        expected: Digest that the chain names.
        actual: Digest of the bytes now there; empty for a missing file.
        fix: The way out.
    """

    step: str
    file: str
    kind: Kind
    algorithm: str
    expected: str
    actual: str
    fix: str


def first_break(
    chain: Iterable[Link],
    root: Path,
    recorded: Mapping[str, str],
    commit: str,
    looked_at: Callable[[Link], None],
) -> Break | None:
    """The first link of the project that is not as it was; None where all are.

    Args:
        chain: Links, without those of the registry.
        root: The project.
        recorded: File → md5 in dvc.lock (``Dag.recorded``).
        commit: Commit of the results, for the way out.
        looked_at: Called after each link that is as it was.
    """
    for link in chain:
        found = _broken(link, root, recorded, commit)
        if found is not None:
            return found
        looked_at(link)
    return None


def _broken(link: Link, root: Path, recorded: Mapping[str, str], commit: str) -> Break | None:
    path, md5 = root / link.path, recorded.get(link.path)
    if not path.exists():
        missing = ("sha256", link.sha256) if link.sha256 else ("md5", md5 or "")
        return _break(link, "missing" if link.cell else "source", *missing, "", commit)
    as_recorded = md5 is None or path.is_dir() or _md5(path) == md5
    if link.sha256 is not None:
        actual = tree_digest(path) if path.is_dir() else file_digest(path)
        if actual != link.sha256:
            later: Kind = "other" if md5 is not None and as_recorded else "damaged"
            kind: Kind = later if link.cell else "source"
            return _break(link, kind, "sha256", link.sha256, actual, commit)
    if md5 is not None and not as_recorded:
        kind = "damaged" if link.cell else "source"
        return _break(link, kind, "md5", md5, _md5(path), commit)
    return None


def _break(
    link: Link, kind: Kind, algorithm: str, expected: str, actual: str, commit: str
) -> Break:
    return Break(
        link.step, link.path, kind, algorithm, expected, actual, _way_out(link, kind, commit)
    )


def _way_out(link: Link, kind: Kind, commit: str) -> str:
    back = f"git checkout {commit}" if commit else "go back to the commit of the results"
    if kind == "source":
        return (
            f"put back the file that had the expected digest (a backup; `{back} -- {link.path}` if "
            "git has it): `tunetrail run` makes new results from what is there now"
        )
    if kind == "other":
        return (
            "the project has a later result there, which is as dvc.lock says. To check this "
            f"version: `{back}`, then `dvc checkout`"
        )
    if kind == "missing":
        return (
            f"`dvc pull {link.cell}` fetches it where it was pushed; `dvc repro {link.cell}` makes "
            "it again"
        )
    return (
        "`tunetrail verify --discard` removes damaged files and their copies in DVC's cache; then "
        f"`dvc pull {link.cell}` fetches them again where they were pushed, "
        f"`dvc repro {link.cell}` makes them again"
    )


def first_break_in_registry(
    files: Iterable[tuple[str, Path, str]], name: str, version: str
) -> Break | None:
    """The first file of the registered version that is not what was stored; None where all are.

    Args:
        files: Path below the model's folder, where it lies now, and the expected sha256.
        name: Name of the registered model.
        version: Its version.
    """
    for shown, path, expected in files:
        actual = file_digest(path) if path.is_file() else ""
        if actual != expected:
            fix = (
                f"delete version {version} of '{name}' in MLflow (on its page, or "
                "MlflowClient().delete_model_version); `tunetrail sync` in the project then "
                "registers the certified files again"
            )
            file = f"models:/{name}/{version}: {shown}"
            return Break(REGISTRY, file, "registry", "sha256", expected, actual, fix)
    return None


def read_links(lineage: Mapping[str, Any]) -> Iterator[Link]:
    """The links of a stored lineage."""
    return (Link(**link) for link in lineage["links"])


def as_json(chain: Iterable[Link]) -> list[dict[str, Any]]:
    """Links as they are stored."""
    return [asdict(link) for link in chain]


def _md5(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "md5").hexdigest()
