"""`read_body`: the time limits of a body that arrives in parts."""

import asyncio
from collections.abc import Sequence

import pytest
from starlette.requests import Request
from starlette.types import Message

from service.errors import ClientDisconnected, RequestTimeout
from service.http.body import read_body
from tests.service.support.virtual_clock import VirtualClockLoop, run_with_virtual_clock

TIMEOUT = 10.0
BYTES_PER_SECOND = 16_384


def body_of(loop: VirtualClockLoop, parts: Sequence[tuple[float, bytes]], *, ends: bool) -> "asyncio.Task[bytes]":
    """Read a body of `parts`, each of which arrives so many seconds after the one before; it may not end with them."""
    messages: asyncio.Queue[Message] = asyncio.Queue()

    async def send() -> None:
        for number, (seconds, part) in enumerate(parts, 1):
            await asyncio.sleep(seconds)
            more = not ends or number < len(parts)
            messages.put_nowait({"type": "http.request", "body": part, "more_body": more})

    async def read() -> bytes:
        sender = asyncio.create_task(send())
        try:
            return await read_body(Request({"type": "http", "headers": []}, messages.get), 1 << 30, TIMEOUT)
        finally:
            sender.cancel()

    return loop.create_task(read())


async def tick(loop: VirtualClockLoop, task: "asyncio.Task[bytes]", seconds: float) -> float:
    """Advance the clock in steps of 0.1 s until `task` is done or `seconds` have passed; return the time used."""
    began = loop.time()
    await loop.advance(0)
    while not task.done() and loop.time() - began < seconds:
        await loop.advance(0.1)
    return loop.time() - began


def test_a_body_that_takes_longer_than_the_timeout_without_a_long_pause_is_read() -> None:
    async def scenario(loop: VirtualClockLoop) -> None:
        parts = [(0.9 * TIMEOUT, bytes(int(TIMEOUT) * BYTES_PER_SECOND))] * 5
        task = body_of(loop, parts, ends=True)
        assert await tick(loop, task, 100) > 4 * TIMEOUT
        assert len(await task) == 5 * TIMEOUT * BYTES_PER_SECOND

    run_with_virtual_clock(scenario)


def test_a_pause_of_the_timeout_ends_the_request() -> None:
    async def scenario(loop: VirtualClockLoop) -> None:
        task = body_of(loop, [(5, bytes(1_000_000))], ends=False)
        assert await tick(loop, task, 100) == pytest.approx(5 + TIMEOUT, abs=0.2)
        with pytest.raises(RequestTimeout, match=r"stalled after 1000000 bytes\. Send it without pauses of 10 s"):
            await task

    run_with_virtual_clock(scenario)


def test_a_body_that_falls_behind_the_minimum_pace_by_the_timeout_ends_the_request() -> None:
    async def scenario(loop: VirtualClockLoop) -> None:
        # One second at half the pace loses half a second.
        task = body_of(loop, [(1, bytes(BYTES_PER_SECOND // 2))] * 100, ends=False)
        assert await tick(loop, task, 100) == pytest.approx(2 * TIMEOUT, abs=1.2)
        with pytest.raises(RequestTimeout):
            await task

    run_with_virtual_clock(scenario)


def test_a_body_that_does_not_begin_ends_the_request_after_the_timeout() -> None:
    async def scenario(loop: VirtualClockLoop) -> None:
        task = body_of(loop, [], ends=False)
        assert await tick(loop, task, 100) == pytest.approx(TIMEOUT, abs=0.2)
        with pytest.raises(RequestTimeout, match="stalled after 0 bytes"):
            await task

    run_with_virtual_clock(scenario)


def test_a_disconnect_ends_the_request() -> None:
    async def scenario(_: VirtualClockLoop) -> None:
        async def receive() -> Message:
            return {"type": "http.disconnect"}

        with pytest.raises(ClientDisconnected):
            await read_body(Request({"type": "http", "headers": []}, receive), 100, TIMEOUT)

    run_with_virtual_clock(scenario)


def test_a_fast_beginning_does_not_pay_for_a_slow_rest() -> None:
    async def scenario(loop: VirtualClockLoop) -> None:
        # The beginning has the pace of an hour, the rest one byte in less than each timeout.
        parts = [(0.1, bytes(3600 * BYTES_PER_SECOND)), *[(0.9 * TIMEOUT, b"x")] * 100]
        task = body_of(loop, parts, ends=False)
        assert await tick(loop, task, 1000) < 2 * TIMEOUT
        with pytest.raises(RequestTimeout):
            await task

    run_with_virtual_clock(scenario)
