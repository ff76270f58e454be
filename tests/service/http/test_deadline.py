"""Patience: what ends work for a client, and what it leaves alone."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from service.errors import ClientDisconnected, DeadlineExceeded
from service.http.deadline import DISCONNECTED, Deadline

LATE = "too late"


def run(scenario: Callable[[dict[str, Any]], Awaitable[None]]) -> None:
    """With the scope of a request on a connection that is there."""

    async def begin() -> None:
        await scenario({DISCONNECTED: asyncio.get_running_loop().create_future()})

    asyncio.run(begin())


def late() -> DeadlineExceeded:
    return DeadlineExceeded(LATE)


def test_what_takes_too_long_ends_with_the_problem() -> None:
    async def scenario(scope: dict[str, Any]) -> None:
        with pytest.raises(DeadlineExceeded, match=LATE), Deadline(0.01, late, scope):
            await asyncio.sleep(10)
        assert asyncio.current_task().cancelling() == 0

    run(scenario)


@pytest.mark.parametrize("before", [True, False])
def test_what_nobody_waits_for_any_more_ends(before: bool) -> None:
    async def scenario(scope: dict[str, Any]) -> None:
        if before:
            scope[DISCONNECTED].set_result(None)
        else:
            asyncio.get_running_loop().call_later(0.01, scope[DISCONNECTED].set_result, None)
        with pytest.raises(ClientDisconnected), Deadline(10, late, scope):
            await asyncio.sleep(10)

    run(scenario)


def test_what_is_done_in_time_is_not_disturbed_later() -> None:
    async def scenario(scope: dict[str, Any]) -> None:
        with Deadline(0.2, late, scope):
            await asyncio.sleep(0)
        scope[DISCONNECTED].set_result(None)
        # Left before the callback of a connection that is lost already.
        with Deadline(0.2, late, scope):
            pass
        await asyncio.sleep(0.3)

    run(scenario)


def test_without_a_connection_there_is_only_the_time() -> None:
    async def scenario(_: dict[str, Any]) -> None:
        with pytest.raises(DeadlineExceeded), Deadline(0.01, late):
            await asyncio.sleep(10)

    run(scenario)


def test_its_time_can_begin_anew() -> None:
    async def scenario(scope: dict[str, Any]) -> None:
        with Deadline(0.5, late, scope) as patience:
            for _ in range(3):
                await asyncio.sleep(0.2)
                patience.reschedule(0.5)

    run(scenario)


def test_who_else_cancels_the_task_has_precedence() -> None:
    async def scenario(scope: dict[str, Any]) -> None:
        async def work() -> None:
            with Deadline(10, late, scope):
                await asyncio.sleep(10)

        task = asyncio.create_task(work())
        await asyncio.sleep(0)
        task.cancel()
        scope[DISCONNECTED].set_result(None)
        with pytest.raises(asyncio.CancelledError):
            await task

    run(scenario)


def test_an_error_of_the_work_stays_what_it_is() -> None:
    async def scenario(scope: dict[str, Any]) -> None:
        async def fail_when_cancelled() -> None:
            try:
                await asyncio.sleep(10)
            except asyncio.CancelledError:
                raise KeyError("its own") from None

        with pytest.raises(KeyError), Deadline(0.01, late, scope):
            await fail_when_cancelled()
        assert asyncio.current_task().cancelling() == 0

    run(scenario)
