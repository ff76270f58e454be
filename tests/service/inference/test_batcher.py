"""The batcher: fairness, bounds, threads, deadlines, cancellation, failures, and its estimate of the wait."""

import asyncio
import os
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from service.inference.batcher import Batcher
from service.inference.execution_plan import ExecutionMode, ExecutionPlan
from service.inference.outcomes import Expired, Failure, Outcome, QueueFull, Row
from service.inputs.modality import Array
from tests.support.fake_clock import FakeClock
from tests.support.waiting import until_async

# Without shrinking, which would wait for the timeout of each smaller example that hangs.
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)


class FakeEngine:
    """Doubles its inputs and fails on negative ones; records its batches.

    A batch that contains one of the numbers `held` waits until `release` is set.
    """

    def __init__(self, *held: int) -> None:
        self.held = held
        self.release = threading.Event()
        self.batches: list[list[int]] = []
        self.exclusive: list[bool] = []

    def run(self, items: Sequence[Array], *, exclusive: bool) -> Mapping[str, Array]:
        numbers = [int(item) for item in items]
        self.exclusive.append(exclusive)
        self.batches.append(numbers)
        if not set(numbers).isdisjoint(self.held):
            assert self.release.wait(10)
        if min(numbers) < 0:
            raise ArithmeticError("a negative input")
        return {"double": np.array(items) * 2}


class FakeLoop:
    """An event loop that counts the callbacks scheduled by the batcher, and can be closed for its engine threads."""

    def __init__(self, *, closed: bool | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._closed = closed
        self.scheduled = 0

    def is_closed(self) -> bool:
        return bool(self._closed)

    def call_soon(self, *call: Any) -> asyncio.Handle:
        self.scheduled += 1
        return self._loop.call_soon(*call)

    def call_soon_threadsafe(self, *call: Any) -> asyncio.Handle:
        if self._closed is not None:
            raise RuntimeError("Event loop is closed")
        return self._loop.call_soon_threadsafe(*call)


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    """Run `scenario` on an event loop, for at most ten seconds."""

    async def bounded() -> None:
        async with asyncio.timeout(10):
            await scenario()

    asyncio.run(bounded())


@asynccontextmanager
async def batcher_of(
    engine: FakeEngine,
    *,
    capacity: int = 100,
    max_batch: int = 4,
    seconds_per_input: float = 1e-3,
    threads: int = 1,
    inline: bool = False,
    loop: Any = None,
    **options: Any,
) -> AsyncIterator[Batcher]:
    shared = ExecutionMode.SHARED if threads > 1 else ExecutionMode.EXCLUSIVE
    plan = ExecutionPlan(max_batch, seconds_per_input, mode=ExecutionMode.INLINE if inline else shared, threads=threads)
    loop = loop or asyncio.get_running_loop()
    batcher = Batcher("test", engine.run, plan, capacity=capacity, loop=loop, **options)
    try:
        yield batcher
    finally:
        engine.release.set()
        closing = start_closing(batcher)
        await until_async(lambda: not closing.is_alive())


def start_closing(batcher: Batcher) -> threading.Thread:
    # Not by the event loop's executor, whose end would wait for an engine thread that does not end.
    thread = threading.Thread(target=batcher.close, daemon=True)
    thread.start()
    return thread


async def submit(batcher: Batcher, *numbers: int, deadline: float = float("inf")) -> list[Outcome]:
    with batcher.reserve(len(numbers)) as reservation:
        return await reservation.run([np.array(number) for number in numbers], deadline=deadline)


def doubled(outcomes: Sequence[Outcome]) -> list[int]:
    return [int(outcome.outputs["double"][outcome.index]) for outcome in outcomes if isinstance(outcome, Row)]


async def start_held(batcher: Batcher, engine: FakeEngine, number: int) -> "asyncio.Task[list[Outcome]]":
    """Submit a number at which the engine waits, and wait until the engine computes it."""
    task = asyncio.create_task(submit(batcher, number))
    await until_async(lambda: [number] in engine.batches)
    return task


@settings(max_examples=50, deadline=None, phases=PHASES)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=20),
    max_batch=st.integers(1, 8),
    cancelled=st.sets(st.integers(0, 19)),
)
def test_every_input_is_answered_once_in_order_within_the_batch_bound(
    sizes: list[int], max_batch: int, cancelled: set[int]
) -> None:
    async def scenario() -> None:
        engine = FakeEngine(10_000)
        async with batcher_of(engine, capacity=1000, max_batch=max_batch) as batcher:
            blocker = await start_held(batcher, engine, 10_000)
            requests, first = [], 0
            for size in sizes:
                requests.append(list(range(first, first + size)))
                first += size
            tasks = [asyncio.create_task(submit(batcher, *numbers)) for numbers in requests]
            await until_async(lambda: batcher.depth == sum(sizes))
            for index in cancelled & set(range(len(tasks))):
                tasks[index].cancel()
            kept = [number for index, numbers in enumerate(requests) if index not in cancelled for number in numbers]
            await until_async(lambda: batcher.depth == len(kept))
            engine.release.set()
            for index, answer in enumerate(await asyncio.gather(*tasks, return_exceptions=True)):
                if index in cancelled:
                    assert isinstance(answer, asyncio.CancelledError)
                else:
                    assert not isinstance(answer, BaseException)
                    assert doubled(answer) == [2 * number for number in requests[index]]
            await blocker
            assert all(len(batch) <= max_batch for batch in engine.batches)
            # Each kept input is computed once, and no cancelled one; a request's inputs keep their order.
            computed = [number for batch in engine.batches[1:] for number in batch]
            assert sorted(computed) == kept
            for numbers in requests:
                assert [number for number in computed if number in numbers] in (numbers, [])
            # Every batch but the last is full, because all inputs were queued while the engine was busy.
            assert all(len(batch) == max_batch for batch in engine.batches[1:-1])
            assert batcher.depth == 0

    run(scenario)


