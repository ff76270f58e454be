"""Shared memory of one model version: slots for the inputs and outputs of every front end, and counters."""

import mmap
import os
import tempfile
from dataclasses import asdict, dataclass
from math import prod
from typing import Any, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from service.inputs.modality import Array

_PAGE = 4096
# Positions of 8 bytes in the header.
_SECONDS_PER_INPUT, _STALLED_SECONDS, _BROKEN, _LEFT, _ADMITTED = range(5)

WAITED = "waited"
"""The field of an output slot with the seconds that the input was queued, beside the fields of the outputs."""

OutputField = tuple[str, str, tuple[int, ...]]
"""An output's name, its NumPy type and the shape of a row."""


@dataclass(frozen=True, slots=True)
class SlotLayout:
    """The layout of the memory.

    Attributes:
        regions: Most front ends that are connected at the same time. Each has a region with its own slots.
        slots: The slots of one region.
        input_shape: The shape of the largest input.
        input_type: The NumPy type of inputs.
        has_lengths: Whether inputs are shorter than the largest along their only axis.
        outputs: The outputs that have rows of one size.
    """

    regions: int
    slots: int
    input_shape: tuple[int, ...]
    input_type: str
    has_lengths: bool
    outputs: tuple[OutputField, ...]

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Self:
        """The layout that `to_json` returned."""
        outputs = tuple((name, kind, tuple(shape)) for name, kind, shape in fields["outputs"])
        return cls(**{**fields, "input_shape": tuple(fields["input_shape"]), "outputs": outputs})

    @property
    def output_type(self) -> np.dtype[np.void]:
        """The type of an output slot."""
        fields: list[tuple[str, DTypeLike, tuple[int, ...]]] = [(WAITED, "f4", ()), *self.outputs]
        return np.dtype(fields, align=True)


class SharedSlots:
    """The mapped memory. Every number in it has one writer, so that no lock is needed.

    A process reads another one's slots and counters only after a message that was sent after they were written.
    Counters of the queue may also be read at any time: they are then late by moments.

    Attributes:
        layout: The layout.
        inputs: The input slots, `[regions, slots, *input_shape]`.
        lengths: The lengths of the inputs in their slots, int64 `[regions, slots]`.
        outputs: The output slots, `[regions, slots]`.
    """

    def __init__(self, descriptor: int, layout: SlotLayout) -> None:
        """Map the memory of `descriptor`, which may be closed afterwards."""
        self.layout = layout
        shape, kind = (layout.regions, layout.slots), layout.output_type
        header = _whole_pages(8 * (_ADMITTED + layout.regions))
        sizes = [
            header,
            _whole_pages(prod(shape) * 8),
            _whole_pages(prod(shape) * kind.itemsize),
            _whole_pages(prod((*shape, *layout.input_shape)) * np.dtype(layout.input_type).itemsize),
        ]
        starts = np.cumsum([0, *sizes]).tolist()
        if os.fstat(descriptor).st_size < starts[-1]:
            os.ftruncate(descriptor, starts[-1])
        memory = mmap.mmap(descriptor, starts[-1])
        self._floats = memoryview(memory)[:header].cast("d")
        self._integers = memoryview(memory)[:header].cast("q")
        self._admitted = self._integers[_ADMITTED : _ADMITTED + layout.regions]
        self.lengths: NDArray[np.int64] = np.ndarray(shape, np.int64, memory, starts[1])
        self.outputs: NDArray[np.void] = np.ndarray(shape, kind, memory, starts[2])
        self.inputs: Array = np.ndarray((*shape, *layout.input_shape), layout.input_type, memory, starts[3])

    @property
    def seconds_per_input(self) -> float:
        """Seconds that the engine takes for each input of the queue; the engine process writes it."""
        return self._floats[_SECONDS_PER_INPUT]

    @seconds_per_input.setter
    def seconds_per_input(self, seconds: float) -> None:
        self._floats[_SECONDS_PER_INPUT] = seconds

    @property
    def stalled_seconds(self) -> float:
        """Seconds of the longest call while the engine is stalled, otherwise 0; the engine process writes it."""
        return self._floats[_STALLED_SECONDS]

    @stalled_seconds.setter
    def stalled_seconds(self, seconds: float) -> None:
        self._floats[_STALLED_SECONDS] = seconds

    @property
    def broken(self) -> bool:
        """Whether the engine fails on every input; the engine process writes it."""
        return bool(self._integers[_BROKEN])

    @broken.setter
    def broken(self, broken: bool) -> None:
        self._integers[_BROKEN] = broken

    def set_left(self, count: int) -> None:
        """Set the number of inputs that have left the queue so far. Only the engine process calls it."""
        self._integers[_LEFT] = count

    def admitted(self, region: int) -> int:
        """The number of inputs that the front end with `region` and earlier ones with it have admitted so far."""
        return self._admitted[region]

    def set_admitted(self, region: int, count: int) -> None:
        """Set the number. Only the front end with `region` calls it, and the engine process while it is free."""
        self._admitted[region] = count

    @property
    def depth(self) -> int:
        """The number of inputs that all front ends have admitted and that have not left the queue."""
        # Read first: an input that is admitted and leaves in between must not make the queue seem shorter than it is.
        left = self._integers[_LEFT]
        return sum(self._admitted) - left


def create_memory(name: str) -> int:
    """A descriptor of memory that other processes can map, and that takes only the space that was written to."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create(name[:200], os.MFD_CLOEXEC)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _whole_pages(size: int) -> int:
    return -(-size // _PAGE) * _PAGE
