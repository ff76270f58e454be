"""Outlier pairing as in the paper: each step reads one in-distribution batch and one batch of outliers."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from training.data.examples import Examples, InputArray, StoredArray
from training.data.token_ids import text_lengths
from training.errors import DataError

Lengths = NDArray[np.int64]
"""The number of tokens of each row, `[N]`."""

_STRETCH = 50
"""The number of batches that are sorted by length together."""

_COPIED_ROWS = 16_384

NO_CLASS = -1
"""The class index of an unlabelled example."""


class Batch(NamedTuple):
    """One step's data: stored inputs `x_in` `[N, ...]`, their classes `y_in` int64 `[N]`, outliers `x_out` `[M, ...]`.

    The classes of unlabelled examples are `NO_CLASS`.
    """

    x_in: Tensor
    y_in: Tensor
    x_out: Tensor | None


class _Step(NamedTuple):
    rows_in: NDArray[np.int64]
    rows_out: NDArray[np.int64] | None


class _PairedData(Dataset[Batch]):
    """Reads the rows of a step at once: one fancy index per batch and array, on `device` if that holds the data."""

    def __init__(self, in_dist: Examples, outliers: Examples | None, device: torch.device | None) -> None:
        y_in = np.full(len(in_dist), NO_CLASS, dtype=np.int64) if in_dist.y is None else in_dist.y
        self._x_in = _rows_of(in_dist.x, device)
        self._y_in = _rows_of(StoredArray(y_in), device)
        self._x_out = None if outliers is None else _rows_of(outliers.x, device)

    def __getitem__(self, step: _Step) -> Batch:
        x_out = None
        if self._x_out is not None and step.rows_out is not None:
            x_out = self._x_out(step.rows_out)
        return Batch(self._x_in(step.rows_in), self._y_in(step.rows_in), x_out)


class PairedSampler(Sampler[_Step]):
    """The rows of every step of an epoch.

    They depend on (seed, epoch, rank) alone, so a resumed run repeats no row. In-distribution rows are a new
    permutation each epoch, without its last partial batch. The outliers are read cyclically in one fixed random order,
    from a random offset that is drawn each epoch (paper, section 4.2, and its authors' code).
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        batch_in: int,
        batch_out: int,
        *,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        lengths_in: Lengths | None = None,
        lengths_out: Lengths | None = None,
    ) -> None:
        """Configure the order.

        Args:
            n_in: The number of in-distribution examples.
            n_out: The number of outliers; 0 if the stage has none.
            batch_in: In-distribution examples per step and process.
            batch_out: Outliers per step and process.
            seed: The recipe's seed.
            rank: The number of this process among `world_size`.
            world_size: The number of processes that share an epoch.
            lengths_in: Lengths of in-distribution texts, to group batches by length.
            lengths_out: Lengths of outlier texts, to group batches by length.
        """
        self._n_in, self._batch_in, self._batch_out = n_in, batch_in, batch_out
        self._seed, self._rank, self._world_size = seed, rank, world_size
        self._lengths_in = lengths_in
        generator = np.random.default_rng((seed, 0))
        stream = generator.permutation(n_out).astype(np.int64)
        self._stream = stream if lengths_out is None else group_by_length(stream, lengths_out, batch_out, generator)
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Select the epoch of the next iteration; called by Lightning."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self._n_in // (self._batch_in * self._world_size)

    def __iter__(self) -> Iterator[_Step]:
        generator = np.random.default_rng((self._seed, 1, self.epoch))
        order = generator.permutation(self._n_in).astype(np.int64)
        if self._lengths_in is not None:
            order = group_by_length(order, self._lengths_in, self._batch_in, generator)
        offset = int(generator.integers(len(self._stream))) if len(self._stream) else 0
        for step in range(len(self)):
            batch = step * self._world_size + self._rank
            rows_out = None
            if len(self._stream):
                positions = offset + batch * self._batch_out + np.arange(self._batch_out)
                rows_out = self._stream[positions % len(self._stream)]
            yield _Step(order[batch * self._batch_in : (batch + 1) * self._batch_in], rows_out)


