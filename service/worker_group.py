"""The worker processes of one service: how many there are, and the files that they share."""

import fcntl
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class WorkerGroup:
    """One worker's view of the processes that serve together.

    Attributes:
        index: This worker's number, from 0.
        count: The number of workers.
        folder: The folder of the files that the workers share, which no other user can enter. None for a single worker.
        engine_process: Whether one engine process computes for all workers; it listens on `engine_socket`.
    """

    index: int = 0
    count: int = 1
    folder: Path | None = None
    engine_process: bool = False

    @property
    def engines(self) -> int:
        """The number of processes that share the cores for computing."""
        return 1 if self.engine_process else self.count

    @property
    def engine_socket(self) -> Path:
        """The Unix socket of the engine process."""
        return self.shared_file("engine.sock")

    @property
    def peers(self) -> list[int]:
        """The numbers of the other workers."""
        return [index for index in range(self.count) if index != self.index]

    @property
    def engine_index(self) -> int:
        """The number of the engine process, after those of the workers."""
        return self.count

    def shared_file(self, name: str) -> Path:
        """The path of the file `name` in the shared folder."""
        assert self.folder is not None, "a single worker shares no files"
        return self.folder / name

    def compute_once(self, name: str, compute: Callable[[], T]) -> T:
        """The result of `compute`, which only the first worker that asks for `name` calls.

        Blocks while another worker computes, because concurrent measurements would disturb each other. If `compute`
        raises, the next worker that asks calls it.

        Args:
            name: What is computed; the workers share results by this name.
            compute: Returns numbers, strings, lists and dicts of them: the result passes through JSON.
        """
        if self.folder is None:
            return compute()
        with self.shared_file(name).open("a+", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            if stored := file.read():
                result: T = json.loads(stored)
            else:
                result = compute()
                file.write(json.dumps(result))
            return result


SINGLE_WORKER = WorkerGroup()
"""The group of a service that runs in one process."""