def test_an_idle_engine_computes_a_single_input_at_once() -> None:
    async def scenario() -> None:
        engine = FakeEngine()
        async with batcher_of(engine) as batcher:
            assert doubled(await submit(batcher, 21)) == [42]
        assert engine.batches == [[21]]

    run(scenario)


def test_reserved_and_queued_inputs_count_against_the_capacity_until_the_engine_takes_them() -> None:
    async def scenario() -> None:
        engine = FakeEngine(0)
        async with batcher_of(engine, capacity=3) as batcher:
            with batcher.reserve(2):
                assert batcher.depth == 2
                with pytest.raises(QueueFull) as rejection:
                    batcher.reserve(2)
                assert rejection.value.retry_after >= 1
            assert batcher.depth == 0
            first = await start_held(batcher, engine, 0)
            assert batcher.depth == 0
            tasks = [asyncio.create_task(submit(batcher, number)) for number in (1, 2, 3)]
            await until_async(lambda: batcher.depth == 3)
            with pytest.raises(QueueFull):
                batcher.reserve(1)
            tasks[1].cancel()
            await until_async(lambda: batcher.depth == 2)
            engine.release.set()
            await asyncio.gather(first, *tasks, return_exceptions=True)
            assert engine.batches == [[0], [1, 3]]

    run(scenario)


def test_a_single_input_does_not_wait_for_all_of_a_large_request() -> None:
    async def scenario() -> None:
        engine = FakeEngine(0)
        async with batcher_of(engine, max_batch=4) as batcher:
            first = await start_held(batcher, engine, 0)
            large = asyncio.create_task(submit(batcher, *range(1, 11)))
            await until_async(lambda: batcher.depth == 10)
            single = asyncio.create_task(submit(batcher, 99))
            await until_async(lambda: batcher.depth == 11)
            engine.release.set()
            await asyncio.gather(first, large, single)
        assert engine.batches == [[0], [1, 99, 2, 3], [4, 5, 6, 7], [8, 9, 10]]

    run(scenario)


def test_inputs_that_would_wait_longer_than_allowed_are_not_admitted() -> None:
    async def scenario() -> None:
        async with batcher_of(FakeEngine(), seconds_per_input=0.55) as batcher:
            with batcher.reserve(8, max_wait=1.0):
                assert batcher.expected_wait == pytest.approx(4.4)
                with pytest.raises(QueueFull, match=r"the queue is 4.4 s long") as rejection:
                    batcher.reserve(1, max_wait=1.0)
                # 3.4 s from now the wait is short enough.
                assert rejection.value.retry_after == 4
                with batcher.reserve(1, max_wait=5.0):
                    assert batcher.depth == 9
            # In an empty queue nothing waits.
            batcher.check_capacity(100, max_wait=0.001)

    run(scenario)


