"""Source guess: finds the format of a path on the command line, so that no source has to be written by hand."""

import csv
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet

from bundle import IMAGE_SUFFIXES
from training.errors import DataError
from training.recipe import Source

_READABLE = "Give a folder of images (one sub-folder per class where they are labelled), a .parquet, .csv or .txt file"
_LABEL = "label"


def guess_source(
    path: Path, data_dir: Path, *, image: str = "image", text: str = "text", label: str | None = None
) -> Source:
    """The source at `path`, by the kind of file or folder.

    Args:
        path: A folder of images, or a .parquet, .csv or .txt file.
        data_dir: The folder that the source's path is relative to.
        image: The column of images in a table.
        text: The column of texts in a table.
        label: The column of classes. By default the column `label` or, in a folder, the sub-folders, if there are any.

    Raises:
        DataError: The path does not exist or is of another kind.
    """
    if not path.exists():
        raise DataError(str(path), "does not exist", _READABLE)
    relative = os.path.relpath(path.resolve(), data_dir.resolve())
    if path.is_dir():
        has_labels = _has_class_folders(path) or label is not None
        return Source(path=relative, format="imagefolder", label=_LABEL if has_labels else None)
    columns = columns_of(path)
    if label is None and _LABEL in columns:
        label = _LABEL
    fields: dict[str, Any] = {"path": relative, "image": image, "text": text, "label": label}
    match path.suffix.lower():
        case ".parquet":
            return Source(format="parquet", **fields)
        case ".csv":
            return Source(format="csv", **fields)
        case _:
            # The builder for lines of text names its column `text`.
            return Source(path=relative, format="text")


def columns_of(path: Path) -> list[str]:
    """The column names of a .parquet, .csv or .txt file; DataError for another kind or an unreadable file."""
    try:
        match path.suffix.lower():
            case ".parquet":
                return [str(name) for name in pyarrow.parquet.read_schema(path).names]
            case ".csv":
                with path.open(newline="", encoding="utf-8-sig") as file:
                    return next(csv.reader(file), [])
            case ".txt":
                return ["text"]
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(str(path), f"cannot be read: {error}", _READABLE) from error
    raise DataError(str(path), "is of no kind that is read here", _READABLE)


def class_folders(path: Path) -> dict[str, int]:
    """The number of images in each sub-folder of `path`, by its name in alphabetical order; without hidden folders."""
    folders = sorted(folder for folder in path.iterdir() if folder.is_dir() and not folder.name.startswith("."))
    return {folder.name: sum(1 for _ in _images(folder)) for folder in folders}


def _has_class_folders(path: Path) -> bool:
    """Whether all images of the folder are in sub-folders; DataError if there are none."""
    if next(_images(path), None) is None:
        raise DataError(str(path), f"holds no image ({', '.join(IMAGE_SUFFIXES)})", _READABLE)
    return not any(file.suffix.lower() in IMAGE_SUFFIXES for file in path.iterdir())


def _images(path: Path) -> Iterator[Path]:
    return (file for file in path.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file())
