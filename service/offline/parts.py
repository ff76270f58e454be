"""Parts of a job, scored by this process."""

from collections.abc import Callable, Iterator, Sequence

from service.offline.errors import changed
from service.offline.in_order import in_order
from service.offline.items import Item
from service.offline.job import Job
from service.offline.scoring import BatchScorer
from service.offline.table import part_file
from service.scoring.scored_input import Result

Scored = tuple[int, list[object], list[Result]]


def score_parts(
    job: Job, scorer: BatchScorer, parts: Sequence[int], threads: int, progress: Callable[[int], object]
) -> Iterator[tuple[int, bytes]]:
    """Each of `parts`, ascending, with its parquet file; `progress` gets the numbers of inputs scored meanwhile.

    Raises `SourceUnusable` or `EngineBroken`.
    """

    def work(chunk: tuple[int, list[Item]]) -> Scored:
        part, items = chunk
        # Without the items: until its part is whole, only what the rows need stays in memory.
        return part, [item.key for item in items], scorer.score(items)

    keys: list[object] = []
    results: list[Result] = []
    for part, chunk_keys, chunk_results in in_order(work, job.chunks(parts), threads):
        keys += chunk_keys
        results += chunk_results
        progress(len(chunk_keys))
        # By number, not when the next part begins: what is whole is not to wait for what may fail.
        if len(keys) == job.inputs_of(part):
            yield part, part_file(keys, results, job.options.scores, job.source.key_type)
            keys, results = [], []
    if keys:
        raise changed(job.source.identity.path)
