"""Terminal output: messages, results, and progress bars, which are shown on a terminal only."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class _SafeConsole(Console):
    """A console that shows control characters in messages, for example in file names, instead of sending them."""

    def print(self, *objects: Any, **options: Any) -> None:
        """Print as rich does; strings without control characters and surrogates."""
        super().print(*(visible(item) if isinstance(item, str) else item for item in objects), **options)


def visible(text: str) -> str:
    """The text with control characters and surrogates written as escapes; line breaks stay."""
    return "".join(
        character if character.isprintable() or character == "\n" else repr(character)[1:-1] for character in text
    )


console = _SafeConsole(stderr=True)
"""Messages and progress, on stderr."""

output = _SafeConsole()
"""The result of a command, on stdout: it can be piped."""


def announce(text: str) -> None:
    """Print a message as it is: without markup, colours and line breaks at the terminal's width."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


class Bars:
    """Progress bars by name; a bar is added on its first report."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, int] = {}

    def report(self, name: str, done: int, total: int) -> None:
        """Set the bar `name` to `done` of `total`."""
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(escape(visible(name)), total=total)
        self._progress.update(self._progress.task_ids[self._tasks[name]], completed=done, total=total)


@contextmanager
def progress_bars() -> Iterator[Bars]:
    """Show progress bars while the block runs."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        yield Bars(progress)
