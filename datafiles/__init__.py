"""Data files: one reader of tables, text files and image folders for training, `wrap` and `score-dataset`.

May import `bundle` only.
"""

from datafiles.errors import DataFileError, Fault, FaultKind
from datafiles.image_folder import (
    METADATA_NAMES,
    PICTURE_SUFFIXES,
    ImageFolder,
    class_folders,
    image_names,
    metadata_files,
)
from datafiles.leftovers import is_leftover
from datafiles.lines import TextFile, read_lines
from datafiles.open_table import TABLE_SUFFIXES, open_table
from datafiles.table import Table, Value, did_you_mean
from datafiles.values import as_image, as_key, as_text, path_inside, printable, read_file

__all__ = [
    "METADATA_NAMES",
    "PICTURE_SUFFIXES",
    "TABLE_SUFFIXES",
    "DataFileError",
    "Fault",
    "FaultKind",
    "ImageFolder",
    "Table",
    "TextFile",
    "Value",
    "as_image",
    "as_key",
    "as_text",
    "class_folders",
    "did_you_mean",
    "image_names",
    "is_leftover",
    "metadata_files",
    "open_table",
    "path_inside",
    "printable",
    "read_file",
    "read_lines",
]
