"""The thread on which everything of one model's engine on a GPU runs, from opening its sessions to closing them."""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from typing_extensions import override

T = TypeVar("T")


class EngineThread(threading.Thread):
    """Runs functions one after another.

    ONNX Runtime keeps streams, handles and recorded CUDA graphs per calling thread: what one thread has prepared does
    not help another one.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name=f"engine-{name}-0", daemon=True)
        self._functions: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self.start()

    def call(self, function: Callable[[], T]) -> T:
        """Run `function` on the thread, and return or raise what it does."""
        future: Future[T] = Future()

        def run() -> None:
            try:
                future.set_result(function())
            except BaseException as error:
                future.set_exception(error)

        self._functions.put(run)
        return future.result()

    def post(self, function: Callable[[], object]) -> None:
        """Have the thread run `function` later, without waiting for it."""
        self._functions.put(function)

    def end(self) -> None:
        """End the thread after the functions that it has been given."""
        self._functions.put(None)

    @override
    def run(self) -> None:
        """Run the functions; called by `threading.Thread`."""
        while (function := self._functions.get()) is not None:
            function()
            # A waiting thread must not keep the objects of its last function alive.
            del function
