"""A front end's connection with one engine of the engine process."""

import asyncio
import json
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bundle import Bundle
from service.errors import EngineUnavailable
from service.inference.engines import EngineObserver
from service.inference.execution_plan import ExecutionPlan
from service.inference.onnx_session import EngineError
from service.inference.outcomes import Expired, Failure, Outcome, Row
from service.inference.providers import ProviderUnavailable
from service.inference.remote.frame_socket import FrameSocket
from service.inference.remote.frames import (
    LENGTH,
    Kind,
    Outcomes,
    Submission,
    decode_outcomes,
    decode_rows,
    encode_json,
    encode_submission,
)
from service.inference.remote.shared_slots import WAITED, SharedSlots, SlotLayout
from service.inference.reservation import Reservation
from service.inputs.modality import Array

_ANSWER_BYTES = 1 << 16


class EngineRefused(EngineError):
    """The engine process cannot serve the bundle; the message is its own."""

    def __init__(self, reason: str) -> None:
        Exception.__init__(self, reason)


class OpenedEngine:
    """The answer of the engine process to a request for an engine.

    Attributes:
        sock: The connection.
        slots: The shared memory.
        region: The number of this front end's region in it.
        facts: The other fields of the answer.
    """

    def __init__(self, sock: socket.socket, slots: SharedSlots, facts: Mapping[str, Any]) -> None:
        self.sock = sock
        self.slots = slots
        self.facts = facts
        self.region: int = facts["region"]

    @property
    def plan(self) -> ExecutionPlan:
        """The plan of the engine."""
        return ExecutionPlan.from_json(self.facts["plan"])


def request_engine(path: Path, bundle: Bundle, digest: str) -> OpenedEngine:
    """Have the engine process open the engine of `bundle`. Blocks until it is warm.

    Args:
        path: The socket of the engine process.
        bundle: The bundle.
        digest: The digest of its manifest.

    Raises:
        EngineError: The graph cannot be served.
        ProviderUnavailable: The required provider is missing.
        OSError: The engine process ended.
    """
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.connect(str(path))
        sock.sendall(encode_json({"path": str(bundle.path.absolute()), "digest": digest}))
        data, descriptors = _receive_answer(sock)
    except BaseException:
        sock.close()
        raise
    answer = json.loads(data)
    if "error" in answer:
        sock.close()
        raise (ProviderUnavailable if answer["error"] == "provider" else EngineRefused)(answer["reason"])
    try:
        slots = SharedSlots(descriptors[0], SlotLayout.from_json(answer["layout"]))
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    return OpenedEngine(sock, slots, answer)


def _receive_answer(sock: socket.socket) -> tuple[bytes, list[int]]:
    data, descriptors, _, _ = socket.recv_fds(sock, _ANSWER_BYTES, 1)
    try:
        while len(data) < LENGTH.size or len(data) < LENGTH.size + LENGTH.unpack_from(data)[0]:
            part = sock.recv(_ANSWER_BYTES)
            if not part:
                raise ConnectionResetError("the engine process ended")
            data += part
    except BaseException:
        for descriptor in descriptors:
            os.close(descriptor)
        raise
    return data[LENGTH.size :], descriptors


