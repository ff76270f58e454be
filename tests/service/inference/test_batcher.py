"""The greedy batcher: fairness, bounds, streams, deadlines, cancellation, failures."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.inference.batch_tuning import BatchPlan
from service.inference.batcher import Batcher, Expired, Failure, Outcome, QueueFull, Row
from service.inputs.modality import Array
from tests.support.waiting import until_async


class Engine:
    """Doubles its inputs; remembers its batches; waits for `gate` before each one; fails on negative inputs."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.exclusive: list[bool] = []
        self.gate = threading.Event()
        self.gate.set()

    def run(self, items: Sequence[Array], *, exclusive: bool) -> Mapping[str, Array]:
        self.batches.append([int(item) for item in items])
        self.exclusive.append(exclusive)
        assert self.gate.wait(10)
        if any(item < 0 for item in items):
            raise ArithmeticError("a negative input")
        return {"double": np.array(items) * 2}


@asynccontextmanager
async def batcher_of(
    engine: Engine,
    *,
    capacity: int = 100,
    max_batch: int = 4,
    seconds_per_input: float = 1e-3,
    streams: int = 1,
) -> AsyncIterator[Batcher]:
    pace = BatchPlan(max_batch, seconds_per_input)
    loop = asyncio.get_running_loop()
    batcher = Batcher("test", engine.run, pace, capacity=capacity, loop=loop, streams=streams)
    try:
        yield batcher
    finally:
        engine.gate.set()
        await asyncio.to_thread(batcher.close)


async def submit(batcher: Batcher, *numbers: int, deadline: float = float("inf")) -> list[Outcome]:
    with batcher.reserve(len(numbers)) as places:
        return await places.run([np.array(number) for number in numbers], deadline=deadline)


def doubled(outcomes: Sequence[Outcome]) -> list[int]:
    return [int(outcome.outputs["double"][outcome.index]) for outcome in outcomes if isinstance(outcome, Row)]


@settings(max_examples=50, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=20),
    max_batch=st.integers(1, 8),
    cancelled=st.sets(st.integers(0, 19)),
)
def test_every_input_is_answered_once_in_order_within_the_batch_bound(
    sizes: list[int], max_batch: int, cancelled: set[int]
) -> None:
    async def scenario() -> None:
        engine = Engine()
        async with batcher_of(engine, capacity=1000, max_batch=max_batch) as batcher:
            engine.gate.clear()
            blocker = asyncio.create_task(submit(batcher, 10_000))
            await until_async(lambda: engine.batches == [[10_000]])
            requests, first = [], 0
            for size in sizes:
                requests.append(list(range(first, first + size)))
                first += size
            tasks = [asyncio.create_task(submit(batcher, *numbers)) for numbers in requests]
            await asyncio.sleep(0)
            for index in cancelled & set(range(len(tasks))):
                tasks[index].cancel()
            answers = asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.sleep(0.002)
            engine.gate.set()
            kept = []
            for index, (numbers, answer) in enumerate(zip(requests, await answers, strict=True)):
                if index in cancelled:
                    assert isinstance(answer, asyncio.CancelledError)
                else:
                    assert not isinstance(answer, BaseException)
                    assert doubled(answer) == [2 * number for number in numbers]
                    kept += numbers
            await blocker
            assert all(len(batch) <= max_batch for batch in engine.batches)
            # Each once, and nothing that was cancelled; requests take turns, each in its own order.
            run = [number for batch in engine.batches[1:] for number in batch]
            assert sorted(run) == kept
            for numbers in requests:
                assert [number for number in run if number in numbers] in (numbers, [])
            # Greedy: every batch but the last is full, for all were queued while the engine was busy.
            assert all(len(batch) == max_batch for batch in engine.batches[1:-1])
            assert batcher.depth == 0

    asyncio.run(scenario())


def test_an_idle_engine_takes_a_single_input_at_once() -> None:
    async def scenario() -> None:
        engine = Engine()
        async with batcher_of(engine) as batcher:
            assert doubled(await submit(batcher, 21)) == [42]
        assert engine.batches == [[21]]

    asyncio.run(scenario())


