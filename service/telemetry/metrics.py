"""The Prometheus metrics, in one registry per application."""

import math
import threading
from collections import Counter as Tally
from collections.abc import Mapping
from functools import cache

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)

from service.inference.batcher import Batcher
from service.scoring.scorer import Scorer

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_FINE_SECONDS = (0.00005, 0.0001, 0.00025, 0.0005, *_SECONDS)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
_P_VALUES = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1)
# One metric holds probabilities in [0, 1], logits, nats and bits: fine where they all live, coarse outside.
_ANOMALIES = (
    *(-100, -50, -20, -10, -5, -3, -2, -1, -0.5, 0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8),
    *(0.9, 0.95, 0.99, 1, 1.5, 2, 2.5, 3, 4, 5, 7, 10, 20, 50, 100),
)
REJECTIONS = ("overloaded", "draining", "deadline-passed", "client-gone", "request-timeout")
SHADOW_DROPS = ("overloaded", "deadline-passed", "failed")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Metrics:
    """All metrics. Label values are bounded: routes are templates, models and scores are loaded ones."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)
        http = ("route", "method", "status")
        score = ("model", "version", "score")
        self.http_requests = Counter("ood_http_requests_total", "HTTP requests answered.", http, registry=registry)
        self.http_seconds = Histogram(
            "ood_http_request_seconds", "Seconds per HTTP request.", http, registry=registry, buckets=_SECONDS
        )
        self.inputs = Counter("ood_inputs_total", "Inputs scored.", ("model", "version"), registry=registry)
        self.flagged = Counter("ood_flagged_inputs_total", "Scored inputs that were flagged.", score, registry=registry)
        self.input_errors = Counter(
            "ood_input_errors_total", "Inputs answered with an error.", ("model", "reason"), registry=registry
        )
        self.anomaly = Histogram(
            "ood_anomaly_score",
            "Anomaly of scored inputs, larger is more anomalous.",
            score,
            registry=registry,
            buckets=_ANOMALIES,
        )
        self.p_value = Histogram(
            "ood_p_value",
            "Conformal p-value of scored inputs, uniform for in-distribution traffic.",
            score,
            registry=registry,
            buckets=_P_VALUES,
        )
        self.batch_size = Histogram(
            "ood_batch_size", "Inputs per batch of the engine.", ("model",), registry=registry, buckets=_SIZES
        )
        self.queue_seconds = Histogram(
            "ood_queue_seconds",
            "Seconds that an input waited for the engine.",
            ("model",),
            registry=registry,
            buckets=_FINE_SECONDS,
        )
        self.inference_seconds = Histogram(
            "ood_inference_seconds", "Seconds per batch of the engine.", ("model",), registry=registry, buckets=_SECONDS
        )
        self.preprocess_seconds = Histogram(
            "ood_preprocess_seconds",
            "Seconds to decode an image or encode a text.",
            ("model",),
            registry=registry,
            buckets=_FINE_SECONDS,
        )
        self.queue_depth = Gauge(
            "ood_queue_depth",
            "Inputs admitted and not yet in the engine, of the version with the most that answers.",
            ("model",),
            registry=registry,
        )
        self.queue_capacity = Gauge(
            "ood_queue_capacity", "Inputs that ood_queue_depth may reach.", ("model",), registry=registry
        )
        self.rejected = Counter(
            "ood_rejected_total",
            "Requests turned away before they were scored.",
            ("model", "reason"),
            registry=registry,
        )
        self.model_info = Gauge(
            "ood_model_info", "1 for each model served.", ("model", "version", "provider"), registry=registry
        )
        self.provider_fallback = Gauge(
            "ood_provider_fallback",
            "1 where a model runs on another provider than the one that this build of ONNX Runtime is for.",
            ("model", "version", "wanted", "provider"),
            registry=registry,
        )
        self.threshold = Gauge(
            "ood_threshold", "Anomaly above which an input is flagged at ood_alpha.", score, registry=registry
        )
        self.calibration_inputs = Gauge(
            "ood_calibration_inputs", "Inputs that the score was calibrated on.", score, registry=registry
        )
        self.alpha = Gauge("ood_alpha", "Default false-flag rate.", ("model", "version"), registry=registry)
        self.drift_evidence = Gauge(
            "ood_drift_evidence",
            "Decimal logarithm of the evidence that traffic is unlike the calibration data, since start or reset.",
            score,
            registry=registry,
        )
        self.traffic_share = Gauge(
            "ood_traffic_share",
            "Share of the requests without a version that a version answers (serve, canary) or scores beside (shadow).",
            ("model", "version", "role"),
            registry=registry,
        )
        self.shadow_dropped = Counter(
            "ood_shadow_dropped_total",
            "Inputs that a shadow version did not score.",
            ("model", "version", "reason"),
            registry=registry,
        )
        self.shadow_disagreements = Counter(
            "ood_shadow_disagreements_total",
            "Inputs whose flag by a shadow version differs from the answer's.",
            score,
            registry=registry,
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
        # Looked up once: that costs more than to count.
        self._http = cache(
            lambda route, method, status: (
                self.http_requests.labels(route, method, status),
                self.http_seconds.labels(route, method, status),
            )
        )
        # The gauges of a version, which say what it is; and its counters.
        self._stated = (
            *(self.model_info, self.provider_fallback, self.threshold, self.calibration_inputs, self.alpha),
            self.drift_evidence,
        )
        self._counted = (
            *(self.inputs, self.flagged, self.anomaly, self.p_value),
            *(self.traffic_share, self.shadow_dropped, self.shadow_disagreements),
        )
        self._of_models = (
            *(self.input_errors, self.rejected, self.batch_size, self.queue_depth, self.queue_capacity),
            *(self.queue_seconds, self.inference_seconds, self.preprocess_seconds),
        )
        self._queues: dict[str, tuple[tuple[str, Batcher], ...]] = {}
        self._shadows: dict[str, set[str]] = {}
        self._registered: Tally[tuple[str, str]] = Tally()
        # A new version is loaded on one thread while another's series are removed on another.
        self._lock = threading.Lock()

    def http(self, route: str, method: str, status: int, seconds: float, trace_id: str | None = None) -> None:
        """Count one answered request under its route template; `trace_id` becomes an example of its bucket."""
        count, histogram = self._http(route, method if method in _METHODS else "other", status)
        count.inc()
        histogram.observe(seconds, None if trace_id is None else {"trace_id": trace_id})

    def describe(self, model: str, version: str, provider: str, wanted: str, scorer: Scorer) -> None:
        """State what is served, on which provider and which was wanted, and with which alpha and thresholds.

        What was stated of this version before, of another content, is forgotten.
        """
        for metric in self._stated:
            metric.remove_by_labels({"model": model, "version": version})
        self.model_info.labels(model, version, provider).set(1)
        self.provider_fallback.labels(model, version, wanted, provider).set(provider != wanted)
        self.alpha.labels(model, version).set(scorer.alpha)
        for score, threshold in scorer.thresholds.items():
            self.threshold.labels(model, version, score).set(math.inf if threshold is None else threshold)
            self.calibration_inputs.labels(model, version, score).set(scorer.calibrations[score].n)

    def watch_queue(self, model: str, version: str, batcher: Batcher) -> None:
        """Let `ood_queue_depth` and `ood_queue_capacity` follow one more queue of `model`: they tell of the fullest.

        Not of the sum, in which a full queue would look half empty beside that of a version nobody asks for; and not of
        shadows, which may be full.
        """
        with self._lock:
            self._queues[model] = (*self._queues.get(model, ()), (version, batcher))
        self.queue_depth.labels(model).set_function(lambda: max((q.depth for q in self._answering(model)), default=0))
        self.queue_capacity.labels(model).set_function(
            lambda: max((q.capacity for q in self._answering(model)), default=0)
        )

    def _answering(self, model: str) -> list[Batcher]:
        shadows = self._shadows.get(model, ())
        return [batcher for version, batcher in self._queues.get(model, ()) if version not in shadows]

    def share_traffic(self, model: str, shares: Mapping[tuple[str, str], float]) -> None:
        """State the share of `model`'s requests without a version, by version and role."""
        self.traffic_share.remove_by_labels({"model": model})
        self._shadows[model] = {version for version, role in shares if role == "shadow"}
        for (version, role), share in shares.items():
            self.traffic_share.labels(model, version, role).set(share)
            if role == "shadow":
                # Before their first event, which a rate would miss otherwise.
                for reason in SHADOW_DROPS:
                    self.shadow_dropped.labels(model, version, reason)

    def register(self, model: str, version: str) -> None:
        """Keep the series of `model` in `version` until they are released as often."""
        with self._lock:
            self._registered[model, version] += 1

    def release(self, model: str, version: str, batcher: Batcher | None) -> None:
        """Follow the queue of `batcher` no more; with the last release the version's, then the model's series end."""
        with self._lock:
            self._queues[model] = tuple(each for each in self._queues.get(model, ()) if each[1] is not batcher)
            self._registered[model, version] -= 1
            if self._registered[model, version]:
                return
            del self._registered[model, version]
            for metric in (*self._stated, *self._counted):
                metric.remove_by_labels({"model": model, "version": version})
            if any(name == model for name, _ in self._registered):
                return
            del self._queues[model]
            self._shadows.pop(model, None)
            for metric in self._of_models:
                metric.remove_by_labels({"model": model})
