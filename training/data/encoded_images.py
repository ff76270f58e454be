"""Encoded images: the image files of a source, read in order, and at random from an Arrow file."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from datafiles import Fault, Table, as_image, read_file

Encoded = bytes | Path | Fault
"""An image's bytes, the path of its file, or the reason why there is neither."""


class EncodedImages(Protocol):
    """The encoded images of a source's selected rows."""

    def __len__(self) -> int: ...

    @property
    def fingerprint(self) -> str:
        """A hash of the names, sizes and modification times of the files."""
        ...

    def at(self, indices: NDArray[np.int64]) -> "EncodedImages":
        """The images at ascending `indices`."""
        ...

    def read(self) -> Iterator[Encoded]:
        """Yield the images in order, a few of them in memory."""
        ...

    def file(self, index: int) -> str | None:
        """The path of an image's file, for messages; None if it has none."""
        ...


@dataclass(frozen=True)
class ImageFiles:
    """Images in files of their own."""

    files: tuple[Path | Fault, ...]

    def __len__(self) -> int:
        return len(self.files)

    @property
    def fingerprint(self) -> str:
        """A hash of the names, sizes and modification times of the files."""
        return _state(self.files)

    def at(self, indices: NDArray[np.int64]) -> "ImageFiles":
        """The images at ascending `indices`."""
        return ImageFiles(tuple(self.files[index] for index in indices.tolist()))

    def read(self) -> Iterator[Encoded]:
        """Yield the paths in order."""
        yield from self.files

    def file(self, index: int) -> str | None:
        """The path of an image's file."""
        path = self.files[index]
        return None if isinstance(path, Fault) else str(path)


class ImageTable(Table, Protocol):
    """A table that can hold images."""

    @property
    def files(self) -> Sequence[Path]:
        """The files of the table."""
        ...

    def holds_all_bytes(self, column: str) -> bool:
        """Whether every row of an image column is known to have bytes and to name no file."""
        ...


@dataclass(frozen=True)
class TableImages:
    """Images in the column of tables.

    Attributes:
        tables: the tables, one after the other.
        column: the column.
        rows: the numbers of the selected rows, ascending.
    """

    tables: tuple[ImageTable, ...]
    column: str
    rows: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def fingerprint(self) -> str:
        """A hash of the names, sizes and modification times of the files, and of the files that rows name."""
        named = [] if all(table.holds_all_bytes(self.column) for table in self.tables) else list(self.read())
        files = [file for table in self.tables for file in table.files]
        return _state(files + [item for item in named if isinstance(item, Path)])

    def at(self, indices: NDArray[np.int64]) -> "TableImages":
        """The images at ascending `indices`."""
        return TableImages(self.tables, self.column, self.rows[indices])

    def read(self) -> Iterator[Encoded]:
        """Yield the images in order."""
        wanted = iter(self.rows.tolist())
        next_row = next(wanted, None)
        first = 0
        for table in self.tables:
            n = table.count()
            if next_row is None:
                return
            if next_row < first + n:
                start = next_row - first
                for row, (value,) in enumerate(table.read([self.column], start), first + start):
                    if row == next_row:
                        yield as_image(value, table.path.parent)
                        next_row = next(wanted, None)
                        if next_row is None or next_row >= first + n:
                            break
            first += n

    def file(self, index: int) -> str | None:  # noqa: ARG002
        """None: the images are in the tables."""
        return None


@dataclass(frozen=True)
class StoredImages:
    """Images in an Arrow file that is memory-mapped: any of them can be read at once."""

    path: Path

    def __getitem__(self, rows: Sequence[int]) -> list[bytes]:
        column = _mapped(self.path)
        return [column[row].as_py() for row in rows]


class ImageStore:
    """Writes the Arrow file of `StoredImages`."""

    def __init__(self, path: Path) -> None:
        self._schema = pa.schema([("image", pa.large_binary())])
        self._writer = pa.ipc.new_file(path, self._schema)

    def add(self, images: Sequence[bytes]) -> None:
        """Append images."""
        self._writer.write_batch(pa.record_batch([pa.array(images, pa.large_binary())], schema=self._schema))

    def close(self) -> None:
        """Finish the file."""
        self._writer.close()


def encoded_bytes(image: Encoded) -> bytes | Fault:
    """The bytes of an image; those of a file are read."""
    return read_file(image) if isinstance(image, Path) else image


@lru_cache(maxsize=16)
def _mapped(path: Path) -> Any:
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all().column("image")


def _state(files: Sequence[Path | Fault]) -> str:
    digest = hashlib.sha256()
    for file in files:
        if isinstance(file, Fault):
            digest.update(f"{file.detail}\n".encode("utf-8", "surrogateescape"))
            continue
        try:
            stat = file.stat()
        except OSError:
            digest.update(f"{file}\0absent\n".encode("utf-8", "surrogateescape"))
            continue
        digest.update(f"{file}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
