"""The metrics of one model version, for as long as the version is loaded."""

import weakref
from collections.abc import Mapping, Sequence

from service.inference.engine_queue import EngineQueue
from service.scoring.drift import DriftEvidence
from service.scoring.scored_input import ScoredInput
from service.scoring.scorer import Scorer
from service.telemetry.metrics import REJECTIONS, Metrics


class ModelMetrics:
    """The metrics of one model version.

    Labels are bound once: looking up a labelled series costs more than incrementing it.
    """

    def __init__(
        self,
        metrics: Metrics,
        model: str,
        version: str,
        scores: Sequence[str],
        default_score: str,
        drift: DriftEvidence,
    ) -> None:
        """Create the version's series.

        Args:
            metrics: The application's metrics.
            model: The model's name.
            version: The model's version.
            scores: The names of the model's scores.
            default_score: The score whose anomalies are evidence of drift.
            drift: The version's drift evidence.
        """
        metrics.register(model, version)
        self._model = model
        self._version = version
        self._default_score = default_score
        self._drift = drift
        self._metrics = metrics
        self._queue: EngineQueue | None = None
        self._retired = False
        self._inputs = metrics.inputs.labels(model, version)
        self._truncated = metrics.truncated.labels(model, version)
        self._stalls = metrics.engine_stalls.labels(model, version)
        self._failures = metrics.engine_failures.labels(model, version)
        self._flagged = {score: metrics.flagged.labels(model, version, score) for score in scores}
        self._anomaly = {score: metrics.anomaly.labels(model, version, score) for score in scores}
        self._p_value = {score: metrics.p_value.labels(model, version, score) for score in scores}
        self._batch_size = metrics.batch_size.labels(model)
        self._queue_seconds = metrics.queue_seconds.labels(model)
        self._inference_seconds = metrics.inference_seconds.labels(model)
        self._preprocess_seconds = metrics.preprocess_seconds.labels(model)
        # Created before the first event: a rate over a series that appears with an event misses that event.
        self._rejected = {reason: metrics.rejected.labels(model, reason) for reason in REJECTIONS}

    def publish(
        self,
        provider: str,
        preferred_provider: str,
        scorer: Scorer,
        queue: EngineQueue,
        nodes: Mapping[str, int] | None = None,
    ) -> None:
        """Set the gauges of a served version, and watch its queue.

        Args:
            provider: The provider that the model runs on.
            preferred_provider: The provider that it would run on if it were available.
            scorer: Holds the alpha, the thresholds and the calibrations.
            queue: The version's queue.
            nodes: On a GPU, the number of operators that each provider computes.
        """
        metrics, model, version, drift = self._metrics, self._model, self._version, self._drift
        metrics.describe(model, version, provider, preferred_provider, scorer)
        for name, count in (nodes or {}).items():
            metrics.model_nodes.labels(model, version, name).set(count)
        if nodes:
            # Created before the first event: a rate over a series that appears with an event misses that event.
            metrics.shape_changes.labels(model)
        metrics.drift_evidence.labels(model, version, self._default_score).set_function(lambda: drift.log10)
        metrics.watch_queue(model, version, queue)
        # A gauge with a function refers to itself. A reference to the queue in it would keep the engine in memory
        # until the garbage collector runs.
        watched = weakref.ref(queue)
        metrics.engine_stalled.labels(model, version).set_function(lambda: _stalled_seconds(watched()))
        self._queue = queue

    def retire(self) -> None:
        """Remove the series, unless the version is loaded with other content; nothing may be counted afterwards."""
        if not self._retired:
            self._retired = True
            self._metrics.release(self._model, self._version, self._queue)
            # The queue refers to this object as its observer. A cycle would keep the engine in memory until the
            # garbage collector runs.
            self._queue = None

    def shadow_dropped(self, reason: str, count: int) -> None:
        """Count inputs that this version did not score as a shadow; `reason` is one of `SHADOW_DROPS`."""
        self._metrics.shadow_dropped.labels(self._model, self._version, reason).inc(count)

    def shadow_compared(self, score: str, *, differs: bool) -> None:
        """Record whether the flag of one input that this version scored as a shadow differs from the answer's."""
        self._metrics.shadow_disagreements.labels(self._model, self._version, score).inc(differs)

    def scored(self, result: ScoredInput) -> None:
        """Count one scored input and update the drift evidence, from its result."""
        scores = result.scores
        self._inputs.inc()
        if result.truncated:
            self._truncated.inc()
        for name, entry in scores.items():
            self._anomaly[name].observe(entry.anomaly)
            self._p_value[name].observe(entry.p_value)
            if entry.flagged:
                self._flagged[name].inc()
        if self._default_score in scores:
            self._drift.update(scores[self._default_score].anomaly)

    def shape_changed(self) -> None:
        """Count one call for which a GPU had to plan its convolutions anew."""
        self._metrics.shape_changes.labels(self._model).inc()

    def input_error(self, reason: str) -> None:
        """Count one input that was answered with an error; `reason` is the error's type."""
        self._metrics.input_errors.labels(self._model, reason).inc()

    def rejected(self, reason: str) -> None:
        """Count one rejected request; `reason` is one of `REJECTIONS`."""
        self._rejected[reason].inc()

    def stalled(self) -> None:
        """Count that the engine stalled."""
        self._stalls.inc()

    def engine_failed(self) -> None:
        """Count that the engine failed on its own sample."""
        self._failures.inc()

    def prepared(self, seconds: float) -> None:
        """Record the `seconds` of one input's preprocessing."""
        self._preprocess_seconds.observe(seconds)

    def batch(self, size: int, waited: Sequence[float], seconds: float) -> None:
        """Record one batch of the engine (`service.inference.batcher.BatchObserver`)."""
        self._batch_size.observe(size)
        self._inference_seconds.observe(seconds)
        self.queued(waited)

    def queued(self, waited: Sequence[float]) -> None:
        """Record the seconds that each of some inputs of a batch was queued; another process records the batch."""
        for wait in waited:
            self._queue_seconds.observe(wait)


def _stalled_seconds(queue: EngineQueue | None) -> float:
    return 0.0 if queue is None else queue.stalled_seconds
