"""The interface of a collection of inputs: its size, its identity, and its items from any position on."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from datafiles import Fault, read_file
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


Kind = Literal["parquet", "images", "csv", "jsonl", "lines"]
"""The format of a collection."""

_ERROR_TYPES = {
    "missing": "empty-input",
    "encoding": "undecodable-text",
    "malformed": "malformed-record",
    "file": "unreadable-file",
    "too-long": "text-too-long",
}


class Identity(BaseModel):
    """Distinguishes a collection from other collections and from its own earlier content."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind
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
            DataFileError: A file cannot be read.
        """


def payload_of(item: Item) -> Payload:
    """Return the input to score, or the error why it cannot be read."""
    if not isinstance(item.content, Path):
        return item.content
    content = read_file(item.content)
    return input_error(content) if isinstance(content, Fault) else content


def input_error(fault: Fault) -> InputError:
    """Return the error of a row whose value cannot be used."""
    return InputError(_ERROR_TYPES[fault.kind], fault.detail)


def fingerprint(files: Iterable[Path]) -> str:
    """Return a digest of the files' names, sizes and modification times; their content is not read."""
    digest = hashlib.sha256()
    for file in files:
        stat = file.stat()
        digest.update(f"{file.name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()
