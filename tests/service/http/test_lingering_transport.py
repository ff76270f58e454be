"""A transport that lingers ends its stream once and sends nothing after it."""

import asyncio
from typing import Any

from service.http.lingering_transport import LingeringTransport


def test_what_is_written_after_the_end_of_the_stream_is_not_sent() -> None:
    faults: list[dict[str, Any]] = []

    async def close_and_write() -> bytes:
        received: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        async def read_all(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            received.set_result(await reader.read())
            writer.close()

        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: faults.append(context))
        server = await asyncio.start_server(read_all, "127.0.0.1")
        async with server:
            _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            transport = LingeringTransport(writer.transport, loop, timeout_seconds=5.0)
            transport.write(b"first")
            transport.close()
            transport.write(b"second")
            result = await received
            await asyncio.sleep(0)
            transport.closed()
        return result

    assert asyncio.run(close_and_write()) == b"first"
    assert not faults
