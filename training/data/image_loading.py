"""Image loading: decodes the images of a source to uint8, once into a cache or, if too large for it, on demand."""

import hashlib
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from numpy.typing import NDArray

from bundle import ImageError, ImageInput, decode_image
from training.data.duplicates import file_hashes, input_hashes
from training.data.examples import Examples, InputArray, StoredArray
from training.data.sources import DataLocations, Progress, read_rows
from training.errors import DataError
from training.recipe import Source

_DECODE_CHUNK = 512


def load_images(
    source: Source, spec: ImageInput, locations: DataLocations, *, name: str, progress: Progress | None = None
) -> Examples:
    """Load the images of `source`, decoded and resized to `spec` as in serving (`bundle.decode_image`).

    Raises:
        DataError: An image cannot be read; names the file and the row.
    """
    rows = read_rows(source, locations.data_dir, source.image)
    table = rows.table.cast_column(source.image, datasets.Image(decode=False))
    key = _cache_key(source, spec, table)
    on_demand = _DecodedOnDemand(table, source.image, spec, rows.origin)
    x: InputArray = on_demand
    if len(table) * spec.height * spec.width * spec.channels <= locations.cache_bytes:
        x = _cached(locations.cache_dir / f"{key}.npy", on_demand, name, progress)
    sha256 = content_hash(x, rows.y) if x.in_memory else key
    return Examples(x=x, y=rows.y, labels=rows.labels, name=name, source=rows.origin, sha256=sha256)


def image_hashes(examples: Examples) -> list[bytes]:
    """The content hash of each image that `load_images` loaded.

    For cached images it is that of the decoded pixels; for images that are decoded on demand, that of the encoded
    files. Hashes of both kinds never match.
    """
    if isinstance(examples.x, _DecodedOnDemand):
        return file_hashes(examples.x.encoded_files())
    return input_hashes(examples.x)


def _cache_key(source: Source, spec: ImageInput, table: datasets.Dataset) -> str:
    """A hash that identifies the decoded rows.

    It covers the contents of the files: `datasets` names its cache files after a hash of the files' state.
    """
    identity = {
        "source": source.model_dump(mode="json"),
        "input": spec.model_dump(
            mode="json", include={"height", "width", "channels", "resize", "resize_to"}, exclude_none=True
        ),
        "files": sorted(str(file["filename"]) for file in table.cache_files),
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def content_hash(x: InputArray, y: NDArray[np.int64] | None) -> str:
    """The SHA-256 of all inputs and labels in row order."""
    digest = hashlib.sha256()
    for chunk in _chunks(x.shape[0]):
        digest.update(np.ascontiguousarray(x[chunk]).data)
    if y is not None:
        digest.update(y.tobytes())
    return digest.hexdigest()


def _chunks(n: int) -> list[NDArray[np.int64]]:
    return [np.arange(i, min(i + _DECODE_CHUNK, n), dtype=np.int64) for i in range(0, n, _DECODE_CHUNK)]


@dataclass(frozen=True)
class _DecodedOnDemand:
    """Images that are decoded on each read, for sets that do not fit into memory."""

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

    def encoded_files(self) -> Iterator[bytes]:
        """The encoded image of each row."""
        for rows in _chunks(len(self.table)):
            for row, image in zip(rows.tolist(), self.table[rows.tolist()][self.column], strict=True):
                try:
                    yield self._encoded(image, row)
                except OSError as error:
                    raise self._unreadable(image, row, error) from error

    def _decode(self, image: dict[str, Any] | None, row: int) -> NDArray[np.uint8]:
        try:
            return decode_image(self._encoded(image, row), self.spec)
        except (ImageError, OSError) as error:
            raise self._unreadable(image, row, error) from error

    def _encoded(self, image: dict[str, Any] | None, row: int) -> bytes:
        if image is None:
            raise DataError(f"{self.origin}, row {row}", "has no image", "Remove the row or give it one")
        data: bytes | None = image["bytes"]
        # Paths in a csv file are relative to that file.
        return (Path(self.origin).parent / image["path"]).read_bytes() if data is None else data

    def _unreadable(self, image: dict[str, Any] | None, row: int, error: Exception) -> DataError:
        path = None if image is None else image["path"]
        subject = f"{self.origin}, row {row}" + (f" ({path})" if path else "")
        return DataError(subject, f"is no readable image: {error}", "Remove or repair it")


def _cached(path: Path, images: _DecodedOnDemand, name: str, progress: Progress | None) -> InputArray:
    """The decoded images as a memory-mapped array, written atomically to `path` on first use."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        n = images.shape[0]
        chunks = _chunks(n)
        array = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=images.shape)
        try:
            with ThreadPoolExecutor() as pool:
                for chunk, decoded in zip(chunks, pool.map(images.__getitem__, chunks), strict=True):
                    array[chunk] = decoded
                    if progress is not None:
                        progress(name, int(chunk[-1]) + 1, n)
            array.flush()
            partial.rename(path)
        finally:
            partial.unlink(missing_ok=True)
    return StoredArray(np.load(path, mmap_mode="r"))
