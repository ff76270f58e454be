"""Control over a running model's engine: a gate that blocks its batches, failures, and requests that wait."""

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import httpx

from service.inputs.modality import Array, Run
from tests.service.conftest import Live
from tests.service.support.pictures import picture
from tests.support.waiting import until


class EngineGate:
    """Blocks every batch of a model's engine until the gate opens.

    Attributes:
        batches: The size of each batch that has reached the gate, in order.
    """

    def __init__(self, live: Live, model: str = "tiny", version: str | None = None) -> None:
        self.batches: list[int] = []
        self._opened = threading.Event()
        self._run = replace_engine(live, self._run_when_open, model, version)

    def open(self) -> None:
        """Let the blocked batch and all later ones through."""
        self._opened.set()

    def until_batches(self, count: int) -> None:
        """Wait until `count` batches have reached the gate."""
        until(lambda: len(self.batches) >= count)

    def _run_when_open(self, items: Sequence[Array], *, exclusive: bool) -> Mapping[str, Array]:
        self.batches.append(len(items))
        assert self._opened.wait(60), "the gate was not opened"
        return self._run(items, exclusive=exclusive)


def replace_engine(live: Live, run: Run, model: str = "tiny", version: str | None = None) -> Run:
    """Let `run` compute a model's batches, and return what computed them before."""
    engine = live.engine(model, version)
    previous = engine.replacement or engine.run_unreplaced
    engine.replacement = run
    return previous


def post_in_background(live: Live, **request: Any) -> tuple[threading.Thread, list[httpx.Response]]:
    """POST a picture to `tiny` on a new thread; the response is in the list once the thread has ended."""
    answers: list[httpx.Response] = []
    url = f"http://127.0.0.1:{live.port}/v1/models/tiny/score"
    request = {"content": picture(), "headers": {"content-type": "image/png"}} | request
    thread = threading.Thread(target=lambda: answers.append(httpx.post(url, timeout=30, **request)))
    thread.start()
    return thread, answers
