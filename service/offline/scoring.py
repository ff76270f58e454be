"""From items to results, on whatever thread calls."""

import threading
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import structlog

from bundle import load_bundle
from service.errors import InferenceFailed, InputError
from service.inference.engine import Engine
from service.inference.outcomes import Row
from service.inference.providers import choose_provider
from service.inputs.modality import Array
from service.offline.errors import EngineBroken
from service.offline.items import Item, payload_of
from service.offline.job import Job
from service.scoring.scored_input import Result
from service.scoring.scorer import Scorer

log = structlog.stdlib.get_logger(__name__)


class BatchScorer:
    """Scores items as the service does: the same decoding, engine and calibration. Threads may call it at a time.

    Each call of the engine computes with one thread. On a CPU as many threads as there are cores should call, which
    loses nothing to waiting between layers and makes a row the same on any number of cores.
    """

    def __init__(self, job: Job) -> None:
        """Loads and checks the model. Raises `BundleError`, `EngineError` or `ProviderUnavailable`."""
        bundle = load_bundle(job.bundle)
        engine = Engine(bundle, choose_provider(job.provider)[0], cores=1)
        engine.warm_up(job.batch)
        self.provider = engine.provider
        self._job = job
        self._modality = engine.modality
        self._run = engine.run
        self._scorer = Scorer.of(bundle, job.alpha)
        # What is not a CPU computes one batch at a time, while other threads decode.
        self._turn: AbstractContextManager[object] = nullcontext() if engine.on_cpu else threading.Lock()

    def score(self, items: Sequence[Item]) -> list[Result]:
        """One result for each item. Raises `EngineBroken`."""
        prepared = [self._modality.prepare(payload_of(item), self._job.limits) for item in items]
        results: list[Result | None] = [each if isinstance(each, InputError) else None for each in prepared]
        arrays = [(index, each) for index, each in enumerate(prepared) if not isinstance(each, InputError)]
        size_of = self._modality.size_of
        if size_of is not None:
            arrays.sort(key=lambda each: size_of(each[1]))
        for start in range(0, len(arrays), self._job.batch):
            batch = arrays[start : start + self._job.batch]
            for (index, _), result in zip(batch, self._score([array for _, array in batch]), strict=True):
                results[index] = result
        return [result for result in results if result is not None]

    def _score(self, arrays: list[Array]) -> Sequence[Result]:
        try:
            return self._run_one(arrays)
        except Exception as error:
            # One input may be at fault: the others are scored without it.
            exclusive = [self._score_alone(array) for array in arrays]
            if len(arrays) > 1 and all(isinstance(result, InputError) for result in exclusive):
                raise EngineBroken(
                    f"The engine fails on every input of a batch: {error}. Run the same command again to go on, with a "
                    "smaller --max-batch and --overwrite if it was memory that ran out."
                ) from error
            return exclusive

    def _score_alone(self, array: Array) -> Result:
        try:
            return self._run_one([array])[0]
        except Exception as error:
            log.exception("the engine failed on an input")
            return InputError(InferenceFailed.type, f"The engine failed on this input: {error}")

    def _run_one(self, arrays: list[Array]) -> Sequence[Result]:
        with self._turn:
            taken = time.monotonic()
            outputs = self._run(arrays, exclusive=False)
        rows = [Row(outputs, index, taken, time.monotonic()) for index in range(len(arrays))]
        return self._scorer.score(rows, self._job.options)
