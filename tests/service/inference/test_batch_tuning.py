"""The pace: what is learned of an engine whose times are known."""

import threading
import time
from collections.abc import Callable

import pytest

from service.inference.batch_tuning import batch_sizes, throughput, tune_batch_size


def engine(fixed: float, each: float) -> tuple[Callable[[int], None], list[int]]:
    """Takes `fixed` seconds a call and `each` for every input; and the sizes that it was called with."""
    sizes: list[int] = []

    def run(size: int) -> None:
        sizes.append(size)
        time.sleep(fixed + each * size)

    return run, sizes


def test_sizes_are_the_powers_of_two_and_the_largest() -> None:
    assert batch_sizes(1) == [1]
    assert batch_sizes(8) == [1, 2, 4, 8]
    assert batch_sizes(100) == [1, 2, 4, 8, 16, 32, 64, 100]


def test_where_batches_do_not_pay_they_stay_small() -> None:
    run, sizes = engine(fixed=0.0, each=0.1)
    pace = tune_batch_size(run, 64, longest_seconds=10)
    assert pace.batch <= 2
    assert pace.seconds_per_input == pytest.approx(0.1, rel=0.3)
    # Larger ones were not even tried.
    assert max(sizes) <= 8


def test_a_trial_that_something_else_held_up_does_not_count() -> None:
    trials: dict[int, int] = {}

    def run(size: int) -> None:
        trials[size] = trials.get(size, 0) + 1
        # Only the third run of each size goes undisturbed.
        time.sleep(0.002 if trials[size] == 3 else 0.015)

    assert tune_batch_size(run, 16, longest_seconds=10).batch == 16


def test_where_a_call_costs_more_than_its_inputs_batches_are_large() -> None:
    run, _ = engine(fixed=0.03, each=0.0)
    assert tune_batch_size(run, 16, longest_seconds=10).batch == 16


def test_a_batch_is_worth_its_hand_over() -> None:
    # For the engine alone two or four at a time are within 2% of the best.
    run, _ = engine(fixed=0.0, each=0.0005)
    assert tune_batch_size(run, 64, longest_seconds=10).batch >= 16


def test_the_pace_is_learned_with_all_streams_at_work() -> None:
    busy = 0
    most: dict[int, int] = {}
    lock = threading.Lock()

    def run(size: int) -> None:
        nonlocal busy
        with lock:
            busy += 1
            most[size] = max(most.get(size, 0), busy)
        # Long enough for all of them to have begun.
        time.sleep(0.05)
        with lock:
            busy -= 1

    tune_batch_size(run, 2, longest_seconds=10, streams=3)
    assert most == {1: 3, 2: 3}


def test_a_batch_takes_no_longer_than_it_may() -> None:
    run, sizes = engine(fixed=0.01, each=0.005)
    pace = tune_batch_size(run, 64, longest_seconds=0.045)
    assert pace.batch in (2, 4)
    assert max(sizes) <= 8


def test_a_single_input_is_taken_however_long_it_takes() -> None:
    run, _ = engine(fixed=0.05, each=0.0)
    assert tune_batch_size(run, 1, longest_seconds=0.001).batch == 1


def test_calls_of_several_threads_are_counted_together() -> None:
    def run() -> None:
        time.sleep(0.02)

    assert throughput(run, 4) > 2 * throughput(run, 1)
