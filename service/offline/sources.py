"""From a path to the collection that lies there."""

from pathlib import Path
from typing import Literal

from service.offline.errors import ModelUnusable, SourceUnusable
from service.offline.folder_source import SUFFIXES, FolderSource, holds_images
from service.offline.parquet_source import ParquetSource
from service.offline.record_source import Kind, RecordSource
from service.offline.source import Source

_RECORDS: dict[str, Kind] = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".txt": "lines"}
_KNOWN = (
    "a .parquet file or a folder of them, a folder of images "
    f"({', '.join(sorted(SUFFIXES))}), or a text file: .txt (a text a line), .jsonl, .csv"
)


def open_source(path: Path, modality: Literal["image", "text"], column: str | None, key: str | None) -> Source:
    """The collection at `path` for a model of `modality`.

    `column` holds the inputs and is guessed where it is None; `key` names them. Raises `SourceUnusable`, or
    `ModelUnusable` where a model of the other modality is needed.
    """
    path = path.resolve()
    source = _open(path, modality, column, key)
    if source.modality != modality:
        raise ModelUnusable(
            f"The model takes {modality}s, and {path} holds {source.modality}s. Choose another --model."
        )
    if not source.identity.inputs:
        raise SourceUnusable(f"{path} holds no inputs. A source is {_KNOWN}.")
    return source


def _open(path: Path, modality: Literal["image", "text"], column: str | None, key: str | None) -> Source:
    if path.is_dir():
        shards = sorted(each for each in path.iterdir() if _is_shard(each))
        if shards:
            return ParquetSource.open(path, shards, modality, column, key)
        if not holds_images(path):
            raise SourceUnusable(f"The folder {path} holds neither parquet files nor images. A source is {_KNOWN}.")
        if column or key:
            raise SourceUnusable(f"{path} is a folder of images and has no columns: leave --column and --key out.")
        return FolderSource.open(path)
    if not path.exists():
        raise SourceUnusable(f"There is no {path}. A source is {_KNOWN}.")
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return ParquetSource.open(path, [path], modality, column, key)
    if suffix in _RECORDS:
        return RecordSource.open(path, _RECORDS[suffix], column, key)
    raise SourceUnusable(f"{path} is of no kind that can be scored. A source is {_KNOWN}.")


def _is_shard(path: Path) -> bool:
    # As all readers of parquet folders do: what begins so is not data.
    return path.suffix.lower() == ".parquet" and not path.name.startswith((".", "_"))
