"""`OOD_ALLOWED_HOSTS`: only requests to a name of the service are served."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.conftest import Live, Serve
from tests.service.support.answers import problem


@pytest.fixture(scope="module")
def named(repository: Path, serve: Serve) -> Iterator[Live]:
    with serve(repository, allowed_hosts="api.example.com, *.internal") as live:
        yield live


@pytest.mark.parametrize(
    "host",
    [
        "api.example.com",
        "API.example.com:8000",
        "api.example.com.",
        "a.b.internal:80",
        "localhost:8000",
        "127.0.0.1",
        "10.1.2.3:8000",
        "[::1]:8000",
        "[fd00::1]",
    ],
)
def test_names_of_the_service_and_addresses_are_served(named: Live, host: str) -> None:
    assert named.client.get("/v1/models", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "api.example.com.evil.example",
        "xapi.example.com",
        "internal",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "[::1",
        "a b",
        "1.2.3.4.5",
        "evil.example:80:80",
    ],
)
@pytest.mark.parametrize("path", ["/v1/models", "/healthz", "/"])
def test_other_names_are_421(named: Live, host: str, path: str) -> None:
    problem(named.client.get(path, headers={"host": host}), 421, "host-not-allowed")


def test_by_default_every_name_is_served(live: Live) -> None:
    assert live.client.get("/v1/models", headers={"host": "evil.example"}).status_code == 200
