"""Segments: stored texts joined and cut into pieces of equal length, the unit of the paper's language-model tables."""

import numpy as np

from training.data.examples import InputArray, StoredArray
from training.data.token_ids import NO_TOKEN, text_lengths


def text_segments(x: InputArray, symbols: int, end: int) -> StoredArray:
    """Join consecutive texts, each followed by the symbol `end`, and cut the stream into segments.

    Args:
        x: Stored texts int32 `[N, T]`.
        symbols: The number of symbols of a segment.
        end: The id of the symbol END.

    Returns:
        Stored segments int32 `[S, symbols]`; the incomplete last one is left out.
    """
    n = x.shape[0]
    rows = np.full((n, x.shape[1] + 1), NO_TOKEN, dtype=np.int32)
    rows[:, :-1] = x[np.arange(n, dtype=np.int64)]
    rows[np.arange(n), text_lengths(x)] = end
    stream = rows[rows != NO_TOKEN]
    count = len(stream) // symbols
    return StoredArray(stream[: count * symbols].reshape(count, symbols))
