"""What the workers of one service do only once."""

import threading
import time
from pathlib import Path

import pytest

from service.worker_group import WorkerGroup


def test_the_first_worker_finds_out_and_the_others_wait_and_are_told(tmp_path: Path) -> None:
    found: list[int] = []
    told: list[list[int]] = []

    def find_out() -> list[int]:
        time.sleep(0.1)
        found.append(1)
        return [64, 2]

    workers = [
        threading.Thread(
            target=lambda index=index: told.append(WorkerGroup(index, 4, tmp_path).compute_once("pace", find_out))
        )
        for index in range(4)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert told == [[64, 2]] * 4
    assert found == [1]
    assert WorkerGroup(0, 4, tmp_path).compute_once("another", lambda: 1) == 1


def test_who_fails_leaves_it_to_the_next(tmp_path: Path) -> None:
    def fail() -> int:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        WorkerGroup(0, 2, tmp_path).compute_once("pace", fail)
    assert WorkerGroup(1, 2, tmp_path).compute_once("pace", lambda: 3) == 3
