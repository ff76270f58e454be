"""Source guess: what a path on the command line holds, so that nobody writes a source by hand to try something out."""

import csv
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet

from training.errors import DataError
from training.recipe import Source

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
_READABLE = "Give a folder of images (one sub-folder per class where they are labelled), a .parquet, .csv or .txt file"
_LABEL = "label"


def guess_source(
    path: Path, data_dir: Path, *, image: str = "image", text: str = "text", label: str | None = None
) -> Source:
    """The source at `path`, named relative to `data_dir`, by what is there.

    `image` and `text` are the columns of the inputs. `label` is that of the classes; where None, sub-folders or a
    column `label` are them, if there are any. Raises DataError for what does not exist or cannot be told.
    """
    if not path.exists():
        raise DataError(str(path), "does not exist", _READABLE)
    where = os.path.relpath(path.resolve(), data_dir.resolve())
    if path.is_dir():
        labelled = _labelled(path)
        return Source(path=where, format="imagefolder", label=_LABEL if labelled or label is not None else None)
    columns = columns_of(path)
    if label is None and _LABEL in columns:
        label = _LABEL
    fields: dict[str, Any] = {"path": where, "image": image, "text": text, "label": label}
    match path.suffix.lower():
        case ".parquet":
            return Source(format="parquet", **fields)
        case ".csv":
            return Source(format="csv", **fields)
        case _:
            # The builder calls the one column that lines of text are `text`.
            return Source(path=where, format="text")


def columns_of(path: Path) -> list[str]:
    """The names of the columns of the file `path`; DataError for a file that is not read here."""
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
    """The number of images below each sub-folder of `path` that is not hidden, by its name in order."""
    folders = sorted(each for each in path.iterdir() if each.is_dir() and not each.name.startswith("."))
    return {folder.name: sum(1 for _ in _images(folder)) for folder in folders}


def _labelled(path: Path) -> bool:
    """Whether the folder's images lie in sub-folders; DataError where there is no image at all."""
    first = next(_images(path), None)
    if first is None:
        raise DataError(str(path), f"holds no image ({', '.join(IMAGE_SUFFIXES)})", _READABLE)
    return not any(each.suffix.lower() in IMAGE_SUFFIXES for each in path.iterdir())


def _images(path: Path) -> Iterator[Path]:
    return (each for each in path.rglob("*") if each.suffix.lower() in IMAGE_SUFFIXES and each.is_file())
