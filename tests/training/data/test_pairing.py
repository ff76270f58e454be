"""Pairing: every step gets its in-distribution rows once an epoch and its share of the outlier stream."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from training.data import NO_TOKEN, Examples, StoredArray, paired_batches
from training.data.pairing import PairedSampler, group_by_length
from training.errors import DataError

sizes = st.integers(1, 60)


def numbered(n: int, classes: int = 2) -> Examples:
    """Images whose every pixel is their row number."""
    x = np.broadcast_to(np.arange(n, dtype=np.uint8)[:, None, None, None], (n, 2, 2, 1))
    y = np.arange(n, dtype=np.int64) % classes
    return Examples(StoredArray(x), y, tuple("abc"[:classes]), "numbered", "memory", "0")


def unlabelled_texts(n: int, seed: int) -> Examples:
    """Texts of 1 to 40 tokens."""
    lengths = np.random.default_rng(seed).integers(1, 41, n)
    x = np.where(np.arange(40) < lengths[:, None], 1, NO_TOKEN).astype(np.int32)
    return Examples(StoredArray(x), None, (), "texts", "memory", "0")


def spread_within_batches(lengths: NDArray[np.int64], order: NDArray[np.int64], batch: int) -> float:
    """The mean difference between the longest and the shortest text of a batch."""
    whole = len(order) // batch * batch
    return float(np.mean(np.ptp(lengths[order[:whole]].reshape(-1, batch), axis=1)))


@given(n_in=sizes, n_out=sizes, batch=st.integers(1, 12), ratio=st.integers(1, 3), epoch=st.integers(0, 5))
def test_an_epoch_has_each_in_distribution_row_at_most_once_and_only_whole_batches(
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


def test_ranks_read_consecutive_batches_of_the_outlier_stream() -> None:
    alone = PairedSampler(24, 30, 2, 4, seed=1)
    ranks = [list(PairedSampler(24, 30, 2, 4, seed=1, rank=rank, world_size=3)) for rank in range(3)]
    shared = [step for steps in zip(*ranks, strict=True) for step in steps]
    for one, other in zip(alone, shared, strict=True):
        np.testing.assert_array_equal(one.rows_in, other.rows_in)
        np.testing.assert_array_equal(one.rows_out, other.rows_out)


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


def test_the_outlier_stream_can_start_at_every_row() -> None:
    sampler = PairedSampler(1, 3, 1, 1, seed=1)
    starts = set()
    for epoch in range(40):
        sampler.set_epoch(epoch)
        (step,) = sampler
        assert step.rows_out is not None
        starts.add(int(step.rows_out[0]))
    assert starts == {0, 1, 2}


def test_the_same_epoch_gives_the_same_steps_after_any_other() -> None:
    fresh, used = (PairedSampler(20, 20, 4, 4, seed=3) for _ in range(2))
    list(used)
    for sampler in (fresh, used):
        sampler.set_epoch(5)
    for ours, theirs in zip(fresh, used, strict=True):
        np.testing.assert_array_equal(ours.rows_in, theirs.rows_in)
        np.testing.assert_array_equal(ours.rows_out, theirs.rows_out)


def test_a_new_sampler_is_at_epoch_zero() -> None:
    new, reset = (PairedSampler(20, 20, 4, 4, seed=3) for _ in range(2))
    reset.set_epoch(0)
    np.testing.assert_array_equal([step.rows_in for step in new], [step.rows_in for step in reset])


def test_the_order_of_a_seed_and_an_epoch_is_fixed() -> None:
    """A run that is resumed by another version of the package must read the same rows."""
    sampler = PairedSampler(12, 7, 4, 2, seed=5)
    sampler.set_epoch(3)
    generator = np.random.default_rng((5, 1, 3))
    in_dist, offset = generator.permutation(12), int(generator.integers(7))
    outliers = np.roll(np.random.default_rng((5, 0)).permutation(7), -offset)
    for i, step in enumerate(sampler):
        np.testing.assert_array_equal(step.rows_in, in_dist[4 * i : 4 * i + 4])
        np.testing.assert_array_equal(step.rows_out, outliers[2 * i : 2 * i + 2])


@given(n=st.integers(1, 700), batch=st.integers(1, 9), longest=st.integers(1, 50), seed=st.integers(0, 99))
def test_grouping_by_length_keeps_every_row_and_puts_those_that_fill_no_batch_last(
    n: int, batch: int, longest: int, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    lengths, order = generator.integers(1, longest + 1, n), generator.permutation(n).astype(np.int64)
    grouped = group_by_length(order, lengths, batch, generator)
    np.testing.assert_array_equal(np.sort(grouped), np.arange(n))
    stretch = 50 * batch
    last = n % batch
    if last:
        remainder = order[(n - 1) // stretch * stretch :]
        np.testing.assert_array_equal(np.sort(lengths[grouped[-last:]]), np.sort(lengths[remainder])[-last:])


def test_batches_grouped_by_length_hold_texts_of_similar_length_in_random_order() -> None:
    generator = np.random.default_rng(1)
    lengths, order = generator.integers(1, 101, 2003), generator.permutation(2003).astype(np.int64)
    grouped = group_by_length(order, lengths, 8, generator)
    assert spread_within_batches(lengths, grouped, 8) < 3 < spread_within_batches(lengths, order, 8)
    means = lengths[grouped[:2000]].reshape(-1, 8).mean(axis=1)
    assert abs(np.corrcoef(means[:-1], means[1:])[0, 1]) < 0.2


def test_rows_of_a_batch_grouped_by_length_change_from_epoch_to_epoch() -> None:
    lengths = np.random.default_rng(1).integers(1, 41, 3000)
    sampler = PairedSampler(3000, 1, 4, 1, seed=1, lengths_in=lengths)
    epochs = []
    for epoch in (0, 1):
        sampler.set_epoch(epoch)
        epochs.append({frozenset(step.rows_in.tolist()) for step in sampler})
    assert len(epochs[0] & epochs[1]) < 10


def test_both_streams_of_texts_are_grouped_by_length() -> None:
    texts, outliers = unlabelled_texts(960, seed=1), unlabelled_texts(960, seed=2)
    spreads = {}
    for by_length in (False, True):
        loader = paired_batches(texts, outliers, batch_size=8, outlier_ratio=1, seed=1, by_length=by_length)
        lengths = [[(x != NO_TOKEN).sum(dim=1) for x in (batch.x_in, batch.x_out)] for batch in loader]
        spreads[by_length] = np.mean([[int(n.max() - n.min()) for n in pair] for pair in lengths], axis=0)
    in_dist, out = spreads[True]
    assert in_dist < 3
    # The random offset into the outlier stream divides its groups between two steps.
    assert out < 25
    assert min(spreads[False]) > 28


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


def test_a_device_that_holds_the_data_gives_the_same_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.data.pairing._COPIED_ROWS", 5)
    loaders = [
        paired_batches(numbered(12), numbered(9), batch_size=4, outlier_ratio=1.5, seed=1, device=device)
        for device in (None, torch.device("cpu"))
    ]
    for read, selected in zip(*loaders, strict=True):
        for one, other in zip(read, selected, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_without_outliers_batches_have_none() -> None:
    assert next(iter(paired_batches(numbered(8), None, batch_size=4, outlier_ratio=2, seed=1))).x_out is None


def test_the_classes_of_unlabelled_examples_are_minus_one() -> None:
    (batch,) = paired_batches(unlabelled_texts(4, seed=1), None, batch_size=4, outlier_ratio=1, seed=1)
    assert batch.y_in.tolist() == [-1] * 4


def test_the_examples_of_exactly_one_batch_per_process_are_enough() -> None:
    for world in (1, 2):
        loader = paired_batches(numbered(8 * world), None, batch_size=8, outlier_ratio=2, seed=1, world_size=world)
        assert len(list(loader)) == 1


@pytest.mark.parametrize(("n", "world"), [(8, 1), (15, 1), (31, 2)])
def test_fewer_examples_than_a_batch_per_process_are_refused(n: int, world: int) -> None:
    with pytest.raises(DataError, match=f"{n} examples fill no batch of 16"):
        paired_batches(numbered(n), None, batch_size=16, outlier_ratio=2, seed=1, world_size=world)
