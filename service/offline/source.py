"""The interface of a collection of inputs: its size, its identity, and its items from any position on."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from service.errors import InputError
from service.inputs.payloads import Payload


@dataclass(frozen=True, slots=True)
class Item:
    """One input of a collection.

    Attributes:
        key: Identifies the input in the output.
        content: The input, or the path of its file, which is read by `payload_of` on the thread that scores the input.
    """

    key: object
    content: Payload | Path


class Identity(BaseModel):
    """Distinguishes a collection from other collections and from its own earlier content."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["parquet", "images", "csv", "jsonl", "lines"]
    path: str
    column: str | None
    key: str | None
    inputs: int
    fingerprint: str


class Source(Protocol):
    """A collection of inputs. It can be pickled: workers of a cluster open the same files."""

    @property
    def modality(self) -> Literal["image", "text"]:
        """The modality of its inputs."""

    @property
    def key_type(self) -> pa.DataType:
        """The type of its keys."""

    @property
    def identity(self) -> Identity:
        """Its identity."""

    def items(self, start: int) -> Iterator[Item]:
        """Yield the inputs in order from number `start` on; only a few of them are in memory.

        Raises:
            SourceUnusable: A file cannot be read.
        """


def payload_of(item: Item) -> Payload:
    """Return the input to score, or the error why it cannot be read."""
    if not isinstance(item.content, Path):
        return item.content
    try:
        return item.content.read_bytes()
    except OSError as error:
        return InputError("unreadable-file", f"The file cannot be read: {error.strerror or error}")


def missing_value() -> InputError:
    """Return the error of a row whose value is null or absent."""
    return InputError("empty-input", "There is no value in this row.")


def fingerprint(files: Iterable[Path]) -> str:
    """Return a digest of the files' names, sizes and modification times; their content is not read."""
    digest = hashlib.sha256()
    for file in files:
        stat = file.stat()
        digest.update(f"{file.name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()
