"""Image loading: decodes the images of a source to uint8, once into a cache or, if too large for it, on demand.

All images are decoded once before training, so that broken ones are found together. Sets that fit into the cache are
kept decoded; of the others the list of broken images is kept.
"""

import hashlib
import json
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bundle import ImageError, ImageInput, decode_image
from datafiles import Fault
from training.data.duplicates import input_hash, input_hashes
from training.data.encoded_images import (
    Encoded,
    EncodedImages,
    ImageFiles,
    ImageStore,
    StoredImages,
    encoded_bytes,
)
from training.data.examples import Examples, InputArray, StoredArray, select
from training.data.origins import Origins
from training.data.problems import Problem
from training.data.sources import DataLocations, Progress, read_rows
from training.errors import DataError
from training.recipe import Source

_CHUNK = 32
"""Images that a thread decodes at a time: few, because each may be a photograph of several megabytes."""
_HASH_CHUNK = 512


def load_images(
    source: Source,
    spec: ImageInput,
    locations: DataLocations,
    *,
    name: str,
    progress: Progress | None = None,
    skip_broken: bool = False,
) -> Examples:
    """Load the images of `source`, decoded and resized to `spec` as in serving (`bundle.decode_image`).

    Raises:
        DataError: The source cannot be read.
        BrokenInputs: Images or labels cannot be read, and `skip_broken` is off; names all of them.
    """
    rows = read_rows(source, locations.data_dir, "image")
    images = rows.encoded()
    key = _cache_key(source, spec, images)
    in_memory = len(images) * spec.height * spec.width * spec.channels <= locations.cache_bytes

    def report(done: int) -> None:
        if progress is not None:
            progress(name, done, len(images))

    array, broken = (_cached if in_memory else _on_demand)(locations.cache_dir / key, images, spec, report)
    kept = np.setdiff1d(np.arange(len(images), dtype=np.int64), np.fromiter(broken, dtype=np.int64))
    problems = list(rows.problems) + [
        Problem(rows.origin, int(rows.numbers[index]), reason, images.file(index)) for index, reason in broken.items()
    ]
    x, y = (array, rows.y) if not broken else (select(array, kept), None if rows.y is None else rows.y[kept])
    sha256 = content_hash(x, y) if in_memory else _hash_of_hashes(image_hashes(x), y)
    origins = Origins(rows.origin, rows.numbers[kept], images, kept)
    examples = Examples(x, y, rows.labels, name, rows.origin, sha256, origins=origins)
    return examples.usable(problems, skip_broken=skip_broken)


def image_hashes(x: InputArray) -> list[bytes]:
    """The content hash of the decoded pixels of each image that `load_images` loaded."""
    return x.hashes if isinstance(x, _DecodedOnDemand) else input_hashes(x)


def content_hash(x: InputArray, y: NDArray[np.int64] | None) -> str:
    """The SHA-256 of all inputs and labels in row order."""
    digest = hashlib.sha256()
    for start in range(0, x.shape[0], _HASH_CHUNK):
        chunk = np.arange(start, min(start + _HASH_CHUNK, x.shape[0]), dtype=np.int64)
        digest.update(np.ascontiguousarray(x[chunk]).data)
    if y is not None:
        digest.update(y.tobytes())
    return digest.hexdigest()


def _hash_of_hashes(hashes: Sequence[bytes], y: NDArray[np.int64] | None) -> str:
    return hashlib.sha256(b"".join(hashes) + (b"" if y is None else y.tobytes())).hexdigest()


def _cache_key(source: Source, spec: ImageInput, images: EncodedImages) -> str:
    """A hash that identifies the decoded rows: the source, the input, and the state of the files."""
    identity = {
        "source": source.model_dump(mode="json"),
        "input": spec.model_dump(
            mode="json", include={"height", "width", "channels", "resize", "resize_to"}, exclude_none=True
        ),
        "files": images.fingerprint,
        "rows": len(images),
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class _DecodedOnDemand:
    """Images that are decoded on each read, for sets that do not fit into memory.

    Attributes:
        files: the paths of the images; None if they are in `stored`.
        stored: the encoded images of a table; None if they have files of their own.
        selected: the numbers of the images in either.
        hashes: the content hash of each selected image's decoded pixels.
        spec: the model's input.
    """

    files: tuple[Path | Fault, ...] | None
    stored: StoredImages | None
    selected: NDArray[np.int64]
    hashes: list[bytes]
    spec: ImageInput
    in_memory: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.selected), self.spec.height, self.spec.width, self.spec.channels)

    def __getitem__(self, rows: NDArray[np.int64], /) -> NDArray[np.uint8]:
        numbers = self.selected[rows].tolist()
        encoded: Sequence[Encoded]
        if self.files is not None:
            encoded = [self.files[number] for number in numbers]
        else:
            assert self.stored is not None, "the images are in files or stored"
            encoded = self.stored[numbers]
        return np.stack([self._decode(image) for image in encoded])

    def at(self, rows: NDArray[np.int64]) -> "_DecodedOnDemand":
        """The subset at `rows`."""
        hashes = [self.hashes[row] for row in rows.tolist()]
        return _DecodedOnDemand(self.files, self.stored, self.selected[rows], hashes, self.spec)

    def _decode(self, image: Encoded) -> NDArray[np.uint8]:
        decoded = _decode(image, self.spec)[0]
        if isinstance(decoded, str):
            subject = str(image) if isinstance(image, Path) else "an image of the data"
            raise DataError(subject, f"{decoded} since training began", "Restore it, then continue with --resume")
        return decoded


