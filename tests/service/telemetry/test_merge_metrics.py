"""Metrics of several workers as one: what adds up, what is kept, and what gauges become."""

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
    """What a gauge becomes of workers that have these values."""
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
def test_whichever_worker_counted_the_totals_are_those_of_a_single_one(given_events: list[Event]) -> None:
    one, workers = Meters(), [Meters() for _ in range(4)]
    for worker, model, seconds in given_events:
        one.count(model, seconds)
        workers[worker].count(model, seconds)
    told = [family for worker in workers for family in from_json(to_json(worker.registry.collect()))]
    assert read(merge_families(told, 4)) == read(list(one.registry.collect()))


@given(events, events)
def test_totals_of_totals_are_the_totals(first: list[Event], second: list[Event]) -> None:
    parts = []
    for part in (first, second):
        metrics = Meters()
        for _, model, seconds in part:
            metrics.count(model, seconds)
        parts.append(list(metrics.registry.collect()))
    whole = read(merge_families([*parts[0], *parts[1]], 2))
    assert read(merge_families([*merge_families(parts[0], 2), *merge_families(parts[1], 2)], 2)) == whole
    assert read(cumulative_only([*cumulative_only(parts[0]), *cumulative_only(parts[1])])) == whole


def test_the_latest_exemplar_of_a_bucket_is_kept() -> None:
    told = []
    for trace in ("early", "late"):
        registry = CollectorRegistry()
        Histogram("seconds", "Seconds.", registry=registry, buckets=(1,)).observe(0.5, {"trace_id": trace})
        told.append(from_json(to_json(registry.collect())))
    for order in (told, told[::-1]):
        (family,) = merge_families([family for each in order for family in each], 2)
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
def test_a_gauge_becomes_what_it_means_for_all(name: str, values: tuple[float, ...], expected: float) -> None:
    assert gauge(name, *values) == expected


def test_the_drift_evidence_of_several_is_held_to_the_bound_of_one() -> None:
    assert gauge("ood_drift_evidence", 4.0, 1.0) == pytest.approx(4 - math.log10(2))
    assert gauge("ood_drift_evidence", 0.2, 0.0) == 0


def test_what_only_grows_is_counted_and_nothing_else() -> None:
    kinds = {family.type for family in cumulative_only(Metrics().registry.collect())}
    assert kinds == {"counter", "histogram"}


def test_half_an_answer_is_none() -> None:
    data = to_json(Metrics().registry.collect())
    with pytest.raises(json.JSONDecodeError):
        from_json(data[:-10])