@pytest.mark.parametrize(("busy_threads", "batch"), [(1, 4), (2, 1)])
def test_the_expected_wait_follows_the_speed_of_the_engine(busy_threads: int, batch: int) -> None:
    clock = FakeClock()

    class SlowEngine(FakeEngine):
        def run(self, items: Sequence[Array], *, exclusive: bool) -> Mapping[str, Array]:
            outputs = super().run(items, exclusive=exclusive)
            clock.seconds += 3.0 * len(items)
            return outputs

    async def scenario() -> None:
        engine = SlowEngine(-1)
        async with batcher_of(engine, threads=busy_threads, seconds_per_input=busy_threads, clock=clock) as batcher:
            held = [await start_held(batcher, engine, -1)] if busy_threads == 2 else []
            with batcher.reserve(10):
                assert batcher.expected_wait == pytest.approx(10)
            # An input takes 3 s, and half of that where two threads compute. One batch moves the estimate by a tenth
            # of the difference.
            seconds = 3.0 / busy_threads
            await submit(batcher, *range(batch))
            with batcher.reserve(10):
                assert batcher.expected_wait == pytest.approx(10 * (1 + 0.1 * (seconds - 1)))
            for _ in range(100):
                await submit(batcher, 1)
            with batcher.reserve(10):
                assert batcher.expected_wait == pytest.approx(10 * seconds, rel=0.01)
            engine.release.set()
            await asyncio.gather(*held)

    run(scenario)


def test_threads_share_the_queue_and_all_inputs_are_answered() -> None:
    async def scenario() -> None:
        engine = FakeEngine(*range(6))
        async with batcher_of(engine, max_batch=6, threads=2) as batcher:
            tasks = [asyncio.create_task(submit(batcher, *range(6)))]
            await until_async(lambda: len(engine.batches) == 2)
            # The first thread leaves half of the inputs to the second one.
            assert max(map(len, engine.batches)) == 3
            queued = batcher.depth
            tasks.append(asyncio.create_task(submit(batcher, 6)))
            await until_async(lambda: batcher.depth == queued + 1)
            assert len(engine.batches) == 2
            engine.release.set()
            assert [doubled(answer) for answer in await asyncio.gather(*tasks)] == [[0, 2, 4, 6, 8, 10], [12]]

    run(scenario)


def test_a_thread_that_continues_leaves_the_other_threads_their_share() -> None:
    async def scenario() -> None:
        engine = FakeEngine(0, 1)
        async with batcher_of(engine, max_batch=100, threads=2) as batcher:
            blockers = [await start_held(batcher, engine, number) for number in (0, 1)]
            tasks = [asyncio.create_task(submit(batcher, number)) for number in range(2, 10)]
            await until_async(lambda: batcher.depth == 8)
            engine.release.set()
            await asyncio.gather(*blockers, *tasks)
        # The first of the threads to continue takes half of the eight queued inputs.
        assert max(map(len, engine.batches)) == 4

    run(scenario)


def test_a_lone_input_is_exclusive_only_while_no_other_thread_computes() -> None:
    async def scenario() -> None:
        engine = FakeEngine(0)
        async with batcher_of(engine, threads=2) as batcher:
            held = await start_held(batcher, engine, 0)
            await submit(batcher, 1)
            assert engine.exclusive == [True, False]
            engine.release.set()
            await held
            # Both threads become idle soon after their answers.
            while not engine.exclusive[-1]:
                await submit(batcher, 2)

    run(scenario)


def test_only_a_lone_input_is_exclusive() -> None:
    async def scenario() -> None:
        engine = FakeEngine()
        async with batcher_of(engine, max_batch=2) as batcher:
            await submit(batcher, 1)
            await submit(batcher, 2, 3)
            await submit(batcher, 4, 5, 6)
        assert engine.batches == [[1], [2, 3], [4, 5], [6]]
        assert engine.exclusive == [True, False, False, True]

    run(scenario)


