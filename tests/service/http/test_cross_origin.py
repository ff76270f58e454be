"""`OOD_CORS_ORIGINS`: pages of these origins can call the service, and read its errors."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from service.auth.api_keys import digest_of
from tests.service.conftest import Live, Serve
from tests.service.support.engine_gate import EngineGate, post_in_background
from tests.service.support.exposition import value
from tests.service.support.pictures import picture
from tests.support.waiting import until

ORIGIN = "https://app.example.com"
PREFLIGHT = {"origin": ORIGIN, "access-control-request-method": "POST"}
SCORE = "/v1/models/tiny/score"
KEY = "ood_a-key-of-alice"


@pytest.fixture(scope="module")
def shared(repository: Path, serve: Serve, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text(f"alice sha256:{digest_of(KEY)}\n")
    with serve(repository, cors_origins=ORIGIN, api_keys_file=keys, queue_size=1, max_inputs=1, max_batch=1) as live:
        yield live


def test_a_preflight_request_needs_no_key(shared: Live) -> None:
    headers = PREFLIGHT | {"access-control-request-headers": "authorization,content-type,x-api-key"}
    answer = shared.client.options(SCORE, headers=headers)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert "authorization" in answer.headers["access-control-allow-headers"]
    assert "access-control-allow-credentials" not in answer.headers


def test_a_page_can_read_responses_and_errors(shared: Live) -> None:
    key = {"origin": ORIGIN, "x-api-key": KEY}
    png = {"content-type": "image/png"}
    answers = [
        (200, shared.client.post(SCORE, content=picture(), headers=key | png)),
        (401, shared.client.post(SCORE, content=picture(), headers={"origin": ORIGIN} | png)),
        (404, shared.client.get("/nothing", headers=key)),
        (405, shared.client.get(SCORE, headers=key)),
        (422, shared.client.post(SCORE, content=b"x", headers=key | png)),
    ]
    for status, answer in answers:
        assert answer.status_code == status
        assert answer.headers["access-control-allow-origin"] == ORIGIN
        assert "X-Request-ID" in answer.headers["access-control-expose-headers"]


def test_a_page_can_read_that_the_service_is_overloaded(shared: Live) -> None:
    gate = EngineGate(shared)
    headers = {"content-type": "image/png", "x-api-key": KEY}
    threads = [post_in_background(shared, headers=headers)[0]]
    gate.until_batches(1)
    threads.append(post_in_background(shared, headers=headers)[0])
    until(lambda: value(shared.client, "ood_queue_depth", model="tiny") == 1)
    # The first rejection is remembered, and its repeats are rejected early.
    page = headers | {"origin": ORIGIN}
    answers = [shared.client.post(SCORE, content=picture(), headers=page) for _ in range(5)]
    gate.open()
    for thread in threads:
        thread.join()
    for answer in answers:
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (503, ORIGIN)


@pytest.mark.parametrize("origin", ["https://evil.example", "http://app.example.com", "null"])
def test_pages_of_other_origins_get_no_permission(shared: Live, origin: str) -> None:
    for answer in (
        shared.client.options(SCORE, headers=PREFLIGHT | {"origin": origin}),
        shared.client.get("/healthz", headers={"origin": origin}),
    ):
        assert "access-control-allow-origin" not in answer.headers


def test_by_default_no_page_gets_permission(live: Live) -> None:
    for answer in (live.client.options(SCORE, headers=PREFLIGHT), live.client.get("/healthz", headers=PREFLIGHT)):
        assert not [name for name in answer.headers if name.startswith("access-control-")]
