"""Fixed batch sizes: on a GPU each session computes batches of one size only, and batches are filled up to it.

cuDNN plans every convolution anew, which takes tens of milliseconds, whenever a session gets another shape than in its
last call; earlier shapes are not remembered. See docs/performance.md.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import onnxruntime

from service.inputs.modality import Array

# Between a single input and a full batch: a padded row costs as much as a real one once the GPU is busy.
_SMALL_SIZES = (1, 16)


def fixed_sizes(max_batch: int) -> list[int]:
    """The batch sizes of a model's sessions."""
    return sorted({*(size for size in _SMALL_SIZES if size < max_batch), max_batch})


class FullBatch(Protocol):
    """Computes batches of one size."""

    @property
    def session(self) -> onnxruntime.InferenceSession:
        """The session that computes."""

    def run(self, feed: Mapping[str, Array], options: onnxruntime.RunOptions | None = None) -> list[Array]:
        """Compute a full batch."""


class PlainBatch:
    """Batches of one size, by plain calls of a session."""

    def __init__(self, session: onnxruntime.InferenceSession, output_names: Sequence[str]) -> None:
        self.session = session
        self._output_names = output_names
        self._last_shapes: list[tuple[int, ...]] = []
        self.shape_changes = 0

    def run(self, feed: Mapping[str, Array], options: onnxruntime.RunOptions | None = None) -> list[Array]:
        """Compute a full batch and count it if its shape differs from the last one's."""
        shapes = [rows.shape for rows in feed.values()]
        if self._last_shapes and shapes != self._last_shapes:
            self.shape_changes += 1
        self._last_shapes = shapes
        outputs: list[Array] = self.session.run(self._output_names, feed, options)
        return outputs


class FixedBatches:
    """Computes batches of any size up to the largest by full batches of fixed sizes.

    A batch is filled up with copies of its last row, whose outputs are dropped.

    Attributes:
        sizes: The fixed sizes.
        batches: What computes a full batch, by its size.
    """

    def __init__(self, batches: Mapping[int, FullBatch]) -> None:
        """Prepare for batches.

        Args:
            batches: What computes a full batch, by its size.
        """
        self.sizes = sorted(batches)
        self.batches = dict(batches)

    @property
    def sessions(self) -> list[onnxruntime.InferenceSession]:
        """The sessions, of the smallest size first."""
        return [self.batches[size].session for size in self.sizes]

    @property
    def uses_graphs(self) -> bool:
        """Whether the batches are computed by CUDA graphs."""
        return not any(isinstance(batch, PlainBatch) for batch in self.batches.values())

    @property
    def shape_changes(self) -> int:
        """How often a session got another shape than in its last call; its convolutions were then planned anew."""
        return sum(batch.shape_changes for batch in self.batches.values() if isinstance(batch, PlainBatch))

    def run(self, feed: Mapping[str, Array], options: onnxruntime.RunOptions | None = None) -> list[Array]:
        """Compute a batch.

        Args:
            feed: The input tensors by name, each `[N, ...]`.
            options: ONNX Runtime's options of the call.

        Returns:
            The outputs, each `[N, ...]`.
        """
        count = min(len(rows) for rows in feed.values())
        index = bisect_left(self.sizes, count)
        if index == len(self.sizes):
            raise ValueError(f"a batch of {count} is larger than the largest size, {self.sizes[-1]}")
        size = self.sizes[index]
        if count == size:
            return self.batches[size].run(feed, options)
        filled = {name: np.concatenate([rows, np.repeat(rows[-1:], size - count, 0)]) for name, rows in feed.items()}
        return [rows[:count] for rows in self.batches[size].run(filled, options)]