@settings(max_examples=20, deadline=None, phases=PHASES)
@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=20), threads=st.integers(1, 4), inline=st.booleans())
def test_in_every_mode_every_input_is_answered_once(sizes: list[int], threads: int, inline: bool) -> None:
    async def scenario() -> None:
        engine = FakeEngine()
        threads_or_inline = {"inline": True} if inline else {"threads": threads}
        async with batcher_of(engine, capacity=1000, max_batch=3, **threads_or_inline) as batcher:
            requests = [[100 * index + number for number in range(size)] for index, size in enumerate(sizes)]
            answers = await asyncio.gather(*(submit(batcher, *numbers) for numbers in requests))
            for numbers, answer in zip(requests, answers, strict=True):
                assert doubled(answer) == [2 * number for number in numbers]
            assert sum(map(len, engine.batches)) == sum(sizes)
            assert batcher.depth == 0

    run(scenario)


def test_inline_batches_hold_the_inputs_of_one_iteration_of_the_event_loop_and_run_on_its_thread() -> None:
    async def scenario() -> None:
        engine = FakeEngine()
        before = threading.active_count()
        async with batcher_of(engine, max_batch=4, inline=True) as batcher:
            assert threading.active_count() == before
            tasks = [asyncio.create_task(submit(batcher, number)) for number in range(6)]
            cancelled = asyncio.create_task(submit(batcher, 6))
            late = asyncio.create_task(submit(batcher, 7, deadline=time.monotonic()))
            await asyncio.sleep(0)
            cancelled.cancel()
            assert [doubled(answer) for answer in await asyncio.gather(*tasks)] == [[0], [2], [4], [6], [8], [10]]
            assert isinstance((await late)[0], Expired)
            assert engine.batches == [[0, 1, 2, 3], [4, 5]]
            assert engine.exclusive == [True, True]
            (outcome,) = await submit(batcher, -1)
            assert isinstance(outcome, Failure)
            assert batcher.depth == 0

    run(scenario)


def test_an_inline_batcher_with_an_empty_queue_schedules_nothing() -> None:
    async def scenario() -> None:
        loop = FakeLoop()
        async with batcher_of(FakeEngine(), inline=True, loop=loop) as batcher:
            await submit(batcher, 1, 2)
            assert loop.scheduled == 1
            for _ in range(10):
                await asyncio.sleep(0)
            assert loop.scheduled == 1

    run(scenario)


def test_an_expired_input_is_dropped_before_it_reaches_the_engine() -> None:
    async def scenario() -> None:
        engine, clock = FakeEngine(0), FakeClock()
        async with batcher_of(engine, clock=clock) as batcher:
            first = await start_held(batcher, engine, 0)
            late = asyncio.create_task(submit(batcher, 1, deadline=5.0))
            punctual = asyncio.create_task(submit(batcher, 2, deadline=5.1))
            await until_async(lambda: batcher.depth == 2)
            clock.seconds = 5.0
            engine.release.set()
            assert isinstance((await late)[0], Expired)
            assert doubled(await punctual) == [4]
            await first
        assert engine.batches == [[0], [2]]

    run(scenario)


def test_a_failure_of_the_engine_affects_only_its_batch() -> None:
    async def scenario() -> None:
        async with batcher_of(FakeEngine()) as batcher:
            (outcome,) = await submit(batcher, -1)
            assert isinstance(outcome, Failure)
            assert outcome.reason == "ArithmeticError: a negative input"
            assert doubled(await submit(batcher, 5, 6)) == [10, 12]

    run(scenario)


def test_a_request_may_run_fewer_inputs_than_it_reserved_but_not_more() -> None:
    async def scenario() -> None:
        async with batcher_of(FakeEngine()) as batcher:
            with batcher.reserve(3) as reservation:
                assert doubled(await reservation.run([np.array(1)])) == [2]
                assert batcher.depth == 0
                with pytest.raises(ValueError, match="run once"):
                    await reservation.run([np.array(1)])
            with batcher.reserve(1) as reservation:
                with pytest.raises(ValueError, match="2 inputs for 1 slots"):
                    await reservation.run([np.array(1), np.array(2)])
                assert await reservation.run([]) == []
                assert batcher.depth == 1
            assert batcher.depth == 0

    run(scenario)


def test_closing_computes_the_queued_inputs_first() -> None:
    async def scenario() -> None:
        engine = FakeEngine(0)
        async with batcher_of(engine) as batcher:
            tasks = [await start_held(batcher, engine, 0)]
            tasks += [asyncio.create_task(submit(batcher, number)) for number in range(1, 10)]
            await until_async(lambda: batcher.depth == 9)
            closing = start_closing(batcher)
            engine.release.set()
            answers = await asyncio.gather(*tasks)
            assert [doubled(answer) for answer in answers] == [[2 * number] for number in range(10)]
            await until_async(lambda: not closing.is_alive())

    run(scenario)


