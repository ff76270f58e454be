"""A client's connection, with a limit on every wait for the client and on the memory that it takes."""

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
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from service.errors import HeadersTooLarge, MalformedRequest, Problem, RequestTimeout, UnsupportedTransferCoding
from service.http.deadline import DISCONNECTED
from service.http.lingering_transport import LingeringTransport
from service.http.load_shedding import LoadShedder
from service.http.problem_json import problem_response
from service.http.slow_clients import DiscardedBytes
from service.http.uvicorn_hooks import require_hooks

KEEP_ALIVE_SECONDS = 75
"""How long a connection may be idle.

It is longer than the keep-alive time of common load balancers and client pools. The client must be the first to close:
otherwise a request now and then meets a connection that is just closing.
"""

MAX_HEADERS_BYTES = 65_536
"""The size of the longest request line and headers, and of the longest trailers of a body."""

# Bytes are parsed in pieces of this size until a request must wait for an earlier one. A read of 256 KiB could hold
# 14,000 requests, which take a hundred times as much memory once they are parsed.
_PIECE_BYTES = 4096

_MALFORMED = "connection.malformed"
"""The key in the scope of a request of the problem to answer it with instead of serving it."""

log = structlog.stdlib.get_logger(__name__)


class _Flow(FlowControl):
    """uvicorn's flow control, which does not resume reading while `held`."""

    held = False

    @override
    def resume_reading(self) -> None:
        if not self.held:
            super().resume_reading()