def _cached(
    path: Path, images: EncodedImages, spec: ImageInput, report: Callable[[int], None]
) -> tuple[InputArray, dict[int, str]]:
    """The decoded images as a memory-mapped array, written atomically on first use, and the broken ones' reasons."""
    pixels, reasons = path.with_suffix(".npy"), path.with_suffix(".broken.json")
    if not pixels.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        shape = (len(images), spec.height, spec.width, spec.channels)
        broken: dict[int, str] = {}
        try:
            array = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=shape)
            for index, (decoded, _) in enumerate(_decoded(images, spec)):
                if isinstance(decoded, str):
                    broken[index] = decoded
                else:
                    array[index] = decoded
                if index % _CHUNK == 0 or index == len(images) - 1:
                    report(index + 1)
            array.flush()
            reasons.unlink(missing_ok=True)
            if broken:
                reasons.write_text(json.dumps(broken), encoding="utf-8")
            partial.rename(pixels)
        finally:
            partial.unlink(missing_ok=True)
    return StoredArray(np.load(pixels, mmap_mode="r")), _read_reasons(reasons)


def _on_demand(
    path: Path, images: EncodedImages, spec: ImageInput, report: Callable[[int], None]
) -> tuple[InputArray, dict[int, str]]:
    """The images to be decoded on demand, and the broken ones' reasons.

    On first use all are decoded once, and the images of tables are copied to a file that can be read at random.
    """
    hashes, reasons, stored = (
        path.with_suffix(".pixels.hashes.npy"),
        path.with_suffix(".broken.json"),
        path.with_suffix(".arrow"),
    )
    has_files = isinstance(images, ImageFiles)
    if not hashes.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        broken: dict[int, str] = {}
        digests = np.zeros((len(images), 16), dtype=np.uint8)
        try:
            store = None if has_files else ImageStore(partial)
            for index, (decoded, encoded) in enumerate(_decoded(images, spec)):
                if isinstance(decoded, str):
                    broken[index] = decoded
                else:
                    digests[index] = np.frombuffer(input_hash(decoded), dtype=np.uint8)
                if store is not None:
                    store.add([encoded])
                if index % _CHUNK == 0 or index == len(images) - 1:
                    report(index + 1)
            if store is not None:
                store.close()
                partial.rename(stored)
            reasons.write_text(json.dumps(broken), encoding="utf-8")
            np.save(partial.with_suffix(".npy"), digests)
            partial.with_suffix(".npy").rename(hashes)
        finally:
            partial.unlink(missing_ok=True)
    found = [row.tobytes() for row in np.load(hashes)]
    array = _DecodedOnDemand(
        images.files if isinstance(images, ImageFiles) else None,
        None if has_files else StoredImages(stored),
        np.arange(len(images), dtype=np.int64),
        found,
        spec,
    )
    return array, _read_reasons(reasons)


def _read_reasons(path: Path) -> dict[int, str]:
    return {int(index): reason for index, reason in json.loads(path.read_text()).items()} if path.exists() else {}


def _decoded(images: EncodedImages, spec: ImageInput) -> Iterator[tuple[NDArray[np.uint8] | str, bytes]]:
    """Yield each image, or the reason why it is broken, and its file; decoded on several threads in order."""
    encoded = images.read()
    pending: deque[Future[list[tuple[NDArray[np.uint8] | str, bytes]]]] = deque()
    with ThreadPoolExecutor() as pool:
        limit = 2 * (os.cpu_count() or 1)
        while chunk := list(islice(encoded, _CHUNK)):
            pending.append(pool.submit(lambda chunk: [_decode(image, spec) for image in chunk], chunk))
            if len(pending) >= limit:
                yield from pending.popleft().result()
        while pending:
            yield from pending.popleft().result()


def _decode(image: Encoded, spec: ImageInput) -> tuple[NDArray[np.uint8] | str, bytes]:
    data = encoded_bytes(image)
    if isinstance(data, Fault):
        return data.detail.rstrip("."), b""
    try:
        return decode_image(data, spec), data
    except ImageError as error:
        return f"is no readable image: {error}", data
