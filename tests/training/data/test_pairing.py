"""Pairing: every step gets its in-distribution rows once an epoch and its share of the outlier stream."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.data import Examples, StoredArray, paired_batches
from training.data.pairing import PairedSampler
from training.errors import DataError

sizes = st.integers(1, 60)


def numbered(n: int, classes: int = 2) -> Examples:
    """Images whose every pixel is their row number."""
    x = np.broadcast_to(np.arange(n, dtype=np.uint8)[:, None, None, None], (n, 2, 2, 1))
    y = np.arange(n, dtype=np.int64) % classes
    return Examples(StoredArray(x), y, tuple("abc"[:classes]), "numbered", "memory", "0")


@given(n_in=sizes, n_out=sizes, batch=st.integers(1, 12), ratio=st.integers(1, 3), epoch=st.integers(0, 5))
def test_an_epoch_takes_each_in_distribution_row_at_most_once_and_only_whole_batches(
    n_in: int, n_out: int, batch: int, ratio: int, epoch: int
) -> None:
    sampler = PairedSampler(n_in, n_out, batch, batch * ratio, seed=1)
    sampler.set_epoch(epoch)
    steps = list(sampler)
    assert len(steps) == len(sampler) == n_in // batch
    rows = np.concatenate([np.empty(0, dtype=np.int64), *(step.rows_in for step in steps)])
    assert len(rows) == len(np.unique(rows)) == len(steps) * batch
    assert all(step.rows_out is not None and len(step.rows_out) == batch * ratio for step in steps)


@given(n_in=st.integers(8, 60), n_out=sizes, world=st.integers(1, 4))
def test_ranks_share_an_epoch_without_repeating_a_row(n_in: int, n_out: int, world: int) -> None:
    samplers = [PairedSampler(n_in, n_out, 2, 4, seed=1, rank=rank, world_size=world) for rank in range(world)]
    rows = np.concatenate([step.rows_in for sampler in samplers for step in sampler])
    assert len(rows) == len(np.unique(rows)) == n_in // (2 * world) * 2 * world


def test_the_outlier_stream_is_cyclic_and_starts_elsewhere_each_epoch() -> None:
    sampler = PairedSampler(40, 30, 4, 8, seed=1)
    starts = set()
    for epoch in range(8):
        sampler.set_epoch(epoch)
        stream = np.concatenate([step.rows_out for step in sampler if step.rows_out is not None])
        np.testing.assert_array_equal(np.sort(stream[:30]), np.arange(30))
        np.testing.assert_array_equal(stream[30:60], stream[:30])
        starts.add(int(stream[0]))
    assert len(starts) > 1


def test_the_same_epoch_gives_the_same_steps_whatever_came_before() -> None:
    fresh, used = (PairedSampler(20, 20, 4, 4, seed=3) for _ in range(2))
    list(used)
    for sampler in (fresh, used):
        sampler.set_epoch(5)
    for ours, theirs in zip(fresh, used, strict=True):
        np.testing.assert_array_equal(ours.rows_in, theirs.rows_in)
        np.testing.assert_array_equal(ours.rows_out, theirs.rows_out)


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_carry_the_images_of_their_rows_with_their_labels(workers: int) -> None:
    loader = paired_batches(numbered(12), numbered(9), batch_size=4, outlier_ratio=1.5, seed=1, workers=workers)
    batches = list(loader)
    assert len(batches) == 3
    for batch in batches:
        assert batch.x_in.shape == (4, 2, 2, 1)
        assert batch.x_out is not None
        assert batch.x_out.shape == (6, 2, 2, 1)
        np.testing.assert_array_equal(batch.x_in[:, 0, 0, 0] % 2, batch.y_in)


def test_without_outliers_batches_have_none() -> None:
    assert next(iter(paired_batches(numbered(8), None, batch_size=4, outlier_ratio=2, seed=1))).x_out is None


def test_fewer_images_than_a_batch_are_refused() -> None:
    with pytest.raises(DataError, match="no batch of 16"):
        paired_batches(numbered(8), None, batch_size=16, outlier_ratio=2, seed=1)
