"""The messages between a front end and the engine process about inputs in shared memory.

A connection begins with one request and one answer in JSON, each after its length. Then it carries frames.
"""

import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np

from service.inputs.modality import Array

LENGTH = struct.Struct("<I")

# Request number, number of slots, whether explanations are wanted, deadline.
_SUBMIT = struct.Struct("<IIQd")
# Kind, number of slots, size of the batch, bytes of the rest, start and end of the computation.
_OUTCOME = struct.Struct("<IIIIdd")


class Kind(IntEnum):
    """The outcome of the inputs in a frame's slots.

    Attributes:
        ROWS: They were computed; the rest of the frame holds outputs whose rows differ in size.
        FAILED: The engine raised an exception, which the rest describes.
        EXPIRED: Their deadline passed before the engine began to compute them.
        DROPPED: They were cancelled before the engine began to compute them.
        EVENT: No slots; the rest is the name of a method of `service.inference.engines.EngineObserver`.
    """

    ROWS = 0
    FAILED = 1
    EXPIRED = 2
    DROPPED = 3
    EVENT = 4


@dataclass(frozen=True, slots=True)
class Submission:
    """Inputs of one request, or its cancellation if there are no `slots`.

    Attributes:
        request: The request's number, unique among those in progress on the connection.
        deadline: When the inputs expire, in `time.monotonic()` seconds.
        slots: The slots of the inputs.
        explain: Whether the outputs that explain the scores are wanted.
    """

    request: int
    deadline: float
    slots: tuple[int, ...]
    explain: bool = False


@dataclass(frozen=True, slots=True)
class Outcomes:
    """The outcomes of inputs of one batch.

    Attributes:
        kind: Their outcome.
        slots: Their slots.
        batch_size: The size of the batch, if this frame is the one that reports it; otherwise 0.
        started: When the engine began to compute the batch, in `time.monotonic()` seconds.
        finished: When the engine had computed the batch.
        rest: Further data, by the kind.
    """

    kind: Kind
    slots: tuple[int, ...]
    batch_size: int = 0
    started: float = 0.0
    finished: float = 0.0
    rest: bytes = b""


def encode_json(value: Mapping[str, Any]) -> bytes:
    """The JSON text of `value` after its length."""
    text = json.dumps(value).encode()
    return LENGTH.pack(len(text)) + text


def encode_submission(submission: Submission) -> bytes:
    """The frame of a submission."""
    slots = submission.slots
    head = _SUBMIT.pack(submission.request, len(slots), submission.explain, submission.deadline)
    return head + _pack_slots(slots)


def decode_submissions(data: bytearray) -> Iterator[Submission]:
    """The complete frames at the beginning of `data`, which are removed from it at the end."""
    at = 0
    while len(data) - at >= _SUBMIT.size:
        request, count, explain, deadline = _SUBMIT.unpack_from(data, at)
        end = at + _SUBMIT.size + 4 * count
        if end > len(data):
            break
        slots = struct.unpack_from(f"<{count}I", data, at + _SUBMIT.size)
        yield Submission(request, deadline, slots, bool(explain))
        at = end
    del data[:at]


def encode_outcomes(outcomes: Outcomes) -> bytes:
    """The frame of outcomes."""
    head = _OUTCOME.pack(
        outcomes.kind,
        len(outcomes.slots),
        outcomes.batch_size,
        len(outcomes.rest),
        outcomes.started,
        outcomes.finished,
    )
    return head + _pack_slots(outcomes.slots) + outcomes.rest


def decode_outcomes(data: bytearray) -> Iterator[Outcomes]:
    """The complete frames at the beginning of `data`, which are removed from it at the end."""
    at = 0
    while len(data) - at >= _OUTCOME.size:
        kind, count, batch_size, rest, started, finished = _OUTCOME.unpack_from(data, at)
        slots_at = at + _OUTCOME.size
        rest_at = slots_at + 4 * count
        if rest_at + rest > len(data):
            break
        slots = struct.unpack_from(f"<{count}I", data, slots_at)
        yield Outcomes(
            Kind(kind), slots, batch_size, started, finished, bytes(data[rest_at : rest_at + rest]) if rest else b""
        )
        at = rest_at + rest
    del data[:at]


def encode_rows(outputs: Mapping[str, Sequence[Array]]) -> bytes:
    """Outputs whose rows differ in size: for each name an array per input. Text arrays become JSON lists."""
    head: dict[str, Any] = {}
    parts: list[bytes] = []
    for name, rows in outputs.items():
        if any(row.dtype.kind in "OUS" for row in rows):
            head[name] = [row.tolist() for row in rows]
        else:
            head[name] = {"types": [row.dtype.str for row in rows], "shapes": [row.shape for row in rows]}
            parts += [np.ascontiguousarray(row).tobytes() for row in rows]
    return encode_json(head) + b"".join(parts)


def decode_rows(data: bytes) -> dict[str, Array]:
    """The outputs that `encode_rows` encoded, each an object array of N arrays."""
    (length,) = LENGTH.unpack_from(data)
    at = LENGTH.size + length
    outputs: dict[str, Array] = {}
    for name, rows in json.loads(data[LENGTH.size : at]).items():
        if isinstance(rows, list):
            outputs[name] = _object_array(
                [np.asarray(row, dtype=object) if isinstance(row, list) else row for row in rows]
            )
            continue
        arrays: list[Array] = []
        for kind, shape in zip(rows["types"], rows["shapes"], strict=True):
            row = np.frombuffer(data, kind, int(np.prod(shape)), at).reshape(shape)
            arrays.append(row)
            at += row.nbytes
        outputs[name] = _object_array(arrays)
    return outputs


def _object_array(rows: Sequence[Any]) -> Array:
    array = np.empty(len(rows), dtype=object)
    for index, row in enumerate(rows):
        array[index] = row
    return array


def _pack_slots(slots: Sequence[int]) -> bytes:
    return struct.pack(f"<{len(slots)}I", *slots)
