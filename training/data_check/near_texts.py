"""Near duplicates among texts: most of their sequences of three words are the same."""

import re
from collections.abc import Callable, Sequence
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

_WORDS = 3
"""The length of a shingle in words."""
_MIN_JACCARD = 0.8
_BANDS, _ROWS = 20, 4
"""Texts with a Jaccard similarity of 0.8 share a band of 4 of the 80 MinHash values with probability 0.99997."""
_WINDOW = 24
"""The number of neighbours with an equal band that a text is compared with."""
_BLOCK = 512
_MULTIPLIERS = np.asarray([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9], dtype=np.uint64)


def near_texts(texts: Sequence[str], progress: Callable[[int, int], None] | None = None) -> NDArray[np.int64]:
    """The pairs of texts whose sets of word triples have a Jaccard similarity of at least 0.8.

    Candidates are found by MinHash (Broder 1997) with banding, then compared exactly. Case and punctuation are ignored.
    The work is linear in the number of texts: of more than 24 texts with an equal band, neighbours are compared.

    Args:
        texts: The texts.
        progress: Called with the number of texts hashed and their total.

    Returns:
        Index pairs int64 `[P, 2]`, each once, the smaller index first, sorted.
    """
    generator = np.random.default_rng(0)
    odd = generator.integers(0, 2**63, _BANDS * _ROWS, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    signatures = np.empty((len(texts), _BANDS * _ROWS), dtype=np.uint64)
    has_words = np.zeros(len(texts), dtype=bool)
    for index, text in enumerate(texts):
        shingles = _shingles(text)
        if len(shingles):
            has_words[index] = True
            signatures[index] = _mixed(shingles[:, None] * odd).min(axis=0)
        if progress is not None and ((index + 1) % _BLOCK == 0 or index == len(texts) - 1):
            progress(index + 1, len(texts))
    candidates = _same_bands(signatures, np.flatnonzero(has_words))
    near = [_jaccard(_shingles(texts[i]), _shingles(texts[j])) >= _MIN_JACCARD for i, j in candidates.tolist()]
    pairs: NDArray[np.int64] = candidates[np.asarray(near, dtype=bool)]
    return pairs


def _shingles(text: str) -> NDArray[np.uint64]:
    """The hashes of the distinct triples of words; of a shorter text, of all its words."""
    words = np.asarray([crc32(word.encode("utf-8", "surrogatepass")) for word in re.findall(r"\w+", text.lower())])
    words = words.astype(np.uint64)
    size = min(_WORDS, len(words))
    if size == 0:
        return words
    parts = [words[i : len(words) - size + 1 + i] * _MULTIPLIERS[i] for i in range(size)]
    return np.unique(_mixed(np.sum(parts, axis=0, dtype=np.uint64)))


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The values with their upper bits mixed into the lower ones: a product's lower bits are poor hashes."""
    mixed: NDArray[np.uint64] = (values ^ (values >> np.uint64(31))) * _MULTIPLIERS[0]
    return mixed


def _same_bands(signatures: NDArray[np.uint64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """The pairs of `rows` with an equal band of their signatures, at most `_WINDOW` places apart in its order."""
    found = [np.empty((0, 2), dtype=np.int64)]
    for band in range(_BANDS):
        values = signatures[rows, band * _ROWS : (band + 1) * _ROWS]
        order = np.lexsort(values.T)
        ordered = values[order]
        for step in range(1, min(_WINDOW + 1, len(rows))):
            is_equal = (ordered[:-step] == ordered[step:]).all(axis=1)
            if not is_equal.any():
                break
            pairs = np.stack((rows[order[:-step][is_equal]], rows[order[step:][is_equal]]), axis=1)
            found.append(np.sort(pairs, axis=1))
    return np.unique(np.concatenate(found), axis=0)


def _jaccard(a: NDArray[np.uint64], b: NDArray[np.uint64]) -> float:
    common = len(np.intersect1d(a, b, assume_unique=True))
    return common / (len(a) + len(b) - common)
