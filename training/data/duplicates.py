"""Duplicates: keeps copies of an in-distribution example out of all splits except one.

A copy in the training split would make calibration and test examples look more typical than later inputs.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.data.examples import InputArray
from training.data.splits import InDistributionRows

_BLOCK = 1024


@dataclass(frozen=True)
class SeparatedRows:
    """The rows that remain of the training and test splits, in ascending order.

    `train` are row numbers of the train source, `test` of the test split, so that row 0 is the first test example.
    """

    train: NDArray[np.int64]
    test: NDArray[np.int64]


def separate_duplicates(
    rows: InDistributionRows, hashes: Sequence[bytes], test_hashes: Sequence[bytes] | None = None
) -> SeparatedRows:
    """Leave out training examples that repeat a held-out example, and test examples that repeat a calibration example.

    The calibration split stays complete: it remains a random sample of the size that the recipe asks for. Copies within
    one split remain, too.

    Args:
        rows: The splits of the train source.
        hashes: The content hash of each row of the train source.
        test_hashes: The content hash of each example of a separate test set; None if the test split is part of `rows`.
    """
    test = [hashes[row] for row in rows.test] if test_hashes is None else test_hashes
    calibration = {hashes[row] for row in rows.calibration}
    held_out = calibration.union(test)
    return SeparatedRows(
        train=np.asarray([row for row in rows.train if hashes[row] not in held_out], dtype=np.int64),
        test=np.asarray([i for i, content in enumerate(test) if content not in calibration], dtype=np.int64),
    )


def conflicting_labels(hashes: Sequence[bytes], y: NDArray[np.int64]) -> int:
    """The number of distinct inputs that have copies with different labels.

    Args:
        hashes: The content hash of each input `[N]`.
        y: Their class indices int64 `[N]`.
    """
    labels: dict[bytes, int] = {}
    conflicting: set[bytes] = set()
    for content, label in zip(hashes, y.tolist(), strict=True):
        if labels.setdefault(content, label) != label:
            conflicting.add(content)
    return len(conflicting)


def text_hashes(texts: Iterable[str]) -> list[bytes]:
    """The content hash of each text; texts that differ only in case or spacing have equal hashes."""
    return [_digest(" ".join(text.lower().split()).encode("utf-8", "surrogatepass")) for text in texts]


def input_hashes(x: InputArray) -> list[bytes]:
    """The content hash of each stored input, of the values that a model reads."""
    blocks = (np.arange(i, min(i + _BLOCK, x.shape[0]), dtype=np.int64) for i in range(0, x.shape[0], _BLOCK))
    return [input_hash(row) for rows in blocks for row in x[rows]]


def input_hash(values: NDArray[np.generic]) -> bytes:
    """The content hash of the values of one input, 16 bytes."""
    return _digest(np.ascontiguousarray(values).tobytes())


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()
