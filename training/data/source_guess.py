"""Source guess: finds the format and the splits of a path on the command line."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from datafiles import DataFileError, ImageFolder, metadata_files, open_table, printable
from datafiles import class_folders as folders_below
from training.errors import DataError
from training.recipe import Source

_READABLE = (
    "Give a folder of images (one sub-folder per class where they are labelled), a .parquet, .csv, .jsonl or .txt"
)
_LABEL = "label"
_TRAIN = frozenset({"train", "training"})
_HELD_OUT = frozenset({"val", "valid", "validation", "test", "testing"})
"""The names of folders that hold the splits of a data set."""
_FORMATS = {".parquet": "parquet", ".csv": "csv", ".tsv": "csv", ".jsonl": "json", ".ndjson": "json", ".json": "json"}

__all__ = ["class_folders", "columns_of", "guess_source", "holds_texts", "require_no_splits", "train_and_test_folders"]


def guess_source(
    path: Path, data_dir: Path, *, image: str = "image", text: str = "text", label: str | None = None
) -> Source:
    """The source at `path`, by the kind of file or folder.

    Args:
        path: A folder of images, or a table.
        data_dir: The folder that the source's path is relative to.
        image: The column of images in a table.
        text: The column of texts in a table.
        label: The column of classes. By default the column `label` or, in a folder, the sub-folders, if there are any,
            unless they are splits, or the column `label` of its metadata file.

    Raises:
        DataError: The path does not exist or is of another kind.
    """
    if not path.exists():
        raise DataError(str(path), "does not exist", _READABLE)
    relative = os.path.relpath(path.resolve(), data_dir.resolve())
    if printable(relative) != relative:
        raise DataError(printable(relative), "has a name that is no printable UTF-8", "Rename it")
    if path.is_dir():
        has_labels = label is not None or _is_labelled(path)
        return Source(path=relative, format="imagefolder", label=(label or _LABEL) if has_labels else None)
    columns = columns_of(path)
    if label is None and _LABEL in columns:
        label = _LABEL
    fields: dict[str, Any] = {"path": relative, "image": image, "text": text, "label": label}
    if (file_format := _FORMATS.get(path.suffix.lower())) is not None:
        return Source.model_validate(fields | {"format": file_format})
    # The only column of lines of text is `text`.
    return Source(path=relative, format="text")


def columns_of(path: Path) -> list[str]:
    """The column names of a table; DataError for another kind or an unreadable file."""
    try:
        return list(open_table(path, [_LABEL]).columns)
    except DataFileError as error:
        raise DataError(str(path), error.reason, _READABLE) from error


def holds_texts(path: Path, *, image: str = "image", text: str = "text") -> bool:
    """Whether `path` is a table of texts and not of images or a folder; DataError if it has neither column.

    Args:
        path: A folder of images, or a table.
        image: The column of images in a table.
        text: The column of texts in a table.
    """
    if not path.exists():
        raise DataError(str(path), "does not exist", _READABLE)
    if path.is_dir():
        return False
    columns = columns_of(path)
    if path.suffix.lower() == ".txt":
        return True
    if image not in columns and text not in columns:
        reason = f"has no column {image} or {text}, but {', '.join(columns) or 'none'}"
        raise DataError(str(path), reason, _READABLE)
    return image not in columns


def class_folders(path: Path) -> dict[str, int]:
    """The number of images below each sub-folder of `path` that is no leftover; DataError if one cannot be read."""
    try:
        return folders_below(path)
    except DataFileError as error:
        raise DataError(str(error.path), error.reason, error.remedy) from error


def train_and_test_folders(path: Path, label: str | None = None) -> tuple[Path, Path] | None:
    """The folders of the training and test images of a folder with these splits; None for data without splits.

    Args:
        path: A folder of images, or a table.
        label: The column of classes in the folder's metadata file. By default `label`.

    Raises:
        DataError: The folder has other splits, or their classes differ.
    """
    splits = _splits(path, label)
    if not splits:
        return None
    train = [name for name in splits if name.lower() in _TRAIN]
    folders = class_folders(path)
    others = [name for name in folders if name not in train]
    if len(train) == 1 and len(others) == 1:
        one, other = path / train[0], path / others[0]
        classes = {name for name, images in class_folders(one).items() if images}
        other_classes = {name for name, images in class_folders(other).items() if images}
        if classes == other_classes != set():
            return one, other
        difference = ", ".join(sorted(classes ^ other_classes))
        fault = f"whose classes differ ({difference})" if difference else "without classes in them"
    else:
        fault = f"but a training and a test split are needed and {', '.join(folders)} found"
    alone = path / (train or others)[0]
    remedy = f"Keep a training and a test split with the same classes, or give {alone} alone; rename folders of classes"
    raise DataError(str(path), f"has the splits {', '.join(splits)}, {fault}", remedy)


def require_no_splits(path: Path, label: str | None = None) -> None:
    """Raise DataError if `path` is a folder whose sub-folders are splits.

    Args:
        path: A folder of images, or a table.
        label: The column of classes in the folder's metadata file. By default `label`.
    """
    if splits := _splits(path, label):
        reason = f"has the splits {', '.join(splits)}"
        remedy = f"Give one of them, for example {path / splits[0]}; rename folders of classes"
        raise DataError(str(path), reason, remedy)


def _splits(path: Path, label: str | None) -> list[str]:
    """The sub-folders of a folder that are splits; none in a table, and in a folder with classes in its metadata."""
    splits = _split_names(class_folders(path)) if path.is_dir() else []
    return splits if splits and not _describes_labels(path, label or _LABEL) else []


def _split_names(folders: Iterable[str]) -> list[str]:
    """The names in `folders` that are those of splits; none if it is only one, which may be a class."""
    found = sorted(name for name in set(folders) if name.lower() in _TRAIN | _HELD_OUT)
    return found if len(found) > 1 else []


def _describes_labels(path: Path, label: str) -> bool:
    """Whether a metadata file in the folder has the column `label`; DataError if one cannot be read."""
    try:
        return any(label in open_table(file, [label]).columns for file in metadata_files(path))
    except DataFileError as error:
        raise DataError(str(error.path), error.reason, error.remedy) from error


def _is_labelled(path: Path) -> bool:
    """Whether the folder's metadata name labels, or all its images are in folders of classes.

    Raises:
        DataError: The folder holds no image, or cannot be read.
    """
    try:
        images = ImageFolder.open(path)
    except DataFileError as error:
        raise DataError(str(error.path), error.reason, error.remedy) from error
    if not images.names:
        raise DataError(str(path), "holds no image", _READABLE)
    if _describes_labels(path, _LABEL):
        return True
    has_folders = all(len(names) > 1 for names in images.names)
    return has_folders and not _split_names(names[0] for names in images.names)
