"""Calls through fixed buffers: they give the rows of plain calls, and on CUDA are replayed as graphs."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bundle import load_bundle
from service.inference.batch_tuning import batch_sizes
from service.inference.cuda_graphs import CudaGraphRunner, record_graphs
from service.inference.engine import Engine
from service.inference.providers import CPU, CUDA, Provider
from tests.support.tiny_bundle import tiny_images

NEEDS_CUDA = pytest.mark.skipif(CUDA not in onnxruntime.get_available_providers(), reason="needs onnxruntime-gpu")


def runner_and_session(bundle: Path, largest: int) -> tuple[CudaGraphRunner, onnxruntime.InferenceSession]:
    session = onnxruntime.InferenceSession(bundle / "model.onnx", providers=[CPU])
    names = [output.name for output in session.get_outputs()]
    one = {"images": tiny_images(1)}
    outputs = dict(zip(names, session.run(names, one), strict=True))
    return CudaGraphRunner(session, one, outputs, batch_sizes(largest), "cpu"), session


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(1, 11), min_size=1, max_size=6))
def test_batches_of_any_size_in_any_order_give_the_rows_of_plain_calls(tiny_bundle: Path, counts: list[int]) -> None:
    runner, session = runner_and_session(tiny_bundle, 11)
    kept = []
    for seed, count in enumerate(counts):
        feed = {"images": tiny_images(count, seed=seed)}
        kept.append((session.run(None, feed), runner.run(feed)))
    # Compared at the end, because no call may overwrite the outputs of an earlier one.
    for plain_outputs, outputs in kept:
        for expected, rows in zip(plain_outputs, outputs, strict=True):
            assert rows.dtype == expected.dtype
            np.testing.assert_allclose(rows, expected, rtol=1e-5)


def test_a_batch_beyond_the_largest_size_is_an_error(tiny_bundle: Path) -> None:
    runner, _ = runner_and_session(tiny_bundle, 4)
    with pytest.raises(IndexError):
        runner.run({"images": tiny_images(5)})


def test_a_recorded_runner_reproduces_the_plain_session(tiny_bundle: Path) -> None:
    session = onnxruntime.InferenceSession(tiny_bundle / "model.onnx", providers=[CPU])
    feeds = [{"images": tiny_images(size)} for size in (1, 2, 4)]
    runner = record_graphs(session, session, ["msp", "energy"], feeds, "cpu")
    feed = {"images": tiny_images(3, seed=5)}
    for rows, expected in zip(runner.run(feed), session.run(["msp", "energy"], feed), strict=True):
        np.testing.assert_allclose(rows, expected, rtol=1e-5)


def test_graphs_that_compute_other_outputs_are_refused(tiny_bundle: Path) -> None:
    session = onnxruntime.InferenceSession(tiny_bundle / "model.onnx", providers=[CPU])

    class OtherSession:
        def run(self, names: Any, feed: Any) -> Any:
            return [rows + 1 for rows in session.run(names, feed)]

    with pytest.raises(ValueError, match="other outputs for a batch of 1"):
        record_graphs(session, OtherSession(), ["energy"], [{"images": tiny_images(1)}], "cpu")


@pytest.mark.parametrize(("provider", "used"), [(CPU, False), (CUDA, True)])
def test_graphs_are_used_on_cuda_only(
    tiny_bundle: Path, provider: str, used: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def record_on_cpu(*arguments: Any) -> CudaGraphRunner:
        return record_graphs(*arguments, "cpu")

    monkeypatch.setattr("service.inference.engine.record_graphs", record_on_cpu)
    engine = Engine(load_bundle(tiny_bundle), Provider(CPU, required=True, graphs=True), cores=1)
    engine.provider = provider
    engine.warm_up(4)
    assert engine.uses_cuda_graphs is used
    plain = Engine(load_bundle(tiny_bundle), Provider(CPU, required=True), cores=1)
    images = list(tiny_images(3))
    np.testing.assert_allclose(engine.run(images)["msp"], plain.run(images)["msp"], rtol=1e-5)


@NEEDS_CUDA
def test_an_engine_gives_the_same_outputs_with_and_without_graphs(tiny_bundle: Path) -> None:
    onnxruntime.preload_dlls()
    engine, plain = (
        Engine(load_bundle(tiny_bundle), Provider(CUDA, required=True, graphs=graphs), cores=1)
        for graphs in (True, False)
    )
    engine.warm_up(8)
    assert engine.uses_cuda_graphs
    for count in (1, 3, 8, 2):
        images = list(tiny_images(count, seed=count))
        for name, rows in engine.run(images).items():
            np.testing.assert_allclose(rows, plain.run(images)[name], rtol=1e-4, atol=1e-5)
