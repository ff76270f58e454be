"""The engine process's side: opens the engines that front ends request, and closes those that no front end uses."""

import asyncio
import json
import os
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import structlog

from bundle import load_bundle
from service.inference.batcher import QueuedInput
from service.inference.local_engines import LocalEngines, digest_of
from service.inference.onnx_session import EngineError
from service.inference.outcomes import Outcome
from service.inference.providers import ProviderUnavailable
from service.inference.remote.frames import LENGTH, encode_json
from service.inference.remote.hosted_model import HostedModel, slot_layout
from service.inference.remote.shared_slots import SharedSlots, create_memory
from service.settings import Settings

log = structlog.stdlib.get_logger(__name__)

_PUBLISH_SECONDS = 0.2
_ACCEPT_PAUSE_SECONDS = 0.5
# A front end that is replaced may still use its region when its successor connects, and a version may be opened again
# while its last requests finish.
_REGIONS_PER_WORKER = 2
_SPARE_REGIONS = 2

_REQUEST_BYTES = 1 << 16

_Key = tuple[str, str]


class _Observer:
    """Connects an engine with its `HostedModel`, which is made when the engine is warm."""

    def __init__(self) -> None:
        self.model: HostedModel | None = None

    def batch(self, size: int, waited: Sequence[float], seconds: float) -> None:
        """Do nothing: the frames of outcomes have these figures."""

    def queued(self, waited: Sequence[float]) -> None:
        """Do nothing, as for `batch`."""

    def shape_changed(self) -> None:
        """Send the event to a front end, which counts it."""
        self._report("shape_changed")

    def stalled(self) -> None:
        """Send the event to a front end, which counts it."""
        self._report("stalled")

    def engine_failed(self) -> None:
        """Send the event to a front end, which counts it."""
        self._report("engine_failed")

    def deliver(self, inputs: Sequence[QueuedInput], outcomes: Sequence[Outcome]) -> None:
        """Send outcomes to the front ends."""
        if self.model is not None:
            self.model.deliver(inputs, outcomes)

    def left(self, count: int) -> None:
        """Publish the number of inputs that have left the queue."""
        if self.model is not None:
            self.model.slots.set_left(count)

    def _report(self, event: str) -> None:
        if self.model is not None:
            self.model.report(event)


