"""The process: uvicorn around the application, with a drain that answers everything it accepted."""

import contextlib
import gc
import math
import resource
import signal
import sys
import time
from functools import partial
from types import FrameType

import structlog
import uvicorn
from fastapi import FastAPI

from service.banner import banner
from service.connection import Connection
from service.lifecycle import Lifecycle, Phase
from service.repository import Repository
from service.settings import Settings

KEEP_ALIVE_SECONDS = 75
"""How long a connection may be idle.

Longer than common load balancers and client pools keep one: who closes first must be they, or a request now and then
meets a closing connection.
"""

# Long enough for a client on a kept-alive connection to get an answer that closes it, instead of a reset.
_LINGER_SECONDS = 0.5

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
    """

    def __init__(self, app: FastAPI, settings: Settings) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                host=settings.host,
                port=settings.port,
                # Its type says class, its code calls it.
                http=partial(Connection, patience_seconds=settings.receive_timeout_seconds),  # type: ignore[arg-type]
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
        self._announced = False
        self._drain_until = self._linger_until = math.inf
        self._signal: signal.Signals | None = None
        self._forget = False

    @property
    def failure(self) -> Exception | None:
        """Why the service could not start, if so."""
        return self._lifecycle.failure

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - a signal handler's signature
        """Begin the drain; at the second signal end it. uvicorn's own would raise the signal again at its end."""
        if self._lifecycle.phase is Phase.DRAINING:
            self.should_exit = self.force_exit = True
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
                model.forget_drift()
        if self._lifecycle.phase is Phase.FAILED:
            self.should_exit = True
        elif self._lifecycle.phase is Phase.READY and not self._announced:
            self._announced = True
            # What was made while starting stays: the collector need not look through it again every few requests.
            gc.freeze()
            # A closed pipe or an ASCII terminal is no reason not to serve.
            with contextlib.suppress(OSError, UnicodeError):
                text = banner(self._repository, self._address(), self._app.version, keys_needed=self._keys_needed)
                print(text, flush=True)
        elif self._lifecycle.phase is Phase.DRAINING:
            if self._signal is not None:
                log.info("draining", signal=self._signal.name, in_flight=self._lifecycle.in_flight)
                self._signal = None
            now = time.monotonic()
            if now >= self._linger_until and not self._lifecycle.closed:
                self._close_door()
            self.should_exit |= self._drained(now)
        return await super().on_tick(counter)

    def _close_door(self) -> None:
        self._lifecycle.close()
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


def serve(app: FastAPI, settings: Settings) -> int:
    """Serve until a signal; the exit code."""
    # Each connection is an open file, and the usual soft limit of 1024 is there for programs that call select().
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    sys.setswitchinterval(_SWITCH_SECONDS)
    server = Server(app, settings)
    signal.signal(signal.SIGUSR1, server.handle_reset)
    server.run()
    if server.failure is not None:
        log.error("cannot start", reason=str(server.failure))
        return 1
    return 0
