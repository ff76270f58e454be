"""Traffic control: which version answers a request that names none, and the rules of traffic.yaml."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from service.app import create_app
from service.repository.model import Model
from service.repository.traffic import traffic_of
from service.repository.traffic_rules import CanaryRule, TrafficError, TrafficRule, read_rules
from service.settings import Settings
from tests.service.conftest import Live, Serve
from tests.service.support.exposition import value
from tests.service.support.pictures import encoded, picture
from tests.support.tiny_bundle import make_tiny_bundle
from tests.support.waiting import until

PNG = {"content-type": "image/png"}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    for version in ("1", "2", "3"):
        make_tiny_bundle(root, version=version)
    return root


@pytest.fixture(scope="module")
def polled(models: Path, serve: Serve) -> Iterator[Live]:
    with serve(models, reload="poll", reload_seconds=0.03) as live:
        yield live


def rule(live: Live, text: str, **expected: Any) -> None:
    """Write traffic.yaml in one step, and wait until the service reports the expected traffic."""
    file = live.app.state.repository.root / "traffic.yaml"
    partial = file.with_name(".traffic")
    partial.write_text(text)
    partial.replace(file)
    traffic = {"serve": "3", "canary": None, "shadow": []} | expected
    until(lambda: live.client.get("/v1/models/tiny").json()["traffic"] == traffic)


def version(live: Live, request_id: str) -> str:
    answer = live.client.post("/v1/models/tiny/score", content=picture(), headers=PNG | {"x-request-id": request_id})
    answered: str = answer.json()["version"]
    return answered


def test_a_pinned_version_answers_until_the_pin_is_gone(polled: Live) -> None:
    rule(polled, "tiny: {serve: 1}", serve="1")
    assert version(polled, "a") == "1"
    assert polled.client.get("/v1/models/tiny").json()["version"] == "1"
    assert value(polled.client, "ood_traffic_share", model="tiny", version="1", role="serve") == 1
    (polled.app.state.repository.root / "traffic.yaml").unlink()
    until(lambda: version(polled, "a") == "3")
    assert value(polled.client, "ood_traffic_share", model="tiny", version="1", role="serve") == 0


def test_the_canary_gets_its_share_and_a_repeated_request_gets_the_same_version(polled: Live) -> None:
    share, requests = 0.2, 600
    rule(polled, "tiny:\n  canary: {version: '3', percent: 20}\n", serve="2", canary={"version": "3", "percent": 20.0})
    answered = {f"id-{number}": version(polled, f"id-{number}") for number in range(requests)}
    counts = Counter(answered.values())
    assert counts.keys() == {"2", "3"}
    # Five standard deviations of a binomial.
    assert abs(counts["3"] - share * requests) < 5 * (requests * share * (1 - share)) ** 0.5
    for sent, first in list(answered.items())[:20]:
        assert version(polled, sent) == first
    # The protocol makes no difference.
    for sent, first in list(answered.items())[:20]:
        answer = polled.client.post(
            "/v2/models/tiny/infer",
            json={"inputs": [{"name": "images", "datatype": "BYTES", "shape": [1], "data": [encoded(picture())]}]},
            headers={"x-request-id": sent},
        )
        assert (answer.status_code, answer.json()["model_version"]) == (200, first)
    rule(polled, "tiny:\n  canary: {version: '3', percent: 40}\n", serve="2", canary={"version": "3", "percent": 40.0})
    # A request that the canary answered stays with the canary when its share grows.
    canaries = [sent for sent, first in answered.items() if first == "3"][:20]
    assert {version(polled, sent) for sent in canaries} == {"3"}
    assert value(polled.client, "ood_traffic_share", model="tiny", version="3", role="canary") == pytest.approx(0.4)
    pinned = polled.client.post("/v1/models/tiny/versions/1/score", content=picture(), headers=PNG)
    assert pinned.json()["version"] == "1"


def test_a_version_on_trial_is_never_the_latest(polled: Live) -> None:
    rule(polled, "tiny: {shadow: [3], canary: {version: 2, percent: 0}}", serve="1", shadow=["3"],
         canary={"version": "2", "percent": 0.0})  # fmt: skip
    assert version(polled, "a") == "1"


@pytest.mark.parametrize("text", ["tiny: {serv: '1'}", "tiny: [", "tiny: {canary: {version: 2, percent: 101}}"])
def test_a_broken_file_keeps_the_previous_rules_and_is_refused_with_its_reason(polled: Live, text: str) -> None:
    rule(polled, "tiny: {serve: '2'}", serve="2")
    rule(polled, text, serve="2")
    until(lambda: "traffic.yaml" in {entry["path"] for entry in polled.client.get("/v1/models").json()["refused"]})
    assert version(polled, "a") == "2"


def test_a_rule_about_a_version_that_is_not_served_waits_for_it(polled: Live) -> None:
    rule(polled, "tiny: {serve: '2'}", serve="2")
    rule(polled, "tiny: {serve: '4', shadow: ['5']}\nnone: {serve: '1'}", serve="2")
    until(lambda: len(polled.client.get("/v1/models").json()["refused"]) == 3)
    reasons = [entry["reason"] for entry in polled.client.get("/v1/models").json()["refused"]]
    assert [reason.split(":")[0] for reason in reasons] == ["tiny.serve", "tiny.shadow", "none.serve"]
    make_tiny_bundle(polled.app.state.repository.root / ".elsewhere", version="4")
    root = polled.app.state.repository.root
    (root / ".elsewhere" / "tiny" / "4").rename(root / "tiny" / "4")
    until(lambda: version(polled, "a") == "4")


def test_the_rules_apply_from_the_start_without_reload(tmp_path: Path, serve: Serve) -> None:
    make_tiny_bundle(tmp_path)
    make_tiny_bundle(tmp_path, version="2")
    (tmp_path / "traffic.yaml").write_text("tiny: {serve: '1'}")
    with serve(tmp_path) as live:
        assert version(live, "a") == "1"


def test_a_start_with_a_broken_file_fails_and_names_the_key(tmp_path: Path) -> None:
    make_tiny_bundle(tmp_path)
    (tmp_path / "traffic.yaml").write_text("tiny: {serve: newest}")

    async def start() -> Exception | None:
        app = create_app(Settings(models=str(tmp_path), listen_when_ready=True))
        async with app.router.lifespan_context(app):
            failure: Exception | None = app.state.lifecycle.failure
            return failure

    assert "traffic.yaml: tiny.serve: String should match" in str(asyncio.run(start()))


def served(*versions: str) -> dict[str, Model]:
    """Stand-ins for the served versions of a model; traffic rules look at nothing but names."""
    return {version: cast("Model", SimpleNamespace(name="tiny", version=version)) for version in versions}


def test_a_canary_that_is_not_served_gets_no_request() -> None:
    rule = TrafficRule(canary=CanaryRule(version="9", percent=100))
    traffic = traffic_of(rule, served("1", "2"), previous="2")
    assert {traffic.choose(f"id-{number}").version for number in range(100)} == {"2"}
    assert traffic.shares() == {("2", "serve"): 1.0}


def test_the_newest_version_answers_if_every_version_is_on_trial() -> None:
    rule = TrafficRule(canary=CanaryRule(version="1", percent=0), shadow=("2", "3"))
    traffic = traffic_of(rule, served("1", "2", "3"), previous="")
    assert traffic.serve.version == "3"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tiny: {serve: newest}", "tiny.serve: String should match"),
        ("tiny: {canary: {version: '2', percent: .nan}}", "tiny.canary.percent: Input should be"),
        ("tiny: {canary: {version: '2'}}", "tiny.canary.percent: Field required"),
        ("tiny: {canary: {version: x, percent: 1}}", "tiny.canary.version: String should match"),
        ("tiny: {shadows: ['1']}", "tiny.shadows: no such key; the keys of tiny are serve, canary, shadow"),
        (
            "tiny: {canary: {version: '2', percent: 5, share: 1}}",
            "tiny.canary.share: no such key; the keys of tiny.canary are version, percent",
        ),
        ("tiny: {shadow: ['1', '1']}", "tiny: version 1 is named twice"),
        ("tiny: {serve: 1, canary: {version: 1, percent: 5}}", "tiny: version 1 is named twice"),
        ("- tiny", "the file: Input should be a valid dictionary"),
        ("\x00", "it cannot be read"),
    ],
)
def test_an_error_in_the_file_names_its_key(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "traffic.yaml"
    file.write_text(text)
    with pytest.raises(TrafficError) as error:
        read_rules(file)
    assert message in str(error.value)


def test_versions_may_be_numbers_and_the_file_empty_or_absent(tmp_path: Path) -> None:
    file = tmp_path / "traffic.yaml"
    assert read_rules(file) == {}
    file.touch()
    assert read_rules(file) == {}
    file.write_text("tiny: {serve: 12, shadow: [3]}")
    assert (read_rules(file)["tiny"].serve, read_rules(file)["tiny"].shadow) == ("12", ("3",))
