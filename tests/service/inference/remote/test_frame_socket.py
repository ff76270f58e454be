"""Sockets whose buffer is full, and sockets that the other process closes."""

import asyncio
import socket
import threading
from collections.abc import Callable

import psutil
import pytest
import uvloop

from service.inference.remote.frame_socket import FrameSocket

FRAMES, FRAME_BYTES = 400, 10_000

Run = Callable[..., object]


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_a_full_buffer_delays_frames_and_keeps_their_order(run: Run) -> None:
    sent = [bytes([number % 251]) * FRAME_BYTES for number in range(FRAMES)]
    received = bytearray()

    async def scenario() -> None:
        ours, theirs = socket.socketpair()
        closed = asyncio.Event()
        with theirs:
            frames = FrameSocket(ours, asyncio.get_running_loop(), lambda _: None, closed.set)
            thread = threading.Thread(target=lambda: [frames.send(frame) for frame in sent])
            thread.start()
            # The buffer holds a small part of the frames, and the thread does not wait for this end.
            await asyncio.to_thread(thread.join)
            while len(received) < FRAMES * FRAME_BYTES:
                received.extend(await asyncio.to_thread(theirs.recv, 1 << 16))
        await closed.wait()

    run(scenario())
    assert received == b"".join(sent)


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_closed_sockets_leave_no_open_file_and_drop_what_is_sent(run: Run) -> None:
    async def scenario() -> None:
        before = psutil.Process().num_fds()
        for closed_by_other in (True, False) * 5:
            ours, theirs = socket.socketpair()
            closed = asyncio.Event()
            frames = FrameSocket(ours, asyncio.get_running_loop(), lambda _: None, closed.set)
            frames.send(bytes(1 << 20))
            # The event loop waits until it can send the rest.
            await asyncio.sleep(0)
            if closed_by_other:
                theirs.close()
                await closed.wait()
            frames.close()
            frames.send(b"late")
            theirs.close()
        await asyncio.sleep(0)
        assert psutil.Process().num_fds() == before

    run(scenario())
