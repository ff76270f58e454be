"""Grouping by length: every row comes back in its place, and padding is bounded."""

from collections.abc import Mapping, Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from service.inputs.length_buckets import in_length_groups, length_groups
from service.inputs.modality import Array

lengths_of_batches = st.lists(st.integers(1, 2000), min_size=1, max_size=100)


@given(lengths_of_batches)
def test_each_position_is_in_one_group(lengths: list[int]) -> None:
    positions = [position for group in length_groups(lengths) for position in group]
    assert sorted(positions) == list(range(len(lengths)))


@given(lengths_of_batches)
def test_padding_stays_under_15_percent_of_what_is_computed(lengths: list[int]) -> None:
    for group in length_groups(lengths):
        of_group = [lengths[position] for position in group]
        assert sum(of_group) >= 0.85 * max(of_group) * len(of_group)


@given(st.lists(st.integers(1, 32), min_size=1, max_size=64))
def test_short_sequences_are_one_call(lengths: list[int]) -> None:
    calls: list[int] = []

    def run(items: Sequence[Array], *, exclusive: bool) -> Mapping[str, Array]:
        calls.append(len(items))
        return {"length": np.array([len(item) for item in items], np.float32)}

    in_length_groups(run)([np.zeros(length, np.int64) for length in lengths], exclusive=True)
    assert calls == [len(lengths)]


@given(lengths_of_batches)
def test_rows_come_back_in_the_order_of_the_batch(lengths: list[int]) -> None:
    calls = 0

    def run(items: Sequence[Array], *, exclusive: bool) -> Mapping[str, Array]:
        nonlocal calls
        calls += 1
        return {
            "length": np.array([len(item) for item in items], np.float32),
            "first": np.array([item[0] for item in items], np.int64),
            "parts": np.stack([np.pad(item, (0, max(map(len, items)) - len(item))) for item in items]),
        }

    items = [np.full(length, position, np.int64) for position, length in enumerate(lengths)]
    outputs = in_length_groups(run)(items, exclusive=True)
    assert outputs["length"].tolist() == lengths
    assert outputs["first"].tolist() == list(range(len(lengths)))
    for item, parts in zip(items, outputs["parts"], strict=True):
        assert np.array_equal(parts[: len(item)], item)
        assert not parts[len(item) :].any()
    assert (outputs["length"].dtype, outputs["first"].dtype) == (np.float32, np.int64)
    assert calls == len(length_groups([max(length, 32) for length in lengths]))
