"""Waiting for a condition that becomes true in its own time."""

import asyncio
import time
from collections.abc import Callable


def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    """Wait until `condition` holds.

    Raises:
        AssertionError: `condition` does not hold after `seconds`.
    """
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition did not become true"
        time.sleep(0.01)


async def until_async(condition: Callable[[], bool], seconds: float = 30) -> None:
    """Wait until `condition` holds, while other tasks of the event loop run.

    Raises:
        AssertionError: `condition` does not hold after `seconds`.
    """
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition did not become true"
        await asyncio.sleep(0.001)
