"""One model version's metrics: bound to its labels, there as long as it is served."""

from collections.abc import Mapping, Sequence

from service.inference.batcher import Batcher
from service.scoring.drift import DriftEvidence
from service.scoring.scored_input import ScoreEntry
from service.scoring.scorer import Scorer
from service.telemetry.metrics import REJECTIONS, Metrics


class ModelMetrics:
    """One model version's metrics with their labels bound once: looking them up costs more than counting."""

    def __init__(
        self,
        metrics: Metrics,
        model: str,
        version: str,
        scores: Sequence[str],
        default_score: str,
        drift: DriftEvidence,
    ) -> None:
        """`drift` is told of every input that is scored by `default_score`."""
        metrics.register(model, version)
        self._model = model
        self._version = version
        self._default_score = default_score
        self._drift = drift
        self._metrics = metrics
        self._batcher: Batcher | None = None
        self._retired = False
        self._inputs = metrics.inputs.labels(model, version)
        self._flagged = {score: metrics.flagged.labels(model, version, score) for score in scores}
        self._anomaly = {score: metrics.anomaly.labels(model, version, score) for score in scores}
        self._p_value = {score: metrics.p_value.labels(model, version, score) for score in scores}
        self._batch_size = metrics.batch_size.labels(model)
        self._queue_seconds = metrics.queue_seconds.labels(model)
        self._inference_seconds = metrics.inference_seconds.labels(model)
        self._preprocess_seconds = metrics.preprocess_seconds.labels(model)
        # Present from the start: a rate over a series that appears with its first event misses that event.
        self._rejected = {reason: metrics.rejected.labels(model, reason) for reason in REJECTIONS}

    def publish(self, provider: str, wanted: str, scorer: Scorer, batcher: Batcher) -> None:
        """State in the gauges that this version is served from now on, and follow its queue."""
        metrics, model, version, drift = self._metrics, self._model, self._version, self._drift
        metrics.describe(model, version, provider, wanted, scorer)
        metrics.drift_evidence.labels(model, version, self._default_score).set_function(lambda: drift.log10)
        metrics.watch_queue(model, version, batcher)
        self._batcher = batcher

    def retire(self) -> None:
        """Take the series away, unless the same version goes on in another content. Nothing may be counted after it."""
        if not self._retired:
            self._retired = True
            self._metrics.release(self._model, self._version, self._batcher)
            # The batcher has this object as its observer: in a circle its engine would wait for the garbage collector.
            self._batcher = None

    def shadow_dropped(self, reason: str, count: int) -> None:
        """Count inputs that this version, a shadow, did not score; `reason` is one of `SHADOW_DROPS`."""
        self._metrics.shadow_dropped.labels(self._model, self._version, reason).inc(count)

    def shadow_compared(self, score: str, *, differs: bool) -> None:
        """Count one input by whether its flag by this version, a shadow, differs from the answer's."""
        self._metrics.shadow_disagreements.labels(self._model, self._version, score).inc(differs)

    def scored(self, scores: Mapping[str, ScoreEntry]) -> None:
        """Count one scored input, by the `scores` of its result."""
        self._inputs.inc()
        for name, entry in scores.items():
            self._anomaly[name].observe(entry.anomaly)
            self._p_value[name].observe(entry.p_value)
            if entry.flagged:
                self._flagged[name].inc()
        if self._default_score in scores:
            self._drift.update(scores[self._default_score].anomaly)

    def input_error(self, reason: str) -> None:
        """Count one input answered with an error; `reason` is its type."""
        self._metrics.input_errors.labels(self._model, reason).inc()

    def rejected(self, reason: str) -> None:
        """Count one request turned away; `reason` is one of `REJECTIONS`."""
        self._rejected[reason].inc()

    def prepared(self, seconds: float) -> None:
        """Note how long one input's preprocessing took."""
        self._preprocess_seconds.observe(seconds)

    def batch(self, size: int, waited: Sequence[float], seconds: float) -> None:
        """Note one batch of the engine (`service.inference.batcher.BatchObserver`)."""
        self._batch_size.observe(size)
        self._inference_seconds.observe(seconds)
        for each in waited:
            self._queue_seconds.observe(each)
