"""Scores parts of a job on the threads of this process."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from service.offline.batch_scorer import BatchScorer
from service.offline.errors import source_changed
from service.offline.job import Job
from service.offline.source import Item
from service.offline.table import part_file
from service.scoring.scored_input import Result

T = TypeVar("T")
R = TypeVar("R")


def score_parts(
    job: Job, scorer: BatchScorer, parts: Sequence[int], threads: int, progress: Callable[[int], object]
) -> Iterator[tuple[int, bytes]]:
    """Score parts of `job`.

    Args:
        job: The run.
        scorer: The job's model.
        parts: The numbers of the parts, ascending.
        threads: The number of threads.
        progress: Called with the number of inputs scored since the last call.

    Yields:
        Each part with its parquet file.

    Raises:
        SourceUnusable: The source cannot be read or has changed.
        EngineBroken: The engine fails on every input of a batch.
    """

    def score_chunk(chunk: tuple[int, list[Item]]) -> tuple[int, list[object], list[Result]]:
        part, items = chunk
        # Keys and results only: the inputs themselves can be freed before the part is complete.
        return part, [item.key for item in items], scorer.score(items)

    keys: list[object] = []
    results: list[Result] = []
    for part, chunk_keys, chunk_results in map_in_order(score_chunk, job.chunks(parts), threads):
        keys += chunk_keys
        results += chunk_results
        progress(len(chunk_keys))
        # Yielded as soon as it is complete: a failure in the next part must not lose this one.
        if len(keys) == job.inputs_of(part):
            texts = job.source.modality == "text"
            yield part, part_file(keys, results, job.options.scores, job.source.key_type, texts=texts)
            keys, results = [], []
    if keys:
        raise source_changed(job.source.identity.path)


def map_in_order(function: Callable[[T], R], inputs: Iterable[T], threads: int) -> Iterator[R]:
    """Apply `function` to `inputs` on several threads and yield the results in the order of the inputs.

    At most `2 * threads` inputs are read ahead of the result that is yielded.
    """
    pending: deque[Future[R]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="score") as pool:
        try:
            for item in inputs:
                pending.append(pool.submit(function, item))
                if len(pending) == 2 * threads:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