class EngineServer:
    """Serves front ends on a listening Unix socket.

    A front end opens a connection for each model version that it uses, and closes it when it does not need the version
    any more; a connection also closes if its front end dies. The memory of the version is sent with the answer.
    """

    def __init__(
        self,
        listener: socket.socket,
        settings: Settings,
        open_engines: Callable[[], LocalEngines],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        """Prepare to serve.

        Args:
            listener: The socket, which listens already.
            settings: The settings of the service.
            open_engines: Chooses the providers; called once, on the thread that opens engines. It may raise
                `ProviderUnavailable`.
            loop: The event loop.
        """
        listener.setblocking(False)
        self._listener = listener
        self._settings = settings
        self._open_engines = open_engines
        self._engines: LocalEngines | None = None
        self._loop = loop
        self._models: dict[_Key, asyncio.Task[HostedModel]] = {}
        self._requests: dict[asyncio.Task[None], socket.socket] = {}
        # A single thread: two models that are measured at once would disturb each other.
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="open")

    @property
    def in_use(self) -> bool:
        """Whether a front end is connected, or waits for an engine.

        A front end that has ended does not count, even while its engine is being opened.
        """
        return any(opening.done() for opening in self._models.values()) or any(map(_is_open, self._requests.values()))

    async def serve(self) -> None:
        """Accept connections until the task is cancelled."""
        publishing = asyncio.create_task(self._publish())
        try:
            while True:
                try:
                    sock, _ = await self._loop.sock_accept(self._listener)
                except OSError as error:
                    # For example too many open files. The front end waits in the listener's backlog.
                    log.error("connection not accepted", reason=str(error))
                    await asyncio.sleep(_ACCEPT_PAUSE_SECONDS)
                    continue
                task = asyncio.create_task(self._admit(sock))
                self._requests[task] = sock
                task.add_done_callback(self._requests.pop)
        finally:
            publishing.cancel()

    async def _publish(self) -> None:
        """Write the state of the engines to the shared memory, again and again."""
        while True:
            for task in self._models.values():
                if task.done() and task.exception() is None:
                    task.result().publish()
            await asyncio.sleep(_PUBLISH_SECONDS)

    async def _admit(self, sock: socket.socket) -> None:
        """Read the request of a new connection, open the engine unless it is open, and connect the two."""
        sock.setblocking(False)
        try:
            request = json.loads(await self._receive(sock))
        except (OSError, ValueError) as error:
            log.debug("connection without a request", reason=str(error))
            sock.close()
            return
        key = (request["path"], request["digest"])
        opening = self._models.get(key)
        if opening is None:
            opening = self._models[key] = asyncio.create_task(self._open(key))
        try:
            model = await asyncio.shield(opening)
            region = model.free_region
        except Exception as error:
            if self._models.get(key) is opening:
                del self._models[key]
            await self._refuse(sock, _kind_of(error), str(error) or type(error).__name__)
            return
        if region is None:
            await self._refuse(sock, "other", "all regions are in use: there are more front ends than workers")
            return
        engine = model.engine
        answer = {
            "region": region,
            "layout": model.slots.layout.to_json(),
            "plan": engine.queue.plan.to_json(),
            "capacity": engine.queue.capacity,
            "provider": engine.provider,
            "preferred_provider": engine.preferred_provider,
            "nodes": dict(engine.nodes),
        }
        model.admit(sock, region, encode_json(answer))

    async def _refuse(self, sock: socket.socket, kind: str, reason: str) -> None:
        with suppress(OSError):
            await self._loop.sock_sendall(sock, encode_json({"error": kind, "reason": reason}))
        sock.close()

    async def _receive(self, sock: socket.socket) -> bytes:
        data = b""
        while len(data) < LENGTH.size or len(data) < LENGTH.size + LENGTH.unpack_from(data)[0]:
            part = await self._loop.sock_recv(sock, _REQUEST_BYTES)
            if not part:
                raise OSError("the connection was closed")
            data += part
        return data[LENGTH.size :]

    async def _open(self, key: _Key) -> HostedModel:
        path, digest = key
        return await self._loop.run_in_executor(self._pool, self._load, key, Path(path), digest)

    def _load(self, key: _Key, path: Path, digest: str) -> HostedModel:
        """Open an engine; on the thread that opens engines."""
        bundle = load_bundle(path)
        if digest_of(bundle) != digest:
            raise OSError(f"the files of {bundle.manifest.name} are not those that the front end has verified")
        if self._engines is None:
            self._engines = self._open_engines()
        name, version = bundle.manifest.name, bundle.manifest.version
        observer = _Observer()
        engine = self._engines.open(bundle, lambda: observer, deliver=observer.deliver, on_left=observer.left)
        plan = engine.queue.plan
        layout = slot_layout(
            engine.modality,
            engine.sample_outputs,
            regions=_REGIONS_PER_WORKER * self._settings.workers + _SPARE_REGIONS,
            capacity=engine.queue.capacity,
            in_progress=plan.threads * plan.max_batch,
        )
        descriptor = create_memory(f"{name}-{version}")

        def on_unused() -> None:
            del self._models[key]
            log.info("engine closed", model=name, version=version)
            self._loop.run_in_executor(self._pool, close)

        def close() -> None:
            engine.queue.close()
            # Without the reference between the two, both are freed at once.
            observer.model = None
            os.close(descriptor)

        observer.model = HostedModel(engine, descriptor, SharedSlots(descriptor, layout), self._loop, on_unused)
        log.info("engine opened", model=name, version=version, provider=engine.provider, threads=plan.threads)
        return observer.model


def _is_open(sock: socket.socket) -> bool:
    """Whether the other process has not closed its end of a connection."""
    try:
        return bool(sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
    except BlockingIOError:
        return True
    except OSError:
        return False


def _kind_of(error: Exception) -> str:
    if isinstance(error, ProviderUnavailable):
        return "provider"
    return "engine" if isinstance(error, EngineError) else "other"
