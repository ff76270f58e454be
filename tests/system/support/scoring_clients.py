"""Clients that score pictures under load."""

import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx

from tests.service.support.pictures import picture
from tests.support.waiting import until
from tests.system.support.service_process import TIMEOUT_SECONDS

SCORE_PATH = "/v1/models/tiny/score"
PNG = {"content-type": "image/png"}


def score(client: httpx.Client) -> httpx.Response:
    """Score a picture with the model `tiny`."""
    return client.post(SCORE_PATH, content=picture(), headers=PNG)


class ScoringClients:
    """Threads that each send one request after the other on a connection of their own.

    Use it as a context manager, which stops the clients at its end.

    Attributes:
        outcomes: The number of responses by their outcome, and of failures by the name of their error.
        failures: The transport errors.
    """

    def __init__(
        self,
        address: str,
        count: int,
        *,
        outcome: Callable[[httpx.Response], Any] = lambda response: response.status_code,
        reconnect: bool = True,
        pause_seconds: float = 0.002,
    ) -> None:
        """Start the clients, and wait until they have more than five responses each.

        Args:
            address: The URL of the service.
            count: The number of clients.
            outcome: The outcome of a response.
            reconnect: Whether a client connects again after a failure. If not, it ends with its connection.
            pause_seconds: The pause of a client after a response, which leaves time to processes that are starting.
        """
        self.outcomes: Counter[Any] = Counter()
        self.failures: list[httpx.TransportError] = []
        self._address = address
        self._outcome = outcome
        self._reconnect = reconnect
        self._pause_seconds = pause_seconds
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run) for _ in range(count)]
        for thread in self._threads:
            thread.start()
        self.until_more(5 * count)

    def __enter__(self) -> "ScoringClients":
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def until_more(self, count: int) -> None:
        """Wait for `count` further outcomes."""
        goal = self.outcomes.total() + count
        until(lambda: self.outcomes.total() >= goal)

    def stop(self) -> None:
        """Stop the clients, each after its current request."""
        self._stopped.set()
        self.join()

    def join(self) -> None:
        """Wait until every client has ended: with its connection, unless it reconnects."""
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        with httpx.Client(base_url=self._address, timeout=TIMEOUT_SECONDS) as client:
            while not self._stopped.is_set():
                try:
                    response = score(client)
                except httpx.TransportError as error:
                    self._count(type(error).__name__)
                    self.failures.append(error)
                    if not self._reconnect:
                        return
                    continue
                self._count(self._outcome(response))
                if not self._reconnect and response.headers.get("connection") == "close":
                    return
                time.sleep(self._pause_seconds)

    def _count(self, outcome: Any) -> None:
        # `Counter` is not thread-safe.
        with self._lock:
            self.outcomes[outcome] += 1
