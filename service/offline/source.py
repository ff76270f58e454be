"""The interface of a collection: how many inputs it has, what it is known by, and its inputs from any place on."""

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, Protocol

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from service.offline.items import Item


class Identity(BaseModel):
    """What tells a collection from another one, or from itself after a change."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["parquet", "images", "csv", "jsonl", "lines"]
    path: str
    column: str | None
    key: str | None
    inputs: int
    fingerprint: str


class Source(Protocol):
    """A collection. It can be pickled: workers of a cluster open the same files."""

    @property
    def modality(self) -> Literal["image", "text"]:
        """What its inputs are."""

    @property
    def key_type(self) -> pa.DataType:
        """The type of its keys."""

    @property
    def identity(self) -> Identity:
        """What it is known by."""

    def items(self, start: int) -> Iterator[Item]:
        """Its inputs in order, from number `start` on; only a few of them are in memory. Raises `SourceUnusable`."""


def fingerprint(files: Iterable[Path]) -> str:
    """A digest of the files' names, sizes and times of change; their content is not read."""
    digest = hashlib.sha256()
    for file in files:
        stat = file.stat()
        digest.update(f"{file.name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()
