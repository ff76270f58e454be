"""The server of one process: uvicorn around the application, with a drain that answers every accepted request."""

import asyncio
import gc
import logging
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
from typing_extensions import override

from service.http.connection import KEEP_ALIVE_SECONDS, Connection
from service.http.uvicorn_hooks import require_hooks
from service.inference.engine_health import EngineHealth
from service.lifecycle import Lifecycle, Phase
from service.repository.served import Repository
from service.server.accept import LeastConnectionsListener, SharedConnectionCounts
from service.server.banner import banner, print_safely
from service.server.sockets import BindError, bind_sockets
from service.settings import Settings
from service.worker_group import SINGLE_WORKER, WorkerGroup

if TYPE_CHECKING:
    from service.protocols.open_inference.grpc_server import GrpcServer

# Long enough for a client on a kept-alive connection to get a response that closes it, instead of a reset.
_LINGER_SECONDS = 0.5

# After the drain every gRPC call is answered, but the last responses may not be sent yet.
_SEND_SECONDS = 1

# How long the event loop may keep the GIL while an engine thread waits for it. Python's default of 5 ms leaves engines
# with short batches idle: see docs/performance.md.
GIL_SWITCH_SECONDS = 0.0005

STALLED_EXIT_CODE = 70
"""The exit code of a process that ended because an engine did not recover: a fault inside of the software."""

# A process whose engine is stalled is killed this long after the grace period, in case its drain hangs.
_EXIT_SECONDS = 5

log = structlog.stdlib.get_logger(__name__)


