"""A folder of image files, at any depth."""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import pyarrow as pa

from bundle import IMAGE_SUFFIXES
from service.offline.errors import unreadable_source
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
            SourceUnusable: A folder cannot be read.
        """
        digest = hashlib.sha256()
        marks: list[Names] = []
        count = 0
        for names in _walk(root, (), ()):
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
            SourceUnusable: A folder cannot be read.
        """
        mark = start // _MARK_EVERY
        if mark >= len(self.marks):
            return
        for index, names in enumerate(_walk(self.root, (), self.marks[mark]), mark * _MARK_EVERY):
            if index >= start:
                # Strings of a parquet file are UTF-8; file names need not be.
                key = os.fsencode("/".join(names)).decode("utf-8", "replace")
                yield Item(key, self.root.joinpath(*names))


def _walk(root: Path, below: Names, begin: Names) -> Iterator[Names]:
    """Yield the images in the folder `below`, from the relative path `begin` on, with one folder's names in memory."""
    folder = root.joinpath(*below)
    try:
        with os.scandir(folder) as entries:
            children = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries)
    except OSError as error:
        raise unreadable_source(folder, error) from error
    for name, is_folder in children:
        if begin and name < begin[0]:
            continue
        if is_folder:
            yield from _walk(root, (*below, name), begin[1:] if begin and name == begin[0] else ())
        elif Path(name).suffix.lower() in IMAGE_SUFFIXES:
            yield (*below, name)


def holds_images(root: Path) -> bool:
    """Whether there is any image below `root`.

    Raises:
        SourceUnusable: A folder cannot be read.
    """
    return next(_walk(root, (), ()), None) is not None
