"""API keys over HTTP: the paths that need one, and the log and metrics of requests with and without a valid key."""

import html
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

import pytest
import structlog
from structlog.testing import capture_logs

from service.auth.api_keys import digest_of
from tests.service.conftest import Live, Serve
from tests.service.support.answers import problem
from tests.service.support.exposition import value
from tests.service.support.pictures import picture
from tests.support.waiting import until

KEY = "ood_a-key-for-tests"


@pytest.fixture(scope="module")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("secrets") / "keys"
    file.write_text(f"alice sha256:{digest_of(KEY)}\n")
    return file


@pytest.fixture(scope="module")
def closed(repository: Path, serve: Serve, key_file: Path) -> Iterator[Live]:
    """A service that needs API keys and has no admin calls."""
    with serve(repository, api_keys_file=key_file) as live:
        yield live


@pytest.mark.parametrize(
    "header", [{"Authorization": f"Bearer {KEY}"}, {"authorization": f"bearer  {KEY}"}, {"X-API-Key": KEY}]
)
def test_a_request_with_a_valid_key_is_served(closed: Live, header: dict[str, str]) -> None:
    assert closed.score(picture(), headers=header | {"content-type": "image/png"}).status_code == 200


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/tiny", "/", "/no-such-path"])
def test_everything_but_the_open_paths_needs_a_key(closed: Live, path: str) -> None:
    answer = closed.client.get(path)
    problem(answer, 401, "missing-key")
    assert answer.headers["www-authenticate"] == 'Bearer realm="ood"'
    assert closed.client.get(path, headers={"X-API-Key": KEY}).status_code in (200, 404)


@pytest.mark.parametrize("path", ["/v2", "/v2/health/live", "/v2/models/tiny/ready", "/v2/no-such-path"])
def test_the_open_inference_protocol_needs_a_key_and_says_so_in_its_own_form(closed: Live, path: str) -> None:
    answer = closed.client.get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (401, "application/json")
    assert answer.json()["error"].startswith("missing-key: This needs an API key.")
    assert answer.headers["www-authenticate"] == 'Bearer realm="ood"'
    assert closed.client.get(path, headers={"X-API-Key": KEY}).status_code in (200, 404)


def test_without_admin_calls_their_paths_need_an_api_key(closed: Live) -> None:
    response = closed.client.post("/v2/repository/index")
    assert (response.status_code, response.json()["error"][:12]) == (401, "missing-key:")
    assert closed.client.post("/v2/repository/index", headers={"X-API-Key": KEY}).status_code == 404


def test_admin_calls_need_an_admin_key_instead_of_an_api_key_and_other_paths_an_api_key(
    repository: Path, serve: Serve, key_file: Path, tmp_path: Path
) -> None:
    admin_file, admin_key = tmp_path / "admin", "ood_an-admin-key-for-tests"
    admin_file.write_text(f"root sha256:{digest_of(admin_key)}\n")
    with serve(repository, api_keys_file=key_file, admin_keys_file=admin_file) as live:

        def status(method: str, path: str, key: str | None) -> int:
            return live.client.request(method, path, headers={} if key is None else {"X-API-Key": key}).status_code

        for path, valid, wrong in (
            ("/v2/repository/index", admin_key, KEY),
            ("/v1/models/tiny/drift/reset", admin_key, KEY),
        ):
            assert [status("POST", path, key) for key in (valid, wrong, None)] == [200, 401, 401]
        assert [status("GET", "/v1/models", key) for key in (KEY, admin_key, None)] == [200, 401, 401]


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/docs", "/assets/docs.js", "/openapi.json"])
def test_probes_metrics_and_documentation_stay_open(closed: Live, path: str) -> None:
    assert closed.client.get(path).status_code == 200


@pytest.mark.parametrize("path", ["//v1/models", "/v1/../metrics", "/metrics/", "/docs/../v1/models", "/healthz/x"])
def test_no_spelling_of_a_path_gets_around_the_key(closed: Live, path: str) -> None:
    # Not sent by httpx, which would normalize the path.
    connection = HTTPConnection("127.0.0.1", closed.port)
    with closing(connection):
        connection.request("GET", path)
        assert connection.getresponse().status == 401


