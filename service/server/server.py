"""The process: uvicorn around the application, with a drain that answers everything it accepted."""

import asyncio
import gc
import math
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING

import structlog
import uvicorn
from fastapi import FastAPI

from service.http.connection import KEEP_ALIVE_SECONDS, Connection
from service.lifecycle import Lifecycle, Phase
from service.repository.served import Repository
from service.server.accept import LeastConnectionsListener, SharedConnectionCounts
from service.server.banner import banner
from service.server.terminal import print_safely
from service.settings import Settings
from service.worker_group import WorkerGroup

if TYPE_CHECKING:
    from service.protocols.open_inference.grpc_server import GrpcServer

# Long enough for a client on a kept-alive connection to get an answer that closes it, instead of a reset.
_LINGER_SECONDS = 0.5

# In the end every call is answered, but the last answers may not be out yet.
_SENDING_SECONDS = 1

# How long the event loop may keep the interpreter's lock from an engine that has its outputs, or wants its next batch:
# with Python's own 5 ms, engines of a few milliseconds a batch idle for a fifth of the time (a GRU on two cores: 350 to
# 415 texts a second).
_SWITCH_SECONDS = 0.0005

log = structlog.stdlib.get_logger(__name__)


class Server(uvicorn.Server):
    """Ends with exit code 0 after a signal, with `failed` set where the models could not be loaded.

    SIGTERM or SIGINT: for a moment `/readyz` answers 503 and work is still done, each answer closing its connection, so
    that load balancers and clients leave without an error. Then the socket closes: who connects is refused, and goes to
    another replica. Once all that was accepted is answered, or after `grace_seconds`, the process ends. A second signal
    ends it at once.

    SIGUSR1: the drift evidence of every model is forgotten, as an operator asks for who has looked into it.

    On sockets that others listen on as well, nothing is accepted before the models are warm, and a signal until then
    ends the process at once.
    """

    def __init__(
        self,
        app: FastAPI,
        settings: Settings,
        worker_group: WorkerGroup | None = None,
        on_ready: Callable[[str], object] = print_safely,
    ) -> None:
        """`on_ready` gets the banner once it is ready. Workers of a `worker_group` share the sockets."""
        super().__init__(
            uvicorn.Config(
                app,
                host=settings.host,
                port=settings.port,
                # Its type says class, its code calls it.
                http=partial(  # type: ignore[arg-type]
                    Connection,
                    patience_seconds=settings.receive_timeout_seconds,
                    load_shedder=app.state.load_shedder,
                ),
                ws="none",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                # What is still in flight when the grace period is over is cancelled, not waited for.
                timeout_graceful_shutdown=1,
            )
        )
        self._app = app
        self._host = settings.host
        self._grace_seconds = settings.grace_seconds
        self._keys_needed = settings.api_keys_file is not None
        self._lifecycle: Lifecycle = app.state.lifecycle
        self._repository: Repository = app.state.repository
        self._grpc_port: GrpcServer | None = app.state.grpc_port
        self._worker_group = worker_group
        self._on_ready = on_ready
        self._announced = False
        self._is_closed_yet = worker_group is not None
        self._drain_until = self._linger_until = math.inf
        self._signal: signal.Signals | None = None
        self._forget = False

    @property
    def failure(self) -> Exception | None:
        """Why the service could not start, if so."""
        return self._lifecycle.failure

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Open the doors, behind which the models load; those that are shared only once they are warm."""
        await self._listen(sockets)
        if self._grpc_port is not None and self.failure is None:
            try:
                await self._grpc_port.open(self._app)
            except OSError as error:
                self._lifecycle.fail(error)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let out what is answered, or cut off, and end the application."""
        if self._grpc_port is not None:
            await self._grpc_port.close(_SENDING_SECONDS)
        await super().shutdown(sockets)

    async def _listen(self, sockets: list[socket.socket] | None) -> None:
        if self._worker_group is None or sockets is None:
            await super().startup(sockets)
            return
        # The lifespan alone: through uvicorn's own doors they would come in where loading fails.
        await super().startup([])
        if self.failure is None:
            connection_counts = SharedConnectionCounts(
                self._worker_group.folder / "connections", self._worker_group.index, self._worker_group.count
            )
            try:
                doors = [
                    LeastConnectionsListener(
                        each, self._connect, self._connections, connection_counts, self.config.backlog
                    )
                    for each in sockets
                ]
            except OSError as error:
                # Another program began to listen on this port while the models were loaded.
                self._lifecycle.fail(error)
                return
            self._is_closed_yet = False
            self.servers = doors  # type: ignore[assignment]  # as much of a server as uvicorn uses

    def _connections(self) -> int:
        return len(self.server_state.connections)

    def _connect(self) -> asyncio.Protocol:
        make: Callable[..., asyncio.Protocol] = self.config.http_protocol_class
        return make(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - a signal handler's signature
        """Begin the drain; at the second signal end it. uvicorn's own would raise the signal again at its end."""
        if self._is_closed_yet:
            # Nobody was let in, so that nobody waits for an answer.
            os._exit(0)
        if self._lifecycle.phase is Phase.DRAINING:
            # Not of a worker: it may get the same one twice, from its supervisor and from who sends it to every process
            # (systemd does). The supervisor does not ask a second time.
            self.should_exit = self.force_exit = self._worker_group is None
            return
        self._lifecycle.drain()
        self._drain_until = time.monotonic() + self._grace_seconds
        self._linger_until = time.monotonic() + _LINGER_SECONDS
        # Logged at the next tick: a signal may arrive in the middle of a write to the very same stream.
        self._signal = signal.Signals(sig)

    def handle_reset(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - a signal handler's signature
        """Forget drift evidence at the next tick: a signal may arrive in the middle of an input's count."""
        self._forget = True

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: announce readiness once, notice a failed start, forget drift evidence, end the drain."""
        if self._forget:
            self._forget = False
            for model in self._repository:
                model.reset_drift()
        if self._lifecycle.phase is Phase.FAILED:
            self.should_exit = True
        elif self._lifecycle.phase is Phase.READY and not self._announced:
            self._announced = True
            # What was made while starting stays: the collector need not look through it again every few requests.
            gc.freeze()
            self._on_ready(
                banner(
                    self._repository,
                    self._address(),
                    self._app.version,
                    keys_needed=self._keys_needed,
                    workers=1 if self._worker_group is None else self._worker_group.count,
                    grpc_address=None if self._grpc_port is None else self._grpc_port.address,
                )
            )
        elif self._lifecycle.phase is Phase.DRAINING:
            if self._signal is not None:
                log.info("draining", signal=self._signal.name, in_flight=self._lifecycle.in_flight)
                self._signal = None
            now = time.monotonic()
            if now >= self._linger_until and not self._lifecycle.closed:
                self._stop_listening()
            self.should_exit |= self._drained(now)
        return await super().on_tick(counter)

    def _stop_listening(self) -> None:
        self._lifecycle.close()
        if self._grpc_port is not None:
            # A port that closes cancels calls which it has not looked at yet: those who call learn first of the drain.
            self._linger_until = time.monotonic() + _LINGER_SECONDS
        for server in self.servers:
            server.close()
        # Idle ones close at once, busy ones after their answer.
        for connection in list(self.server_state.connections):
            connection.shutdown()

    def _drained(self, now: float) -> bool:
        unanswered = self._lifecycle.in_flight
        if now >= self._drain_until:
            if unanswered:
                log.warning("grace period is over", unanswered=unanswered)
            return True
        return not unanswered and now >= self._linger_until

    def _address(self) -> str:
        port = self.servers[0].sockets[0].getsockname()[1]
        # A wildcard is where one listens, not where one connects.
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self._host, self._host)  # noqa: S104
        return f"http://{f'[{host}]' if ':' in host and not host.startswith('[') else host}:{port}"


def serve(
    app: FastAPI,
    settings: Settings,
    worker_group: WorkerGroup | None = None,
    sockets: list[socket.socket] | None = None,
    on_ready: Callable[[str], object] = print_safely,
) -> int:
    """Serve until a signal; the exit code. The workers of a `worker_group` accept from the same `sockets`."""
    # Each connection is an open file, and the usual soft limit of 1024 is there for programs that call select().
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    sys.setswitchinterval(_SWITCH_SECONDS)
    server = Server(app, settings, worker_group, on_ready)
    signal.signal(signal.SIGUSR1, server.handle_reset)
    server.run(sockets)
    if server.failure is not None:
        log.error("cannot start", reason=str(server.failure))
        return 1
    return 0
