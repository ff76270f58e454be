"""Overlap: finds outliers that duplicate in-distribution inputs and would teach the model to doubt them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.data.examples import Examples, InputArray

_SKETCH = 8
_BLOCK = 4096
_NEAR_RMS = 6.0
"""The largest root mean square difference (of 255) between an image and a re-encoded copy of it."""


@dataclass(frozen=True)
class Overlap:
    """Rows of a set that duplicate an input of the reference set: exactly, or nearly (mirror images included)."""

    exact: NDArray[np.int64]
    near: NDArray[np.int64]

    @property
    def rows(self) -> NDArray[np.int64]:
        """Exact and near duplicates together, sorted."""
        return np.union1d(self.exact, self.near)


def find_overlap(
    reference: Examples, candidates: Examples, progress: Callable[[int, int], None] | None = None
) -> Overlap:
    """Find the images of `candidates` that duplicate an image of `reference`.

    An 8x8 average of each image (and of its mirror image) is compared with all averages of `reference` in one matrix
    product per block. Averaging never increases the root mean square difference, so if 8 divides the sides, no near
    duplicate is missed. The remaining pairs are compared pixel by pixel.

    Args:
        reference: Images of the same shape as the candidates.
        candidates: The images to check.
        progress: Called with the number of candidates compared and their total.
    """
    sketches = _sketches(reference.x)
    squares = np.einsum("nd,nd->n", sketches, sketches)
    limit = _NEAR_RMS**2 * sketches.shape[1]
    exact: set[int] = set()
    near: set[int] = set()
    for start in range(0, len(candidates), _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, len(candidates)), dtype=np.int64)
        originals = candidates.x[rows]
        for mirrored in (False, True):
            images = originals[:, :, ::-1] if mirrored else originals
            candidate_sketches = _sketch(images)
            candidate_squares = np.einsum("nd,nd->n", candidate_sketches, candidate_sketches)
            for block in range(0, len(sketches), _BLOCK):
                sketch, square = sketches[block : block + _BLOCK], squares[block : block + _BLOCK]
                distance = candidate_squares[:, None] + square - 2 * candidate_sketches @ sketch.T
                # Rounding in float32 can make a distance slightly too large; the pixels decide.
                for i, j in np.argwhere(distance <= limit + 1.0):
                    if int(rows[i]) in exact:
                        continue
                    other = reference.x[np.asarray([block + j], dtype=np.int64)][0]
                    rms = float(np.sqrt(np.mean((images[i].astype(np.float32) - other) ** 2)))
                    if rms == 0.0 and not mirrored:
                        exact.add(int(rows[i]))
                    elif rms <= _NEAR_RMS:
                        near.add(int(rows[i]))
        if progress is not None:
            progress(int(rows[-1]) + 1, len(candidates))
    return Overlap(np.asarray(sorted(exact), dtype=np.int64), np.asarray(sorted(near - exact), dtype=np.int64))


def _sketches(x: InputArray) -> NDArray[np.float32]:
    return np.concatenate([_sketch(x[rows]) for rows in _blocks(x.shape[0])])


def _sketch(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Averages over an 8x8 grid of cells, `[N, 64 * C]`; pixels beyond the last complete cell are ignored."""
    n, height, width, channels = images.shape
    rows, columns = max(height // _SKETCH, 1), max(width // _SKETCH, 1)
    grid = images[:, : rows * (height // rows), : columns * (width // columns)]
    cells = grid.reshape(n, grid.shape[1] // rows, rows, grid.shape[2] // columns, columns, channels)
    sketch: NDArray[np.float32] = cells.mean(axis=(2, 4), dtype=np.float32).reshape(n, -1)
    return sketch


def find_text_overlap(reference: Examples, candidates: Examples) -> Overlap:
    """Find the texts of `candidates` whose token ids, up to the model's maximum length, are those of a reference text.

    Texts that differ only in case or spacing have the same token ids.
    """
    reference_texts = set(_token_rows(reference))
    repeated = [row for row, tokens in enumerate(_token_rows(candidates)) if tokens in reference_texts]
    return Overlap(np.asarray(repeated, dtype=np.int64), np.empty(0, dtype=np.int64))


def _token_rows(texts: Examples) -> Iterator[bytes]:
    return (tokens.tobytes() for rows in _blocks(len(texts)) for tokens in texts.x[rows])


def _blocks(n: int) -> Iterator[NDArray[np.int64]]:
    """The numbers below `n` in blocks."""
    return (np.arange(start, min(start + _BLOCK, n), dtype=np.int64) for start in range(0, n, _BLOCK))
