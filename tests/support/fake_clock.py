"""A clock for tests that must not depend on the speed of the machine."""


class FakeClock:
    """A clock that moves only when a test adds to its `seconds`."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        """The time in seconds."""
        return self.seconds
