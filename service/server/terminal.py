"""What a person at a terminal is told beside the logs."""

import contextlib


def print_safely(text: str) -> None:
    """To the terminal, if it can be."""
    # A closed pipe or an ASCII terminal is no reason not to serve.
    with contextlib.suppress(OSError, UnicodeError):
        print(text, flush=True)
