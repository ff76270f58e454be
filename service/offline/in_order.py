"""Work on several threads, its results in the order of its inputs, with little of either in memory."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def in_order(work: Callable[[T], R], inputs: Iterable[T], threads: int) -> Iterator[R]:
    """`work` of each input. At most `2 * threads` inputs are taken ahead of the result that is asked for."""
    pending: deque[Future[R]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="score") as pool:
        try:
            for each in inputs:
                pending.append(pool.submit(work, each))
                if len(pending) == 2 * threads:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
