"""Samples of `GET /metrics`."""

import httpx
from prometheus_client.parser import text_string_to_metric_families


def samples(client: httpx.Client) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """The value of each sample, by its name and its labels."""
    families = text_string_to_metric_families(client.get("/metrics").text)
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def value(client: httpx.Client, name: str, **labels: str) -> float:
    """The value of one sample; 0 if it does not exist."""
    return samples(client).get((name, frozenset(labels.items())), 0.0)
