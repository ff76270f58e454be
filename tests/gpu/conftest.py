"""Tests over CUDA libraries that need no GPU: ONNX Runtime's own placement, plans, graphs, threads and errors.

`make test-gpu` builds the libraries and runs the tests in an environment with onnxruntime-gpu. Kernels compute nothing,
so times and scores mean nothing here; the rows of filled batches are tested on CPUs (tests/service/inference).
"""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CAPTURE, LAUNCH_GRAPH, COPY_TO_HOST = 1, 2, 3


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if "OOD_TEST_STAND_IN" not in os.environ:
        for item in items:
            if Path(__file__).parent in item.path.parents:
                item.add_marker(pytest.mark.skip(reason="runs by `make test-gpu`"))


@dataclass(frozen=True)
class StandIn:
    """The counters of the stand-in libraries in this process."""

    cudart: ctypes.CDLL
    cudnn: ctypes.CDLL

    @property
    def plans(self) -> int:
        """The number of convolution plans that were built."""
        return int(self.cudnn.stand_in_plans())

    @property
    def forbidden_calls(self) -> int:
        """The number of calls that CUDA forbids while a graph is recorded."""
        return int(self.cudart.stand_in_forbidden_calls())

    def threads(self, kind: int) -> list[int]:
        """The thread of each event of `kind`."""
        count = self.cudart.stand_in_events()
        events = [index for index in range(count) if self.cudart.stand_in_event_kind(index) == kind]
        return [int(self.cudart.stand_in_event_thread(index)) for index in events]

    @contextmanager
    def broken_device(self, error: int = 700) -> Iterator[None]:
        """Every call of the device fails meanwhile, as after an illegal address."""
        self.cudart.stand_in_break(error)
        try:
            yield
        finally:
            self.cudart.stand_in_break(0)


@pytest.fixture(scope="session")
def stand_in() -> StandIn:
    cudart = ctypes.CDLL("libcudart.so.13")
    cudart.stand_in_event_thread.restype = ctypes.c_long
    return StandIn(cudart, ctypes.CDLL("libcudnn.so.9"))


@pytest.fixture(autouse=True)
def _without_sample_check(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels of the stand-in compute nothing, so that every model has other scores than at its export."""
    if "checks_samples" not in request.fixturenames:
        monkeypatch.setattr("service.inference.engine.check_sample", lambda *_: None)


@pytest.fixture
def checks_samples() -> None:
    """Keep the check of samples."""