def test_the_queue_is_bounded_and_its_places_come_back() -> None:
    async def scenario() -> None:
        engine = Engine()
        async with batcher_of(engine, capacity=3) as batcher:
            with batcher.reserve(2):
                assert batcher.depth == 2
                with pytest.raises(QueueFull) as busy:
                    batcher.reserve(2)
                assert busy.value.retry_after >= 1
            assert batcher.depth == 0
            engine.gate.clear()
            first = asyncio.create_task(submit(batcher, 0))
            await until_async(lambda: engine.batches == [[0]])
            # What the engine works on holds no place any more.
            tasks = [asyncio.create_task(submit(batcher, number)) for number in (1, 2, 3)]
            await asyncio.sleep(0)
            with pytest.raises(QueueFull):
                batcher.reserve(1)
            tasks[1].cancel()
            await asyncio.sleep(0.001)
            assert batcher.depth == 2
            engine.gate.set()
            await asyncio.gather(first, *tasks, return_exceptions=True)
            assert engine.batches == [[0], [1, 3]]

    asyncio.run(scenario())


def test_a_single_input_does_not_wait_for_all_of_a_large_request() -> None:
    async def scenario() -> None:
        engine = Engine()
        async with batcher_of(engine, max_batch=4) as batcher:
            engine.gate.clear()
            first = asyncio.create_task(submit(batcher, 0))
            await until_async(lambda: engine.batches == [[0]])
            large = asyncio.create_task(submit(batcher, *range(1, 11)))
            await asyncio.sleep(0.001)
            single = asyncio.create_task(submit(batcher, 99))
            await asyncio.sleep(0.001)
            engine.gate.set()
            await asyncio.gather(first, large, single)
        assert engine.batches == [[0], [1, 99, 2, 3], [4, 5, 6, 7], [8, 9, 10]]

    asyncio.run(scenario())


def test_who_would_wait_longer_than_its_patience_is_not_admitted() -> None:
    async def scenario() -> None:
        engine = Engine()
        async with batcher_of(engine, seconds_per_input=0.5) as batcher:
            with batcher.reserve(8, patience=1.0):
                assert batcher.expected_wait == pytest.approx(4.0)
                with pytest.raises(QueueFull, match=r"the queue is 4.0 s long; room is expected in about 3 s"):
                    batcher.reserve(1, patience=1.0)
                batcher.reserve(1, patience=5.0).__exit__(None, None, None)
            # The queue is empty again: whoever comes is taken at once.
            batcher.check_capacity(100, patience=0.001)

    asyncio.run(scenario())


def test_streams_share_what_waits_and_none_idles_while_something_does() -> None:
    async def scenario() -> None:
        engine = Engine()
        engine.gate.clear()
        async with batcher_of(engine, max_batch=4, streams=2) as batcher:
            tasks = [asyncio.create_task(submit(batcher, *range(6)))]
            await until_async(lambda: len(engine.batches) == 2)
            assert sorted(map(len, engine.batches)) == [3, 3]
            tasks.append(asyncio.create_task(submit(batcher, 6)))
            await asyncio.sleep(0.01)
            assert len(engine.batches) == 2
            engine.gate.set()
            assert [doubled(answer) for answer in await asyncio.gather(*tasks)] == [[0, 2, 4, 6, 8, 10], [12]]
        assert engine.exclusive == [False, False, engine.exclusive[2]]

    asyncio.run(scenario())


def test_a_lone_input_gets_the_whole_machine() -> None:
    async def scenario() -> None:
        engine = Engine()
        async with batcher_of(engine, streams=2) as batcher:
            for number in range(3):
                await submit(batcher, number)
                await asyncio.sleep(0.01)
        assert engine.exclusive == [True, True, True]

    asyncio.run(scenario())


def test_only_a_lone_input_gets_the_whole_machine() -> None:
    async def scenario() -> None:
        engine = Engine()
        async with batcher_of(engine, max_batch=2) as batcher:
            await submit(batcher, 1)
            await submit(batcher, 2, 3)
            await submit(batcher, 4, 5, 6)
        assert engine.batches == [[1], [2, 3], [4, 5], [6]]
        assert engine.exclusive == [True, False, False, True]

    asyncio.run(scenario())


def test_a_stream_that_goes_on_leaves_the_others_their_share() -> None:
    async def scenario() -> None:
        engine = Engine()
        engine.gate.clear()
        async with batcher_of(engine, max_batch=100, streams=2) as batcher:
            tasks = [asyncio.create_task(submit(batcher, number)) for number in range(2)]
            await until_async(lambda: len(engine.batches) == 2)
            tasks += [asyncio.create_task(submit(batcher, number)) for number in range(2, 10)]
            await until_async(lambda: batcher.depth == 8)
            engine.gate.set()
            await asyncio.gather(*tasks)
        assert [len(batch) for batch in engine.batches] == [1, 1, 4, 2, 1, 1]

    asyncio.run(scenario())


