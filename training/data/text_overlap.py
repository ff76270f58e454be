"""Overlap of texts: the same words in the same order, whatever their case and spacing."""

import numpy as np
from numpy.typing import NDArray

from training.data.examples import Examples
from training.data.overlap import Overlap

_BLOCK = 4096


def find_text_overlap(inside: Examples, outside: Examples) -> Overlap:
    """Outliers whose token ids, up to the model's length, are those of an in-distribution text."""
    known = {tokens for block in _blocks(inside) for tokens in block}
    repeated = [row for row, tokens in enumerate(t for block in _blocks(outside) for t in block) if tokens in known]
    return Overlap(np.asarray(repeated, dtype=np.int64), np.empty(0, dtype=np.int64))


def _blocks(texts: Examples) -> list[list[bytes]]:
    n = len(texts)
    starts = range(0, n, _BLOCK)
    rows: list[NDArray[np.int64]] = [np.arange(i, min(i + _BLOCK, n), dtype=np.int64) for i in starts]
    return [[tokens.tobytes() for tokens in texts.x[block]] for block in rows]
