"""A Prometheus with the shipped rules that scrapes the service, and the alerts that its Alertmanager receives.

One test sends known requests, then traffic like the calibration data, then other traffic.
"""

import json
import re
import signal
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.service.support.metric_names import METRIC_NAMES
from tests.service.support.pictures import encoded, picture
from tests.support.tiny_bundle import make_tiny_bundle, tiny_images
from tests.system.support.prometheus import DASHBOARDS, FOR_SECONDS, Monitoring, eventually, running_monitoring
from tests.system.support.scoring_clients import PNG, SCORE_PATH
from tests.system.support.service_process import ServiceProcess, Start

DRIFT_ALERTS = {"OodFlaggedRateHigh", "OodPValuesShifted", "OodDriftEvidence"}
TINY = 'model="tiny",version="1"'
IN_DIST_INPUTS = 300


@pytest.fixture
def service(tmp_path: Path, start: Start) -> ServiceProcess:
    make_tiny_bundle(tmp_path / "models", n_calibration=2000)
    return start(tmp_path / "models")


@pytest.fixture
def monitoring(service: ServiceProcess, tmp_path: Path) -> Iterator[Monitoring]:
    with running_monitoring(service.address.removeprefix("http://"), tmp_path) as monitoring:
        # The increase of a counter needs a sample from before the first request.
        samples = "count_over_time(ood_model_info[1m])"
        assert eventually(lambda: monitoring.value(samples), lambda count: (count or 0) >= 2)
        yield monitoring


def test_requests_drift_and_a_reset_of_the_evidence_are_visible_to_prometheus(
    service: ServiceProcess, monitoring: Monitoring
) -> None:
    known_requests_have_the_right_metrics(service, monitoring)
    every_metric_of_the_contract_is_scraped(monitoring)
    traffic_like_the_calibration_data_raises_no_alert(service, monitoring)
    every_query_of_the_dashboard_returns_data(service, monitoring)
    other_traffic_raises_the_alerts_and_the_alertmanager_receives_them(service, monitoring)
    a_reset_of_the_drift_evidence_resolves_its_alert(service, monitoring)


def send(service: ServiceProcess, images: NDArray[np.uint8]) -> None:
    """Score `images` in requests of fifty."""
    for start in range(0, len(images), 50):
        inputs = []
        for image in images[start : start + 50]:
            file = BytesIO()
            Image.fromarray(image).save(file, "PNG")
            inputs.append({"image": encoded(file.getvalue())})
        assert service.client.post(SCORE_PATH, json={"inputs": inputs}).json()["errors"] == 0


def known_requests_have_the_right_metrics(service: ServiceProcess, monitoring: Monitoring) -> None:
    red, gray = ({"image": encoded(picture(colour))} for colour in ("red", "gray"))
    inputs = [red, red, gray, "text", {"image": "%"}]
    assert service.client.post(SCORE_PATH, json={"inputs": inputs, "scores": ["msp", "energy"]}).status_code == 200
    assert service.client.post(SCORE_PATH, content=b"x", headers=PNG).status_code == 422
    assert service.client.post("/v1/models/none/score", content=b"x").status_code == 404
    expected = {
        f"ood_inputs_total{{{TINY}}}": 3,
        f'ood_flagged_inputs_total{{{TINY},score="msp"}}': 1,
        f'ood_flagged_inputs_total{{{TINY},score="entropy"}}': 0,
        f'ood_p_value_count{{{TINY},score="energy"}}': 3,
        f'ood_anomaly_score_count{{{TINY},score="msp"}}': 3,
        'ood_input_errors_total{model="tiny",reason="unsupported-input"}': 1,
        'ood_input_errors_total{model="tiny",reason="invalid-base64"}': 1,
        'ood_input_errors_total{model="tiny",reason="undecodable-image"}': 1,
        'ood_queue_seconds_count{model="tiny"}': 3,
        'ood_batch_size_sum{model="tiny"}': 3,
        'ood_preprocess_seconds_count{model="tiny"}': 6,
        'ood_queue_depth{model="tiny"}': 0,
        'ood_queue_capacity{model="tiny"}': 1024,
        'sum(ood_rejected_total{model="tiny"})': 0,
        f"ood_alpha{{{TINY}}}": 0.05,
        f'ood_calibration_inputs{{{TINY},score="msp"}}': 2000,
        f'ood_model_info{{{TINY},provider="CPUExecutionProvider"}}': 1,
        f"ood_provider_fallback{{{TINY}}}": 0,
        'sum(ood_http_requests_total{route="/v1/models/{model}/score",status="200"})': 1,
        'sum(ood_http_requests_total{route="/v1/models/{model}/score",status="422"})': 1,
        'sum(ood_http_requests_total{route="/v1/models/{model}/score",status="404"})': 1,
    }
    values = eventually(lambda: {name: monitoring.value(name) for name in expected}, expected.__eq__)
    assert values == expected


