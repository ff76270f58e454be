"""The service's Prometheus metrics, in one registry per application."""

import collections
import math
import threading
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, TypeVar

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.metrics import MetricWrapperBase

from service.inference.engine_queue import EngineQueue
from service.scoring.scorer import Scorer

M = TypeVar("M", bound=MetricWrapperBase)

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_FINE_SECONDS = (0.00005, 0.0001, 0.00025, 0.0005, *_SECONDS)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
_P_VALUES = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1)
# One metric holds probabilities in [0, 1], logits, nats and bits: fine buckets where all of them occur, coarse beyond.
_ANOMALIES = (
    *(-100, -50, -20, -10, -5, -3, -2, -1, -0.5, 0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8),
    *(0.9, 0.95, 0.99, 1, 1.5, 2, 2.5, 3, 4, 5, 7, 10, 20, 50, 100),
)
REJECTIONS = ("overloaded", "draining", "deadline-passed", "client-gone", "request-timeout", "engine-unavailable")
SHADOW_DROPS = ("overloaded", "deadline-passed", "failed")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Metrics:
    """All metrics of one application.

    Label values are bounded: routes are templates, models and scores are those that are loaded.

    A metric with a `model` label is defined by `_per_model`, `_per_version` or `_description`, so that its series end
    with the model or the version. The exception is `ood_reloads_total`, which counts what became of each model.
    """

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        self._model_metrics: list[MetricWrapperBase] = []
        self._version_metrics: list[MetricWrapperBase] = []
        self._descriptions: list[Gauge] = []
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)
        http = ("route", "method", "status")
        self.http_requests = Counter("ood_http_requests_total", "HTTP requests answered.", http, registry=registry)
        self.http_seconds = Histogram(
            "ood_http_request_seconds", "Seconds per HTTP request.", http, registry=registry, buckets=_SECONDS
        )
        self.inputs = self._per_version(Counter, "ood_inputs_total", "Inputs scored.")
        self.truncated = self._per_version(
            Counter, "ood_truncated_inputs_total", "Scored texts of which the model read only the beginning."
        )
        self.flagged = self._per_version(
            Counter, "ood_flagged_inputs_total", "Scored inputs that were flagged.", "score"
        )
        self.input_errors = self._per_model(
            Counter, "ood_input_errors_total", "Inputs answered with an error.", "reason"
        )
        self.anomaly = self._per_version(
            Histogram,
            "ood_anomaly_score",
            "Anomaly of scored inputs, larger is more anomalous.",
            "score",
            buckets=_ANOMALIES,
        )
        self.p_value = self._per_version(
            Histogram,
            "ood_p_value",
            "Conformal p-value of scored inputs, uniform for in-distribution traffic.",
            "score",
            buckets=_P_VALUES,
        )
        self.batch_size = self._per_model(
            Histogram, "ood_batch_size", "Inputs per batch of the engine.", buckets=_SIZES
        )
        self.queue_seconds = self._per_model(
            Histogram, "ood_queue_seconds", "Seconds that an input waited for the engine.", buckets=_FINE_SECONDS
        )
        self.inference_seconds = self._per_model(
            Histogram, "ood_inference_seconds", "Seconds per batch of the engine.", buckets=_SECONDS
        )
        self.preprocess_seconds = self._per_model(
            Histogram,
            "ood_preprocess_seconds",
            "Seconds to decode an image or encode a text.",
            buckets=_FINE_SECONDS,
        )
        self.queue_depth = self._per_model(
            Gauge,
            "ood_queue_depth",
            "Inputs admitted and not yet in the engine, of the version with the most that answers.",
        )
        self.queue_capacity = self._per_model(Gauge, "ood_queue_capacity", "Inputs that ood_queue_depth may reach.")
        self.engine_stalled = self._per_version(
            Gauge,
            "ood_engine_stalled_seconds",
            "Seconds that the engine's longest call has taken, if that is much longer than planned; otherwise 0.",
        )
        self.engine_stalls = self._per_version(
            Counter, "ood_engine_stalls_total", "Times that the engine stalled: a call took much longer than planned."
        )
        self.engine_failures = self._per_version(
            Counter,
            "ood_engine_failures_total",
            "Times that the engine failed on its own sample, after a failed batch.",
        )
        self.rejected = self._per_model(
            Counter, "ood_rejected_total", "Requests turned away before they were scored.", "reason"
        )
        self.model_info = self._description("ood_model_info", "1 for each model served.", "provider")
        self.provider_fallback = self._description(
            "ood_provider_fallback",
            "1 where a model runs on another provider than the one that this build of ONNX Runtime is for.",
            "wanted",
            "provider",
        )
        self.model_nodes = self._description(
            "ood_model_nodes", "Operators of a model on a GPU, by the provider that computes them.", "provider"
        )
        self.shape_changes = self._per_model(
            Counter,
            "ood_shape_changes_total",
            "Calls for which a GPU had to plan the convolutions anew, because their shape was not the last one.",
        )
        self.threshold = self._description(
            "ood_threshold", "Anomaly above which an input is flagged at ood_alpha.", "score"
        )
        self.calibration_inputs = self._description(
            "ood_calibration_inputs", "Inputs that the score was calibrated on.", "score"
        )
        self.alpha = self._description(
            "ood_alpha", "Default false-flag rate, the most on average over calibration sets."
        )
        self.smallest_alpha = self._description(
            "ood_smallest_alpha", "Smallest alpha at which the score can flag an input, 1 / (n + 1).", "score"
        )
        self.false_flag_rate_lower = self._description(
            "ood_false_flag_rate_lower",
            "Lower end of the 95% interval, over calibration sets, of the false-flag rate at ood_alpha.",
            "score",
        )
        self.false_flag_rate_upper = self._description(
            "ood_false_flag_rate_upper",
            "Upper end of the 95% interval, over calibration sets, of the false-flag rate at ood_alpha.",
            "score",
        )
        self.drift_evidence = self._description(
            "ood_drift_evidence",
            "Decimal logarithm of the evidence that traffic is unlike the calibration data, since start or reset.",
            "score",
        )
        self.traffic_share = self._per_version(
            Gauge,
            "ood_traffic_share",
            "Share of the requests without a version that a version answers (serve, canary) or scores beside (shadow).",
            "role",
        )
        self.shadow_dropped = self._per_version(
            Counter, "ood_shadow_dropped_total", "Inputs that a shadow version did not score.", "reason"
        )
        self.shadow_disagreements = self._per_version(
            Counter,
            "ood_shadow_disagreements_total",
            "Inputs whose flag by a shadow version differs from the answer's.",
            "score",
        )
        self.reloads = Counter(
            "ood_reloads_total",
            "Versions loaded, refused and retired, the start included.",
            ("model", "result"),
            registry=registry,
        )
        self.refused_bundles = Gauge(
            "ood_refused_bundles", "What lies in the repository and is not served.", registry=registry
        )
        self.lost_log_lines = Counter(
            "ood_lost_log_lines_total", "Log lines that could not be written.", registry=registry
        )
        # Cached: looking up a labelled series costs more than incrementing it.
        self._http = cache(
            lambda route, method, status: (
                self.http_requests.labels(route, method, status),
                self.http_seconds.labels(route, method, status),
            )
        )
        self._queues: dict[str, tuple[tuple[str, EngineQueue], ...]] = {}
        self._shadows: dict[str, set[str]] = {}
        self._registrations: collections.Counter[tuple[str, str]] = collections.Counter()
        # One thread loads a new version while another may remove an old version's series.
        self._lock = threading.Lock()

    def http(self, route: str, method: str, status: int, seconds: float, trace_id: str | None = None) -> None:
        """Count one answered request under its route template; `trace_id` becomes the exemplar of its bucket."""
        count, histogram = self._http(route, method if method in _METHODS else "other", status)
        count.inc()
        histogram.observe(seconds, None if trace_id is None else {"trace_id": trace_id})

    def describe(self, model: str, version: str, provider: str, preferred_provider: str, scorer: Scorer) -> None:
        """Set the gauges that describe a served version, in place of its earlier description.

        Args:
            model: The model's name.
            version: The model's version.
            provider: The provider that the model runs on.
            preferred_provider: The provider that it would run on if it were available.
            scorer: Holds the alpha, the thresholds and the calibrations.
        """
        for metric in self._descriptions:
            metric.remove_by_labels({"model": model, "version": version})
        self.model_info.labels(model, version, provider).set(1)
        self.provider_fallback.labels(model, version, preferred_provider, provider).set(provider != preferred_provider)
        self.alpha.labels(model, version).set(scorer.alpha)
        for score, threshold in scorer.thresholds.items():
            self.threshold.labels(model, version, score).set(math.inf if threshold is None else threshold)
            self.calibration_inputs.labels(model, version, score).set(scorer.calibrations[score].n)
        for score, rate in scorer.false_flag_rates.items():
            self.smallest_alpha.labels(model, version, score).set(rate.smallest_alpha)
            self.false_flag_rate_lower.labels(model, version, score).set(rate.lower)
            self.false_flag_rate_upper.labels(model, version, score).set(rate.upper)

    def watch_queue(self, model: str, version: str, queue: EngineQueue) -> None:
        """Include `queue` in `ood_queue_depth` and `ood_queue_capacity` of `model`.

        Both gauges report the fullest queue. A sum would hide a full queue beside that of a version without traffic.
        Queues of shadows are left out: they may be full.
        """
        with self._lock:
            self._queues[model] = (*self._queues.get(model, ()), (version, queue))
        self.queue_depth.labels(model).set_function(lambda: max((q.depth for q in self._answering(model)), default=0))
        self.queue_capacity.labels(model).set_function(
            lambda: max((q.capacity for q in self._answering(model)), default=0)
        )

    def share_traffic(self, model: str, shares: Mapping[tuple[str, str], float]) -> None:
        """Set the share of `model`'s requests without a version, by version and role."""
        self.traffic_share.remove_by_labels({"model": model})
        self._shadows[model] = {version for version, role in shares if role == "shadow"}
        for (version, role), share in shares.items():
            self.traffic_share.labels(model, version, role).set(share)
            if role == "shadow":
                # Created before the first event: a rate over a series that appears with an event misses that event.
                for reason in SHADOW_DROPS:
                    self.shadow_dropped.labels(model, version, reason)

    def register(self, model: str, version: str) -> None:
        """Keep the series of the version until `release` is called as often as `register`."""
        with self._lock:
            self._registrations[model, version] += 1

    def release(self, model: str, version: str, queue: EngineQueue | None) -> None:
        """Stop watching `queue`, and undo one `register`.

        The last release of a version removes its series; the last release of a model removes the model's series.
        """
        with self._lock:
            self._queues[model] = tuple(it for it in self._queues.get(model, ()) if it[1] is not queue)
            self._registrations[model, version] -= 1
            if self._registrations[model, version]:
                return
            del self._registrations[model, version]
            for metric in self._version_metrics:
                metric.remove_by_labels({"model": model, "version": version})
            if any(name == model for name, _ in self._registrations):
                return
            del self._queues[model]
            self._shadows.pop(model, None)
            for metric in self._model_metrics:
                metric.remove_by_labels({"model": model})

    def _per_model(self, kind: Callable[..., M], name: str, documentation: str, *labels: str, **options: Any) -> M:
        """Define a metric whose series for a model are removed with the model's last version."""
        metric = kind(name, documentation, ("model", *labels), registry=self.registry, **options)
        self._model_metrics.append(metric)
        return metric

    def _per_version(self, kind: Callable[..., M], name: str, documentation: str, *labels: str, **options: Any) -> M:
        """Define a metric whose series for a version are removed with the version."""
        metric = kind(name, documentation, ("model", "version", *labels), registry=self.registry, **options)
        self._version_metrics.append(metric)
        return metric

    def _description(self, name: str, documentation: str, *labels: str) -> Gauge:
        """Define a gauge of a version that `describe` replaces and that is removed with the version."""
        gauge = self._per_version(Gauge, name, documentation, *labels)
        self._descriptions.append(gauge)
        return gauge

    def _answering(self, model: str) -> list[EngineQueue]:
        """The watched queues of the versions that answer requests."""
        shadows = self._shadows.get(model, ())
        return [queue for version, queue in self._queues.get(model, ()) if version not in shadows]
