"""The paper's outlier pairing: each step takes one in-distribution batch and one batch of outliers."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from training.data.examples import Examples, InputArray
from training.data.token_ids import text_lengths
from training.errors import DataError

Lengths = NDArray[np.int64]
"""Tokens of each row `[N]`."""

_STRETCH = 50
"""Batches that rows are sorted within."""

NO_CLASS = -1
"""What stands for the class of an unlabelled example."""


class Batch(NamedTuple):
    """One step's data: stored inputs `x_in` `[N, ...]`, their classes `y_in` int64 `[N]`, outliers `x_out` `[M, ...]`.

    Classes are `NO_CLASS` where the examples have no labels.
    """

    x_in: Tensor
    y_in: Tensor
    x_out: Tensor | None


class _Step(NamedTuple):
    rows_in: NDArray[np.int64]
    rows_out: NDArray[np.int64] | None


class _PairedData(Dataset[Batch]):
    """Reads a whole step at once, so that an array store costs one fancy index per batch."""

    def __init__(self, inside: Examples, outside: Examples | None) -> None:
        self._x_in = inside.x
        self._y_in = np.full(len(inside), NO_CLASS, dtype=np.int64) if inside.y is None else inside.y
        self._x_out = outside.x if outside is not None else None

    def __getitem__(self, step: _Step) -> Batch:
        x_out = None
        if self._x_out is not None and step.rows_out is not None:
            x_out = _tensor(self._x_out, step.rows_out)
        return Batch(_tensor(self._x_in, step.rows_in), torch.from_numpy(self._y_in[step.rows_in]), x_out)


class PairedSampler(Sampler[_Step]):
    """Rows of every step of an epoch, a function of (seed, epoch, rank) alone, so that a resumed run repeats none.

    In-distribution rows are a fresh permutation each epoch, its last partial batch dropped. The outlier stream runs
    through a fixed shuffle from a random offset drawn anew each epoch (paper, section 4.2, and its authors' code).
    With `lengths_in` and `lengths_out` batches are of texts of similar length.
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
        self._n_in, self._batch_in, self._batch_out = n_in, batch_in, batch_out
        self._seed, self._rank, self._world_size = seed, rank, world_size
        self._lengths_in = lengths_in
        generator = np.random.default_rng((seed, 0))
        stream = generator.permutation(n_out).astype(np.int64)
        self._stream = stream if lengths_out is None else group_by_length(stream, lengths_out, batch_out, generator)
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next; Lightning calls it."""
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
            turn = step * self._world_size + self._rank
            rows_out = None
            if len(self._stream):
                positions = offset + turn * self._batch_out + np.arange(self._batch_out)
                rows_out = self._stream[positions % len(self._stream)]
            yield _Step(order[turn * self._batch_in : (turn + 1) * self._batch_in], rows_out)


def group_by_length(
    order: NDArray[np.int64], lengths: Lengths, batch: int, generator: np.random.Generator
) -> NDArray[np.int64]:
    """The rows of a shuffled `order` in batches of similar length, the batches shuffled: little of each is padding.

    Rows are sorted within stretches of many batches, so that the company they keep changes from epoch to epoch.
    """
    stretches = np.split(order, range(_STRETCH * batch, len(order), _STRETCH * batch))
    grouped = np.concatenate([rows[np.argsort(lengths[rows], kind="stable")] for rows in stretches])
    whole = len(grouped) // batch
    batches = grouped[: whole * batch].reshape(whole, batch)
    return np.concatenate([generator.permutation(batches).ravel(), grouped[whole * batch :]])


def paired_batches(
    inside: Examples,
    outside: Examples | None,
    *,
    batch_size: int,
    outlier_ratio: float,
    seed: int,
    rank: int = 0,
    world_size: int = 1,
    workers: int = 0,
    pin_memory: bool = False,
    by_length: bool = False,
) -> DataLoader[Batch]:
    """A loader of `Batch`es with `batch_size` in-distribution examples and `outlier_ratio` times as many outliers.

    With `by_length`, for texts, those of a batch have similar lengths.
    """
    if len(inside) < batch_size * world_size:
        raise DataError(inside.source, f"{len(inside)} examples fill no batch of {batch_size}", "Lower batch_size")
    sampler = PairedSampler(
        len(inside),
        0 if outside is None else len(outside),
        batch_size,
        round(batch_size * outlier_ratio),
        seed=seed,
        rank=rank,
        world_size=world_size,
        lengths_in=text_lengths(inside.x) if by_length else None,
        lengths_out=text_lengths(outside.x) if by_length and outside is not None else None,
    )
    return DataLoader(
        _PairedData(inside, outside),
        sampler=sampler,
        batch_size=None,
        num_workers=workers,
        pin_memory=pin_memory,
        # Without a generator of its own the loader would draw from the one that augmentation and dropout draw from.
        generator=torch.Generator(),
    )


def _tensor(array: InputArray, rows: NDArray[np.int64]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array[rows]))
