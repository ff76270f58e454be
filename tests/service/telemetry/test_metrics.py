"""GET /metrics: stable names, every input counted once, bounded labels, and series that end with their model."""

import base64
from pathlib import Path

import pytest
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.parser import text_string_to_metric_families

from bundle import false_flag_rate
from service.inference.providers import CPU, CUDA
from service.scoring.scorer import Scorer
from service.telemetry.metrics import Metrics
from tests.service.conftest import Live, Serve
from tests.service.support.exposition import value
from tests.service.support.metric_names import METRIC_NAMES
from tests.service.support.pictures import encoded, picture


def test_every_documented_metric_is_exposed(live: Live) -> None:
    live.score(picture())
    exposed = {family.name for family in text_string_to_metric_families(live.client.get("/metrics").text)}
    assert exposed >= METRIC_NAMES


def test_counters_count_each_input_once(repository: Path, serve: Serve) -> None:
    with serve(repository) as live:
        good = {"image": base64.b64encode(picture("red")).decode()}
        odd = {"image": base64.b64encode(picture("gray")).decode()}
        live.score(json={"inputs": [good, odd, odd, "text", {"image": "%"}], "scores": ["msp", "entropy"]})
        live.score(picture("gray"))
        live.score(picture("gray"), params={"threshold": "0.99"})
        live.score(b"x")
        live.score(picture(), model="nope")
        tiny = {"model": "tiny", "version": "2"}
        assert value(live.client, "ood_inputs_total", **tiny) == 5
        assert value(live.client, "ood_flagged_inputs_total", **tiny, score="msp") == 3
        assert value(live.client, "ood_flagged_inputs_total", **tiny, score="entropy") == 2
        assert value(live.client, "ood_flagged_inputs_total", **tiny, score="energy") == 0
        assert value(live.client, "ood_p_value_count", **tiny, score="msp") == 5
        assert value(live.client, "ood_anomaly_score_count", **tiny, score="entropy") == 3
        assert value(live.client, "ood_input_errors_total", model="tiny", reason="unsupported-input") == 1
        assert value(live.client, "ood_input_errors_total", model="tiny", reason="invalid-base64") == 1
        assert value(live.client, "ood_input_errors_total", model="tiny", reason="undecodable-image") == 1
        assert value(live.client, "ood_queue_seconds_count", model="tiny") == 5
        assert value(live.client, "ood_batch_size_sum", model="tiny") == 5
        assert value(live.client, "ood_alpha", **tiny) == 0.05
        assert value(live.client, "ood_calibration_inputs", **tiny, score="msp") == 500
        rate = false_flag_rate(500, 0.05)
        assert value(live.client, "ood_smallest_alpha", **tiny, score="msp") == rate.smallest_alpha
        assert value(live.client, "ood_false_flag_rate_lower", **tiny, score="msp") == rate.lower
        assert value(live.client, "ood_false_flag_rate_upper", **tiny, score="energy") == rate.upper
        assert value(live.client, "ood_queue_capacity", model="tiny") == 1024
        assert value(live.client, "ood_model_info", **tiny, provider="CPUExecutionProvider") == 1
        route = {"route": "/v1/models/{model}/score", "method": "POST"}
        assert value(live.client, "ood_http_requests_total", **route, status="200") == 3
        assert value(live.client, "ood_http_requests_total", **route, status="422") == 1
        assert value(live.client, "ood_http_requests_total", **route, status="404") == 1
        assert value(live.client, "ood_http_request_seconds_count", **route, status="200") == 3


def test_drift_evidence_grows_with_anomalies_of_the_default_score_until_it_is_reset(
    repository: Path, serve: Serve
) -> None:
    with serve(repository) as live:
        grey = [{"image": encoded(picture("gray"))}] * 20
        drift = {"model": "tiny", "version": "2", "score": "msp"}
        live.score(json={"inputs": grey, "scores": ["energy"]})
        assert value(live.client, "ood_drift_evidence", **drift) == 0
        live.score(json={"inputs": grey, "scores": ["energy", "msp"]})
        evidence = value(live.client, "ood_drift_evidence", **drift)
        assert evidence > 3
        live.score(picture("gray"), params={"alpha": "0.5"})
        assert value(live.client, "ood_drift_evidence", **drift) > evidence
        live.app.state.repository.get("tiny").drift.reset()
        assert value(live.client, "ood_drift_evidence", **drift) == 0