class Connection(HttpToolsProtocol):
    """uvicorn's HTTP connection with limits of time and memory, problem responses and load shedding.

    uvicorn waits without a limit in several places. This class closes a connection

    - on which no request arrives for `KEEP_ALIVE_SECONDS`, not even a first one;
    - whose request headers are not complete after `timeout_seconds` (408), or exceed `MAX_HEADERS_BYTES` (431);
    - whose request body continues after its response, and falls behind the pace of `service.http.slow_clients`;
    - whose client reads none of its response for `timeout_seconds`.

    uvicorn also keeps without a limit what a client sends. This class drops trailers, and parses pipelined requests
    only when their turn comes. `service.http.body` limits the size and the time of a body that is read.

    Methods marked with `@override` are uvicorn's hooks.
    """

    flow: _Flow
    transport: LingeringTransport  # type: ignore[assignment]  # it acts as a transport

    def __init__(self, *args: Any, timeout_seconds: float, load_shedder: LoadShedder, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._load_shedder = load_shedder
        self._timeout_seconds = timeout_seconds
        self._receive_timer: asyncio.TimerHandle | None = None
        self._disconnected: asyncio.Future[None]
        self._in_headers = self._in_message = self._in_body_part = False
        self._served: RequestResponseCycle | None = None
        # The bytes of the headers, or of what follows the last part of a body.
        self._headers_bytes = 0
        self._unparsed = b""
        self._discarded = DiscardedBytes()
        self._last_problem: Problem | None = None

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn declares it
        """Start the idle timer: a first request must arrive as soon as a further one."""
        wrapped: Any = LingeringTransport(transport, self.loop, self._timeout_seconds)
        super().connection_made(wrapped)
        self.flow = _Flow(wrapped)
        self._disconnected = self.loop.create_future()
        self._update_timers()
        # Linux then closes the connection of a client that reads nothing. Other systems have no such option.
        with contextlib.suppress(AttributeError, OSError):
            milliseconds = int(self._timeout_seconds * 1000)
            transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the timers and the work for the client."""
        if self._served is not None:
            # uvicorn does so for the newest request only, which may wait in the pipeline.
            self._served.disconnected = True
            self._served.message_event.set()
        super().connection_lost(exc)
        self.transport.closed()
        self._unset_keepalive_if_required()
        self._cancel_receive_timer()
        self.pipeline.clear()
        self._unparsed = b""
        self._cancel_work()

    @override
    def data_received(self, data: bytes) -> None:
        """Parse `data`, or keep it until the requests before it are answered."""
        if self.transport.lingering:
            self.transport.discard(data)
            return
        if len(data) <= _PIECE_BYTES and not self._unparsed:
            self._parse(data)
        else:
            self._parse_in_pieces(data)
        self._update_timers()

    def _parse_in_pieces(self, data: bytes) -> None:
        content = memoryview(self._unparsed + data)
        position = 0
        while position < len(content) and not self.pipeline:
            self._parse(content[position : position + _PIECE_BYTES])
            position += _PIECE_BYTES
        self._unparsed = bytes(content[position:])
        if self._unparsed:
            self.flow.pause_reading()
            self.flow.held = True
        elif self.flow.held:
            self.flow.held = False
            if not self.pipeline:
                self.flow.resume_reading()

    def _parse(self, data: bytes | memoryview) -> None:
        if self._last_problem is not None or self.transport.lingering:
            return
        scope = self.scope if self._in_message else None
        self._in_body_part = False
        super().data_received(cast(bytes, data))
        if not self._in_message:
            return
        self._discarded.add(len(data))
        # Headers that begin in this piece do not count: complete requests may precede them.
        if self.scope is scope and not self._in_body_part:
            self._headers_bytes += len(data)
            if self._headers_bytes > MAX_HEADERS_BYTES:
                kind = "headers" if self._in_headers else "trailers"
                self._reply_and_close(
                    HeadersTooLarge(f"The request's {kind} are larger than {MAX_HEADERS_BYTES} bytes. Send fewer.")
                )

    def _parse_rest(self) -> None:
        if not self.transport.is_closing():
            self._parse_in_pieces(b"")
            self._update_timers()

    @override
    def on_message_begin(self) -> None:
        """Note the first byte of a request (a callback of the parser)."""
        super().on_message_begin()
        cast(Scope, self.scope)[DISCONNECTED] = self._disconnected
        self._in_headers = self._in_message = True
        self._headers_bytes = 0

    @override
    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; drop a trailer, which must not be taken for one (RFC 9110, 6.5.1)."""
        if self._in_headers:
            super().on_header(name, value)

    @override
    def on_headers_complete(self) -> None:
        """Start to serve the request (a callback of the parser)."""
        http_1_0 = self.parser.get_http_version() == "1.0"
        if (problem := _malformed(self.headers, http_1_0=http_1_0)) is not None:
            cast(Scope, self.scope)[_MALFORMED] = problem
        if http_1_0:
            # Such a client does not know the interim response 100 (RFC 9110, 10.1.1).
            self.expect_100_continue = False
        super().on_headers_complete()
        self._in_headers = False
        self._headers_bytes = 0
        if self.parser.should_upgrade() or self.expect_100_continue:
            # No upgrade is supported: the request gets a normal response, and the parser accepts no further request.
            # A client that waits for 100 sends no body after another response, so its next bytes would be ambiguous.
            self.cycle.keep_alive = False

    @override
    def on_body(self, body: bytes) -> None:
        """Take a part of a request's body (a callback of the parser)."""
        self._in_body_part = True
        self._headers_bytes = 0
        if self.expect_100_continue:
            self.expect_100_continue = False
            if not self.cycle.response_started:
                self.cycle.keep_alive = self.parser.should_keep_alive()
        super().on_body(body)

    @override
    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        """Reject the request if it is malformed, or while its model is overloaded; otherwise start its task."""
        self._served = cycle
        scope = cast(Scope, cycle.scope)
        rejection: Response | None = None
        if _MALFORMED in scope:
            rejection = _response(scope[_MALFORMED])
            cycle.keep_alive = False
        # A pipelined request usually has its body when its turn comes; then it is served as usual. So is the request of
        # a client that reads no responses: its task waits, where a rejection would fill the memory.
        elif cycle.more_body and not cycle.body and not self.flow.write_paused:
            rejection = self._load_shedder.early_rejection(scope)
        if rejection is None:
            super()._start_asgi_task(cycle, app)
            return
        cycle.response_started = cycle.response_complete = True
        close = not cycle.keep_alive or self.parser.should_upgrade() or cycle.waiting_for_100_continue
        phrase = HTTPStatus(rejection.status_code).phrase
        self._write_response(rejection, phrase, close=close, head=scope["method"] == "HEAD")
        self.on_response_complete()

    @override
    def on_message_complete(self) -> None:
        """Note the end of a request's body (a callback of the parser)."""
        self._in_message = False
        if self.cycle.keep_alive and not self.parser.should_keep_alive():
            # The parser obeys a trailer `Connection: close`, and accepts no further request.
            self.cycle.keep_alive = False
            if self.cycle.response_complete:
                self.transport.close()
        super().on_message_complete()

    @override
    def on_response_complete(self) -> None:
        """Continue with the next request."""
        self._served = None
        super().on_response_complete()
        if self._last_problem is not None and self._served is None:
            self._write_last(self._last_problem)
        elif self._unparsed and not self.pipeline:
            self.loop.call_soon(self._parse_rest)
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
    def shutdown(self) -> None:
        """Close the connection, at the latest after the response in progress."""
        if self._served is not None:
            self.cycle.keep_alive = False
        else:
            self.transport.close_now()

    @override
    def _unsupported_upgrade_warning(self) -> None:
        """Not logged: operators cannot act on it, and a client could flood the log."""

    def _update_timers(self) -> None:
        """Run the timer of an unfinished request, or that of an idle connection, or none while a request is served."""
        if self.transport.is_closing():
            return
        # The client cannot time out while reading is paused because its responses are pending.
        if (self._in_headers or (self._in_message and self._served is None)) and not self.flow.read_paused:
            if self._receive_timer is None:
                self._discarded = DiscardedBytes()
                self._start_receive_timer()
            return
        self._cancel_receive_timer()
        if self._served is None and self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def _start_receive_timer(self) -> None:
        self._receive_timer = self.loop.call_later(self._timeout_seconds, self._on_receive_timeout)

    def _cancel_receive_timer(self) -> None:
        if self._receive_timer is not None:
            self._receive_timer.cancel()
            self._receive_timer = None

    def _on_receive_timeout(self) -> None:
        self._receive_timer = None
        if self.transport.is_closing():
            return
        if self._in_headers:
            self._reply_and_close(
                RequestTimeout(
                    f"The request's headers were not complete after {self._timeout_seconds:g} s. Send it again."
                )
            )
        elif self._discarded.end_period(self._timeout_seconds):
            self._start_receive_timer()
        else:
            self.transport.abort()

    def _cancel_work(self) -> None:
        if not self._disconnected.done():
            self._disconnected.set_result(None)

    def _reply_and_close(self, problem: Problem) -> None:
        """Reply to the request that is being received, after the responses to the requests before it, and close."""
        in_body = self._in_message and not self._in_headers
        if in_body and self.pipeline and self.pipeline[0][0] is self.cycle:
            # The request itself waits for its turn.
            self.pipeline.popleft()
        elif in_body and self._served is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            self._cancel_work()
            if self.cycle.response_started:
                self.transport.abort()
            else:
                self._write_last(problem)
            return
        elif in_body:
            # It is answered already.
            self.transport.close()
            return
        if self._served is not None:
            self._last_problem = problem
        else:
            self._write_last(problem)

    def _write_last(self, problem: Problem) -> None:
        self._write_response(_response(problem), problem.title, close=True)

    def _write_response(self, response: Response, reason: str, *, close: bool, head: bool = False) -> None:
        headers = [*self.server_state.default_headers, *response.raw_headers]
        if close:
            headers.append((b"connection", b"close"))
        lines = [f"HTTP/1.1 {response.status_code} {reason}".encode(), *(name + b": " + text for name, text in headers)]
        self.transport.write(b"\r\n".join([*lines, b"", b"" if head else bytes(response.body)]))
        if close:
            self.transport.close()


def _malformed(headers: list[tuple[bytes, bytes]], *, http_1_0: bool) -> Problem | None:
    """The problem of a request whose headers are well-formed, but not those of HTTP/1.1; None if there is none."""
    hosts = 0
    for name, value in headers:
        if name == b"host":
            hosts += 1
        elif name == b"transfer-encoding" and value.lower() != b"chunked":
            return UnsupportedTransferCoding(
                f"Transfer-Encoding {value[:64].decode('latin-1')!r} is not supported. Send `chunked` only; compress "
                "the body with Content-Encoding."
            )
    if hosts != 1 and not (http_1_0 and not hosts):
        return MalformedRequest(f"The request has {hosts} Host headers. Send one.")
    return None


def _response(problem: Problem) -> Response:
    """The response to a request that has no route to count and no id yet."""
    request_id = uuid.uuid4().hex
    response = problem_response(problem, request_id)
    response.headers["x-request-id"] = request_id
    return response


require_hooks(Connection, HttpToolsProtocol)
