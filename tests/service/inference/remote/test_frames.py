"""The messages between front ends and the engine process."""

from collections.abc import Iterator

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from service.inference.remote.frames import (
    Kind,
    Outcomes,
    Submission,
    decode_outcomes,
    decode_rows,
    decode_submissions,
    encode_outcomes,
    encode_rows,
    encode_submission,
)

SLOTS = st.lists(st.integers(0, 2**32 - 1), max_size=5).map(tuple)
SECONDS = st.floats(allow_nan=False)
SUBMISSIONS = st.builds(Submission, st.integers(0, 2**32 - 1), SECONDS, SLOTS, st.booleans())
OUTCOMES = st.builds(
    Outcomes, st.sampled_from(Kind), SLOTS, st.integers(0, 2**32 - 1), SECONDS, SECONDS, st.binary(max_size=9)
)


def pieces(data: bytes, length: int) -> Iterator[bytes]:
    """The data as a socket may return it, `length` bytes at a time."""
    return (data[at : at + length] for at in range(0, len(data), length))


@given(st.lists(SUBMISSIONS, max_size=5), st.integers(1, 50))
def test_submissions_arrive_as_they_were_sent_however_the_bytes_are_divided(
    submissions: list[Submission], length: int
) -> None:
    received, arrived = bytearray(), []
    for piece in pieces(b"".join(map(encode_submission, submissions)), length):
        received += piece
        arrived += decode_submissions(received)
    assert arrived == submissions
    assert not received


@given(st.lists(OUTCOMES, max_size=5), st.integers(1, 50))
def test_outcomes_arrive_as_they_were_sent_however_the_bytes_are_divided(outcomes: list[Outcomes], length: int) -> None:
    received, arrived = bytearray(), []
    for piece in pieces(b"".join(map(encode_outcomes, outcomes)), length):
        received += piece
        arrived += decode_outcomes(received)
    assert arrived == outcomes
    assert not received


def test_outputs_whose_rows_differ_in_size_keep_their_types_shapes_and_values() -> None:
    outputs = {
        "parts": [np.arange(3, dtype=np.float32), np.zeros((2, 2), np.float32)],
        "halves": [np.array([0.5], np.float16), np.array([], np.float16)],
        "names": [np.array(["a", "bé"], dtype=object), np.array("c", dtype=object)],
        "flags": [np.array(True), np.array([False])],
    }
    decoded = decode_rows(encode_rows(outputs))
    assert decoded.keys() == outputs.keys()
    for name, rows in outputs.items():
        for row, expected in zip(decoded[name], rows, strict=True):
            assert np.asarray(row).tolist() == expected.tolist()
            assert name == "names" or (row.dtype, row.shape) == (expected.dtype, expected.shape)
