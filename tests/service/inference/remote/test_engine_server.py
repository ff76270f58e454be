"""The engine process's side: regions of front ends that end, and requests whose front end has ended."""

import asyncio
import errno
import gc
import socket
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

from bundle import load_bundle
from service.inference.batcher import Batcher
from service.inference.engines import OpenEngine
from service.inference.execution_plan import ExecutionPlan
from service.inference.local_engines import digest_of
from service.inference.remote.connection import EngineConnection, OpenedEngine, request_engine
from service.inference.remote.frames import (
    Kind,
    Outcomes,
    Submission,
    decode_outcomes,
    encode_json,
    encode_submission,
)
from service.inference.remote.server import EngineServer
from service.inputs.modalities import modality_of
from service.inputs.modality import Array
from service.settings import Settings
from tests.support.waiting import until

HELD, OTHER = 7, 9


class FakeEngines:
    """Opens engines whose score is the value of an input's first pixel.

    Attributes:
        opening: Opening an engine waits until this is set.
        computing: Computing an image whose first pixel is `HELD` waits until this is set.
        requested: The number of engines that were requested.
        held: The number of such batches that have begun.
        closed: The number of engines that were freed.
        batchers: The queues that were opened.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, threads: int) -> None:
        self.opening, self.computing = threading.Event(), threading.Event()
        self.requested = self.held = self.closed = 0
        self.batchers: list[weakref.ref[Batcher]] = []
        self._loop = loop
        self._threads = threads

    def open(self, bundle: Any, make_observer: Callable[[], Any], **batching: Any) -> OpenEngine:
        self.requested += 1
        assert self.opening.wait(60)
        plan = ExecutionPlan(max_batch=1, seconds_per_input=0.01, threads=self._threads)
        batcher = Batcher("fake", self._run, plan, capacity=8, loop=self._loop, observer=make_observer(), **batching)
        self.batchers.append(weakref.ref(batcher, self._count_closed))
        return OpenEngine(batcher, modality_of(bundle), "cpu", "cpu", {}, {"msp": np.zeros(1, np.float32)})

    def _count_closed(self, _: object) -> None:
        self.closed += 1

    def _run(self, items: Sequence[Array], *, exclusive: bool) -> Mapping[str, Array]:  # noqa: ARG002
        scores = np.array([item[0, 0, 0] for item in items], np.float32)
        if HELD in scores:
            self.held += 1
            assert self.computing.wait(60)
        return {"msp": scores}


class RunningServer:
    """An engine server on a thread, with engines that a test controls."""

    def __init__(self, path: Path, bundle: Path, threads: int) -> None:
        self.path = path
        self.bundle = load_bundle(bundle)
        self.loop = asyncio.new_event_loop()
        self.engines = FakeEngines(self.loop, threads)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen()
        self.server = EngineServer(listener, Settings(workers=2), lambda: self.engines, self.loop)  # type: ignore[arg-type]  # a stand-in
        self._serving = self.loop.create_task(self.server.serve())
        self._front_ends: list[socket.socket] = []
        self._thread = threading.Thread(target=self._run, args=(listener,), daemon=True)
        self._thread.start()

    def _run(self, listener: socket.socket) -> None:
        with listener:
            try:
                self.loop.run_until_complete(self._serving)
            except asyncio.CancelledError:
                self.loop.close()

    def close(self) -> None:
        self.engines.opening.set()
        self.engines.computing.set()
        for sock in self._front_ends:
            sock.close()
        until(lambda: not self.server.in_use, 20)
        self.loop.call_soon_threadsafe(self._serving.cancel)
        self._thread.join(20)

    def connect(self) -> "RawFrontEnd":
        opened = self.open()
        self._front_ends.append(opened.sock)
        return RawFrontEnd(opened)

    def open(self) -> OpenedEngine:
        self.engines.opening.set()
        return request_engine(self.path, self.bundle, digest_of(self.bundle))


class RawFrontEnd:
    """A front end without an event loop."""

    def __init__(self, opened: OpenedEngine) -> None:
        self.region = opened.region
        self.sock = opened.sock
        self.slots = opened.slots
        self._received = bytearray()

    def submit(self, slot: int, pixel: int) -> None:
        self.slots.inputs[self.region, slot] = pixel
        self.slots.set_admitted(self.region, self.slots.admitted(self.region) + 1)
        self.sock.sendall(encode_submission(Submission(slot + 1, float("inf"), (slot,))))

    def receive(self) -> Outcomes:
        """The next outcomes; only those of one frame may be expected."""
        while True:
            for outcomes in list(decode_outcomes(self._received)):
                return outcomes
            data = self.sock.recv(1 << 16)
            assert data, "the engine server closed the connection"
            self._received += data

    def score(self, slot: int) -> float:
        return float(self.slots.outputs[self.region]["msp"][slot])


Serving = Callable[..., RunningServer]


@pytest.fixture
def serving(tiny_bundle: Path, tmp_path: Path) -> Iterator[Serving]:
    servers: list[RunningServer] = []

    def start(threads: int = 1) -> RunningServer:
        servers.append(RunningServer(tmp_path / "engine.sock", tiny_bundle, threads))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def test_inputs_of_a_front_end_that_has_ended_do_not_change_the_outputs_of_the_next_one(serving: Serving) -> None:
    server = serving(threads=2)
    witness, first = server.connect(), server.connect()
    first.submit(0, HELD)
    until(lambda: server.engines.held == 1)
    first.sock.close()
    second = server.connect()
    second.submit(0, OTHER)
    assert second.receive().kind is Kind.ROWS
    server.engines.computing.set()
    # The witness is answered by the thread that computed the first front end's input, or by the other one.
    for _ in range(20):
        witness.submit(0, 1)
        witness.receive()
    assert second.score(0) == OTHER


def test_the_last_batch_of_a_front_end_that_has_ended_frees_its_region(serving: Serving) -> None:
    server = serving()
    witness, first = server.connect(), server.connect()
    first.submit(0, HELD)
    until(lambda: server.engines.held == 1)
    first.sock.close()
    server.engines.computing.set()
    witness.submit(0, 1)
    witness.receive()
    until(lambda: server.connect().region == first.region)
    assert witness.slots.depth == 0


def test_inputs_that_are_admitted_while_the_front_end_is_being_connected_are_counted_once(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serving()
    witness = server.connect()
    admitted = threading.Event()
    send_fds = socket.send_fds

    def send_and_wait(*arguments: Any) -> int:
        sent = send_fds(*arguments)
        assert admitted.wait(60)
        return sent

    monkeypatch.setattr(socket, "send_fds", send_and_wait)
    first = server.connect()
    first.submit(0, 1)
    admitted.set()
    first.receive()
    first.sock.close()
    until(lambda: server.connect().region == first.region)
    assert witness.slots.depth == 0


def test_a_front_end_that_has_ended_does_not_need_the_engine_that_is_being_opened(serving: Serving) -> None:
    server = serving()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(server.path))
        request = {"path": str(server.bundle.path), "digest": digest_of(server.bundle)}
        sock.sendall(encode_json(request))
        until(lambda: server.engines.requested == 1)
        assert server.server.in_use
    assert not server.server.in_use
    server.engines.opening.set()
    until(lambda: server.engines.closed == 1)
    assert server.connect().region == 0


def test_an_unused_engine_and_its_memory_are_freed_without_the_garbage_collector(serving: Serving) -> None:
    server = serving()
    gc.disable()
    try:
        front_end = server.connect()
        front_end.submit(0, 1)
        front_end.receive()
        front_end.sock.close()
        until(lambda: [batcher() for batcher in server.engines.batchers] == [None])
    finally:
        gc.enable()


def test_a_closed_connection_frees_its_memory_without_the_garbage_collector(serving: Serving) -> None:
    async def scenario() -> None:
        opened = server.open()
        slots = weakref.ref(opened.slots)
        connection = EngineConnection(opened, asyncio.get_running_loop(), Mock(), Mock())
        with connection.reserve(1) as reservation:
            await reservation.run([np.full((8, 8, 3), 5, np.uint8)])
        connection.close()
        del opened, connection, reservation
        await asyncio.sleep(0)
        assert slots() is None

    server = serving()
    gc.disable()
    try:
        asyncio.run(scenario())
    finally:
        gc.enable()


def test_too_many_open_files_delay_a_front_end_only(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    server = serving()
    server.connect().sock.close()
    until(lambda: not server.server.in_use)
    accept = server.loop.sock_accept
    failures = [OSError(errno.EMFILE, "Too many open files")]

    async def fail_once(listener: socket.socket) -> Any:
        if failures:
            raise failures.pop()
        return await accept(listener)

    monkeypatch.setattr(server.loop, "sock_accept", fail_once)
    # The running call of the original.
    server.connect()
    front_end = server.connect()
    front_end.submit(0, OTHER)
    front_end.receive()
    assert front_end.score(0) == OTHER
    assert not failures
