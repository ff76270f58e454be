"""A model version in the engine process: its engine, and the front ends that use it."""

import asyncio
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import numpy as np
import structlog

from service.inference.batcher import Batcher, QueuedInput
from service.inference.engines import OpenEngine
from service.inference.outcomes import Expired, Failure, Outcome, Row
from service.inference.remote.frame_socket import FrameSocket
from service.inference.remote.frames import (
    Kind,
    Outcomes,
    Submission,
    decode_submissions,
    encode_outcomes,
    encode_rows,
)
from service.inference.remote.shared_slots import WAITED, OutputField, SharedSlots, SlotLayout
from service.inputs.explanation import EXPLANATIONS
from service.inputs.modality import Array, Modality

log = structlog.stdlib.get_logger(__name__)


class _HeldRequest:
    """Inputs of one request of a front end."""

    __slots__ = ("explain", "front_end", "missing", "number", "slots")

    def __init__(self, front_end: "FrontEnd", submission: Submission) -> None:
        self.front_end = front_end
        self.number = submission.request
        self.slots = submission.slots
        self.explain = submission.explain
        self.missing = len(submission.slots)

    def set_outcome(self, index: int, outcome: Outcome) -> None:
        """Send the outcome of an input that was not computed."""
        slots = (self.slots[index],)
        if isinstance(outcome, Failure):
            self.front_end.send(Outcomes(Kind.FAILED, slots, rest=outcome.reason.encode()))
        elif isinstance(outcome, Expired):
            self.front_end.send(Outcomes(Kind.EXPIRED, slots))


class FrontEnd:
    """The connection of one front end with one model version.

    Attributes:
        region: The number of the front end's region in the shared memory.
        received: The number of inputs that this front end and earlier ones with the region have sent.
        connected: Whether the connection is open.
        requests: The requests whose inputs do not all have an outcome, by their numbers.
        held: The number of inputs that have no outcome yet.
    """

    def __init__(
        self, model: "HostedModel", region: int, received: int, sock: socket.socket, loop: asyncio.AbstractEventLoop
    ) -> None:
        self.region = region
        self.received = received
        self.connected = True
        self.requests: dict[int, _HeldRequest] = {}
        self.held = 0
        self._model = model
        self._socket = FrameSocket(sock, loop, self._on_data, self._on_closed)

    def send(self, outcomes: Outcomes) -> None:
        """Send outcomes; any thread may call it."""
        self._socket.send(encode_outcomes(outcomes))

    def _on_data(self, data: bytearray) -> None:
        for submission in decode_submissions(data):
            self._model.submit(self, submission)

    def _on_closed(self) -> None:
        self._model.leave(self)


