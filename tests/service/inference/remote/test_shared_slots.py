"""The memory that front ends share with the engine process."""

import os
from collections.abc import Iterator

import numpy as np
import pytest

from service.inference.remote.shared_slots import WAITED, SharedSlots, SlotLayout, create_memory

LAYOUT = SlotLayout(
    regions=3,
    slots=5,
    input_shape=(8, 8, 3),
    input_type="|u1",
    has_lengths=False,
    outputs=(("msp", "<f4", ()), ("prediction", "<i8", ()), ("model/logits", "<f2", (3,))),
)


@pytest.fixture
def both() -> Iterator[tuple[SharedSlots, SharedSlots]]:
    """The memory as two processes map it."""
    descriptor = create_memory("test")
    yield SharedSlots(descriptor, LAYOUT), SharedSlots(descriptor, SlotLayout.from_json(LAYOUT.to_json()))
    os.close(descriptor)


def test_what_one_process_writes_the_other_reads(both: tuple[SharedSlots, SharedSlots]) -> None:
    engine, front_end = both
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    front_end.inputs[2, 4] = image
    engine.outputs[2, 4] = (0.25, 0.5, 7, (1, 2, 3))
    engine.seconds_per_input, engine.stalled_seconds, engine.broken = 0.125, 3.5, True
    assert (engine.inputs[2, 4] == image).all()
    row = front_end.outputs[2][[4]]
    assert (row[WAITED], row["msp"], row["prediction"]) == (0.25, 0.5, 7)
    assert row["model/logits"].tolist() == [[1, 2, 3]]
    assert (front_end.seconds_per_input, front_end.stalled_seconds, front_end.broken) == (0.125, 3.5, True)


def test_the_depth_is_what_all_front_ends_admitted_less_what_left(both: tuple[SharedSlots, SharedSlots]) -> None:
    engine, front_end = both
    front_end.set_admitted(0, 5)
    front_end.set_admitted(2, 3)
    engine.set_left(6)
    assert (engine.depth, front_end.depth) == (2, 2)
    assert [front_end.admitted(region) for region in range(3)] == [5, 0, 3]


def test_memory_that_is_not_used_takes_no_space() -> None:
    descriptor = create_memory("test")
    layout = SlotLayout(100, 10_000, (1000,), "<i8", has_lengths=True, outputs=())
    SharedSlots(descriptor, layout).inputs[0, 0] = 1
    status = os.fstat(descriptor)
    os.close(descriptor)
    assert status.st_size > 1e9
    assert 512 * status.st_blocks < 1e6
