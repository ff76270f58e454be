"""A client's connection, bounded: neither silence nor a request without end can hold it for long."""

import asyncio
import contextlib
import socket
import uuid
from http import HTTPStatus
from typing import Any, cast

import structlog
from starlette.responses import Response
from starlette.types import Scope
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from service.errors import HeadersTooLarge, MalformedRequest, Problem, RequestTimeout, problem_response
from service.http.coalescing_transport import CoalescingTransport
from service.http.deadline import DISCONNECTED
from service.http.load_shedding import LoadShedder

KEEP_ALIVE_SECONDS = 75
"""How long a connection may be idle.

Longer than common load balancers and client pools keep one: who closes first must be they, or a request now and then
meets a closing connection.
"""

MAX_HEAD_BYTES = 65_536
"""The request line and headers of one request, where they do not come in one piece (of at most 256 KiB)."""

log = structlog.stdlib.get_logger(__name__)


class Connection(HttpToolsProtocol):
    """uvicorn's own connection where it waits without an end or answers without a problem.

    It closes a connection on which nothing was ever sent, whose request's head is not complete after `patience_seconds`
    (408) or longer than `MAX_HEAD_BYTES` (431), whose body goes on for `patience_seconds` behind its answer, or that
    takes none of its answer for as long. The body itself is bounded where it is read (`service.http.body`).
    """

    def __init__(self, *uvicorns: Any, patience_seconds: float, load_shedder: LoadShedder, **own: Any) -> None:
        super().__init__(*uvicorns, **own)
        self._load_shedder = load_shedder
        self._patience_seconds = patience_seconds
        self._watch: asyncio.TimerHandle | None = None
        self._disconnected: asyncio.Future[None]
        self._in_head = self._in_message = False
        self._head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn's
        """Begin to wait for a first request, no longer than for a further one."""
        super().connection_made(CoalescingTransport(transport, self.loop))  # type: ignore[arg-type]  # a transport in all it is used for
        self._disconnected = self.loop.create_future()
        self._settle()
        # Linux closes it then, whoever holds answers back; elsewhere the client's own patience is the bound.
        with contextlib.suppress(AttributeError, OSError):
            milliseconds = int(self._patience_seconds * 1000)
            transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timers with the connection, and whoever works for it hears of it."""
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        self._unset_watch()
        self._disconnected.set_result(None)

    def data_received(self, data: bytes) -> None:
        """Take what came, and see what is still missing."""
        begun = self.scope if self._in_head else None
        super().data_received(data)
        # Not of the head that is begun in this piece: whole requests may lie before it.
        if self._in_head and self.scope is begun:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(
                    HeadersTooLarge(f"The request's headers are larger than {MAX_HEAD_BYTES} bytes. Send fewer.")
                )
        self._settle()

    def on_message_begin(self) -> None:
        """The parser's: a request's first byte."""
        super().on_message_begin()
        cast(Scope, self.scope)[DISCONNECTED] = self._disconnected
        self._in_head = self._in_message = True
        self._head_bytes = 0

    def on_headers_complete(self) -> None:
        """The parser's: the head is there."""
        self._in_head = False
        super().on_headers_complete()
        if self.parser.should_upgrade():
            # There is nothing to upgrade to; the request is answered as it is, and the parser takes no other one.
            self.cycle.keep_alive = False

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        """uvicorn's: a request's turn has come."""
        # One that waited for those before it has its body, most likely; only the newest can be at its head.
        at_head = cycle.more_body and not cycle.body
        early_rejection = self._load_shedder.early_rejection(cast(Scope, cycle.scope)) if at_head else None
        if early_rejection is None:
            super()._start_asgi_task(cycle, app)
            return
        cycle.response_started = cycle.response_complete = True
        last = not cycle.keep_alive or self.parser.should_upgrade()
        self._answer(early_rejection, HTTPStatus(early_rejection.status_code).phrase, last=last)
        self.on_response_complete()

    def on_message_complete(self) -> None:
        """The parser's: the body is there."""
        self._in_message = False
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """uvicorn's: an answer is out."""
        super().on_response_complete()
        self._settle()

    def send_400_response(self, msg: str) -> None:
        """uvicorn's answer to what is not HTTP."""
        self._refuse(MalformedRequest(f"This is not a valid HTTP/1.1 request. {msg}"))

    def timeout_keep_alive_handler(self) -> None:
        """uvicorn's, with an end: a client that does not take its answer could put off a close for ever."""
        self.transport.abort()

    def _unsupported_upgrade_warning(self) -> None:
        """Not for the operator to know, and a client could say it a thousand times a second."""

    def _settle(self) -> None:
        """Have the timer that fits: for an unfinished request, for the next one, or none while one is served."""
        if self.transport.is_closing():
            return
        serving = self.cycle is not None and not self.cycle.response_complete
        # Who is not read from, because answers come first, cannot be late.
        if (self._in_head or (self._in_message and not serving)) and not self.flow.read_paused:
            if self._watch is None:
                self._watch = self.loop.call_later(self._patience_seconds, self._overdue)
            return
        self._unset_watch()
        if not serving and self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def _unset_watch(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None

    def _overdue(self) -> None:
        self._watch = None
        if self.transport.is_closing():
            return
        if self._in_head and (self.cycle is None or self.cycle.response_complete):
            self._refuse(
                RequestTimeout(
                    f"The request's headers were not complete after {self._patience_seconds:g} s. Send it again."
                )
            )
        else:
            self.transport.abort()

    def _refuse(self, problem: Problem) -> None:
        """Answer in the name of nobody: there is no request yet that could have an id or be counted."""
        request_id = uuid.uuid4().hex
        log.info("refused", type=problem.type, status=problem.status, request_id=request_id)
        answer = problem_response(problem, request_id, "")
        answer.headers["x-request-id"] = request_id
        self._answer(answer, problem.title, last=True)

    def _answer(self, answer: Response, reason: str, *, last: bool) -> None:
        headers = [*self.server_state.default_headers, *answer.raw_headers]
        if last:
            headers.append((b"connection", b"close"))
        lines = [f"HTTP/1.1 {answer.status_code} {reason}".encode(), *(name + b": " + text for name, text in headers)]
        self.transport.write(b"\r\n".join([*lines, b"", bytes(answer.body)]))
        if last:
            self.transport.close()