@pytest.mark.parametrize(
    ("header", "kind"),
    [
        ({"X-API-Key": "ood_wrong"}, "wrong-key"),
        ({"Authorization": f"Bearer {KEY}x"}, "wrong-key"),
        ({"Authorization": f"Bearer {digest_of(KEY)}"}, "wrong-key"),
        ({"Authorization": "Bearer"}, "missing-key"),
        ({"Authorization": f"Basic {KEY}"}, "missing-key"),
    ],
)
def test_a_request_with_a_wrong_key_is_401_whatever_its_body(closed: Live, header: dict[str, str], kind: str) -> None:
    answer = closed.score(b"x" * 1_000_000, headers=header)
    problem(answer, 401, kind)
    assert answer.headers["www-authenticate"].startswith('Bearer realm="ood"')
    assert ("invalid_token" in answer.headers["www-authenticate"]) is (kind == "wrong-key")
    assert KEY not in answer.text


def test_unauthorized_requests_are_counted_under_their_route(closed: Live) -> None:
    route = {"route": "/v1/models/{model}/versions/{version}/score", "method": "POST", "status": "401"}
    closed.client.post("/v1/models/tiny/versions/1/score", content=b"x")
    assert value(closed.client, "ood_http_requests_total", **route) == 1


def test_the_openapi_document_names_the_operations_that_need_a_key_only_if_keys_are_needed(
    closed: Live, live: Live
) -> None:
    document = closed.client.get("/openapi.json").json()
    assert set(document["components"]["securitySchemes"]) == {"bearer", "header"}
    needing = {
        path
        for path, operations in document["paths"].items()
        for operation in operations.values()
        if "security" in operation
    }
    assert needing == {path for path in document["paths"] if path.startswith(("/v1", "/v2"))}
    assert "401" in document["paths"]["/v1/models/{model}/score"]["post"]["responses"]
    assert "securitySchemes" not in live.client.get("/openapi.json").json()["components"]


def test_the_command_of_the_console_sends_a_key(closed: Live) -> None:
    page = html.unescape(closed.client.get("/", headers={"X-API-Key": KEY}).text)
    command = page.split("<pre>")[1].split("</pre>")[0]
    done = subprocess.run(
        ["bash", "-c", command],
        env={"OOD_KEY": KEY, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        timeout=30,
        check=True,
    )
    assert json.loads(done.stdout)["errors"] == 0


def test_the_log_names_the_client_and_never_the_key(repository: Path, key_file: Path, tmp_path: Path) -> None:
    script = (
        "import httpx, sys; from pathlib import Path; from tests.service.conftest import running_service;"
        "from service import Settings; from service.telemetry.logs import configure_logs;"
        "configure_logs(Settings(log_format='json'));\n"
        "with running_service(Path(sys.argv[1]), api_keys_file=Path(sys.argv[2])) as live:\n"
        "    live.client.get('/v1/models', headers={'X-API-Key': sys.argv[3]})\n"
        "    live.client.get('/v1/models', headers={'X-API-Key': 'ood_wrong'})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(repository), str(key_file), KEY],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    lines = [json.loads(text) for text in done.stderr.splitlines() if text.startswith("{")]
    requests = [line for line in lines if line["event"] == "request"]
    assert [(line.get("client"), line["status"]) for line in requests] == [("alice", 200), (None, 401)]
    assert KEY not in done.stderr
    assert "ood_wrong" not in done.stderr


def test_a_pipelined_request_without_a_key_is_not_logged_under_the_name_of_the_previous_one(closed: Live) -> None:
    requests = (
        f"GET /v1/models HTTP/1.1\r\nHost: x\r\nX-API-Key: {KEY}\r\n\r\n"
        "GET /v1/models/tiny HTTP/1.1\r\nHost: x\r\nX-Request-ID: second\r\nConnection: close\r\n\r\n"
    )
    with capture_logs(processors=[structlog.contextvars.merge_contextvars]) as lines:
        with socket.create_connection(("127.0.0.1", closed.port), timeout=20) as connection:
            connection.sendall(requests.encode())
            while connection.recv(1 << 16):
                pass
        until(lambda: any(line.get("request_id") == "second" for line in lines))
    logged = [line for line in lines if line["event"] == "request"]
    assert [(line["status"], line.get("client")) for line in logged] == [(200, "alice"), (401, None)]