class HostedModel:
    """A warm model version and its front ends.

    The batcher is the one of a service in one process; the inputs that it computes are views of the shared memory.
    """

    def __init__(
        self,
        engine: OpenEngine,
        descriptor: int,
        slots: SharedSlots,
        loop: asyncio.AbstractEventLoop,
        on_unused: Callable[[], object],
    ) -> None:
        """Start without front ends.

        Args:
            engine: The engine, whose batcher passes outcomes to `deliver`.
            descriptor: The shared memory, for front ends.
            slots: The shared memory.
            loop: The event loop.
            on_unused: Called on the event loop when the last front end has left.
        """
        assert isinstance(engine.queue, Batcher), "the engine process computes itself"
        self.engine = engine
        self.descriptor = descriptor
        self.slots = slots
        self.batcher = engine.queue
        self._loop = loop
        self._front_ends: dict[int, FrontEnd] = {}
        self._lock = threading.Lock()
        self._fixed = {name for name, _, _ in slots.layout.outputs}
        self._on_unused = on_unused
        slots.seconds_per_input = self.batcher.seconds_per_input

    def admit(self, sock: socket.socket, region: int, answer: bytes) -> None:
        """Connect a front end.

        Args:
            sock: The connection.
            region: A free region.
            answer: The answer to the front end's request, which is sent with the shared memory.
        """
        # Read before the front end can admit inputs: those are counted when they are received.
        received = self.slots.admitted(region)
        with suppress(OSError):
            # The end of a front end is noticed when its socket is read.
            socket.send_fds(sock, [answer], [self.descriptor])
        self._front_ends[region] = FrontEnd(self, region, received, sock, self._loop)

    @property
    def free_region(self) -> int | None:
        """A region without a front end, and without inputs of an earlier one that are still being computed."""
        return next((region for region in range(self.slots.layout.regions) if self._is_free(region)), None)

    def _is_free(self, region: int) -> bool:
        front_end = self._front_ends.get(region)
        return front_end is None or not (front_end.connected or front_end.held)

    def submit(self, front_end: FrontEnd, submission: Submission) -> None:
        """Queue the inputs of a submission, or drop those of a cancelled request."""
        if not submission.slots:
            self._cancel(front_end, submission.request)
            return
        request = _HeldRequest(front_end, submission)
        with self._lock:
            front_end.requests[submission.request] = request
            front_end.held += request.missing
        front_end.received += len(submission.slots)
        inputs, lengths = self.slots.inputs[front_end.region], self.slots.lengths[front_end.region]
        items: list[Array] = [inputs[slot] for slot in submission.slots]
        if self.slots.layout.has_lengths:
            items = [item[: lengths[slot]] for item, slot in zip(items, submission.slots, strict=True)]
        self.batcher.enqueue(request, items, submission.deadline, 0)

    def leave(self, front_end: FrontEnd) -> None:
        """Drop the inputs of a front end that has closed its connection or ended.

        Its region is free once its last batch is computed: the engine writes the outputs of that batch to the region.
        """
        for number in list(front_end.requests):
            self._cancel(front_end, number)
        # Inputs that the front end admitted and did not send are not in the queue any more.
        self.slots.set_admitted(front_end.region, front_end.received)
        front_end.connected = False
        if not any(other.connected for other in self._front_ends.values()):
            # Each front end refers to this object: the cycle would keep the engine until the garbage collector runs.
            self._front_ends.clear()
            self._on_unused()

    def report(self, event: str) -> None:
        """Send an event to one front end, so that it is counted once; any thread may call it.

        Args:
            event: The method of `EngineObserver` that the front end calls.
        """
        connected = [front_end for front_end in [*self._front_ends.values()] if front_end.connected]
        for front_end in connected[:1]:
            front_end.send(Outcomes(Kind.EVENT, (), rest=event.encode()))

    def publish(self) -> None:
        """Write the state of the engine to the shared memory."""
        self.slots.stalled_seconds = self.batcher.stalled_seconds
        self.slots.broken = bool(self.batcher.monitor.broken)

    def deliver(self, inputs: Sequence[QueuedInput], outcomes: Sequence[Outcome]) -> None:
        """Send the outcomes of one batch to the front ends that its inputs come from; on an engine thread."""
        first = outcomes[0]
        if isinstance(first, Row):
            try:
                frames = self._rows(inputs, first)
            except Exception as error:
                # Such as outputs of another shape than in the warm-up.
                log.exception("outputs not delivered", size=len(inputs))
                outcomes = [Failure(f"{type(error).__name__}: {error}")] * len(inputs)
            else:
                for front_end, frame in frames:
                    front_end.send(frame)
                self.slots.seconds_per_input = self.batcher.seconds_per_input
                self._count_computed(inputs)
                return
        for queued, outcome in zip(inputs, outcomes, strict=True):
            queued.request.set_outcome(queued.index, outcome)
        self._count_computed(inputs)

    def _rows(self, inputs: Sequence[QueuedInput], batch: Row) -> list[tuple[FrontEnd, Outcomes]]:
        """Write the rows of a batch to the slots, and return the frames that announce them."""
        rows = np.empty(len(inputs), self.slots.outputs.dtype)
        rows[WAITED] = [batch.started - queued.queued_at for queued in inputs]
        for name in self._fixed:
            output = batch.outputs[name]
            if output.shape != rows[name].shape:
                # NumPy would repeat a column of shape [N, 1].
                raise ValueError(f"the output {name!r} has the shape {output.shape} instead of {rows[name].shape}")
            rows[name] = output
        others = {name: output for name, output in batch.outputs.items() if name not in self._fixed}
        positions_of: dict[FrontEnd, list[int]] = {}
        for position, queued in enumerate(inputs):
            positions_of.setdefault(_request(queued).front_end, []).append(position)
        frames: list[tuple[FrontEnd, Outcomes]] = []
        for front_end, positions in positions_of.items():
            requests = [_request(inputs[position]) for position in positions]
            slots = tuple(
                request.slots[inputs[position].index] for request, position in zip(requests, positions, strict=True)
            )
            self.slots.outputs[front_end.region][list(slots)] = rows if len(slots) == len(inputs) else rows[positions]
            # Explanations are large, and few requests want them.
            explain = any(request.explain for request in requests)
            rest = {
                name: [np.asarray(output[position]) for position in positions]
                for name, output in others.items()
                if name not in EXPLANATIONS or explain
            }
            # The first front end reports the batch for all of them.
            size = 0 if frames else len(inputs)
            encoded = encode_rows(rest) if rest else b""
            frames.append((front_end, Outcomes(Kind.ROWS, slots, size, batch.started, batch.finished, encoded)))
        return frames

    def _count_computed(self, inputs: Sequence[QueuedInput]) -> None:
        """Count inputs that have an outcome, and remove the requests that have all of theirs."""
        with self._lock:
            for queued in inputs:
                request = _request(queued)
                request.front_end.held -= 1
                request.missing -= 1
                if not request.missing:
                    request.front_end.requests.pop(request.number, None)

    def _cancel(self, front_end: FrontEnd, number: int) -> None:
        with self._lock:
            request = front_end.requests.pop(number, None)
        if request is None:
            return
        if dropped := self.batcher.release(request, 0):
            with self._lock:
                front_end.held -= len(dropped)
            front_end.send(Outcomes(Kind.DROPPED, tuple(request.slots[queued.index] for queued in dropped)))


def _request(queued: QueuedInput) -> _HeldRequest:
    assert isinstance(queued.request, _HeldRequest), "all inputs in the engine process come from front ends"
    return queued.request


def slot_layout(
    modality: Modality, outputs: Mapping[str, Array], *, regions: int, capacity: int, in_progress: int
) -> SlotLayout:
    """The layout of the memory of a model.

    Args:
        modality: The kind of the model's inputs.
        outputs: The outputs of a batch.
        regions: Most front ends that are connected at the same time.
        capacity: Most inputs in the queue.
        in_progress: Most inputs that are being computed.
    """
    _, largest = modality.probe_pair()
    fixed: list[OutputField] = [
        (name, rows.dtype.str, rows.shape[1:])
        for name, rows in outputs.items()
        if name not in EXPLANATIONS and rows.dtype.kind not in "OUS" and (modality.size_of is None or rows.ndim == 1)
    ]
    return SlotLayout(
        regions, capacity + in_progress, largest.shape, largest.dtype.str, modality.size_of is not None, tuple(fixed)
    )
