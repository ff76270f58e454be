"""Merges the metric families of several worker processes into the families that one process would have."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence

from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Exemplar, Sample

from service.scoring.drift import combined_evidence

Families = Sequence[Metric]
_Series = tuple[str, frozenset[tuple[str, str]]]

_CUMULATIVE = frozenset({"counter", "histogram"})

# Gauges of a process add up. Of all other gauges the largest value is kept: workers agree on most of them, and of the
# queues the fullest one matters, as among a model's versions.
_GAUGES: Mapping[str, Callable[[Sequence[float]], float]] = {
    "process_resident_memory_bytes": sum,
    "process_virtual_memory_bytes": sum,
    "process_open_fds": sum,
    "process_max_fds": sum,
    "process_start_time_seconds": min,
}
_DRIFT = "ood_drift_evidence"


def merge_families(families: Iterable[Metric], workers: int) -> list[Metric]:
    """Merge metric families of the same name into one.

    Counters and histograms add up, and each bucket keeps its latest exemplar. Gauges are combined by their meaning.

    Args:
        families: The families of the workers, in any order; a family may occur once for each worker.
        workers: The number of workers in the group, including those without any of `families`.

    Returns:
        One family for each name.
    """
    merged: dict[str, Metric] = {}
    samples: dict[str, dict[_Series, list[Sample]]] = {}
    for family in families:
        merged.setdefault(family.name, Metric(family.name, family.documentation, family.type, family.unit))
        series = samples.setdefault(family.name, {})
        for sample in family.samples:
            series.setdefault((sample.name, frozenset(sample.labels.items())), []).append(sample)
    for name, series in samples.items():
        family = merged[name]
        family.samples = [_merge_samples(same_series, family, workers) for same_series in series.values()]
    return list(merged.values())


def cumulative_only(families: Iterable[Metric]) -> list[Metric]:
    """Return the counters and histograms among `families`, merged into one of each name."""
    return merge_families((family for family in families if family.type in _CUMULATIVE), 1)


def to_json(families: Iterable[Metric]) -> bytes:
    """Encode `families` for `from_json`; parsing the Prometheus text format instead would take ten times as long."""
    return json.dumps(
        [(family.name, family.documentation, family.type, family.unit, family.samples) for family in families]
    ).encode()


def from_json(data: bytes) -> list[Metric]:
    """Decode families that `to_json` encoded.

    Raises:
        ValueError: `data` is incomplete.
    """
    families = []
    for name, documentation, kind, unit, samples in json.loads(data):
        family = Metric(name, documentation, kind, unit)
        for sample, labels, value, timestamp, exemplar, _ in samples:
            family.samples.append(Sample(sample, labels, value, timestamp, exemplar and Exemplar(*exemplar)))
        families.append(family)
    return families


def _merge_samples(samples: Sequence[Sample], family: Metric, workers: int) -> Sample:
    """Merge samples of one series of `family`."""
    values = [sample.value for sample in samples]
    if family.type in _CUMULATIVE:
        exemplars = [sample.exemplar for sample in samples if sample.exemplar is not None]
        latest = max(exemplars, key=lambda exemplar: float(exemplar.timestamp or 0), default=None)
        return samples[0]._replace(value=sum(values), exemplar=latest)
    if family.name == _DRIFT:
        return samples[0]._replace(value=combined_evidence(values, workers))
    return samples[0]._replace(value=_GAUGES.get(family.name, max)(values))
