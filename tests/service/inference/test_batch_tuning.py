"""Batch tuning, of engines whose calls take simulated time."""

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from service.inference.batch_tuning import batch_sizes, throughput, tune, tune_batch_size
from service.inference.execution_plan import ExecutionMode, ExecutionPlan
from service.inputs.modality import Array
from tests.support.fake_clock import FakeClock


class SimulatedMachine:
    """Lets a clock run while calls take time: concurrent calls run side by side and end together."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self._barriers: dict[int, threading.Barrier] = {}
        self._seconds = 0.0

    def spend(self, seconds: float, threads: int) -> None:
        """Let a call of one of `threads` concurrent callers take `seconds`; the main thread calls alone."""
        if threading.current_thread() is threading.main_thread():
            self.clock.seconds += seconds
            return
        self._seconds = seconds
        self._barriers.setdefault(threads, threading.Barrier(threads, self._advance)).wait(10)

    def _advance(self) -> None:
        self.clock.seconds += self._seconds


class SimulatedModality:
    """Inputs are arrays of one length, or of 10 and at most 1,000 where they have sizes."""

    def __init__(self, *, sized: bool) -> None:
        self.size_of: Callable[[Array], int] | None = len if sized else None

    def sample_batch(self, size: int) -> list[Array]:
        return [np.zeros(10)] * size

    def probe_pair(self) -> tuple[Array, Array]:
        return np.zeros(1), np.zeros(1000)


class SimulatedEngine:
    """An engine whose calls take a fixed time per element: `exclusive` on all cores, `shared` on one."""

    def __init__(
        self, exclusive: float, shared: float, *, cores: int = 2, on_cpu: bool = True, sized: bool = False
    ) -> None:
        self.machine = SimulatedMachine()
        self.modality: Any = SimulatedModality(sized=sized)
        self.cores = cores
        self.on_cpu = on_cpu
        self.fixed_sizes: Sequence[int] | None = None
        self.mode = ExecutionMode.EXCLUSIVE
        self.calls = 0
        self._seconds = {True: exclusive, False: shared}

    def set_mode(self, mode: ExecutionMode) -> None:
        self.mode = mode

    def try_batch(self, items: Sequence[Array], *, exclusive: bool) -> Mapping[str, Array]:
        self.calls += 1
        assert exclusive or self.mode is ExecutionMode.SHARED
        seconds = self._seconds[exclusive] * sum(map(len, items)) / 10
        self.machine.spend(seconds, 1 if exclusive else self.cores)
        return {}


def tuned(engine: SimulatedEngine, max_batch: int = 32, max_seconds: float = 0.25) -> ExecutionPlan:
    plan = tune(engine, max_batch, max_seconds, clock=engine.machine.clock)
    assert engine.mode is plan.mode
    return plan


def simulated_run(fixed: float, per_input: float) -> tuple[Callable[[int], None], list[int], FakeClock]:
    """A function that takes `fixed` seconds a call and `per_input` for each input; its calls; and their clock."""
    sizes: list[int] = []
    clock = FakeClock()

    def run(size: int) -> None:
        sizes.append(size)
        clock.seconds += fixed + per_input * size

    return run, sizes, clock


def test_a_model_that_is_faster_than_a_thread_hand_over_runs_inline_in_short_batches() -> None:
    plan = tuned(SimulatedEngine(exclusive=5e-5, shared=5e-5))
    assert (plan.mode, plan.threads) == (ExecutionMode.INLINE, 1)
    assert 1 <= plan.max_batch <= 20
    assert plan.seconds_per_input == pytest.approx(5e-5)


def test_a_model_whose_inputs_have_sizes_never_runs_inline() -> None:
    assert tuned(SimulatedEngine(exclusive=5e-5, shared=5e-5, sized=True)).mode is not ExecutionMode.INLINE


@pytest.mark.parametrize(
    ("shared", "mode", "threads"),
    [(2.0e-3, ExecutionMode.SHARED, 2), (2.4e-3, ExecutionMode.SHARED, 2), (2.7e-3, ExecutionMode.EXCLUSIVE, 1)],
)
def test_threads_share_the_cores_unless_calls_on_all_cores_are_clearly_faster(
    shared: float, mode: ExecutionMode, threads: int
) -> None:
    plan = tuned(SimulatedEngine(exclusive=1e-3, shared=shared))
    assert (plan.mode, plan.threads) == (mode, threads)
    assert plan.seconds_per_input == pytest.approx(shared if mode is ExecutionMode.SHARED else 1e-3)


def test_on_one_core_one_thread_calls_the_engine() -> None:
    plan = tuned(SimulatedEngine(exclusive=1e-3, shared=1e-3, cores=1))
    assert (plan.mode, plan.threads) == (ExecutionMode.EXCLUSIVE, 1)


def test_an_engine_that_is_not_on_the_cpu_is_never_shared_nor_inline() -> None:
    plan = tuned(SimulatedEngine(exclusive=5e-5, shared=1e-9, on_cpu=False))
    assert (plan.mode, plan.threads) == (ExecutionMode.EXCLUSIVE, 1)


def test_batches_of_large_inputs_are_bounded_by_their_positions() -> None:
    # An input of 1,000 positions takes 0.1 s, so that one of 2,500 would take 0.25 s.
    assert tuned(SimulatedEngine(exclusive=1e-3, shared=1.0, sized=True)).max_positions == pytest.approx(2500)


def test_a_plan_from_the_memo_is_adopted_without_measurement() -> None:
    engine = SimulatedEngine(exclusive=1e-3, shared=2e-3)
    plan = ExecutionPlan(4, 1e-3, 99.0, ExecutionMode.SHARED, 4)
    assert tune(engine, 8, 0.25, memo=lambda _: plan) is plan
    assert (engine.mode, engine.calls) == (ExecutionMode.SHARED, 0)


def test_sizes_are_the_powers_of_two_and_the_largest() -> None:
    assert batch_sizes(1) == [1]
    assert batch_sizes(8) == [1, 2, 4, 8]
    assert batch_sizes(100) == [1, 2, 4, 8, 16, 32, 64, 100]


def test_sizes_that_do_not_raise_the_throughput_end_the_search() -> None:
    run, sizes, clock = simulated_run(fixed=0.0, per_input=0.1)
    plan = tune_batch_size(run, batch_sizes(64), max_seconds=10, clock=clock)
    assert plan.seconds_per_input == pytest.approx(0.1)
    # Size 2 is 1.5% faster than 1, because it is handed over less often; the next sizes gain less.
    assert plan.max_batch == max(sizes) == 8


def test_batches_stay_small_where_larger_ones_are_slower() -> None:
    clock = FakeClock()

    def run(size: int) -> None:
        clock.seconds += 0.1 * size**1.5

    assert tune_batch_size(run, batch_sizes(64), max_seconds=10, clock=clock).max_batch == 1


def test_a_trial_that_other_load_slows_down_does_not_count() -> None:
    trials: dict[int, int] = {}
    clock = FakeClock()

    def run(size: int) -> None:
        trials[size] = trials.get(size, 0) + 1
        # Only the third run of each size is undisturbed.
        clock.seconds += 0.002 if trials[size] == 3 else 0.015

    plan = tune_batch_size(run, batch_sizes(16), max_seconds=10, clock=clock)
    assert plan.max_batch == 16
    assert plan.seconds_per_input == pytest.approx(0.002 / 16)


def test_load_during_all_first_trials_of_one_size_does_not_decide() -> None:
    run, sizes, clock = simulated_run(fixed=0.0, per_input=0.01)

    def run_under_load(size: int) -> None:
        run(size)
        # Until the second trials, which begin with size 8.
        if size == 16 and 8 not in sizes[sizes.index(16) :]:
            clock.seconds += 1.0

    assert tune_batch_size(run_under_load, [8, 16], max_seconds=10, clock=clock).max_batch == 16


def test_batches_are_large_where_a_call_costs_more_than_its_inputs() -> None:
    run, _, clock = simulated_run(fixed=0.03, per_input=0.0)
    assert tune_batch_size(run, batch_sizes(16), max_seconds=10, clock=clock).max_batch == 16


def test_the_cost_of_handing_over_a_batch_makes_batches_larger() -> None:
    # The engine alone is as fast with every size.
    run, _, clock = simulated_run(fixed=0.0, per_input=0.0005)
    assert tune_batch_size(run, batch_sizes(64), max_seconds=10, clock=clock).max_batch >= 16


def test_batches_are_measured_with_all_threads_at_work() -> None:
    machine = SimulatedMachine()
    plan = tune_batch_size(lambda _: machine.spend(0.05, 3), [1, 2], max_seconds=10, threads=3, clock=machine.clock)
    assert plan.threads == 3
    # The seconds of one thread, while the two others compute, too.
    assert plan.seconds_per_input == pytest.approx(0.05 / plan.max_batch)


def test_a_batch_takes_at_most_the_longest_time() -> None:
    run, sizes, clock = simulated_run(fixed=0.01, per_input=0.005)
    assert tune_batch_size(run, batch_sizes(64), max_seconds=0.045, clock=clock).max_batch == 4
    assert max(sizes) == 8


def test_a_single_input_may_take_longer_than_the_longest_time() -> None:
    run, _, clock = simulated_run(fixed=0.05, per_input=0.0)
    assert tune_batch_size(run, batch_sizes(1), max_seconds=0.001, clock=clock).max_batch == 1


@pytest.mark.parametrize("threads", [1, 4])
def test_the_throughput_counts_the_calls_of_all_threads(threads: int) -> None:
    machine = SimulatedMachine()
    calls_per_second = throughput(lambda: machine.spend(0.02, threads), threads, machine.clock)
    assert calls_per_second == pytest.approx(threads / 0.02)