def every_metric_of_the_contract_is_scraped(monitoring: Monitoring) -> None:
    names = {sample["metric"]["__name__"] for sample in monitoring.query('{__name__=~"ood_.*"}')}
    # The repository has no shadow model.
    expected = {name for name in METRIC_NAMES if not name.startswith("ood_shadow_")}
    assert {re.sub("_(total|bucket|count|sum)$", "", name) for name in names} >= expected


def traffic_like_the_calibration_data_raises_no_alert(service: ServiceProcess, monitoring: Monitoring) -> None:
    send(service, tiny_images(IN_DIST_INPUTS, seed=1))
    scored = 'ood:scored:increase1h{score="msp"}'
    assert eventually(lambda: monitoring.value(scored), lambda count: (count or 0) > 0.9 * IN_DIST_INPUTS)
    share = monitoring.value('ood:flagged:ratio1h{score="msp"}')
    assert share == pytest.approx(0.05, abs=0.04)
    # An alert would fire at an evaluation later than `FOR_SECONDS`.
    fired_by = monitoring.now() + FOR_SECONDS + 1
    assert eventually(monitoring.last_evaluation, lambda evaluated: evaluated > fired_by) > fired_by
    assert not monitoring.firing() & DRIFT_ALERTS
    assert not monitoring.received() & DRIFT_ALERTS


def every_query_of_the_dashboard_returns_data(service: ServiceProcess, monitoring: Monitoring) -> None:
    send(service, tiny_images(50, seed=2))
    dashboard = json.loads((DASHBOARDS / "ood-scoring.json").read_text())
    targets = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert len(targets) > 20
    for target in targets:
        expression = target.replace("$__rate_interval", "1m").replace("$model", ".*")
        assert "$" not in expression
        samples = eventually(lambda: without_nan(monitoring.query(expression)), bool)  # noqa: B023 - called at once
        assert samples, expression


def without_nan(samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [sample for sample in samples if sample["value"][1] != "NaN"]


def other_traffic_raises_the_alerts_and_the_alertmanager_receives_them(
    service: ServiceProcess, monitoring: Monitoring
) -> None:
    rng = np.random.default_rng(0)
    send(service, rng.integers(120, 136, (150, 8, 8, 3), dtype=np.uint8))
    assert eventually(monitoring.firing, DRIFT_ALERTS.issubset) >= DRIFT_ALERTS
    assert eventually(monitoring.received, DRIFT_ALERTS.issubset) >= DRIFT_ALERTS


def a_reset_of_the_drift_evidence_resolves_its_alert(service: ServiceProcess, monitoring: Monitoring) -> None:
    assert (monitoring.value("ood_drift_evidence") or 0) > 3
    service.process.send_signal(signal.SIGUSR1)
    assert eventually(lambda: monitoring.value("ood_drift_evidence"), lambda evidence: evidence == 0) == 0
    assert "OodDriftEvidence" not in eventually(monitoring.firing, lambda names: "OodDriftEvidence" not in names)
    assert any("drift evidence reset" in line for line in service.log)
