"""Length buckets: the rows keep the order of the batch, and padding is bounded."""

from collections.abc import Mapping, Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from service.inputs.length_buckets import length_buckets, run_in_length_buckets
from service.inputs.modality import Array

lengths_of_batches = st.lists(st.integers(1, 2000), min_size=1, max_size=100)


@given(lengths_of_batches)
def test_each_index_is_in_one_bucket(lengths: list[int]) -> None:
    indices = [index for bucket in length_buckets(lengths) for index in bucket]
    assert sorted(indices) == list(range(len(lengths)))


@given(lengths_of_batches)
def test_at_most_15_percent_of_the_computed_positions_are_padding(lengths: list[int]) -> None:
    for bucket in length_buckets(lengths):
        bucketed = [lengths[index] for index in bucket]
        assert sum(bucketed) >= 0.85 * max(bucketed) * len(bucketed)


@given(st.lists(st.integers(1, 32), min_size=1, max_size=64))
def test_short_sequences_are_computed_by_one_call(lengths: list[int]) -> None:
    calls: list[int] = []

    def run(items: Sequence[Array], *, exclusive: bool) -> Mapping[str, Array]:
        calls.append(len(items))
        return {"length": np.array([len(item) for item in items], np.float32)}

    run_in_length_buckets(run, [np.zeros(length, np.int64) for length in lengths], exclusive=True)
    assert calls == [len(lengths)]


@given(lengths_of_batches)
def test_rows_keep_the_order_of_the_batch(lengths: list[int]) -> None:
    calls = 0

    def run(items: Sequence[Array], *, exclusive: bool) -> Mapping[str, Array]:
        nonlocal calls
        calls += 1
        return {
            "length": np.array([len(item) for item in items], np.float32),
            "first": np.array([item[0] for item in items], np.int64),
            "parts": np.stack([np.pad(item, (0, max(map(len, items)) - len(item))) for item in items]),
        }

    items = [np.full(length, index, np.int64) for index, length in enumerate(lengths)]
    outputs = run_in_length_buckets(run, items, exclusive=True)
    assert outputs["length"].tolist() == lengths
    assert outputs["first"].tolist() == list(range(len(lengths)))
    for item, parts in zip(items, outputs["parts"], strict=True):
        assert np.array_equal(parts[: len(item)], item)
        assert not parts[len(item) :].any()
    assert (outputs["length"].dtype, outputs["first"].dtype) == (np.float32, np.int64)
    assert calls == len(length_buckets([max(length, 32) for length in lengths]))
