"""The worker processes of one service, seen from one of them: how many they are, and where they meet."""

import fcntl
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class WorkerGroup:
    """Worker number `index` of `count`, from 0. All meet in `folder`, which nobody else can enter."""

    index: int
    count: int
    folder: Path

    @property
    def peers(self) -> list[int]:
        """The numbers of the others."""
        return [index for index in range(self.count) if index != self.index]

    def compute_once(self, name: str, find_out: Callable[[], T]) -> T:
        """What `find_out` returns (lists, numbers and texts) for the first worker that asks; the others are told.

        Who asks meanwhile waits: two that measure at a time would measure each other. Blocks.
        """
        with (self.folder / name).open("a+", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            if known := file.read():
                told: T = json.loads(known)
                return told
            found = find_out()
            file.write(json.dumps(found))
            return found
