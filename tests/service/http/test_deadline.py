"""`Deadline`: what cancels a request's work, and what does not."""

import asyncio

import pytest

from service.errors import ClientDisconnected, DeadlineExceeded
from service.http.deadline import Deadline
from tests.service.support.virtual_clock import VirtualClockLoop, run_with_virtual_clock

MESSAGE = "too late"
FOREVER = 3600


def too_late() -> DeadlineExceeded:
    return DeadlineExceeded(MESSAGE)


async def work(seconds: float, disconnected: asyncio.Future[None] | None = None) -> None:
    """Work without end under a deadline."""
    try:
        with Deadline(seconds, too_late, disconnected):
            await asyncio.Event().wait()
    finally:
        assert asyncio.current_task().cancelling() == 0


def test_work_past_the_deadline_raises_its_problem() -> None:
    async def scenario(loop: VirtualClockLoop) -> None:
        task = asyncio.create_task(work(2, loop.create_future()))
        await asyncio.sleep(0)
        await loop.advance(1.99)
        assert not task.done()
        await loop.advance(0.01)
        with pytest.raises(DeadlineExceeded, match=MESSAGE):
            await task

    run_with_virtual_clock(scenario)


def test_work_without_a_connection_has_a_deadline_only() -> None:
    async def scenario(loop: VirtualClockLoop) -> None:
        task = asyncio.create_task(work(2))
        await asyncio.sleep(0)
        await loop.advance(2)
        with pytest.raises(DeadlineExceeded):
            await task

    run_with_virtual_clock(scenario)


@pytest.mark.parametrize("before", [True, False], ids=["before the work", "during the work"])
def test_a_disconnect_ends_the_work(before: bool) -> None:
    async def scenario(loop: VirtualClockLoop) -> None:
        disconnected = loop.create_future()
        if before:
            disconnected.set_result(None)
        task = asyncio.create_task(work(FOREVER, disconnected))
        await asyncio.sleep(0)
        if not before:
            disconnected.set_result(None)
        with pytest.raises(ClientDisconnected):
            await task

    run_with_virtual_clock(scenario)


def test_work_that_ends_in_time_is_not_cancelled_later() -> None:
    async def scenario(loop: VirtualClockLoop) -> None:
        disconnected = loop.create_future()
        with Deadline(1, too_late, disconnected):
            await asyncio.sleep(0)
        await loop.advance(2)
        disconnected.set_result(None)
        await loop.advance(0)

    run_with_virtual_clock(scenario)


def test_work_that_ends_before_the_callback_of_a_disconnect_is_not_cancelled() -> None:
    async def scenario(loop: VirtualClockLoop) -> None:
        disconnected = loop.create_future()
        disconnected.set_result(None)
        with Deadline(1, too_late, disconnected):
            pass
        await loop.advance(0)

    run_with_virtual_clock(scenario)


def test_a_disconnect_after_the_deadline_does_not_interrupt_the_cleanup_of_the_work() -> None:
    async def scenario(loop: VirtualClockLoop) -> None:
        disconnected, cleaned = loop.create_future(), asyncio.Event()

        async def work_with_cleanup() -> None:
            with Deadline(1, too_late, disconnected):
                try:
                    await asyncio.Event().wait()
                finally:
                    await cleaned.wait()

        task = asyncio.create_task(work_with_cleanup())
        await asyncio.sleep(0)
        await loop.advance(1)
        disconnected.set_result(None)
        await loop.advance(0)
        assert not task.done()
        cleaned.set()
        with pytest.raises(DeadlineExceeded):
            await task

    run_with_virtual_clock(scenario)


def test_a_cancellation_from_elsewhere_takes_precedence() -> None:
    async def scenario(loop: VirtualClockLoop) -> None:
        disconnected = loop.create_future()

        async def cancelled_work() -> None:
            with Deadline(FOREVER, too_late, disconnected):
                await asyncio.Event().wait()

        task = asyncio.create_task(cancelled_work())
        await asyncio.sleep(0)
        task.cancel()
        disconnected.set_result(None)
        with pytest.raises(asyncio.CancelledError):
            await task

    run_with_virtual_clock(scenario)


def test_an_error_that_the_work_raises_when_cancelled_is_kept() -> None:
    async def scenario(loop: VirtualClockLoop) -> None:
        async def fail_when_cancelled() -> None:
            with Deadline(1, too_late):
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    raise KeyError("its own") from None

        async def cancelling_after_failure() -> int:
            with pytest.raises(KeyError):
                await fail_when_cancelled()
            return asyncio.current_task().cancelling()

        task = asyncio.create_task(cancelling_after_failure())
        await asyncio.sleep(0)
        await loop.advance(1)
        assert await task == 0

    run_with_virtual_clock(scenario)