def test_a_provider_other_than_the_preferred_one_is_reported() -> None:
    metrics = Metrics()
    scorer = Scorer({}, [], 0.05)
    metrics.describe("tiny", "1", CPU, CUDA, scorer)
    metrics.describe("tiny", "2", CPU, CPU, scorer)
    labels = {"model": "tiny", "provider": CPU}
    get = metrics.registry.get_sample_value
    assert get("ood_provider_fallback", labels | {"version": "1", "wanted": CUDA}) == 1
    assert get("ood_provider_fallback", labels | {"version": "2", "wanted": CPU}) == 0


def metrics_by_name(metrics: Metrics) -> dict[str, MetricWrapperBase]:
    """Every metric of the service's own, by its family's name."""
    defined = [metric for metric in vars(metrics).values() if isinstance(metric, MetricWrapperBase)]
    by_name = {metric.describe()[0].name: metric for metric in defined}
    assert by_name.keys() == {name for name in families(metrics) if name.startswith("ood_")}
    return by_name


def families(metrics: Metrics, **labels: str) -> set[str]:
    """The families of the registry, or those with a series that has all of `labels`."""
    return {
        family.name
        for family in metrics.registry.collect()
        if not labels or any(labels.items() <= sample.labels.items() for sample in family.samples)
    }


def with_every_series(*versions: str) -> tuple[Metrics, set[str], set[str]]:
    """Metrics with a series of the model "tiny" in each of `versions`, and the families of versions and of models."""
    metrics = Metrics()
    of_versions, of_models = set(), set()
    for version in versions:
        metrics.register("tiny", version)
        values = {"model": "tiny", "version": version}
        for name, metric in metrics_by_name(metrics).items():
            if "model" in metric._labelnames:
                metric.labels(**{label: values.get(label, "any") for label in metric._labelnames})
                (of_versions if "version" in metric._labelnames else of_models).add(name)
    assert families(metrics, model="tiny") == of_versions | of_models
    return metrics, of_versions, of_models


def test_every_series_of_a_model_ends_with_its_last_version_except_the_count_of_reloads() -> None:
    metrics, *_ = with_every_series("1")
    metrics.release("tiny", "1", None)
    assert families(metrics, model="tiny") == {"ood_reloads"}


def test_the_series_of_a_version_end_with_it_while_another_version_keeps_those_of_the_model() -> None:
    metrics, of_versions, of_models = with_every_series("1", "2")
    metrics.release("tiny", "1", None)
    assert families(metrics, model="tiny", version="1") == set()
    assert families(metrics, model="tiny", version="2") == of_versions
    assert families(metrics, model="tiny") == of_versions | of_models


def test_the_series_of_a_version_stay_until_it_is_released_as_often_as_registered() -> None:
    metrics, of_versions, _ = with_every_series("1")
    metrics.register("tiny", "1")
    metrics.release("tiny", "1", None)
    assert families(metrics, model="tiny", version="1") == of_versions


def test_label_values_are_bounded(repository: Path, serve: Serve) -> None:
    with serve(repository) as live:
        live.score(picture(), model="secret-name")
        live.client.get("/secret-path")
        live.client.request("PROPFIND", "/")
        text = live.client.get("/metrics").text
        assert "secret" not in text.lower()
        assert 'route="other"' in text
        assert 'method="other"' in text


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("", "text/plain; version=0.0.4; charset=utf-8"),
        ("*/*", "text/plain; version=0.0.4; charset=utf-8"),
        ("application/openmetrics-text", "application/openmetrics-text; version=1.0.0; charset=utf-8"),
        (
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8,text/plain;version=0.0.4;q=0.5",
            "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=allow-utf-8",
        ),
        ("text/plain;version=1.0.0;escaping=dots", "text/plain; version=1.0.0; charset=utf-8; escaping=dots"),
        ("application/openmetrics-text; version=abc", "text/plain; version=0.0.4; charset=utf-8"),
        ("application/openmetrics-text; version=7.1.3", "text/plain; version=0.0.4; charset=utf-8"),
        ("text/plain; version=1.0.0.999", "text/plain; version=1.0.0; charset=utf-8; escaping=underscores"),
    ],
)
def test_metrics_have_a_known_format_whatever_a_client_accepts(live: Live, accept: str, content_type: str) -> None:
    answer = live.client.get("/metrics", headers={"accept": accept})
    assert (answer.status_code, answer.headers["content-type"]) == (200, content_type)
    assert "# HELP ood_" in answer.text.replace("__", "_")
