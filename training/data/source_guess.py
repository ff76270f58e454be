"""Source guess: finds the format of a path on the command line, so that no source has to be written by hand."""

import os
from pathlib import Path
from typing import Any

from datafiles import DataFileError, ImageFolder, class_folders, metadata_files, open_table, printable
from training.errors import DataError
from training.recipe import Source

_READABLE = (
    "Give a folder of images (one sub-folder per class where they are labelled), a .parquet, .csv, .jsonl or .txt"
)
_LABEL = "label"
_FORMATS = {".parquet": "parquet", ".csv": "csv", ".tsv": "csv", ".jsonl": "json", ".ndjson": "json", ".json": "json"}

__all__ = ["class_folders", "columns_of", "guess_source", "holds_texts"]


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
            or the column `label` of its metadata file.

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


def _is_labelled(path: Path) -> bool:
    """Whether the folder's metadata name labels, or all its images are in sub-folders; DataError without an image."""
    try:
        images = ImageFolder.open(path)
        if not images.names:
            raise DataError(str(path), "holds no image", _READABLE)
        if any(_LABEL in open_table(file, [_LABEL]).columns for file in metadata_files(path)):
            return True
    except DataFileError as error:
        raise DataError(str(error.path), error.reason, error.remedy) from error
    return all(len(names) > 1 for names in images.names)