class Server(uvicorn.Server):
    """Serves the application until a signal, and exits with code 0. `failure` is set if the models cannot be loaded.

    SIGTERM or SIGINT starts the drain. For a moment `/readyz` answers 503 while work continues and each response closes
    its connection, so that load balancers and clients leave without an error. Then the listening sockets close, and new
    clients are refused and go to another replica. The process ends once every accepted request is answered, or after
    `grace_seconds`. A second signal ends a single process at once.

    SIGUSR1 resets the drift evidence of every model.

    A signal before the models are warm ends the process at once: no accepted request waits for a response. Workers that
    share listening sockets accept nothing before that.
    """

    def __init__(
        self,
        app: FastAPI,
        settings: Settings,
        worker_group: WorkerGroup = SINGLE_WORKER,
        on_ready: Callable[[str], object] = print_safely,
    ) -> None:
        """Prepare the server.

        Args:
            app: The application of `create_app`.
            settings: The settings that the application was made with.
            worker_group: The workers that share the listening sockets.
            on_ready: Called with the banner once the service is ready.
        """
        super().__init__(
            uvicorn.Config(
                app,
                host=settings.host,
                port=settings.port,
                # uvicorn declares a class here, and calls it like any factory.
                http=partial(  # type: ignore[arg-type]
                    Connection,
                    timeout_seconds=settings.receive_timeout_seconds,
                    load_shedder=app.state.load_shedder,
                ),
                ws="none",
                log_config=None,
                access_log=False,
                server_header=False,
                # Otherwise a pipelined request begins with the log fields and the span of the previous one.
                reset_contextvars=True,
                # A browser must not guess that a response is a page or a script.
                headers=[("X-Content-Type-Options", "nosniff")],
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                # Requests still in flight after the grace period are cancelled.
                timeout_graceful_shutdown=1,
            )
        )
        self._app = app
        self._host = settings.host
        self._grace_seconds = settings.grace_seconds
        self._keys_needed = settings.api_keys_file is not None
        self._lifecycle: Lifecycle = app.state.lifecycle
        self._repository: Repository = app.state.repository
        self._grpc_server: GrpcServer | None = app.state.grpc_port
        self._worker_group = worker_group
        self._on_ready = on_ready
        self._announced = False
        self._not_listening = worker_group.count > 1 or settings.listen_when_ready
        self._drain_until = self._linger_until = math.inf
        self._signal: signal.Signals | None = None
        self._reset_requested = False
        self._engine_health: EngineHealth = app.state.engine_health
        self._engine_health.on_dead = self._end_without_engine

    @property
    def has_dead_engine(self) -> bool:
        """Whether the process ends because an engine does not compute any more."""
        return self._engine_health.dead

    @property
    def failure(self) -> Exception | None:
        """The reason why the service could not start, if it could not."""
        return self._lifecycle.failure

    @override
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Open the listeners. Models load in the background, except before listeners that workers share."""
        await self._listen(sockets)
        if self._grpc_server is not None and self.failure is None:
            try:
                await self._grpc_server.open(self._app)
            except OSError as error:
                self._lifecycle.fail(error)

    @override
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Send the last responses, cancel what is unanswered, and end the application."""
        if self._grpc_server is not None:
            await self._grpc_server.close(_SEND_SECONDS)
        await super().shutdown(sockets)

    async def _listen(self, sockets: list[socket.socket] | None) -> None:
        if sockets is None or self._worker_group.count == 1:
            try:
                await super().startup(sockets)
            except OSError as error:
                # Another program began to listen on the port in the meantime.
                self._lifecycle.fail(error)
                self.started = True
            self._not_listening = False
            return
        # Start the lifespan only: uvicorn's own listeners would accept connections even if the models cannot be loaded.
        await super().startup([])
        if self.failure is not None:
            return
        connection_counts = SharedConnectionCounts(self._worker_group)
        try:
            listeners = [
                LeastConnectionsListener(
                    sock, self._make_protocol, self._open_connections, connection_counts, self.config.backlog
                )
                for sock in sockets
            ]
        except OSError as error:
            # Another program began to listen on this port while the models were loaded.
            self._lifecycle.fail(error)
            return
        self._not_listening = False
        self.servers = listeners  # type: ignore[assignment]  # it has the part of a server that uvicorn uses

    def _open_connections(self) -> int:
        return len(self.server_state.connections)

    def _make_protocol(self) -> asyncio.Protocol:
        factory: Callable[..., asyncio.Protocol] = self.config.http_protocol_class
        return factory(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)

    @override
    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Start the drain; at the second signal end it. uvicorn's own handler would raise the signal again at exit."""
        if self._not_listening:
            # No connection was accepted, so no client waits for a response.
            os._exit(0)
        if self._lifecycle.phase is Phase.DRAINING:
            # Workers ignore the second signal: a worker may get the same signal from its supervisor and from a program
            # that signals every process, as systemd does. At its own second signal the supervisor kills the workers.
            self.should_exit = self.force_exit = self._worker_group.count == 1
            return
        self._begin_drain()
        # Logged at the next tick: the signal may have interrupted a write to the log's stream.
        self._signal = signal.Signals(sig)

    def _begin_drain(self) -> None:
        self._lifecycle.drain()
        self._drain_until = time.monotonic() + self._grace_seconds
        self._linger_until = time.monotonic() + _LINGER_SECONDS

    def _end_without_engine(self) -> None:
        """Let the next tick begin the drain, and end the process if the drain hangs; on the thread of the health."""
        time.sleep(self._grace_seconds + _EXIT_SECONDS)
        # An engine in the mode `INLINE` has stopped the event loop.
        os._exit(STALLED_EXIT_CODE)

    def handle_reset(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - a signal handler's signature
        """Reset drift evidence at the next tick: the signal may have interrupted the count of an input."""
        self._reset_requested = True

    @override
    async def on_tick(self, counter: int) -> bool:
        """React to signals and to changes of the lifecycle's phase; uvicorn calls it ten times a second."""
        if self._reset_requested:
            self._reset_requested = False
            for model in self._repository:
                model.reset_drift()
        if self.has_dead_engine and self._lifecycle.phase is Phase.READY:
            self._begin_drain()
        phase = self._lifecycle.phase
        if phase is Phase.FAILED:
            self.should_exit = True
        elif phase is Phase.READY and not self._announced:
            self._announced = True
            self._announce()
        elif phase is Phase.DRAINING:
            self._continue_drain()
        return await super().on_tick(counter)

    def _announce(self) -> None:
        # The objects made at startup stay alive: the garbage collector need not scan them again every few requests.
        gc.freeze()
        self._on_ready(
            banner(
                self._repository,
                self._address(),
                self._app.version,
                keys_needed=self._keys_needed,
                workers=self._worker_group.count,
                grpc_address=None if self._grpc_server is None else self._grpc_server.address,
            )
        )

    def _continue_drain(self) -> None:
        if self._signal is not None and not self._lifecycle.loaded:
            log.info("stopped while starting", signal=self._signal.name)
            # The thread that loads a model cannot be interrupted.
            os._exit(0)
        if self._signal is not None:
            log.info("draining", signal=self._signal.name, in_flight=self._lifecycle.in_flight)
            self._signal = None
        now = time.monotonic()
        if now >= self._linger_until and not self._lifecycle.closed:
            self._stop_listening()
        self.should_exit |= self._drained(now)

    def _stop_listening(self) -> None:
        self._lifecycle.close()
        if self._grpc_server is not None:
            # A gRPC port that closes cancels calls that it has not read yet, so clients get time to notice the drain.
            self._linger_until = time.monotonic() + _LINGER_SECONDS
        for server in self.servers:
            server.close()
        # Idle connections close at once, busy ones after their response.
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
        # Clients cannot connect to a wildcard address.
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self._host, self._host)  # noqa: S104
        return f"http://{f'[{host}]' if ':' in host and not host.startswith('[') else host}:{port}"


require_hooks(Server, uvicorn.Server)


def serve(
    app: FastAPI,
    settings: Settings,
    worker_group: WorkerGroup = SINGLE_WORKER,
    sockets: list[socket.socket] | None = None,
    on_ready: Callable[[str], object] = print_safely,
) -> int:
    """Serve until a signal and return the exit code.

    Args:
        app: The application of `create_app`.
        settings: The settings that the application was made with.
        worker_group: The workers that accept from the same `sockets`.
        sockets: Bound sockets to accept from. None: the server binds its own.
        on_ready: Called with the banner once the service is ready.
    """
    if sockets is None:
        try:
            sockets = bind_sockets(settings)
        except BindError as error:
            log.error("cannot start", reason=str(error))
            return 1
    # Each connection is an open file; the usual soft limit of 1024 exists for programs that call select().
    _, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard_limit, hard_limit))
    sys.setswitchinterval(GIL_SWITCH_SECONDS)
    server = Server(app, settings, worker_group, on_ready)
    signal.signal(signal.SIGUSR1, server.handle_reset)
    server.run(sockets)
    if server.failure is not None:
        log.error("cannot start", reason=str(server.failure))
        return 1
    code = STALLED_EXIT_CODE if server.has_dead_engine else 0
    if app.state.engine_health.busy:
        # Not by a return: the interpreter's end would free a session that is still computing.
        logging.shutdown()
        os._exit(code)
    return code
