"""Scores items in batches, on the calling thread."""

import threading
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import structlog

from bundle import load_bundle
from service.errors import InferenceFailed, InputError
from service.inference.engine import open_engine
from service.inference.outcomes import Row
from service.inference.providers import choose_provider
from service.inputs.modality import Prepared, arrays_of
from service.offline.errors import EngineBroken
from service.offline.job import Job
from service.offline.source import Item, payload_of
from service.scoring.scored_input import Result
from service.scoring.scorer import Scorer, token_count

log = structlog.stdlib.get_logger(__name__)


class BatchScorer:
    """Scores items with the decoding, the engine and the calibration of the service. Thread-safe.

    Each engine call computes on one thread. On a CPU as many threads as cores should call `score`: no time is lost to
    synchronisation between layers, and a row is identical on any number of cores.
    """

    def __init__(self, job: Job) -> None:
        """Load and check the model of `job`.

        Raises:
            BundleError: The bundle is damaged.
            EngineError: The graph cannot be run.
            ProviderUnavailable: The required provider is missing.
        """
        bundle = load_bundle(job.bundle)
        engine = open_engine(bundle, choose_provider(job.provider)[0], cores=1, max_batch=job.batch)
        self.provider = engine.provider
        self._job = job
        self._modality = engine.modality
        self._run = engine.run
        self._scorer = Scorer.of(bundle, job.alpha)
        # Other devices than a CPU compute one batch at a time, while other threads decode.
        self._device_lock: AbstractContextManager[object] = nullcontext() if engine.on_cpu else threading.Lock()

    def score(self, items: Sequence[Item]) -> list[Result]:
        """Return one result per item.

        Raises:
            EngineBroken: The engine fails on every input of a batch.
        """
        prepared = [self._modality.prepare(payload_of(item), self._job.limits) for item in items]
        results: list[Result | None] = [item if isinstance(item, InputError) else None for item in prepared]
        scorable = [(index, item) for index, item in enumerate(prepared) if not isinstance(item, InputError)]
        size_of = self._modality.size_of
        if size_of is not None:
            scorable.sort(key=lambda indexed: size_of(*arrays_of([indexed[1]])))
        for start in range(0, len(scorable), self._job.batch):
            batch = scorable[start : start + self._job.batch]
            for (index, _), result in zip(batch, self._score_batch([item for _, item in batch]), strict=True):
                results[index] = result
        return [result for result in results if result is not None]

    def _score_batch(self, batch: list[Prepared]) -> Sequence[Result]:
        try:
            return self._run_batch(batch)
        except Exception as error:
            # A single input may be the cause: score each one separately.
            results = [self._score_alone(item) for item in batch]
            if len(batch) > 1 and all(isinstance(result, InputError) for result in results):
                raise EngineBroken(
                    f"The engine fails on every input of a batch: {error}. Run the same command again to go on, with a "
                    "smaller --max-batch and --overwrite if it was memory that ran out."
                ) from error
            return results

    def _score_alone(self, item: Prepared) -> Result:
        try:
            return self._run_batch([item])[0]
        except Exception as error:
            log.exception("engine failed on an input")
            return InputError(InferenceFailed.type, f"The engine failed on this input: {error}")

    def _run_batch(self, batch: list[Prepared]) -> Sequence[Result]:
        with self._device_lock:
            taken = time.monotonic()
            outputs = self._run(arrays_of(batch), exclusive=False)
        rows = [Row(outputs, index, taken, time.monotonic()) for index in range(len(batch))]
        return self._scorer.score(rows, self._job.options, [token_count(item) for item in batch])