def test_the_observer_gets_the_figures_of_each_batch() -> None:
    clock = FakeClock()
    figures: list[tuple[int, list[float], float]] = []

    class Observer:
        def batch(self, size: int, waited: Sequence[float], seconds: float) -> None:
            figures.append((size, list(waited), seconds))

    class SlowEngine(FakeEngine):
        def run(self, items: Sequence[Array], *, exclusive: bool) -> Mapping[str, Array]:
            outputs = super().run(items, exclusive=exclusive)
            clock.seconds += 7
            return outputs

    async def scenario() -> None:
        engine = SlowEngine(0)
        async with batcher_of(engine, clock=clock, observer=Observer()) as batcher:
            first = await start_held(batcher, engine, 0)
            second = asyncio.create_task(submit(batcher, 1, 2, 3))
            await until_async(lambda: batcher.depth == 3)
            engine.release.set()
            await asyncio.gather(first, second)
        assert figures == [(1, [0], 7), (3, [7, 7, 7], 7)]

    run(scenario)


@pytest.mark.skipif(sys.platform != "linux", reason="threads have priorities of their own on Linux only")
@pytest.mark.parametrize("niceness", [0, 15])
def test_engine_threads_have_a_lower_priority_than_the_event_loop(niceness: int) -> None:
    def thread_niceness() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    engine_niceness: list[int] = []

    class Engine(FakeEngine):
        def run(self, items: Sequence[Array], *, exclusive: bool) -> Mapping[str, Array]:
            engine_niceness.append(thread_niceness())
            return super().run(items, exclusive=exclusive)

    async def scenario() -> None:
        async with batcher_of(Engine()) as batcher:
            await submit(batcher, 1)

    def run_event_loop() -> int:
        # Threads start with the niceness of the thread that starts them. The tests' own may be above 0.
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), max(niceness, thread_niceness()))
        before = thread_niceness()
        run(scenario)
        assert thread_niceness() == before
        return before

    with ThreadPoolExecutor(1) as pool:
        before = pool.submit(run_event_loop).result()
    assert engine_niceness == [max(before, 10)]


@pytest.mark.parametrize(("closed", "raised"), [(True, []), (False, [RuntimeError])])
def test_an_engine_thread_ends_quietly_only_after_its_event_loop_is_closed(
    closed: bool, raised: list[type[BaseException]], monkeypatch: pytest.MonkeyPatch
) -> None:
    exceptions: list[type[BaseException] | None] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: exceptions.append(args.exc_type))

    async def scenario() -> None:
        engine = FakeEngine()
        async with batcher_of(engine, loop=FakeLoop(closed=closed)) as batcher:
            task = asyncio.create_task(submit(batcher, 1))
            await until_async(lambda: engine.batches == [[1]])
            closing = start_closing(batcher)
            await until_async(lambda: not closing.is_alive())
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    run(scenario)
    assert exceptions == raised


def test_a_batch_is_explained_if_one_of_its_inputs_is_to_be() -> None:
    class ExplainingEngine(FakeEngine):
        def explain(self, items: Sequence[Array], *, exclusive: bool) -> Mapping[str, Array]:
            return {**super().run(items, exclusive=exclusive), "parts": np.array(items)}

    async def explained(batcher: Batcher, number: int, *, explain: bool) -> bool:
        with batcher.reserve(1) as reservation:
            (outcome,) = await reservation.run([np.array(number)], explain=explain)
        assert isinstance(outcome, Row)
        return "parts" in outcome.outputs

    async def scenario() -> None:
        engine = ExplainingEngine(1)
        async with batcher_of(engine, explain=engine.explain) as batcher:
            first = asyncio.create_task(explained(batcher, 1, explain=False))
            await until_async(lambda: engine.batches == [[1]])
            both = [asyncio.create_task(explained(batcher, number, explain=number == 3)) for number in (2, 3)]
            await until_async(lambda: batcher.depth == 2)
            engine.release.set()
            assert not await first
            assert await asyncio.gather(*both) == [True, True]
            assert not await explained(batcher, 4, explain=False)
            assert engine.batches == [[1], [2, 3], [4]]

    run(scenario)
