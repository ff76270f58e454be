"""Loading: a recipe's source becomes uint8 images, decoded once into a cache, or on demand if that is too large."""

import hashlib
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from numpy.typing import NDArray

from bundle import ImageError, ImageInput, decode_image
from training.data.images import ImageArray, Images, StoredImages
from training.errors import DataError
from training.recipe import Source

_DECODE_CHUNK = 512
Progress = Callable[[str, int, int], None]
"""Called with (what is read, rows done, rows in all)."""


def _half_of_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


@dataclass(frozen=True)
class DataLocations:
    """Where data is read from and decoded copies are kept; a set larger than `cache_bytes` is decoded on demand."""

    root: Path = field(default_factory=lambda: Path(os.environ.get("OOD_DATA", "data")))
    cache: Path = field(
        default_factory=lambda: Path(os.environ.get("OOD_CACHE", Path.home() / ".cache" / "ood-scoring-service"))
    )
    cache_bytes: int = field(default_factory=_half_of_memory)


def load_images(
    source: Source, spec: ImageInput, locations: DataLocations, *, name: str, progress: Progress | None = None
) -> Images:
    """The images of `source`, decoded and resized as serving does it (`bundle.decode_image`).

    Raises DataError naming the file and the row when something cannot be read.
    """
    table, origin = _open(source, locations.root)
    y, labels = _labels(table, source)
    rows = _selected(y, labels, source, len(table))
    if not len(rows):
        raise DataError(origin, "holds no images once exclude_labels is applied", "Check the source and its labels")
    bytes_needed = len(rows) * spec.height * spec.width * spec.channels
    key = _cache_key(source, spec, table)
    lazy = _Decoded(table.select(rows) if len(rows) < len(table) else table, source.image, spec, origin)
    x: ImageArray = lazy
    if y is not None:
        y, labels = _compact(y[rows], labels, source)
    if bytes_needed <= locations.cache_bytes:
        x = _cached(locations.cache / f"{key}.npy", lazy, name, progress)
    sha256 = _content_hash(x, y) if x.in_memory else key
    return Images(x=x, y=y, labels=labels, name=name, source=origin, sha256=sha256)


def _open(source: Source, root: Path) -> tuple[datasets.Dataset, str]:
    origin = source.path if source.format == "hub" else str(root / source.path)
    if source.format != "hub" and not Path(origin).exists():
        remedy = "Set the data directory with --data or OOD_DATA, or correct the recipe's path"
        raise DataError(origin, "does not exist", remedy)
    # Its bars count rows of an intermediate file; ours count decoded images.
    datasets.disable_progress_bars()
    try:
        table = datasets.load_dataset(**_request(source, origin))
    except Exception as error:
        # `datasets` raises whatever its builders raise.
        reason = f"cannot be read as {source.format}: {error}"
        raise DataError(origin, reason, "Check format, path and split") from error
    for column in (source.image, source.label):
        if column is not None and column not in table.column_names:
            remedy = f"Its columns are {', '.join(table.column_names)}"
            raise DataError(origin, f"has no column '{column}'", remedy)
    return table.cast_column(source.image, datasets.Image(decode=False)), origin


def _request(source: Source, origin: str) -> dict[str, Any]:
    """The arguments of `load_dataset`."""
    if source.format == "hub":
        return {"path": source.path, "split": source.split}
    if source.format != "imagefolder":
        return {"path": source.format, "data_files": origin, "split": "train"}
    # Files by pattern, all of one split: given a folder, `datasets` takes names such as test_0.png for other splits.
    files = {"train": str(Path(origin) / "**")}
    return {"path": "imagefolder", "data_files": files, "split": "train", "drop_labels": source.label is None}


def _labels(table: datasets.Dataset, source: Source) -> tuple[NDArray[np.int64] | None, tuple[str, ...]]:
    if source.label is None:
        return None, ()
    values = table[source.label][:]
    feature = table.features[source.label]
    if isinstance(feature, datasets.ClassLabel):
        y = np.asarray(values, dtype=np.int64)
        if len(unlabelled := np.flatnonzero(y < 0)):
            reason = f"{len(unlabelled)} rows have no label, the first is row {unlabelled[0]}"
            raise DataError(source.path, reason, "Label them or remove them")
        return y, tuple(feature.names)
    names = sorted({str(value) for value in values})
    index = {label: i for i, label in enumerate(names)}
    return np.asarray([index[str(value)] for value in values], dtype=np.int64), tuple(names)


