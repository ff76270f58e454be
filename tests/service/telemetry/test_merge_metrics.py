"""Metric families of several workers are merged: counters add up, gauges are combined by their meaning."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics_core import Metric

from service.telemetry.merge_metrics import cumulative_only, from_json, merge_families, to_json
from service.telemetry.metrics import Metrics

MODELS = ("a", 'b"\n')
Event = tuple[int, str, float]


class Meters:
    """A worker's counter and histogram."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._inputs = Counter("inputs_total", "Inputs.", ("model",), registry=self.registry)
        self._seconds = Histogram("seconds", "Seconds.", ("model",), registry=self.registry, buckets=(0, 1, 10))

    def count(self, model: str, seconds: float) -> None:
        self._inputs.labels(model).inc()
        self._seconds.labels(model).observe(seconds)


def read(families: list[Metric]) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def gauge(name: str, *values: float) -> float:
    """The merged value of a gauge that has these values in the workers."""
    families: list[Metric] = []
    for value in values:
        registry = CollectorRegistry()
        Gauge(name, "A gauge.", registry=registry).set(value)
        families.extend(registry.collect())
    (family,) = merge_families(families, len(values))
    (sample,) = family.samples
    return sample.value


events = st.lists(st.tuples(st.integers(0, 3), st.sampled_from(MODELS), st.integers(-20, 20).map(float)))


@given(events)
def test_merged_counters_and_histograms_equal_those_of_a_single_worker(recorded: list[Event]) -> None:
    one, workers = Meters(), [Meters() for _ in range(4)]
    for worker, model, seconds in recorded:
        one.count(model, seconds)
        workers[worker].count(model, seconds)
    families = [family for worker in workers for family in from_json(to_json(worker.registry.collect()))]
    assert read(merge_families(families, 4)) == read(list(one.registry.collect()))


@given(events, events)
def test_merging_is_associative(first: list[Event], second: list[Event]) -> None:
    parts = []
    for part in (first, second):
        metrics = Meters()
        for _, model, seconds in part:
            metrics.count(model, seconds)
        parts.append(list(metrics.registry.collect()))
    merged = read(merge_families([*parts[0], *parts[1]], 2))
    assert read(merge_families([*merge_families(parts[0], 2), *merge_families(parts[1], 2)], 2)) == merged
    assert read(cumulative_only([*cumulative_only(parts[0]), *cumulative_only(parts[1])])) == merged


def test_the_latest_exemplar_of_a_bucket_is_kept() -> None:
    snapshots = []
    for trace in ("early", "late"):
        registry = CollectorRegistry()
        Histogram("seconds", "Seconds.", registry=registry, buckets=(1,)).observe(0.5, {"trace_id": trace})
        snapshots.append(from_json(to_json(registry.collect())))
    for order in (snapshots, snapshots[::-1]):
        (family,) = merge_families([family for snapshot in order for family in snapshot], 2)
        (bucket, *_) = family.samples
        assert bucket.value == 2
        assert bucket.exemplar is not None
        assert bucket.exemplar.labels == {"trace_id": "late"}


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("ood_queue_depth", (3, 1), 3),
        ("ood_queue_capacity", (1024, 1024), 1024),
        ("ood_model_info", (1, 1), 1),
        ("ood_threshold", (math.inf, math.inf), math.inf),
        ("ood_alpha", (0.05, 0.05), 0.05),
        ("process_resident_memory_bytes", (100, 50), 150),
        ("process_open_fds", (7, 8), 15),
        ("process_start_time_seconds", (1000, 900), 900),
    ],
)
def test_gauges_are_combined_by_their_meaning(name: str, values: tuple[float, ...], expected: float) -> None:
    assert gauge(name, *values) == expected


def test_merged_drift_evidence_keeps_the_guarantee_of_one_worker() -> None:
    assert gauge("ood_drift_evidence", 4.0, 1.0) == pytest.approx(4 - math.log10(2))
    assert gauge("ood_drift_evidence", 0.2, 0.0) == 0


def test_only_counters_and_histograms_are_cumulative() -> None:
    kinds = {family.type for family in cumulative_only(Metrics().registry.collect())}
    assert kinds == {"counter", "histogram"}


def test_an_incomplete_snapshot_is_an_error() -> None:
    data = to_json(Metrics().registry.collect())
    with pytest.raises(json.JSONDecodeError):
        from_json(data[:-10])