@settings(max_examples=20, deadline=None)
@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=20), streams=st.integers(0, 4))
def test_with_any_number_of_streams_every_input_is_answered_once(sizes: list[int], streams: int) -> None:
    async def scenario() -> None:
        engine = Engine()
        async with batcher_of(engine, capacity=1000, max_batch=3, streams=streams) as batcher:
            requests = [[100 * index + number for number in range(size)] for index, size in enumerate(sizes)]
            answers = await asyncio.gather(*(submit(batcher, *numbers) for numbers in requests))
            assert [doubled(answer) for answer in answers] == [[2 * each for each in numbers] for numbers in requests]
            assert batcher.depth == 0

    asyncio.run(scenario())


def test_without_streams_what_comes_in_one_turn_of_the_loop_is_one_batch_on_its_thread() -> None:
    async def scenario() -> None:
        engine = Engine()
        before = threading.active_count()
        async with batcher_of(engine, max_batch=4, streams=0) as batcher:
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

    asyncio.run(scenario())


def test_an_expired_input_is_dropped_before_it_reaches_the_engine() -> None:
    async def scenario() -> None:
        engine = Engine()
        async with batcher_of(engine) as batcher:
            engine.gate.clear()
            first = asyncio.create_task(submit(batcher, 0))
            await until_async(lambda: engine.batches == [[0]])
            late = asyncio.create_task(submit(batcher, 1, deadline=time.monotonic()))
            fine = asyncio.create_task(submit(batcher, 2, deadline=time.monotonic() + 60))
            await asyncio.sleep(0.01)
            engine.gate.set()
            assert isinstance((await late)[0], Expired)
            assert doubled(await fine) == [4]
            await first
        assert engine.batches == [[0], [2]]

    asyncio.run(scenario())


def test_a_failure_of_the_engine_costs_only_its_batch() -> None:
    async def scenario() -> None:
        engine = Engine()
        async with batcher_of(engine) as batcher:
            (outcome,) = await submit(batcher, -1)
            assert isinstance(outcome, Failure)
            assert outcome.reason == "ArithmeticError: a negative input"
            assert doubled(await submit(batcher, 5, 6)) == [10, 12]

    asyncio.run(scenario())


def test_a_request_may_run_fewer_inputs_than_it_was_admitted_for_but_not_more() -> None:
    async def scenario() -> None:
        engine = Engine()
        async with batcher_of(engine) as batcher:
            with batcher.reserve(3) as places:
                assert doubled(await places.run([np.array(1)])) == [2]
            with batcher.reserve(1) as places:
                with pytest.raises(ValueError, match="2 items for 1 places"):
                    await places.run([np.array(1), np.array(2)])
                assert await places.run([]) == []
            assert batcher.depth == 0

    asyncio.run(scenario())


def test_closing_finishes_what_is_queued() -> None:
    async def scenario() -> None:
        engine = Engine()
        async with batcher_of(engine) as batcher:
            engine.gate.clear()
            tasks = [asyncio.create_task(submit(batcher, number)) for number in range(10)]
            await asyncio.sleep(0.01)
            closing = asyncio.create_task(asyncio.to_thread(batcher.close))
            await asyncio.sleep(0.01)
            engine.gate.set()
            answers: list[Any] = await asyncio.gather(*tasks)
            assert [doubled(answer) for answer in answers] == [[2 * number] for number in range(10)]
            await closing

    asyncio.run(scenario())


def test_the_observer_sees_each_batch() -> None:
    class Observer:
        def __init__(self) -> None:
            self.seen: list[tuple[int, int]] = []

        def batch(self, size: int, waited: Sequence[float], seconds: float) -> None:
            assert all(wait >= 0 for wait in waited)
            assert seconds >= 0
            self.seen.append((size, len(waited)))

    async def scenario() -> None:
        engine, observer = Engine(), Observer()
        loop = asyncio.get_running_loop()
        batcher = Batcher("test", engine.run, BatchPlan(4, 1e-3), capacity=10, loop=loop, observer=observer)
        await submit(batcher, 1, 2, 3)
        await asyncio.to_thread(batcher.close)
        assert observer.seen == [(3, 3)]

    asyncio.run(scenario())
