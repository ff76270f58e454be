"""A gate in front of a running model's engine, and requests that wait behind it."""

import threading
from typing import Any

import httpx

from tests.service.conftest import Live
from tests.service.support.pictures import picture
from tests.support.waiting import until


class EngineGate:
    """Blocks every batch of a model's engine until the gate opens.

    Attributes:
        batches: The size of each batch that has reached the gate, in order.
    """

    def __init__(self, live: Live, model: str = "tiny", version: str | None = None) -> None:
        self._engine = live.engine(model, version)
        self.batches: list[int] = []
        self._opened = threading.Event()
        self._engine.replacement = self._run_when_open

    def open(self) -> None:
        """Let the blocked batch and all later ones through."""
        self._opened.set()

    def until_batches(self, count: int) -> None:
        """Wait until `count` batches have reached the gate."""
        until(lambda: len(self.batches) >= count)

    def _run_when_open(self, items: Any, **options: Any) -> Any:
        self.batches.append(len(items))
        assert self._opened.wait(20), "the gate was not opened"
        return self._engine.run_unreplaced(items, **options)


def post_in_background(live: Live, **request: Any) -> tuple[threading.Thread, list[httpx.Response]]:
    """POST a picture to `tiny` on a new thread; the response is in the list once the thread has ended."""
    answers: list[httpx.Response] = []
    url = f"http://127.0.0.1:{live.port}/v1/models/tiny/score"
    request = {"content": picture(), "headers": {"content-type": "image/png"}} | request
    thread = threading.Thread(target=lambda: answers.append(httpx.post(url, timeout=30, **request)))
    thread.start()
    return thread, answers
