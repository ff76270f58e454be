"""A client's connection, with a time limit on every wait for the client."""

import asyncio
import contextlib
import socket
import uuid
from http import HTTPStatus
from typing import Any, cast

import structlog
from starlette.responses import Response
from starlette.types import Scope
from typing_extensions import override
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from service.errors import HeadersTooLarge, MalformedRequest, Problem, RequestTimeout
from service.http.coalescing_transport import CoalescingTransport
from service.http.deadline import DISCONNECTED
from service.http.load_shedding import LoadShedder
from service.http.problem_json import problem_response
from service.http.uvicorn_hooks import require_hooks

KEEP_ALIVE_SECONDS = 75
"""How long a connection may be idle.

It is longer than the keep-alive time of common load balancers and client pools. The client must be the first to close:
otherwise a request now and then meets a connection that is just closing.
"""

MAX_HEADERS_BYTES = 65_536
"""The size of the longest request line and headers that arrive in several parts. One part has at most 256 KiB."""

log = structlog.stdlib.get_logger(__name__)


class Connection(HttpToolsProtocol):
    """uvicorn's HTTP connection with time limits, problem responses and load shedding.

    uvicorn waits without a limit in several places. This class closes a connection

    - on which no request arrives for `KEEP_ALIVE_SECONDS`, not even a first one;
    - whose request headers are not complete after `timeout_seconds` (408), or exceed `MAX_HEADERS_BYTES` (431);
    - whose request body continues for `timeout_seconds` after its response;
    - whose client reads none of its response for `timeout_seconds`.

    `service.http.body` limits the time of a body that is read. Methods marked with `@override` are uvicorn's hooks.
    """

    def __init__(self, *args: Any, timeout_seconds: float, load_shedder: LoadShedder, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._load_shedder = load_shedder
        self._timeout_seconds = timeout_seconds
        self._receive_timer: asyncio.TimerHandle | None = None
        self._disconnected: asyncio.Future[None]
        self._in_headers = self._in_message = False
        self._headers_bytes = 0

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn declares it
        """Start the idle timer: a first request must arrive as soon as a further one."""
        super().connection_made(CoalescingTransport(transport, self.loop))  # type: ignore[arg-type]  # it acts as a transport
        self._disconnected = self.loop.create_future()
        self._update_timers()
        # Linux then closes the connection of a client that reads nothing. Other systems have no such option.
        with contextlib.suppress(AttributeError, OSError):
            milliseconds = int(self._timeout_seconds * 1000)
            transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the timers and the work for the client."""
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        self._cancel_receive_timer()
        self._disconnected.set_result(None)

    @override
    def data_received(self, data: bytes) -> None:
        """Parse `data` and limit the size of the headers."""
        scope_before = self.scope if self._in_headers else None
        super().data_received(data)
        # Headers that begin in this part do not count: complete requests may precede them.
        if self._in_headers and self.scope is scope_before:
            self._headers_bytes += len(data)
            if self._headers_bytes > MAX_HEADERS_BYTES:
                self._reply_and_close(
                    HeadersTooLarge(f"The request's headers are larger than {MAX_HEADERS_BYTES} bytes. Send fewer.")
                )
        self._update_timers()

    @override
    def on_message_begin(self) -> None:
        """Note the first byte of a request (a callback of the parser)."""
        super().on_message_begin()
        cast(Scope, self.scope)[DISCONNECTED] = self._disconnected
        self._in_headers = self._in_message = True
        self._headers_bytes = 0

    @override
    def on_headers_complete(self) -> None:
        """Start to serve the request (a callback of the parser)."""
        self._in_headers = False
        super().on_headers_complete()
        if self.parser.should_upgrade():
            # No upgrade is supported: the request gets a normal response, and the parser accepts no further request.
            self.cycle.keep_alive = False

    @override
    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        """Reject the request while its model is overloaded; otherwise start its task."""
        # A pipelined request usually has its body when its turn comes; then it is served as usual.
        without_body = cycle.more_body and not cycle.body
        rejection = self._load_shedder.early_rejection(cast(Scope, cycle.scope)) if without_body else None
        if rejection is None:
            super()._start_asgi_task(cycle, app)
            return
        cycle.response_started = cycle.response_complete = True
        close = not cycle.keep_alive or self.parser.should_upgrade()
        self._write_response(rejection, HTTPStatus(rejection.status_code).phrase, close=close)
        self.on_response_complete()

    @override
    def on_message_complete(self) -> None:
        """Note the end of a request's body (a callback of the parser)."""
        self._in_message = False
        super().on_message_complete()

    @override
    def on_response_complete(self) -> None:
        """Continue with the next request."""
        super().on_response_complete()
        self._update_timers()

    @override
    def send_400_response(self, msg: str) -> None:
        """Reply to bytes that are not HTTP."""
        self._reply_and_close(MalformedRequest(f"This is not a valid HTTP/1.1 request. {msg}"))

    @override
    def timeout_keep_alive_handler(self) -> None:
        """Abort the idle connection: a client that reads nothing could delay a graceful close forever."""
        self.transport.abort()

    @override
    def _unsupported_upgrade_warning(self) -> None:
        """Not logged: operators cannot act on it, and a client could flood the log."""

    def _update_timers(self) -> None:
        """Run the timer of an unfinished request, or that of an idle connection, or none while a request is served."""
        if self.transport.is_closing():
            return
        serving = self.cycle is not None and not self.cycle.response_complete
        # The client cannot time out while reading is paused because its responses are pending.
        if (self._in_headers or (self._in_message and not serving)) and not self.flow.read_paused:
            if self._receive_timer is None:
                self._receive_timer = self.loop.call_later(self._timeout_seconds, self._on_receive_timeout)
            return
        self._cancel_receive_timer()
        if not serving and self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def _cancel_receive_timer(self) -> None:
        if self._receive_timer is not None:
            self._receive_timer.cancel()
            self._receive_timer = None

    def _on_receive_timeout(self) -> None:
        self._receive_timer = None
        if self.transport.is_closing():
            return
        if self._in_headers and (self.cycle is None or self.cycle.response_complete):
            self._reply_and_close(
                RequestTimeout(
                    f"The request's headers were not complete after {self._timeout_seconds:g} s. Send it again."
                )
            )
        else:
            self.transport.abort()

    def _reply_and_close(self, problem: Problem) -> None:
        """Reply before a request exists: it has no route to count and no id yet, so an id is generated."""
        request_id = uuid.uuid4().hex
        log.info("request refused", type=problem.type, status=problem.status, request_id=request_id)
        response = problem_response(problem, request_id)
        response.headers["x-request-id"] = request_id
        self._write_response(response, problem.title, close=True)

    def _write_response(self, response: Response, reason: str, *, close: bool) -> None:
        headers = [*self.server_state.default_headers, *response.raw_headers]
        if close:
            headers.append((b"connection", b"close"))
        lines = [f"HTTP/1.1 {response.status_code} {reason}".encode(), *(name + b": " + text for name, text in headers)]
        self.transport.write(b"\r\n".join([*lines, b"", bytes(response.body)]))
        if close:
            self.transport.close()


require_hooks(Connection, HttpToolsProtocol)
