"""Segments: consecutive texts joined by END and cut into pieces of equal length."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from training.data import NO_TOKEN, StoredArray, text_segments

END = 99


def stored(texts: list[list[int]], width: int = 6) -> StoredArray:
    rows = np.full((len(texts), width), NO_TOKEN, dtype=np.int32)
    for row, text in zip(rows, texts, strict=True):
        row[: len(text)] = text
    return StoredArray(rows)


def test_texts_are_joined_in_their_order_with_the_end_after_each() -> None:
    segments = text_segments(stored([[1, 2, 3], [4], [5, 6, 7, 8, 9, 10], [11, 12]]), 4, END)
    assert segments.array.tolist() == [[1, 2, 3, END], [4, END, 5, 6], [7, 8, 9, 10], [END, 11, 12, END]]


def test_an_incomplete_last_segment_is_left_out() -> None:
    assert text_segments(stored([[1, 2, 3]]), 3, END).array.tolist() == [[1, 2, 3]]
    assert text_segments(stored([[1, 2]]), 4, END).shape == (0, 4)


@given(
    texts=st.lists(st.lists(st.integers(0, 50), min_size=1, max_size=6), min_size=1, max_size=20),
    symbols=st.integers(1, 9),
)
def test_segments_are_the_stream_of_symbols(texts: list[list[int]], symbols: int) -> None:
    stream = [symbol for text in texts for symbol in (*text, END)]
    segments = text_segments(stored(texts), symbols, END).array
    assert segments.ravel().tolist() == stream[: len(stream) // symbols * symbols]
