"""The engines of a front end: they run in the engine process."""

import asyncio
import math
import threading
from collections.abc import Callable
from pathlib import Path

import structlog
from typing_extensions import override

from bundle import Bundle
from service.inference.engine_health import EngineHealth
from service.inference.engine_queue import EngineQueue
from service.inference.engines import EngineObserver, Engines, OpenEngine
from service.inference.local_engines import digest_of
from service.inference.outcomes import QueueFull
from service.inference.remote.connection import (
    EngineConnection,
    EngineRefused,
    OpenedEngine,
    engine_unavailable,
    request_engine,
)
from service.inference.remote.shared_slots import SharedSlots
from service.inference.reservation import Reservation
from service.inputs.modalities import modality_of

log = structlog.stdlib.get_logger(__name__)

# Pauses between attempts to open an engine again; each is twice the last one if the engine process refuses it.
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 3.0

# Engine processes that may end while they open an engine until its bundle is refused.
_ATTEMPTS = 3


class RemoteQueue(EngineQueue):
    """The queue of an engine in the engine process.

    While the engine process is being restarted, the queue admits no inputs and has the engine opened again.
    """

    def __init__(
        self,
        socket_path: Path,
        bundle: Bundle,
        opened: OpenedEngine,
        loop: asyncio.AbstractEventLoop,
        observer: EngineObserver,
        health: EngineHealth,
    ) -> None:
        """Use the engine that was opened; not on the thread of the event loop.

        Args:
            socket_path: The socket of the engine process.
            bundle: The bundle of the engine.
            opened: The answer of the engine process.
            loop: The event loop.
            observer: Receives the figures of the engine.
            health: Ends this process if the engine cannot be opened again.
        """
        self._health = health
        self._provider: str = opened.facts["provider"]
        self.plan = opened.plan
        self.capacity: int = opened.facts["capacity"]
        self._path = socket_path
        self._bundle = bundle
        self._loop = loop
        self._observer = observer
        self._closed = threading.Event()
        self._connection: EngineConnection | None = None
        asyncio.run_coroutine_threadsafe(self._connect(opened), loop).result()

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed.is_set()

    @property
    def problem(self) -> str | None:
        """Why this process should get no requests, or None."""
        if self._closed.is_set():
            return None
        slots = self._slots
        if slots is None:
            return "The engine is being restarted."
        if slots.broken:
            return "An engine fails on every input."
        seconds = slots.stalled_seconds
        return f"An engine has not finished a batch for {seconds:.0f} s." if seconds else None

    @property
    @override
    def depth(self) -> int:
        slots = self._slots
        return 0 if slots is None else slots.depth

    @property
    @override
    def seconds_per_input(self) -> float:
        slots = self._slots
        return 0.0 if slots is None else slots.seconds_per_input

    @property
    @override
    def stalled_seconds(self) -> float:
        slots = self._slots
        return 0.0 if slots is None else slots.stalled_seconds

    @property
    def _slots(self) -> SharedSlots | None:
        """The shared memory, None while there is no engine process.

        Metrics are collected on other threads than the one that sets `_connection`, so it is read once.
        """
        connection = self._connection
        return None if connection is None else connection.slots

    @override
    def check_capacity(self, count: int = 1, max_wait: float = math.inf) -> None:
        if self._connection is None:
            raise engine_unavailable()
        super().check_capacity(count, max_wait)
        if not self._connection.has_room(count):
            raise QueueFull("the queue is full", max(1, math.ceil(self.expected_wait)))

    @override
    def reserve(self, count: int, max_wait: float = math.inf) -> Reservation:
        self.check_capacity(count, max_wait)
        assert self._connection is not None, "checked above"
        return self._connection.reserve(count)

    @override
    def close(self) -> None:
        self._closed.set()
        asyncio.run_coroutine_threadsafe(self._disconnect(), self._loop).result()

    async def _connect(self, opened: OpenedEngine) -> None:
        if self._closed.is_set():
            opened.sock.close()
            return
        self.plan = opened.plan
        self._connection = EngineConnection(opened, self._loop, self._observer, self._on_lost)

    async def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _on_lost(self) -> None:
        self._connection = None
        log.error("engine process lost", model=self._bundle.manifest.name)
        # A thread that does not keep the process from ending: the engine process may never come back.
        threading.Thread(target=self._reconnect, name="engine-reconnect", daemon=True).start()

    def _reconnect(self) -> None:
        """Open the engine again. If that is impossible, this process ends: its successor loads the present bundles."""
        model = self._bundle.manifest.name
        pause = _FIRST_PAUSE_SECONDS
        while not self._closed.wait(pause):
            try:
                opened = request_engine(self._path, self._bundle, digest_of(self._bundle))
            except OSError:
                # The engine process ended again.
                continue
            except Exception as error:
                log.warning("engine not opened again", model=model, reason=str(error))
                pause *= 2
                if pause > _LONGEST_PAUSE_SECONDS:
                    self._health.give_up(model, str(error))
                    return
                continue
            if opened.facts["provider"] != self._provider:
                # Metrics and alerts name the provider that a model has.
                opened.sock.close()
                self._health.give_up(model, f"it ran on {self._provider}, and now on {opened.facts['provider']}")
            elif not self._loop.is_closed():
                asyncio.run_coroutine_threadsafe(self._connect(opened), self._loop)
                log.info("engine opened again", model=model)
            return


class RemoteEngines(Engines):
    """Opens engines in the engine process."""

    def __init__(self, socket_path: Path, loop: asyncio.AbstractEventLoop, health: EngineHealth) -> None:
        """Prepare to open engines.

        Args:
            socket_path: The socket of the engine process.
            loop: The event loop of the front end.
            health: Ends the front end if an engine cannot be opened again after a restart of the engine process.
        """
        self._path = socket_path
        self._loop = loop
        self._health = health
        self._queues: tuple[RemoteQueue, ...] = ()

    @property
    @override
    def problem(self) -> str | None:
        return next((queue.problem for queue in self._queues if queue.problem is not None), None)

    @override
    def open(self, bundle: Bundle, make_observer: Callable[[], EngineObserver]) -> OpenEngine:
        opened = self._request(bundle)
        queue = RemoteQueue(self._path, bundle, opened, self._loop, make_observer(), self._health)
        self._queues = (*(other for other in self._queues if not other.closed), queue)
        facts = opened.facts
        return OpenEngine(queue, modality_of(bundle), facts["provider"], facts["preferred_provider"], facts["nodes"])

    def _request(self, bundle: Bundle) -> OpenedEngine:
        """Have the engine opened, also by the successor of an engine process that ends meanwhile."""
        for _ in range(_ATTEMPTS):
            try:
                return request_engine(self._path, bundle, digest_of(bundle))
            except OSError as error:
                log.warning("engine process ended while it opened an engine", model=bundle.manifest.name)
                reason = str(error)
        raise EngineRefused(f"{bundle.manifest.name}: each of {_ATTEMPTS} engine processes failed to open it: {reason}")
