"""The capture lock: calls run side by side, a recording runs alone and does not wait for later calls."""

import threading
from collections.abc import Callable

from service.inference.capture_lock import CaptureLock
from tests.support.waiting import until


def start(function: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    return thread


def test_calls_run_side_by_side_and_a_recording_alone_before_later_calls() -> None:
    lock = CaptureLock()
    together, release = threading.Barrier(3), threading.Event()
    events: list[str] = []

    def call() -> None:
        with lock.call():
            together.wait(10)
            release.wait(10)
            events.append("call")

    def record() -> None:
        with lock.recording():
            events.append("recording")

    def call_later() -> None:
        with lock.call():
            events.append("later call")

    callers = [start(call), start(call)]
    # Both calls hold the lock at once.
    together.wait(10)
    recorder = start(record)
    until(lambda: lock.waiting)
    later = start(call_later)
    assert events == []
    release.set()
    for thread in (*callers, recorder, later):
        thread.join(10)
    assert events == ["call", "call", "recording", "later call"]


def test_recordings_exclude_each_other_and_errors_release_the_lock() -> None:
    lock = CaptureLock()
    inside = 0
    most = 0

    def record() -> None:
        nonlocal inside, most
        for _ in range(50):
            try:
                with lock.recording():
                    inside += 1
                    most = max(most, inside)
                    inside -= 1
                    raise ValueError
            except ValueError:
                pass

    threads = [start(record) for _ in range(4)]
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    assert most == 1
    with lock.call():
        pass
