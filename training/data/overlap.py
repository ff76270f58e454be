"""Overlap: outliers that are also in the in-distribution data would teach the detector to doubt what it should know."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.data.examples import Examples, InputArray

_SKETCH = 8
_BLOCK = 4096
_NEAR_RMS = 6.0
"""Two images whose pixels differ by at most this root mean square (of 255) are the same picture re-encoded."""


@dataclass(frozen=True)
class Overlap:
    """Rows of the outlier set that repeat an in-distribution image: byte for byte, or nearly (mirrored included)."""

    exact: NDArray[np.int64]
    near: NDArray[np.int64]

    @property
    def rows(self) -> NDArray[np.int64]:
        """Exact and near duplicates together, sorted."""
        return np.union1d(self.exact, self.near)


def find_overlap(inside: Examples, outside: Examples, progress: Callable[[int, int], None] | None = None) -> Overlap:
    """Compare every outlier with every in-distribution image.

    An 8x8 average of each image (and of its mirror image) is compared with all others by one matrix product per block;
    averaging never increases the root mean square difference, so for sides divisible by 8 no near duplicate is missed.
    What passes is compared pixel by pixel.
    """
    references = _sketches(inside.x)
    squares = np.einsum("nd,nd->n", references, references)
    limit = _NEAR_RMS**2 * references.shape[1]
    exact: set[int] = set()
    near: set[int] = set()
    for start in range(0, len(outside), _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, len(outside)), dtype=np.int64)
        images = outside.x[rows]
        for mirrored in (False, True):
            candidates = images[:, :, ::-1] if mirrored else images
            sketches = _sketch(candidates)
            for block in range(0, len(references), _BLOCK):
                reference, square = references[block : block + _BLOCK], squares[block : block + _BLOCK]
                distance = np.einsum("nd,nd->n", sketches, sketches)[:, None] + square - 2 * sketches @ reference.T
                # Rounding in float32 may leave a tiny excess; the pixels decide.
                for i, j in np.argwhere(distance <= limit + 1.0):
                    if int(rows[i]) in exact:
                        continue
                    other = inside.x[np.asarray([block + j], dtype=np.int64)][0]
                    rms = float(np.sqrt(np.mean((candidates[i].astype(np.float32) - other) ** 2)))
                    if rms == 0.0 and not mirrored:
                        exact.add(int(rows[i]))
                    elif rms <= _NEAR_RMS:
                        near.add(int(rows[i]))
        if progress is not None:
            progress(int(rows[-1]) + 1, len(outside))
    return Overlap(np.asarray(sorted(exact), dtype=np.int64), np.asarray(sorted(near - exact), dtype=np.int64))


def _sketches(x: InputArray) -> NDArray[np.float32]:
    n = x.shape[0]
    blocks = (np.arange(i, min(i + _BLOCK, n), dtype=np.int64) for i in range(0, n, _BLOCK))
    return np.concatenate([_sketch(x[block]) for block in blocks])


def _sketch(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Averages over an 8x8 grid of cells, flattened to `[N, 64 * C]`; a remainder of the sides is cropped."""
    n, height, width, channels = images.shape
    rows, columns = max(height // _SKETCH, 1), max(width // _SKETCH, 1)
    grid = images[:, : rows * (height // rows), : columns * (width // columns)]
    cells = grid.reshape(n, grid.shape[1] // rows, rows, grid.shape[2] // columns, columns, channels)
    sketch: NDArray[np.float32] = cells.mean(axis=(2, 4), dtype=np.float32).reshape(n, -1)
    return sketch
