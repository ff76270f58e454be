"""Progress on the terminal: one bar per long step, quiet where nobody watches."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

console = Console(stderr=True)
"""For what a person watches."""

output = Console()
"""For what a command was asked for: it may go into a pipe or a file."""


class Bars:
    """Progress bars by name; a bar appears on its first report."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, int] = {}

    def report(self, name: str, done: int, total: int) -> None:
        """Show that `done` of `total` of what is called `name` are done."""
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name, total=total)
        self._progress.update(self._progress.task_ids[self._tasks[name]], completed=done, total=total)


@contextmanager
def progress_bars() -> Iterator[Bars]:
    """Bars for as long as the block runs."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        yield Bars(progress)
