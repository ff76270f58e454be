"""An event loop whose clock stands still until a test advances it."""

import asyncio
import threading
from collections.abc import Awaitable, Callable


class VirtualClockLoop(asyncio.SelectorEventLoop):
    """Timers and timeouts of this loop depend on `advance` alone, never on the speed of the machine."""

    def __init__(self) -> None:
        self._now = 1000.0
        super().__init__()

    def time(self) -> float:
        """The virtual time in seconds."""
        return self._now

    async def advance(self, seconds: float) -> None:
        """Advance the clock and let the timers that are due take effect."""
        self._now += seconds
        for _ in range(10):
            await asyncio.sleep(0)


def run_with_virtual_clock(
    scenario: Callable[[VirtualClockLoop], Awaitable[None]], *, real_seconds: float = 60
) -> None:
    """Run `scenario` to its end. Errors in callbacks of the loop fail it, too.

    Raises:
        AssertionError: A callback failed, or the scenario did not end within `real_seconds`.
    """
    loop = VirtualClockLoop()
    errors: list[object] = []
    loop.set_exception_handler(lambda _, context: errors.append(context))

    async def main() -> None:
        task = asyncio.current_task()
        assert task is not None
        # `asyncio.timeout` would never expire here.
        watchdog = threading.Timer(real_seconds, loop.call_soon_threadsafe, [task.cancel])
        watchdog.start()
        try:
            await scenario(loop)
        except asyncio.CancelledError:
            raise AssertionError(f"the scenario did not end within {real_seconds:g} s") from None
        finally:
            watchdog.cancel()

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(main())
    assert errors == []