def _selected(y: NDArray[np.int64] | None, labels: tuple[str, ...], source: Source, n: int) -> NDArray[np.int64]:
    rows = np.arange(n, dtype=np.int64)
    if source.exclude_labels:
        unknown = sorted(set(source.exclude_labels) - set(labels))
        if y is None or unknown:
            reason = f"exclude_labels names {', '.join(unknown) or 'labels, but no label column is given'}"
            raise DataError(source.path, f"{reason}, which the data does not have", "Correct exclude_labels or label")
        rows = rows[~np.isin(y, [labels.index(label) for label in source.exclude_labels])]
    if source.limit is None or source.limit >= len(rows):
        return rows
    # Spread over the set: files sorted by class would lose whole classes at either end.
    return rows[np.linspace(0, len(rows) - 1, source.limit).astype(np.int64)]


def _compact(
    y: NDArray[np.int64], labels: tuple[str, ...], source: Source
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Renumber the classes without the excluded ones."""
    kept = [i for i, label in enumerate(labels) if label not in source.exclude_labels]
    renumbered = np.full(len(labels), -1, dtype=np.int64)
    renumbered[kept] = np.arange(len(kept))
    return renumbered[y], tuple(labels[i] for i in kept)


def _cache_key(source: Source, spec: ImageInput, table: datasets.Dataset) -> str:
    """Names the decoded rows: `datasets` puts a hash of the files' state into the names of its own cache files."""
    identity = {
        "source": source.model_dump(mode="json"),
        "input": spec.model_dump(mode="json", include={"height", "width", "channels", "resize"}),
        "files": sorted(str(file["filename"]) for file in table.cache_files),
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def _content_hash(x: ImageArray, y: NDArray[np.int64] | None) -> str:
    """sha256 over all pixels and labels in row order."""
    digest = hashlib.sha256()
    for chunk in _chunks(x.shape[0]):
        digest.update(np.ascontiguousarray(x[chunk]).data)
    if y is not None:
        digest.update(y.tobytes())
    return digest.hexdigest()


def _chunks(n: int) -> list[NDArray[np.int64]]:
    return [np.arange(i, min(i + _DECODE_CHUNK, n), dtype=np.int64) for i in range(0, n, _DECODE_CHUNK)]


@dataclass(frozen=True)
class _Decoded:
    """Images decoded when they are read: what streams a set that is too large for memory."""

    table: datasets.Dataset
    column: str
    spec: ImageInput
    origin: str
    in_memory: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.table), self.spec.height, self.spec.width, self.spec.channels)

    def __getitem__(self, rows: NDArray[np.int64], /) -> NDArray[np.uint8]:
        encoded = self.table[rows.tolist()][self.column]
        return np.stack([self._decode(image, int(row)) for image, row in zip(encoded, rows, strict=True)])

    def _decode(self, image: dict[str, Any] | None, row: int) -> NDArray[np.uint8]:
        if image is None:
            raise DataError(f"{self.origin}, row {row}", "has no image", "Remove the row or give it one")
        data, path = image["bytes"], image["path"]
        try:
            # A path in a csv file is meant from where that file lies.
            return decode_image((Path(self.origin).parent / path).read_bytes() if data is None else data, self.spec)
        except (ImageError, OSError) as error:
            where = f"{self.origin}, row {row}" + (f" ({path})" if path else "")
            raise DataError(where, f"is no readable image: {error}", "Remove or repair it") from error


def _cached(path: Path, lazy: _Decoded, name: str, progress: Progress | None) -> ImageArray:
    """The decoded images as a memory-mapped array, made on first use; written whole or not at all."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        n = lazy.shape[0]
        chunks = _chunks(n)
        array = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=lazy.shape)
        try:
            with ThreadPoolExecutor() as pool:
                for chunk, images in zip(chunks, pool.map(lazy.__getitem__, chunks), strict=True):
                    array[chunk] = images
                    if progress is not None:
                        progress(name, int(chunk[-1]) + 1, n)
            array.flush()
            partial.rename(path)
        finally:
            partial.unlink(missing_ok=True)
    return StoredImages(np.load(path, mmap_mode="r"))
