"""The gRPC port: a call becomes a request to the application, which does for it all that it does for one over HTTP."""

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Any

# What a client does wrong is not for gRPC's own log, which is none of the service's form. Read when it is imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import grpc
import orjson
from starlette.types import ASGIApp, Message

from service.http.connection import KEEP_ALIVE_SECONDS
from service.settings import Settings, env_name

DEADLINE = "grpc.deadline"
"""Where a request's scope has its call's deadline, on the event loop's clock, or None. Only calls have the key."""

_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    404: grpc.StatusCode.NOT_FOUND,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    # Not RESOURCE_EXHAUSTED, which clients try again.
    413: grpc.StatusCode.INVALID_ARGUMENT,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    499: grpc.StatusCode.CANCELLED,
    500: grpc.StatusCode.INTERNAL,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
_TRAILERS = (b"x-request-id", b"retry-after")
# Clients take 8 KiB of trailers, in which a character may need nine bytes.
_MAX_ERROR_CHARS = 800
# On one connection at a time: enough for full batches. Further ones wait at the client.
_MAX_CALLS = 128


class GrpcServer:
    """Listens from `open` to `close`; `address` is where."""

    def __init__(self, paths: Sequence[str], settings: Settings) -> None:
        """`paths` are the application's routes for calls, `/SERVICE/METHOD` each, of one service."""
        self._paths = paths
        self._host = f"[{settings.host}]" if ":" in settings.host else settings.host
        self._port = settings.grpc_port
        self._options = {
            # The kernel deals out connections among workers; without them nobody else may listen here.
            "grpc.so_reuseport": int(settings.workers > 1),
            "grpc.max_receive_message_length": settings.max_body_bytes,
            # Identity alone: what a compressed message becomes is known too late.
            "grpc.compression_enabled_algorithms_bitset": 1,
            "grpc.max_concurrent_streams": _MAX_CALLS,
            "grpc.max_connection_idle_ms": 1000 * KEEP_ALIVE_SECONDS,
            "grpc.server_handshake_timeout_ms": int(1000 * settings.receive_timeout_seconds),
        }
        self._server: Any = None

    @property
    def address(self) -> str:
        """Host and port; a port of 0 is the one that was taken once it is open."""
        return f"{self._host}:{self._port}"

    async def open(self, app: ASGIApp) -> None:
        """Listen, and ask `app`. Raises `OSError`."""
        server = grpc.aio.server(options=list(self._options.items()))
        name = self._paths[0].split("/")[1]
        # Without a deserializer a message stays bytes. A stream of one message is on the wire the same as the message,
        # but is read by the application, which looks at the key first.
        methods = {
            path.split("/")[2]: grpc.stream_unary_rpc_method_handler(partial(_answer, app, path))
            for path in self._paths
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, methods),))
        try:
            self._port = server.add_insecure_port(self.address)
        except RuntimeError as error:
            raise OSError(f"{env_name('grpc_port')} = {self._port}: {error}") from None
        await server.start()
        self._server = server

    async def close(self, grace_seconds: float) -> None:
        """Take no more calls, and wait for those there are. What is not answered in `grace_seconds` is cancelled."""
        if self._server is not None:
            await self._server.stop(grace_seconds)


async def _answer(app: ASGIApp, path: str, messages: AsyncIterator[bytes], context: Any) -> bytes:
    """The message that answers a call; an error is raised through its `context`."""
    left = context.time_remaining()
    metadata = context.invocation_metadata() or ()
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "2",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        # Others, `-bin`, are bytes, and nothing here.
        "headers": [(name.encode(), text.encode("latin-1")) for name, text in metadata if isinstance(text, str)],
        "client": None,
        "server": None,
        DEADLINE: None if left is None else asyncio.get_running_loop().time() + left,
    }
    status = 0
    headers: dict[bytes, bytes] = {}
    body = bytearray()
    read = False

    async def receive() -> Message:
        nonlocal read
        if read:
            # For a hang-up; but a call that is given up is cancelled, and all of this with it.
            await asyncio.Event().wait()
        read = True
        message = await anext(messages, None)
        return {"type": "http.disconnect"} if message is None else {"type": "http.request", "body": message}

    async def send(message: Message) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
            headers.update(message["headers"])
        else:
            body.extend(message.get("body", b""))

    await app(scope, receive, send)
    context.set_trailing_metadata([(name.decode(), headers[name].decode()) for name in _TRAILERS if name in headers])
    if status != 200:
        await context.abort(_CODES.get(status, grpc.StatusCode.UNKNOWN), orjson.loads(body)["error"][:_MAX_ERROR_CHARS])
    return bytes(body)
