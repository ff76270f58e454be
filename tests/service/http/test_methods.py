"""HEAD and OPTIONS: the methods that every route has besides its own."""

import socket
from contextlib import closing

import pytest

from tests.service.conftest import Live
from tests.service.support.answers import problem

GET_PATHS = (
    *("/", "/docs", "/openapi.json", "/healthz", "/readyz", "/metrics", "/v1/models", "/v1/models/tiny"),
    *("/v1/models/tiny/versions/1", "/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/tiny"),
    *("/v2/models/tiny/ready", "/v2/models/tiny/versions/1", "/assets/docs.js", "/assets/swagger-ui.css"),
    *("/v1/models/none", "/v2/models/none", "/nothing"),
)


@pytest.mark.parametrize("path", GET_PATHS)
def test_head_has_the_status_and_headers_of_get_and_no_body(live: Live, path: str) -> None:
    get, head = live.client.get(path), live.client.head(path)
    assert head.status_code == get.status_code
    changing = {"x-request-id", "date", *(["content-length"] if path == "/metrics" else [])}
    assert {name: text for name, text in head.headers.items() if name not in changing} == {
        name: text for name, text in get.headers.items() if name not in changing
    }
    assert int(head.headers["content-length"]) > 0
    # The connection stays usable: nothing follows the headers.
    with closing(socket.create_connection(("127.0.0.1", live.port), timeout=60)) as connection:
        connection.sendall(f"HEAD {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        response = b"".join(iter(lambda: connection.recv(65_536), b""))
    assert response.endswith(b"\r\n\r\n")
    assert response.count(b"\r\n\r\n") == 1


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/healthz", "GET, HEAD, OPTIONS"),
        ("/v2/models/tiny", "GET, HEAD, OPTIONS"),
        ("/docs", "GET, HEAD, OPTIONS"),
        ("/v1/models/tiny/score", "OPTIONS, POST"),
        ("/v2/models/tiny/infer", "OPTIONS, POST"),
    ],
)
def test_options_and_refused_methods_name_the_allowed_ones(live: Live, path: str, allowed: str) -> None:
    answer = live.client.options(path)
    assert (answer.status_code, answer.headers["allow"], answer.content) == (204, allowed, b"")
    answer = live.client.request("DELETE", path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)


def test_head_of_a_route_for_post_is_405(live: Live) -> None:
    answer = live.client.head("/v1/models/tiny/score")
    assert (answer.status_code, answer.headers["allow"]) == (405, "OPTIONS, POST")
    problem(live.client.options("/nothing"), 404, "not-found")


def test_the_document_has_no_operations_of_these_methods(live: Live) -> None:
    operations = live.client.get("/openapi.json").json()["paths"].values()
    assert {method for path in operations for method in path} == {"get", "post"}