def group_by_length(
    order: NDArray[np.int64], lengths: Lengths, batch: int, generator: np.random.Generator
) -> NDArray[np.int64]:
    """Reorder rows so that each batch holds texts of similar length and needs little padding.

    Rows are sorted by length within stretches of `_STRETCH` batches, so that the members of a batch change from epoch
    to epoch. The batches are shuffled.

    Args:
        order: Shuffled row numbers `[N]`.
        lengths: The length of each row, by row number.
        batch: The batch size.
        generator: The source of the shuffle.

    Returns:
        The row numbers `[N]`; those that fill no batch come last.
    """
    stretches = np.split(order, range(_STRETCH * batch, len(order), _STRETCH * batch))
    grouped = np.concatenate([rows[np.argsort(lengths[rows], kind="stable")] for rows in stretches])
    n_batches = len(grouped) // batch
    batches = grouped[: n_batches * batch].reshape(n_batches, batch)
    return np.concatenate([generator.permutation(batches).ravel(), grouped[n_batches * batch :]])


def paired_batches(
    in_dist: Examples,
    outliers: Examples | None,
    *,
    batch_size: int,
    outlier_ratio: float,
    seed: int,
    rank: int = 0,
    world_size: int = 1,
    workers: int = 0,
    pin_memory: bool = False,
    by_length: bool = False,
    device: torch.device | None = None,
) -> DataLoader[Batch]:
    """A loader of the batches of a stage.

    Args:
        in_dist: The in-distribution training examples.
        outliers: The auxiliary outliers; None if the objective uses none.
        batch_size: In-distribution examples per step and process.
        outlier_ratio: Outliers per in-distribution example.
        seed: The recipe's seed.
        rank: The number of this process among `world_size`.
        world_size: The number of processes that share an epoch.
        workers: Processes that read batches; 0 to read in the training process.
        pin_memory: Whether batches are put into pinned memory for a GPU.
        by_length: For texts: whether a batch holds texts of similar length.
        device: The device to whose memory all examples are copied now, so that a step transfers row numbers only; None
            to read each batch from the main memory.

    Raises:
        DataError: The examples do not fill one batch.
    """
    if len(in_dist) < batch_size * world_size:
        raise DataError(in_dist.source, f"{len(in_dist)} examples fill no batch of {batch_size}", "Lower batch_size")
    sampler = PairedSampler(
        len(in_dist),
        0 if outliers is None else len(outliers),
        batch_size,
        round(batch_size * outlier_ratio),
        seed=seed,
        rank=rank,
        world_size=world_size,
        lengths_in=text_lengths(in_dist.x) if by_length else None,
        lengths_out=text_lengths(outliers.x) if by_length and outliers is not None else None,
    )
    return DataLoader(
        _PairedData(in_dist, outliers, device),
        sampler=sampler,
        batch_size=None,
        num_workers=workers,
        pin_memory=pin_memory,
        # Without its own generator the loader draws from the default one, which augmentation and dropout use.
        generator=torch.Generator(),
    )


def _rows_of(array: InputArray, device: torch.device | None) -> Callable[[NDArray[np.int64]], Tensor]:
    """A function from row numbers `[N]` to these rows of `array`, on `device` if it is to hold the whole array."""
    return partial(_read, array) if device is None else partial(_select, _copied(array, device))


def _read(array: InputArray, rows: NDArray[np.int64]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array[rows]))


def _select(stored: Tensor, rows: NDArray[np.int64]) -> Tensor:
    return stored.index_select(0, torch.from_numpy(rows).to(stored.device, non_blocking=True))


def _copied(array: InputArray, device: torch.device) -> Tensor:
    """The whole of `array` in the memory of `device`, copied in parts because the array may be a memory-mapped file."""
    rows = np.arange(array.shape[0], dtype=np.int64)
    copy = torch.empty(array.shape, dtype=_read(array, rows[:1]).dtype, device=device)
    for start in range(0, len(rows), _COPIED_ROWS):
        part = rows[start : start + _COPIED_ROWS]
        copy[start : start + len(part)] = _read(array, part)
    return copy