class EngineConnection:
    """The inputs that a front end has handed to an engine, and their outcomes. Only the event loop's thread may use it.

    The connection counts the inputs that it has admitted. The depth of the queue is the sum of these counters of all
    front ends minus the engine's counter of inputs that have left the queue; no lock is needed.
    """

    def __init__(
        self,
        opened: OpenedEngine,
        loop: asyncio.AbstractEventLoop,
        observer: EngineObserver,
        on_lost: Callable[[], object],
    ) -> None:
        """Begin to read outcomes.

        Args:
            opened: The answer of the engine process.
            loop: The event loop.
            observer: Receives the figures of batches and the events of the engine.
            on_lost: Called once the engine process has ended.
        """
        self.slots = opened.slots
        self._region = opened.region
        self._loop = loop
        self._observer = observer
        self._on_lost = on_lost
        self._names = [name for name, _, _ in self.slots.layout.outputs]
        count = self.slots.layout.slots
        # The slot that was freed last is used first: its memory is in the caches, and slots never used take no memory.
        self._free = list(range(count - 1, -1, -1))
        self._owners: list[tuple[Reservation, int] | None] = [None] * count
        self._reserved = 0
        self._numbers: dict[Reservation, int] = {}
        self._next_number = 0
        self._unsent = bytearray()
        self._inputs: Array = self.slots.inputs[self._region]
        self._lengths = self.slots.lengths[self._region]
        self._outputs = self.slots.outputs[self._region]
        self._lost = False
        self._socket = FrameSocket(opened.sock, loop, self._on_data, self._on_closed)

    def has_room(self, count: int) -> bool:
        """Whether there are free slots for `count` further inputs."""
        return self._reserved + count <= len(self._free)

    def reserve(self, count: int) -> Reservation:
        """Reserve slots, of which there must be enough."""
        self._reserved += count
        self._admit(count)
        return Reservation(self, count)

    def enqueue(self, request: Reservation, items: Sequence[Array], deadline: float, slots: int) -> None:
        """Hand `items` to the engine in exchange for the reserved `slots`."""
        if self._lost:
            request.fail(engine_unavailable())
            return
        self._reserved -= slots
        self._admit(len(items) - slots)
        taken = [self._free.pop() for _ in items]
        has_lengths = self.slots.layout.has_lengths
        for index, (slot, item) in enumerate(zip(taken, items, strict=True)):
            if has_lengths:
                self._lengths[slot] = len(item)
                self._inputs[slot, : len(item)] = item
            else:
                self._inputs[slot] = item
            self._owners[slot] = (request, index)
        self._next_number = (self._next_number + 1) % 2**32
        self._numbers[request] = self._next_number
        self._send(Submission(self._next_number, deadline, tuple(taken), request.explain))

    def release(self, request: Reservation, slots: int) -> None:
        """Free the unused `slots` of `request`, and have the engine drop its inputs that are still queued."""
        if self._lost:
            return
        self._reserved -= slots
        self._admit(-slots)
        number = self._numbers.pop(request, None)
        if number is not None:
            self._send(Submission(number, 0.0, ()))

    def close(self) -> None:
        """Close the connection."""
        self._lost = True
        self._socket.close()

    def _admit(self, count: int) -> None:
        self.slots.set_admitted(self._region, self.slots.admitted(self._region) + count)

    def _send(self, submission: Submission) -> None:
        """Send the frame together with those of the same iteration of the event loop."""
        if not self._unsent:
            self._loop.call_soon(self._flush)
        self._unsent += encode_submission(submission)

    def _flush(self) -> None:
        self._socket.send(bytes(self._unsent))
        self._unsent.clear()

    def _on_data(self, data: bytearray) -> None:
        for outcomes in decode_outcomes(data):
            if outcomes.kind is Kind.EVENT:
                getattr(self._observer, outcomes.rest.decode())()
            elif outcomes.kind is Kind.ROWS:
                self._set_rows(outcomes)
            else:
                outcome = Failure(outcomes.rest.decode()) if outcomes.kind is Kind.FAILED else Expired()
                self._set_outcomes(outcomes.slots, [outcome] * len(outcomes.slots))

    def _set_rows(self, outcomes: Outcomes) -> None:
        # A copy: the slots are used again.
        rows = self._outputs[list(outcomes.slots)]
        outputs: dict[str, Array] = {name: rows[name] for name in self._names}
        if outcomes.rest:
            outputs |= decode_rows(outcomes.rest)
        waited: Sequence[float] = rows[WAITED].tolist()
        started, finished = outcomes.started, outcomes.finished
        if outcomes.batch_size:
            self._observer.batch(outcomes.batch_size, waited, finished - started)
        else:
            self._observer.queued(waited)
        count = len(outcomes.slots)
        self._set_outcomes(outcomes.slots, [Row(outputs, index, started, finished) for index in range(count)])

    def _set_outcomes(self, slots: Sequence[int], outcomes: Sequence[Outcome]) -> None:
        for slot, outcome in zip(slots, outcomes, strict=True):
            owner, self._owners[slot] = self._owners[slot], None
            assert owner is not None, "each slot has one outcome"
            request, position = owner
            request.set_outcome(position, outcome)
            if request.finished:
                self._numbers.pop(request, None)
        self._free.extend(slots)

    def _on_closed(self) -> None:
        """Fail all requests that the engine process held."""
        self._lost = True
        for request in list(self._numbers):
            request.fail(engine_unavailable())
        self._numbers.clear()
        self._on_lost()


def engine_unavailable() -> EngineUnavailable:
    """The problem of a request while there is no engine process."""
    return EngineUnavailable("The engine is being restarted. Send the request again.", retry_after=1)
