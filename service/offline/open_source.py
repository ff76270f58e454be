"""Opens the collection of inputs at a path, by the kind of its files."""

from pathlib import Path
from typing import Literal

from bundle import IMAGE_SUFFIXES
from datafiles import METADATA_NAMES, TABLE_SUFFIXES, DataFileError, is_leftover, open_table
from datafiles.parquet_table import ParquetTable
from service.offline.errors import ModelUnusable, SourceUnusable
from service.offline.folder_source import FolderSource, holds_images
from service.offline.source import Kind, Source
from service.offline.table_source import TableSource

_KINDS: dict[str, Kind] = {".parquet": "parquet", ".csv": "csv", ".tsv": "csv", ".txt": "lines"}
_SUPPORTED = (
    "a .parquet file or a folder of them, a folder of images "
    f"({', '.join(sorted(IMAGE_SUFFIXES))}), or a text file: .txt (a text a line), .jsonl, .csv"
)


def open_source(path: Path, modality: Literal["image", "text"], column: str | None, key: str | None) -> Source:
    """Open the collection at `path`.

    Args:
        path: A file or a folder.
        modality: The modality of the model.
        column: The column of the inputs; None to guess it.
        key: The column of the keys; None for row numbers or file names.

    Raises:
        SourceUnusable: The collection cannot be read or holds no inputs.
        ModelUnusable: The collection needs a model of the other modality.
    """
    path = path.resolve()
    try:
        source = _open(path, modality, column, key)
    except DataFileError as error:
        raise SourceUnusable(str(error)) from error
    if source.modality != modality:
        raise ModelUnusable(
            f"The model takes {modality}s, and {path} holds {source.modality}s. Choose another --model."
        )
    if not source.identity.inputs:
        raise SourceUnusable(f"{path} holds no inputs. A source is {_SUPPORTED}.")
    return source


def _open(path: Path, modality: Literal["image", "text"], column: str | None, key: str | None) -> Source:
    if path.is_dir():
        shards = sorted(file for file in path.iterdir() if _is_shard(file))
        if shards:
            return TableSource.open(ParquetTable.open(path, shards), "parquet", modality, column, key)
        if not holds_images(path):
            raise SourceUnusable(f"The folder {path} holds neither parquet files nor images. A source is {_SUPPORTED}.")
        if column or key:
            raise SourceUnusable(f"{path} is a folder of images and has no columns: leave --column and --key out.")
        return FolderSource.open(path)
    if not path.exists():
        raise SourceUnusable(f"There is no {path}. A source is {_SUPPORTED}.")
    suffix = path.suffix.lower()
    if suffix not in TABLE_SUFFIXES:
        raise SourceUnusable(f"{path} is of no kind that can be scored. A source is {_SUPPORTED}.")
    wanted = [name for name in (column or modality, key) if name is not None]
    return TableSource.open(open_table(path, wanted), _KINDS.get(suffix, "jsonl"), modality, column, key)


def _is_shard(path: Path) -> bool:
    # Readers of parquet folders skip names that begin with an underscore. Metadata describe the images of a folder.
    skipped = path.name.startswith("_") or path.name in METADATA_NAMES or is_leftover(path.name)
    return path.suffix.lower() == ".parquet" and not skipped
