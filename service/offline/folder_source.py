"""A folder of image files, however deep."""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import pyarrow as pa

from service.offline.errors import cannot_read
from service.offline.items import Item
from service.offline.source import Identity

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp"})
"""The files that are taken for images; what they really are shows when they are decoded."""

# Of so many files one name is remembered, so that a walk can begin there.
_MARK_EVERY = 10_000

Names = tuple[str, ...]


@dataclass(frozen=True)
class FolderSource:
    """The images below `root` in the order of their names. Keys are paths relative to it."""

    root: Path
    identity: Identity
    marks: tuple[Names, ...]
    modality: Literal["image"] = "image"

    @property
    def key_type(self) -> pa.DataType:
        """Text."""
        return pa.string()

    @classmethod
    def open(cls, root: Path) -> Self:
        """Counts the files; none is opened. Raises `SourceUnusable`."""
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
        """The files from number `start` on. Raises `SourceUnusable`."""
        number = start // _MARK_EVERY
        if number >= len(self.marks):
            return
        for index, names in enumerate(_walk(self.root, (), self.marks[number]), number * _MARK_EVERY):
            if index >= start:
                # A name that is no UTF-8 cannot be a string of a parquet file.
                key = os.fsencode("/".join(names)).decode("utf-8", "replace")
                yield Item(key, self.root.joinpath(*names))


def _walk(root: Path, below: Names, begin: Names) -> Iterator[Names]:
    """The images in the folder `below`, from the one at `begin` (relative to the folder) on; one folder in memory."""
    folder = root.joinpath(*below)
    try:
        with os.scandir(folder) as entries:
            found = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries)
    except OSError as error:
        raise cannot_read(folder, error) from error
    for name, is_folder in found:
        if begin and name < begin[0]:
            continue
        if is_folder:
            yield from _walk(root, (*below, name), begin[1:] if begin and name == begin[0] else ())
        elif Path(name).suffix.lower() in SUFFIXES:
            yield (*below, name)


def holds_images(root: Path) -> bool:
    """Whether there is any image below `root`. Raises `SourceUnusable`."""
    return next(_walk(root, (), ()), None) is not None
