"""Terminal output: messages, results, and progress bars, which are shown on a terminal only."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

console = Console(stderr=True)
"""Messages and progress, on stderr."""

output = Console()
"""The result of a command, on stdout: it can be piped."""


class Bars:
    """Progress bars by name; a bar is added on its first report."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, int] = {}

    def report(self, name: str, done: int, total: int) -> None:
        """Set the bar `name` to `done` of `total`."""
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name, total=total)
        self._progress.update(self._progress.task_ids[self._tasks[name]], completed=done, total=total)


@contextmanager
def progress_bars() -> Iterator[Bars]:
    """Show progress bars while the block runs."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        yield Bars(progress)
