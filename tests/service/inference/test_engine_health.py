"""Stalled engines: real sessions whose graphs do not end, on the clock of `EngineHealth.advance`."""

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest

from bundle import Bundle
from service.inference.engine import Engine
from service.inference.engine_health import EngineHealth
from service.inference.engine_monitor import EngineMonitor, EngineState
from service.inference.onnx_session import EngineError
from service.inference.providers import CPU, Provider
from service.inputs.modality import Array
from tests.service.support.edited_graph import with_edited_graph
from tests.service.support.stalling_graph import loop_forever
from tests.support.waiting import until

PROVIDER = Provider(CPU, required=False)
WHITE: Array = np.full((8, 8, 3), 255, np.uint8)
BLACK: Array = np.zeros((8, 8, 3), np.uint8)


@pytest.fixture
def changed(tiny_bundle: Path, tmp_path: Path) -> Callable[[Callable[[onnx.ModelProto], object]], Bundle]:
    return partial(with_edited_graph, tiny_bundle, tmp_path)


class Call:
    """A call of an engine on a thread of its own."""

    def __init__(self, engine: Engine, image: Array) -> None:
        self.error: Exception | None = None
        self._engine, self._image = engine, image
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        until(lambda: engine.monitor.busy or not self.thread.is_alive())

    def _run(self) -> None:
        try:
            self._engine.run([self._image])
        except Exception as error:
            self.error = error


def serving(bundle: Bundle, health: EngineHealth, *, planned_seconds: float = 0.0) -> Engine:
    engine = Engine(bundle, PROVIDER, cores=1)
    health.add(engine.monitor)
    engine.warm_up(2)
    engine.monitor.planned_seconds = planned_seconds
    engine.monitor.state = EngineState.SERVING
    return engine


def test_a_call_that_takes_too_long_is_a_problem_until_it_ends(
    changed: Callable[[Callable[[onnx.ModelProto], object]], Bundle],
) -> None:
    health = EngineHealth(stall_seconds=30, exit_seconds=120)
    engine = serving(changed(loop_forever), health)
    stalls: list[str] = []
    engine.monitor.on_stall = lambda: stalls.append("stalled")
    engine.run([BLACK])
    call = Call(engine, WHITE)
    health.advance(30)
    assert (health.problem, engine.monitor.stalled_seconds, stalls) == (None, 0, [])
    health.advance(1)
    # The check asked ONNX Runtime to end the call, which it does between two turns of the loop.
    assert stalls == ["stalled"]
    call.thread.join()
    assert "terminate flag" in str(call.error)
    health.advance(1)
    assert (health.problem, engine.monitor.stalled_seconds, health.dead) == (None, 0, False)
    assert engine.run([BLACK])["msp"].shape == (1,)


def test_an_engine_that_does_not_recover_is_a_problem_and_ends_the_process() -> None:
    health = EngineHealth(stall_seconds=30, exit_seconds=120)
    deaths: list[str] = []
    health.on_dead = lambda: deaths.append("dead")
    monitor = EngineMonitor("m/1")
    monitor.state = EngineState.SERVING
    health.add(monitor)
    with monitor.call():
        for _ in range(120):
            health.advance(1)
        assert health.problem == "An engine has not finished a batch for 120 s."
        assert not deaths
        health.advance(1)
        health.advance(1)
        assert deaths == ["dead"]
        assert health.dead


def test_a_model_may_take_ten_times_as_long_as_planned() -> None:
    health = EngineHealth(stall_seconds=30, exit_seconds=120)
    monitor = EngineMonitor("slow/1")
    monitor.state, monitor.planned_seconds = EngineState.SERVING, 10.0
    health.add(monitor)
    with monitor.call():
        health.advance(100)
        assert health.problem is None
        health.advance(1)
        assert health.problem is not None
        health.advance(298)
        assert not health.dead
        health.advance(2)
        assert health.dead


def test_calls_one_after_the_other_are_no_stall() -> None:
    health = EngineHealth(stall_seconds=30, exit_seconds=120)
    monitor = EngineMonitor("m/1")
    monitor.state = EngineState.SERVING
    health.add(monitor)
    for _ in range(10):
        with monitor.call():
            health.advance(29)
    with monitor.call(), monitor.call():
        health.advance(29)
    assert health.problem is None


def test_an_engine_thread_that_ended_is_a_problem() -> None:
    health = EngineHealth(stall_seconds=30, exit_seconds=0)
    monitor = EngineMonitor("m/1")
    monitor.state = EngineState.SERVING
    health.add(monitor)
    monitor.thread_lost("MemoryError")
    health.advance(31)
    assert health.problem is not None
    assert monitor.problem is not None
    assert "MemoryError" in monitor.problem
    health.advance(1000)
    assert not health.dead, "0 means never"


def test_a_graph_that_does_not_end_while_it_is_loaded_is_refused(
    changed: Callable[[Callable[[onnx.ModelProto], object]], Bundle],
) -> None:
    health = EngineHealth(stall_seconds=30, exit_seconds=120)
    engine = Engine(changed(partial(loop_forever, always=True)), PROVIDER, cores=1)
    health.add(engine.monitor)
    errors: list[Exception] = []

    def load() -> None:
        with pytest.raises(EngineError) as caught:
            engine.warm_up(2)
        errors.append(caught.value)

    loading = threading.Thread(target=load, daemon=True)
    loading.start()
    until(lambda: engine.monitor.busy)
    health.advance(300)
    assert loading.is_alive()
    health.advance(1)
    assert health.problem is None, "no request waits for a model that is being loaded"
    loading.join()
    assert "terminate flag" in str(errors[0])


def test_a_replaced_engine_is_watched_until_its_calls_have_ended(
    changed: Callable[[Callable[[onnx.ModelProto], object]], Bundle],
) -> None:
    health = EngineHealth(stall_seconds=30, exit_seconds=120)
    engine = serving(changed(loop_forever), health)
    call = Call(engine, WHITE)
    engine.monitor.state = EngineState.CLOSED
    health.advance(1)
    assert health.busy
    engine.monitor.terminate()
    call.thread.join()
    health.advance(1)
    assert not health.busy
