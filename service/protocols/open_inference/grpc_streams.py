"""The standard gRPC calls that are streams: health watches (`grpc.health.v1`) and server reflection. They need no key.

`grpcurl`, load balancers and mesh proxies use them without credentials. Their answers hold no data of clients: the
phase of the service, and the messages of public protocols. Their number and their messages are limited.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.reflection import aio as reflection

from service.errors import BodyTooLarge, Problem
from service.http.content_coding import decode
from service.lifecycle import Lifecycle
from service.protocols.open_inference.grpc_compression import codings_of

HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
_REFLECTION = reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"].full_name
# The successor of `v1alpha` has the same messages.
_REFLECTION_V1 = "grpc.reflection.v1.ServerReflection"

MAX_BYTES = 4096
"""The size of the largest message of a call without a key."""
READ_SECONDS = 5.0
"""The longest wait for a message of a call without a key."""
_MAX_STREAMS = 64
_POLL_SECONDS = 0.2

Handler = Callable[[AsyncIterator[bytes], Any], AsyncIterator[bytes]]
"""Answers the messages of a call; the second argument is the call's context."""


def serving_status(lifecycle: Lifecycle, service: str, services: Sequence[str]) -> int:
    """The `ServingStatus` of `service`, one of `services` or "" for the whole server."""
    if service and service not in services:
        return int(health_pb2.HealthCheckResponse.SERVICE_UNKNOWN)
    if lifecycle.accepts_traffic:
        return int(health_pb2.HealthCheckResponse.SERVING)
    return int(health_pb2.HealthCheckResponse.NOT_SERVING)


class StandardStreams:
    """The handlers of the streams, by service and method; at most 64 streams are open at a time."""

    def __init__(self, lifecycle: Lifecycle, services: Sequence[str]) -> None:
        """Prepare the handlers.

        Args:
            lifecycle: The phase of the service.
            services: The names of the server's services, apart from reflection.
        """
        self._lifecycle = lifecycle
        self._services = services
        self._reflection = reflection.ReflectionServicer([*services, _REFLECTION])
        self._open = 0
        self.handlers: dict[str, dict[str, Handler]] = {
            HEALTH: {"Watch": self._watch},
            _REFLECTION: {"ServerReflectionInfo": self._reflect},
            _REFLECTION_V1: {"ServerReflectionInfo": self._reflect},
        }

    async def _watch(self, messages: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        """Send the status of a service now and after each change, until the drain ends."""
        await self._enter(context)
        try:
            request = await _read(health_pb2.HealthCheckRequest, messages, context)
            sent = None
            while request is not None and not self._lifecycle.closed:
                status = serving_status(self._lifecycle, request.service, self._services)
                if status != sent:
                    yield health_pb2.HealthCheckResponse(status=status).SerializeToString()
                    sent = status
                await asyncio.sleep(_POLL_SECONDS)
        finally:
            self._open -= 1

    async def _reflect(self, messages: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        """Describe the services, their methods and messages."""
        await self._enter(context)
        try:
            async for response in self._reflection.ServerReflectionInfo(_requests(messages, context), context):
                yield response.SerializeToString()
        finally:
            self._open -= 1

    async def _enter(self, context: Any) -> None:
        if self._open >= _MAX_STREAMS:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{_MAX_STREAMS} streams are open; try again later")
        self._open += 1


async def _requests(messages: AsyncIterator[bytes], context: Any) -> AsyncIterator[Any]:
    while (request := await _read(reflection_pb2.ServerReflectionRequest, messages, context)) is not None:
        yield request


async def _read(kind: Any, messages: AsyncIterator[bytes], context: Any) -> Any:
    """The next message; None after the last one. Aborts the call if it is late, too large or malformed."""
    try:
        async with asyncio.timeout(READ_SECONDS):
            message = await anext(messages, None)
    except TimeoutError:
        await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, f"no message arrived within {READ_SECONDS:g} s")
    if message is None:
        return None
    if len(message) <= MAX_BYTES:
        try:
            return kind.FromString(await decode(message, codings_of(message), MAX_BYTES, lambda _: None, _too_large))
        except (DecodeError, Problem):
            pass
    return await context.abort(
        grpc.StatusCode.INVALID_ARGUMENT, f"not a {kind.DESCRIPTOR.full_name} of at most {MAX_BYTES} bytes"
    )


def _too_large(max_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(f"The message is larger than {max_bytes} bytes.")
