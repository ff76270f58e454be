"""`Deadline`: what cancels a request's work, and what does not."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from service.errors import ClientDisconnected, DeadlineExceeded
from service.http.deadline import Deadline

MESSAGE = "too late"
FOREVER = 3600


def run(scenario: Callable[[asyncio.Future[None]], Awaitable[None]]) -> None:
    """Run `scenario` with a future that stands for the client's disconnect."""

    async def limited() -> None:
        async with asyncio.timeout(20):
            await scenario(asyncio.get_running_loop().create_future())

    asyncio.run(limited())


def too_late() -> DeadlineExceeded:
    return DeadlineExceeded(MESSAGE)


def test_work_past_the_deadline_raises_its_problem() -> None:
    async def scenario(disconnected: asyncio.Future[None]) -> None:
        with pytest.raises(DeadlineExceeded, match=MESSAGE), Deadline(0.01, too_late, disconnected):
            await asyncio.sleep(FOREVER)
        assert asyncio.current_task().cancelling() == 0

    run(scenario)


def test_a_disconnect_during_the_work_ends_it() -> None:
    async def scenario(disconnected: asyncio.Future[None]) -> None:
        asyncio.get_running_loop().call_soon(disconnected.set_result, None)
        with pytest.raises(ClientDisconnected), Deadline(FOREVER, too_late, disconnected):
            await asyncio.sleep(FOREVER)
        assert asyncio.current_task().cancelling() == 0

    run(scenario)


def test_a_disconnect_before_the_work_ends_it() -> None:
    async def scenario(disconnected: asyncio.Future[None]) -> None:
        disconnected.set_result(None)
        with pytest.raises(ClientDisconnected), Deadline(FOREVER, too_late, disconnected):
            await asyncio.sleep(FOREVER)

    run(scenario)


def test_work_that_ends_in_time_is_not_cancelled_by_its_deadline() -> None:
    class Loop(asyncio.SelectorEventLoop):
        offset = 0.0

        def time(self) -> float:
            return super().time() + self.offset

    async def scenario() -> None:
        with Deadline(FOREVER, too_late):
            await asyncio.sleep(0)
        loop.offset = 2 * FOREVER
        for _ in range(3):
            await asyncio.sleep(0)

    loop = Loop()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(scenario())


def test_work_that_ends_in_time_is_not_cancelled_by_a_later_disconnect() -> None:
    async def scenario(disconnected: asyncio.Future[None]) -> None:
        with Deadline(FOREVER, too_late, disconnected):
            await asyncio.sleep(0)
        disconnected.set_result(None)
        # The future calls back at the loop's next turn, and the block has ended by then.
        with Deadline(FOREVER, too_late, disconnected):
            pass
        for _ in range(3):
            await asyncio.sleep(0)

    run(scenario)


def test_work_without_a_connection_has_a_deadline_only() -> None:
    async def scenario(_: asyncio.Future[None]) -> None:
        with pytest.raises(DeadlineExceeded), Deadline(0.01, too_late):
            await asyncio.sleep(FOREVER)

    run(scenario)


def test_a_cancellation_from_elsewhere_takes_precedence() -> None:
    async def scenario(disconnected: asyncio.Future[None]) -> None:
        async def work() -> None:
            with Deadline(FOREVER, too_late, disconnected):
                await asyncio.sleep(FOREVER)

        task = asyncio.create_task(work())
        await asyncio.sleep(0)
        task.cancel()
        disconnected.set_result(None)
        with pytest.raises(asyncio.CancelledError):
            await task

    run(scenario)


def test_an_error_that_the_work_raises_when_cancelled_is_kept() -> None:
    async def scenario(disconnected: asyncio.Future[None]) -> None:
        async def fail_when_cancelled() -> None:
            try:
                await asyncio.sleep(FOREVER)
            except asyncio.CancelledError:
                raise KeyError("its own") from None

        with pytest.raises(KeyError), Deadline(0.01, too_late, disconnected):
            await fail_when_cancelled()
        assert asyncio.current_task().cancelling() == 0

    run(scenario)
