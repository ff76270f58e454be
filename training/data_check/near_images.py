"""Near duplicates among images: re-encoded, recoloured, slightly shifted or mirrored copies."""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from training.data.examples import InputArray
from training.data_check.candidate_pairs import candidate_pairs
from training.data_check.perceptual_hash import perceptual_hashes

_MAX_DISTANCE = 10
_MIN_CORRELATION = 0.92
"""The least correlation of the pixels of near duplicates. docs/training.md says how it was chosen."""
_BLOCK = 2048


def near_images(
    images: InputArray, is_blank: NDArray[np.bool_], progress: Callable[[int, int], None] | None = None
) -> NDArray[np.int64]:
    """The pairs of images whose perceptual hashes and pixels are nearly equal, one of them perhaps mirrored.

    Args:
        images: uint8 `[N, 32, 32, 3]`.
        is_blank: `[N]`, whether an image is blank: all blank images resemble each other.
        progress: Called with the number of images hashed and their total.

    Returns:
        Index pairs int64 `[P, 2]`, each once, the smaller index first, sorted.
    """
    n = images.shape[0]
    hashes = np.empty((2, n), dtype=np.uint64)
    for start in range(0, n, _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, n), dtype=np.int64)
        block = images[rows]
        hashes[0, rows], hashes[1, rows] = perceptual_hashes(block), perceptual_hashes(block[:, :, ::-1])
        if progress is not None:
            progress(int(rows[-1]) + 1, n)
    # Twice the indices: first those of the images, then those of their mirror images.
    kept = np.flatnonzero(~is_blank)
    kept = np.concatenate((kept, kept + n))
    pairs = kept[candidate_pairs(hashes.reshape(-1)[kept], _MAX_DISTANCE)]
    pairs = pairs[(pairs[:, 0] < n) & (pairs[:, 0] != pairs[:, 1] % n)]
    found = [
        block[_correlations(images, block, n) >= _MIN_CORRELATION]
        for block in np.array_split(pairs, max(1, -(-len(pairs) // _BLOCK)))
    ]
    return np.unique(np.sort(np.concatenate(found) % n, axis=1), axis=0)


def _correlations(images: InputArray, pairs: NDArray[np.int64], n: int) -> NDArray[np.float32]:
    """The correlation of the pixels of each pair; second indices from `n` on are those of mirror images."""
    first, second = images[pairs[:, 0]], images[pairs[:, 1] % n]
    mirrored = np.where((pairs[:, 1] >= n)[:, None, None, None], second[:, :, ::-1], second)
    a, b = (_centred(values) for values in (first, mirrored))
    correlations: NDArray[np.float32] = np.einsum("nd,nd->n", a, b)
    return correlations


def _centred(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The pixels of each image `[N, D]` with mean 0 and norm 1."""
    pixels = images.reshape(len(images), math.prod(images.shape[1:])).astype(np.float32)
    pixels -= pixels.mean(axis=1, keepdims=True)
    norms: NDArray[np.float32] = np.maximum(np.linalg.norm(pixels, axis=1, keepdims=True), 1e-6)
    return pixels / norms
