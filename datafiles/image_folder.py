"""Folders of images at any depth, without leftovers, in the order of their names."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath

from bundle import IMAGE_SUFFIXES
from datafiles.errors import DataFileError
from datafiles.leftovers import is_leftover

_REFUSED_SUFFIXES = frozenset({".heic", ".heif", ".jxl", ".jp2", ".psd", ".svg", ".dng", ".cr2", ".nef", ".arw"})
"""Suffixes of pictures that are not decoded: reading them reports what they are, instead of leaving them out."""

PICTURE_SUFFIXES = frozenset(IMAGE_SUFFIXES) | _REFUSED_SUFFIXES
"""The suffixes of the files that are read as images. Decoding decides what a file really holds."""

METADATA_NAMES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
"""The names of files that describe the images of a folder (Hugging Face `imagefolder`): `file_name`, `label`, ..."""

Names = tuple[str, ...]
"""The parts of a path relative to a folder."""


@dataclass(frozen=True)
class ImageFolder:
    """The images below `root`.

    Attributes:
        root: the folder.
        names: the path of each image relative to `root`, in the order of their names.
    """

    root: Path
    names: tuple[Names, ...]

    @classmethod
    def open(cls, root: Path) -> "ImageFolder":
        """List the images below `root`, also in folders that links lead to.

        Raises:
            DataFileError: A folder cannot be read, or a link leads to a folder above it or to nothing.
        """
        return cls(root, tuple(names for names in _linked_files(root) if is_image(names[-1])))

    def path(self, index: int) -> Path:
        """The path of an image."""
        return self.root.joinpath(*self.names[index])


def image_names(root: Path, begin: Names = ()) -> Iterator[Names]:
    """Yield the images below `root` from the relative path `begin` on, with one folder's names in memory.

    Links to folders are not followed.

    Raises:
        DataFileError: A folder cannot be read.
    """
    for names in _files(root, (), begin):
        if is_image(names[-1]):
            yield names


def class_folders(root: Path) -> dict[str, int]:
    """The number of images below each sub-folder of `root` that is no leftover, in alphabetical order.

    Raises:
        DataFileError: A folder cannot be read, or a link leads to a folder above it or to nothing.
    """
    folders = [name for name, is_folder in _children(root, follow_links=True) if is_folder]
    return {name: len(ImageFolder.open(root / name).names) for name in folders}


def metadata_files(root: Path) -> list[Path]:
    """The files below `root` that describe its images, also in folders that links lead to."""
    return [root.joinpath(*names) for names in _linked_files(root) if names[-1].lower() in METADATA_NAMES]


def is_image(name: str) -> bool:
    """Whether a file of this name is an image."""
    return PurePath(name).suffix.lower() in PICTURE_SUFFIXES


def _files(root: Path, below: Names, begin: Names) -> Iterator[Names]:
    for name, is_folder in _children(root.joinpath(*below), follow_links=False):
        if begin and name < begin[0]:
            continue
        if is_folder:
            yield from _files(root, (*below, name), begin[1:] if begin and name == begin[0] else ())
        else:
            yield (*below, name)


def _linked_files(folder: Path, below: Names = (), above: tuple[Path, ...] = ()) -> Iterator[Names]:
    """The files in `folder` and in the folders and links to folders below it.

    Args:
        folder: The folder.
        below: Its path relative to the folder that is listed.
        above: The folders from that folder to this one, without links.
    """
    resolved = folder.resolve()
    if resolved in above:
        raise DataFileError(folder, "is a link to a folder above it", "Remove the link")
    for name, is_folder in _children(folder, follow_links=True):
        if is_folder:
            yield from _linked_files(folder / name, (*below, name), (*above, resolved))
        elif not is_image(name) and not (folder / name).exists():
            # It may be the link to a folder of images.
            raise DataFileError(folder / name, "is a link to nothing", "Restore its target or remove the link")
        else:
            yield (*below, name)


def _children(folder: Path, *, follow_links: bool) -> list[tuple[str, bool]]:
    """The names in `folder` that are no leftovers, and whether each is a folder or, if asked for, a link to one."""
    try:
        with os.scandir(folder) as entries:
            return sorted(
                (entry.name, entry.is_dir(follow_symlinks=follow_links))
                for entry in entries
                if not is_leftover(entry.name)
            )
    except OSError as error:
        raise DataFileError(folder, f"cannot be read: {error.strerror or error}", "Make it readable") from error
