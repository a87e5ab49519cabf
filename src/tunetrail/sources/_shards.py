"""Splits of a dataset repository: which files they are, and one file for the shards of each."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from tunetrail.errors import TuneTrailError
from tunetrail.task import Split

#: Where the Hub itself keeps a dataset that it converted to Parquet.
CONVERTED = "refs/convert/parquet"

#: Formats of datasets, the preferred one first.
FORMATS = (".parquet", ".jsonl", ".csv", ".tsv")

#: ``train-00000-of-00002.parquet``, with or without the digest that older uploads have.
_SHARD = re.compile(r"(?P<split>.+)-\d{5}-of-(?P<count>\d{5})(-[0-9a-f]{16})?")


def layouts_of(names: Iterable[str]) -> dict[str, dict[str, list[str]]]:
    """Configuration → split → its files.

    ``mrpc/train-00000-of-00001.parquet`` and ``mrpc/train.jsonl`` are split ``train`` of
    configuration ``mrpc``, and so is ``mrpc/train/0000.parquet``, the layout of the Hub's own
    conversions. Files at the top are configuration ``.``.
    """
    found: dict[str, dict[str, list[str]]] = {}
    for name in names:
        path = PurePosixPath(name)
        shard = _SHARD.fullmatch(path.stem)
        folder, split = path.parent, shard["split"] if shard else path.stem
        if split.isdigit() and folder.name:
            folder, split = folder.parent, folder.name
        found.setdefault(folder.as_posix(), {}).setdefault(split, []).append(name)
    return found


def complete(shards: list[str], split: str, what: str) -> list[str]:
    """The shards of a split, which must be as many as their names say.

    Raises:
        TuneTrailError: Some are not there.
    """
    counts = {int(m["count"]) for s in shards if (m := _SHARD.fullmatch(PurePosixPath(s).stem))}
    if counts and counts != {len(shards)}:
        raise TuneTrailError(
            f"{what}: split '{split}' has {len(shards)} of {max(counts)} shards",
            "choose a revision with all of them",
        )
    return shards


def join(shards: list[Path], folder: Path, split: Split) -> None:
    """Make the shards of a split one file, ``folder/split.suffix``.

    Raises:
        TuneTrailError: They do not fit each other, or are in a format that cannot be joined.
    """
    suffix = shards[0].suffix
    target = folder / f"{split}{suffix}"
    if len(shards) == 1:
        target.symlink_to(shards[0])
    elif suffix == ".parquet":
        _join_parquet(shards, target)
    elif suffix == ".jsonl":
        with target.open("wb") as out:
            for shard in shards:
                with shard.open("rb") as lines:
                    shutil.copyfileobj(lines, out)
                out.write(b"\n")  # an empty line between two files is no row
    else:
        raise TuneTrailError(
            f"split '{split}' is {len(shards)} {suffix} files, which cannot be joined exactly",
            f"use a revision with Parquet files (the Hub's conversion is '{CONVERTED}')",
        )


def _join_parquet(shards: list[Path], target: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        pq.write_table(pa.concat_tables([pq.ParquetFile(path).read() for path in shards]), target)
    except pa.ArrowInvalid as error:
        raise TuneTrailError(
            f"the shards of split '{target.stem}' do not fit each other: {str(error)[:200]}",
            "choose another revision of the repository",
        ) from None
