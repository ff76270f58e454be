"""What several workers measured, as if one had: their metrics, family by family, made into one."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence

from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Exemplar, Sample

from service.scoring.drift import combined_evidence

Families = Sequence[Metric]

_COUNTED = frozenset({"counter", "histogram"})

# What gauges say of all workers where each says it of itself; all others state what is the same for each, or is served
# best by the largest: of the queues the fullest, as of a model's versions.
_GAUGES: Mapping[str, Callable[[Sequence[float]], float]] = {
    "process_resident_memory_bytes": sum,
    "process_virtual_memory_bytes": sum,
    "process_open_fds": sum,
    "process_max_fds": sum,
    "process_start_time_seconds": min,
}
_DRIFT = "ood_drift_evidence"


def merge_families(families: Iterable[Metric], workers: int) -> list[Metric]:
    """One of each family: the `families` of some of the `workers`, each as often as there are of them, in any order.

    Counters and histograms add up, the latest exemplar of a bucket is kept; gauges become what they mean for all.
    """
    merged: dict[str, Metric] = {}
    found: dict[str, dict[tuple[str, frozenset[tuple[str, str]]], list[Sample]]] = {}
    for family in families:
        merged.setdefault(family.name, Metric(family.name, family.documentation, family.type, family.unit))
        series = found.setdefault(family.name, {})
        for sample in family.samples:
            series.setdefault((sample.name, frozenset(sample.labels.items())), []).append(sample)
    for name, series in found.items():
        family = merged[name]
        family.samples = [_one(samples, family, workers) for samples in series.values()]
    return list(merged.values())


def cumulative_only(families: Iterable[Metric]) -> list[Metric]:
    """Those that only ever grow, one of each."""
    return merge_families((family for family in families if family.type in _COUNTED), 1)


def to_json(families: Iterable[Metric]) -> bytes:
    """For `from_json`; not the text that Prometheus reads, which takes ten times as long to read."""
    return json.dumps(
        [(family.name, family.documentation, family.type, family.unit, family.samples) for family in families]
    ).encode()


def from_json(data: bytes) -> list[Metric]:
    """The families that `to_json` wrote. Raises `ValueError` where not all of it is there."""
    families = []
    for name, documentation, kind, unit, samples in json.loads(data):
        family = Metric(name, documentation, kind, unit)
        for sample, labels, value, timestamp, exemplar, _ in samples:
            family.samples.append(Sample(sample, labels, value, timestamp, exemplar and Exemplar(*exemplar)))
        families.append(family)
    return families


def _one(samples: Sequence[Sample], family: Metric, workers: int) -> Sample:
    values = [sample.value for sample in samples]
    if family.type in _COUNTED:
        examples = [sample.exemplar for sample in samples if sample.exemplar is not None]
        latest = max(examples, key=lambda exemplar: float(exemplar.timestamp or 0), default=None)
        return samples[0]._replace(value=sum(values), exemplar=latest)
    if family.name == _DRIFT:
        return samples[0]._replace(value=combined_evidence(values, workers))
    return samples[0]._replace(value=_GAUGES.get(family.name, max)(values))
