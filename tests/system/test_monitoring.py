"""The service watched by a real Prometheus with the shipped rules, and what its Alertmanager hears.

One story, told by one test: known requests, then traffic like the calibration data, then other traffic.
"""

import json
import re
import signal
import time
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
from tests.system.conftest import Service, Start
from tests.system.support.watching import DASHBOARDS, Watch, eventually, watching

OF_DRIFT = {"OodFlaggedRateHigh", "OodPValuesShifted", "OodDriftEvidence"}
TINY = 'model="tiny",version="1"'
SCORE = "/v1/models/tiny/score"
QUIET = 300


@pytest.fixture
def service(tmp_path: Path, start: Start) -> Service:
    make_tiny_bundle(tmp_path / "models", n_calibration=2000)
    return start(tmp_path / "models")


@pytest.fixture
def watch(service: Service, tmp_path: Path) -> Iterator[Watch]:
    with watching(service.address.removeprefix("http://"), tmp_path) as watch:
        # Counters that are first seen at 0: an increase needs a sample from before.
        assert eventually(lambda: watch.value("count_over_time(ood_model_info[1m])"), lambda n: (n or 0) >= 2)
        yield watch


def test_the_service_is_watched_from_known_requests_to_drift_and_its_reset(service: Service, watch: Watch) -> None:
    known_requests_arrive_as_the_right_numbers(service, watch)
    every_metric_of_the_contract_arrives(watch)
    traffic_like_the_calibration_data_raises_no_alert(service, watch)
    every_query_of_the_dashboard_returns_data(service, watch)
    other_traffic_raises_the_alerts_and_the_alertmanager_receives_them(service, watch)
    an_operator_resets_the_drift_evidence(service, watch)


def send(service: Service, images: NDArray[np.uint8]) -> None:
    """Score `images` in requests of fifty."""
    for start in range(0, len(images), 50):
        inputs = []
        for image in images[start : start + 50]:
            file = BytesIO()
            Image.fromarray(image).save(file, "PNG")
            inputs.append({"image": encoded(file.getvalue())})
        assert service.client.post(SCORE, json={"inputs": inputs}).json()["errors"] == 0


def known_requests_arrive_as_the_right_numbers(service: Service, watch: Watch) -> None:
    good, odd = ({"image": encoded(picture(colour))} for colour in ("red", "gray"))
    inputs = [good, good, odd, "text", {"image": "%"}]
    assert service.client.post(SCORE, json={"inputs": inputs, "scores": ["msp", "energy"]}).status_code == 200
    assert service.client.post(SCORE, content=b"x", headers={"content-type": "image/png"}).status_code == 422
    assert service.client.post("/v1/models/none/score", content=b"x").status_code == 404
    scored = eventually(lambda: watch.value(f"ood_inputs_total{{{TINY}}}"), lambda n: n == 3)
    assert scored == 3
    expected = {
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
    assert {expression: watch.value(expression) for expression in expected} == expected


def every_metric_of_the_contract_arrives(watch: Watch) -> None:
    families = {each["metric"]["__name__"] for each in watch.query('{__name__=~"ood_.*"}')}
    bare = {re.sub("_(total|bucket|count|sum)$", "", name) for name in families}
    # These have series once a shadow version is served.
    assert bare >= METRIC_NAMES - {"ood_shadow_dropped", "ood_shadow_disagreements"}


def traffic_like_the_calibration_data_raises_no_alert(service: Service, watch: Watch) -> None:
    send(service, tiny_images(QUIET, seed=1))
    bound = eventually(lambda: watch.value('ood:scored:increase1h{score="msp"}'), lambda n: (n or 0) > QUIET * 0.9)
    assert bound is not None
    share = watch.value('ood:flagged:ratio1h{score="msp"}')
    assert share == pytest.approx(0.05, abs=0.04)
    # Longer than the rules wait before they fire.
    time.sleep(5)
    assert not watch.firing() & OF_DRIFT
    assert not watch.received() & OF_DRIFT


def every_query_of_the_dashboard_returns_data(service: Service, watch: Watch) -> None:
    send(service, tiny_images(50, seed=2))
    dashboard = json.loads((DASHBOARDS / "ood-scoring.json").read_text())
    targets = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert len(targets) > 20
    for target in targets:
        expression = target.replace("$__rate_interval", "1m").replace("$model", ".*")
        assert "$" not in expression
        found = eventually(lambda: finite(watch.query(expression)), bool, 20)  # noqa: B023 - called before the next round
        assert found, expression


def finite(result: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [each for each in result if each["value"][1] != "NaN"]


def other_traffic_raises_the_alerts_and_the_alertmanager_receives_them(service: Service, watch: Watch) -> None:
    rng = np.random.default_rng(0)
    send(service, rng.integers(120, 136, (150, 8, 8, 3), dtype=np.uint8))
    assert eventually(watch.firing, OF_DRIFT.issubset) >= OF_DRIFT
    assert eventually(watch.received, OF_DRIFT.issubset) >= OF_DRIFT


def an_operator_resets_the_drift_evidence(service: Service, watch: Watch) -> None:
    assert (watch.value("ood_drift_evidence") or 0) > 3
    service.process.send_signal(signal.SIGUSR1)
    assert eventually(lambda: watch.value("ood_drift_evidence"), lambda evidence: evidence == 0) == 0
    assert "OodDriftEvidence" not in eventually(watch.firing, lambda names: "OodDriftEvidence" not in names)
    assert any("drift evidence reset" in line for line in service.log)
