"""GET /metrics: every name of the contract, each input once, bounded labels."""

import base64
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from service.inference.providers import CPU, CUDA
from service.scoring.scorer import Scorer
from service.telemetry.metrics import Metrics
from tests.service.conftest import Live, Serve
from tests.service.support.exposition import value
from tests.service.support.metric_names import METRIC_NAMES
from tests.service.support.pictures import encoded, picture


def test_every_metric_of_the_contract_is_there_under_its_name(live: Live) -> None:
    live.score(picture())
    families = {family.name for family in text_string_to_metric_families(live.client.get("/metrics").text)}
    assert families >= METRIC_NAMES


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


def test_a_provider_other_than_the_wanted_one_shows() -> None:
    metrics = Metrics()
    scorer = Scorer({}, [], 0.05)
    metrics.describe("tiny", "1", CPU, CUDA, scorer)
    metrics.describe("tiny", "2", CPU, CPU, scorer)
    labels = {"model": "tiny", "provider": CPU}
    get = metrics.registry.get_sample_value
    assert get("ood_provider_fallback", labels | {"version": "1", "wanted": CUDA}) == 1
    assert get("ood_provider_fallback", labels | {"version": "2", "wanted": CPU}) == 0


def test_label_values_are_bounded(repository: Path, serve: Serve) -> None:
    with serve(repository) as live:
        live.score(picture(), model="secret-name")
        live.client.get("/secret-path")
        live.client.request("PROPFIND", "/")
        text = live.client.get("/metrics").text
        assert "secret" not in text.lower()
        assert 'route="other"' in text
        assert 'method="other"' in text
