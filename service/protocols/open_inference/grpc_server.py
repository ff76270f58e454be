"""The gRPC server: each call becomes a request to the application, which handles it like a request over HTTP."""

import asyncio
import logging
import os
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from typing import Any

# gRPC's own log has another format than the service's and would report errors of clients. Read when grpc is imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import grpc
import orjson
import structlog
from starlette.types import ASGIApp, Message, Scope

from service.errors import BodyTooLarge, InternalError
from service.http.body import MESSAGE_CODINGS
from service.http.connection import KEEP_ALIVE_SECONDS
from service.protocols.open_inference.grpc_compression import ALGORITHMS, CHANNEL_OPTIONS, codings_of
from service.protocols.open_inference.grpc_streams import Handler
from service.settings import Settings, env_name

log = structlog.stdlib.get_logger(__name__)

# It logs each header that is not UTF-8 with its value, which may be a key.
logging.getLogger("grpc._cython.cygrpc").setLevel(logging.CRITICAL)

DEADLINE = "grpc.deadline"
"""The key in the scope of a gRPC call of its deadline, on the clock of the event loop; HTTP requests lack the key."""

_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    404: grpc.StatusCode.NOT_FOUND,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    # Not RESOURCE_EXHAUSTED, after which clients try again.
    413: grpc.StatusCode.INVALID_ARGUMENT,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    499: grpc.StatusCode.CANCELLED,
    500: grpc.StatusCode.INTERNAL,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
_TRAILERS = (b"x-request-id", b"retry-after")
# Clients take 8 KiB of trailers, and a character may need nine bytes in them.
_MAX_ERROR_CHARS = 800
# Concurrent calls on one connection: enough for full batches. Further calls wait in the client.
_MAX_CALLS = 128


class GrpcServer:
    """Listens on `address` from `open` to `close`."""

    def __init__(self, paths: Sequence[str], streams: Mapping[str, Mapping[str, Handler]], settings: Settings) -> None:
        """Configure the server.

        Args:
            paths: The paths of the application's routes for calls, `/SERVICE/METHOD`.
            streams: The handlers of calls that are streams, by service and method.
            settings: The address and the limits.
        """
        self._paths = paths
        self._streams = streams
        self._host = f"[{settings.host}]" if ":" in settings.host else settings.host
        self._port = settings.grpc_port
        self._options = {
            # The kernel distributes connections among workers; a single process keeps the port to itself.
            "grpc.so_reuseport": int(settings.workers > 1),
            "grpc.max_receive_message_length": settings.max_body_bytes,
            **CHANNEL_OPTIONS,
            "grpc.max_concurrent_streams": _MAX_CALLS,
            "grpc.max_connection_idle_ms": 1000 * KEEP_ALIVE_SECONDS,
            "grpc.server_handshake_timeout_ms": int(1000 * settings.receive_timeout_seconds),
        }
        self._server: Any = None

    @property
    def address(self) -> str:
        """Host and port; once the server is open, the port that it listens on instead of 0."""
        return f"{self._host}:{self._port}"

    async def open(self, app: ASGIApp) -> None:
        """Listen, and pass calls to `app`. Raises `OSError`."""
        server = grpc.aio.server(options=list(self._options.items()))
        services: dict[str, dict[str, Any]] = defaultdict(dict)
        for path in self._paths:
            _, service, method = path.split("/")
            # Without a deserializer a message stays bytes. A call with one message is the same on the wire as a stream
            # of one message, but the application reads a stream itself: after it has checked the key.
            services[service][method] = grpc.stream_unary_rpc_method_handler(partial(_call, app, path))
        for service, handlers in self._streams.items():
            for method, handler in handlers.items():
                services[service][method] = grpc.stream_stream_rpc_method_handler(handler)
        server.add_generic_rpc_handlers(
            tuple(grpc.method_handlers_generic_handler(service, methods) for service, methods in services.items())
        )
        try:
            self._port = server.add_insecure_port(self.address)
        except RuntimeError as error:
            raise OSError(f"{env_name('grpc_port')} = {self._port}: {error}") from None
        await server.start()
        self._server = server

    async def close(self, grace_seconds: float) -> None:
        """Reject new calls, and wait for the others; calls that take longer than `grace_seconds` are cancelled."""
        if self._server is not None:
            await self._server.stop(grace_seconds)


async def _call(app: ASGIApp, path: str, messages: AsyncIterator[bytes], context: Any) -> bytes:
    """Send a call through the application as a request.

    Returns:
        The response message. After an error, `context` aborts the call instead.
    """
    try:
        status, headers, body = await _request(app, path, messages, context)
        error = None if status == 200 else str(orjson.loads(body)["error"])
    except Exception:
        # The application answers its own errors: this is a fault outside of it.
        log.exception("unexpected error", path=path)
        status, headers, body, error = 500, {}, b"", f"{InternalError.type}: The log has the traceback."
    context.set_trailing_metadata([(name.decode(), headers[name].decode()) for name in _TRAILERS if name in headers])
    if error is not None:
        code = _CODES.get(status, grpc.StatusCode.UNKNOWN)
        if error.startswith(f"{BodyTooLarge.type}:"):
            # gRPC itself answers so if a message is too large before it is decompressed.
            code = grpc.StatusCode.RESOURCE_EXHAUSTED
        await context.abort(code, error[:_MAX_ERROR_CHARS])
    return body


async def _request(
    app: ASGIApp, path: str, messages: AsyncIterator[bytes], context: Any
) -> tuple[int, dict[bytes, bytes], bytes]:
    """The status, headers and body of the application's response to a call."""
    seconds = context.time_remaining()
    metadata = context.invocation_metadata() or ()
    scope: Scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "2",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        # Binary metadata, `-bin`, are left out: the service uses none. Neither does it use characters beyond latin-1.
        "headers": [
            (name.encode(), text.encode("latin-1", "replace")) for name, text in metadata if isinstance(text, str)
        ],
        "client": None,
        "server": None,
        DEADLINE: None if seconds is None else asyncio.get_running_loop().time() + seconds,
    }
    status = 0
    headers: dict[bytes, bytes] = {}
    body = bytearray()
    read = False

    async def receive() -> Message:
        nonlocal read
        if read:
            # Waits for a disconnect, which cancels this coroutine with the call.
            await asyncio.Event().wait()
        read = True
        message = await anext(messages, None)
        if message is None:
            return {"type": "http.disconnect"}
        if codings := codings_of(message):
            scope[MESSAGE_CODINGS] = codings
        return {"type": "http.request", "body": message}

    async def send(message: Message) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
            headers.update(message["headers"])
        else:
            body.extend(message.get("body", b""))

    await app(scope, receive, send)
    if status == 200 and MESSAGE_CODINGS in scope:
        # A client that compresses with an algorithm accepts it, too. Without these metadata grpcio would not compress.
        context.set_compression(ALGORITHMS[scope[MESSAGE_CODINGS][0]])
        await context.send_initial_metadata(())
    return status, headers, bytes(body)
