"""Waiting for a condition that becomes true in its own time."""

import asyncio
import time
from collections.abc import Callable

# A limit for conditions that never become true. A busy machine needs a long time for some that do.
TIMEOUT_SECONDS = 120


def until(condition: Callable[[], bool], seconds: float = TIMEOUT_SECONDS) -> None:
    """Wait until `condition` holds.

    Raises:
        AssertionError: `condition` does not hold after `seconds`.
    """
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition did not become true"
        time.sleep(0.01)


async def until_async(condition: Callable[[], bool], seconds: float = TIMEOUT_SECONDS) -> None:
    """Wait until `condition` holds, while other tasks of the event loop run.

    Raises:
        AssertionError: `condition` does not hold after `seconds`.
    """
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition did not become true"
        await asyncio.sleep(0.001)
