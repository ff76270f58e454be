"""`WorkerGroup`: work that the workers of one service do only once."""

import threading
from pathlib import Path

import pytest

from service.worker_group import SINGLE_WORKER, WorkerGroup


def test_the_first_worker_computes_and_the_others_wait_for_its_result(tmp_path: Path) -> None:
    started, finish = threading.Event(), threading.Event()
    computed: list[int] = []
    results: list[list[int]] = []

    def compute() -> list[int]:
        started.set()
        assert finish.wait(20)
        computed.append(1)
        return [64, 2]

    def ask(index: int) -> None:
        results.append(WorkerGroup(index, 4, tmp_path).compute_once("pace", compute))

    workers = [threading.Thread(target=ask, args=(index,)) for index in range(4)]
    workers[0].start()
    assert started.wait(20)
    for worker in workers[1:]:
        worker.start()
    finish.set()
    for worker in workers:
        worker.join()
    assert results == [[64, 2]] * 4
    assert computed == [1]


def test_results_of_different_names_are_separate(tmp_path: Path) -> None:
    group = WorkerGroup(0, 2, tmp_path)
    assert group.compute_once("a", lambda: 1) == 1
    assert group.compute_once("b", lambda: 2) == 2


def test_after_a_failure_the_next_worker_computes(tmp_path: Path) -> None:
    def fail() -> int:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        WorkerGroup(0, 2, tmp_path).compute_once("pace", fail)
    assert WorkerGroup(1, 2, tmp_path).compute_once("pace", lambda: 3) == 3


def test_a_single_worker_computes_every_time_and_needs_no_folder() -> None:
    assert (SINGLE_WORKER.index, SINGLE_WORKER.count, SINGLE_WORKER.peers) == (0, 1, [])
    assert [SINGLE_WORKER.compute_once("pace", lambda number=number: number) for number in (1, 2)] == [1, 2]


def test_peers_are_the_other_workers(tmp_path: Path) -> None:
    assert WorkerGroup(1, 3, tmp_path).peers == [0, 2]
