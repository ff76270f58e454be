"""A folder of image files, at any depth."""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import pyarrow as pa

from datafiles import image_names
from service.offline.source import Identity, Item

# One name is kept for this many files, so that a walk can start there.
_MARK_EVERY = 10_000

Names = tuple[str, ...]


@dataclass(frozen=True)
class FolderSource:
    """The images below `root` in the order of their names; keys are paths relative to `root`."""

    root: Path
    identity: Identity
    marks: tuple[Names, ...]
    modality: Literal["image"] = "image"

    @property
    def key_type(self) -> pa.DataType:
        """Strings."""
        return pa.string()

    @classmethod
    def open(cls, root: Path) -> Self:
        """Count the files without opening them.

        Raises:
            DataFileError: A folder cannot be read.
        """
        digest = hashlib.sha256()
        marks: list[Names] = []
        count = 0
        for names in image_names(root):
            if count % _MARK_EVERY == 0:
                marks.append(names)
            digest.update(os.fsencode("/".join(names)) + b"\n")
            count += 1
        identity = Identity(
            kind="images", path=str(root), column=None, key=None, inputs=count, fingerprint=digest.hexdigest()
        )
        return cls(root, identity, tuple(marks))

    def items(self, start: int) -> Iterator[Item]:
        """Yield the files from number `start` on.

        Raises:
            DataFileError: A folder cannot be read.
        """
        mark = start // _MARK_EVERY
        if mark >= len(self.marks):
            return
        for index, names in enumerate(image_names(self.root, self.marks[mark]), mark * _MARK_EVERY):
            if index >= start:
                # Strings of a parquet file are UTF-8; file names need not be.
                key = os.fsencode("/".join(names)).decode("utf-8", "replace")
                yield Item(key, self.root.joinpath(*names))


def holds_images(root: Path) -> bool:
    """Whether there is any image below `root`.

    Raises:
        DataFileError: A folder cannot be read.
    """
    return next(image_names(root), None) is not None
