"""The shipped gateway: a real nginx in front of three service processes."""

import json
import re
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from tritonclient.http import InferenceServerClient, InferInput

from service import Settings, errors
from service.auth.api_keys import digest_of
from service.http.request_id import ACCEPTED_ID
from tests.service.support.answers import problem
from tests.service.support.exposition import value
from tests.service.support.pictures import picture
from tests.support.tiny_bundle import make_tiny_bundle
from tests.support.waiting import until
from tests.system.support.gateway import DEPLOY, TEMPLATES, TLS_TEMPLATES, Gateway, env_file
from tests.system.support.programs import free_port, require_program
from tests.system.support.scoring_clients import PNG, SCORE_PATH, ScoringClients, score
from tests.system.support.service_process import TIMEOUT_SECONDS, ServiceProcess

MAX_BODY_BYTES = 100_000
CLIENTS = 3
# Clients at full speed would leave no processor to replicas that are starting.
PAUSE_SECONDS = 0.05


class Replicas:
    """Three services on fixed ports."""

    def __init__(self, models: Path) -> None:
        self._models = models
        self.ports = [free_port() for _ in range(3)]
        self.services = [self._start(port) for port in self.ports]

    def _start(self, port: int) -> ServiceProcess:
        flags = ("--max-body-bytes", str(MAX_BODY_BYTES), "--log-format", "json", "--listen-when-ready")
        return ServiceProcess(self._models, "--port", str(port), *flags)

    def end(self, index: int, sig: signal.Signals) -> int:
        return self.services[index].end(sig)

    def restart(self, index: int) -> None:
        self.services[index].close()
        self.services[index] = self._start(self.ports[index])

    def close(self) -> None:
        for service in self.services:
            service.close()


StartGateway = Callable[..., Gateway]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    make_tiny_bundle(root)
    return root


@pytest.fixture(scope="module")
def replicas(models: Path) -> Iterator[Replicas]:
    for name in ("nginx", "envsubst", "openssl"):
        require_program(name)
    replicas = Replicas(models)
    yield replicas
    replicas.close()


@pytest.fixture(scope="module")
def start_gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartGateway]:
    """`start_gateway(ports, GATEWAY_RATE="1")` starts a gateway, which ends with the module."""
    for name in ("nginx", "envsubst", "openssl"):
        require_program(name)
    gateways: list[Gateway] = []

    def start(ports: list[int], **options: Any) -> Gateway:
        gateways.append(Gateway(tmp_path_factory.mktemp("gateway"), ports, **options))
        return gateways[-1]

    yield start
    for gateway in gateways:
        gateway.close()


@pytest.fixture(scope="module")
def gateway(replicas: Replicas, start_gateway: StartGateway) -> Gateway:
    return start_gateway(replicas.ports, OOD_MAX_BODY_BYTES=str(MAX_BODY_BYTES))


def scored_inputs(service: ServiceProcess) -> float:
    return value(service.client, "ood_inputs_total", model="tiny", version="1")


def refused_bodies(service: ServiceProcess) -> float:
    return value(service.client, "ood_http_requests_total", status="413")


def test_requests_are_distributed_over_the_replicas_and_keep_their_ids(replicas: Replicas, gateway: Gateway) -> None:
    before = [scored_inputs(service) for service in replicas.services]
    ids = {f"test-{number}" for number in range(12)}
    for request_id in ids:
        response = gateway.client.post(SCORE_PATH, content=picture(), headers=PNG | {"x-request-id": request_id})
        assert response.status_code == 200
        assert response.headers.get_list("x-request-id") == [request_id]
    after = [scored_inputs(service) for service in replicas.services]
    assert [new - old for new, old in zip(after, before, strict=True)] == [4, 4, 4]
    # Both logs are written after the response.
    until(lambda: ids <= {entry["request_id"] for entry in gateway.log_entries})
    until(
        lambda: (
            ids <= {entry["request_id"] for replica in replicas.services for entry in replica.log_entries("request")}
        )
    )
    used = {entry["replica"] for entry in gateway.log_entries if entry["request_id"] in ids}
    assert used == {f"127.0.0.1:{port}" for port in replicas.ports}


@pytest.mark.parametrize("request_id", ["two words", "x" * 129, 'a"b', ""])
def test_the_gateway_replaces_an_id_that_the_service_would_reject(gateway: Gateway, request_id: str) -> None:
    response = gateway.client.get("/v1/models", headers={"x-request-id": request_id})
    assert re.fullmatch("[0-9a-f]{32}", response.headers["x-request-id"])


def test_the_gateway_and_the_service_accept_the_same_ids() -> None:
    template = (TEMPLATES / "default.conf.template").read_text()
    assert f'"~^{ACCEPTED_ID.pattern}\\z"' in template


def test_errors_of_the_gateway_have_the_titles_of_the_service() -> None:
    template = (TEMPLATES / "default.conf.template").read_text()

    def by_status(variable: str) -> dict[str, str]:
        (block,) = re.findall(rf"map \$status \${variable} {{(.*?)}}", template, re.DOTALL)
        return dict(re.findall(r'(\d{3}) +"?(.+?)"?;', block))

    problems = [item for item in vars(errors).values() if isinstance(item, type) and issubclass(item, errors.Problem)]
    titles = {problem.type: problem.title for problem in problems}
    titles_by_status = by_status("problem_title")
    shared = {
        status: titles[error_type] for status, error_type in by_status("problem_type").items() if error_type in titles
    }
    assert len(shared) >= 6
    assert shared.items() <= titles_by_status.items()


def test_the_gateway_and_the_service_read_their_limits_from_one_file() -> None:
    limits = env_file(DEPLOY / "limits.env")
    defaults = Settings()
    assert limits == {f"OOD_{name.upper()}": str(getattr(defaults, name)) for name in ("max_body_bytes", "timeout_ms")}
    templates = "".join(path.read_text() for folder in (TEMPLATES, TLS_TEMPLATES) for path in folder.iterdir())
    assert set(re.findall(r"\$\{(OOD_\w+)", templates)) == set(limits)
    assert not set(env_file(DEPLOY / "gateway" / "gateway.env")) & set(limits)


@pytest.mark.parametrize("chunked", [False, True])
def test_the_gateway_refuses_an_oversize_body_with_the_services_error(
    replicas: Replicas, gateway: Gateway, chunked: bool
) -> None:
    body = b"x" * (MAX_BODY_BYTES + 1)
    content = iter([body]) if chunked else body
    before = [refused_bodies(service) for service in replicas.services]
    response = gateway.client.post(SCORE_PATH, content=content, headers=PNG)
    of_gateway = problem(response, 413, "body-too-large")
    assert [refused_bodies(service) for service in replicas.services] == before
    response = replicas.services[0].client.post(SCORE_PATH, content=body, headers=PNG)
    of_service = problem(response, 413, "body-too-large")
    assert {**of_gateway, "request_id": ""} == {**of_service, "request_id": ""}


def test_a_body_of_the_largest_size_reaches_the_service(gateway: Gateway) -> None:
    response = gateway.client.post(SCORE_PATH, content=b"x" * MAX_BODY_BYTES, headers=PNG)
    problem(response, 422, "undecodable-image")


@pytest.mark.parametrize(
    "path", ["/", "/docs", "/openapi.json", "/readyz", "/healthz", "/v1/models/tiny", "/v2/models/tiny"]
)
def test_paths_for_clients_are_open(gateway: Gateway, path: str) -> None:
    assert gateway.client.get(path).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/metrics", "/metrics?x", "//metrics", "/v1/../metrics", "/v1/%2e%2e/metrics", "/v1/..%2fmetrics", "/%6detrics",
        "/v2/repository/index", "/v2//repository/models/tiny/load", "/v2/x/../repository/index", "/admin", "/v1",
        "/v2/repository/models/tiny/unload", "/v2/%72epository/index", "/v1/models/tiny/drift/reset",
        "/v1/models/tiny/drift%2freset", "/v1/models/tiny/%64rift/reset", "/v1/models/tiny//drift//reset",
        "/v1/models/tiny/drift/x/../reset", "/v1/models/tiny/drift/reset%0a", "/v1/models/tiny/x/../drift/reset?x",
    ],
)  # fmt: skip
def test_metrics_and_administration_are_not_reachable_in_any_spelling(gateway: Gateway, path: str) -> None:
    with closing(HTTPConnection("127.0.0.1", gateway.port)) as connection:
        connection.request("GET", path)
        response = connection.getresponse()
        content = json.loads(response.read())
    assert response.status == 404
    if "error" in content:
        # The form of the Open Inference Protocol.
        assert "v2/" in path
        assert content["error"].startswith("not-found: This path is not open to clients")
    else:
        assert response.headers["content-type"] == "application/problem+json"
        assert content["type"] == "not-found"
        assert content["detail"].startswith("This path is not open to clients")


@pytest.mark.parametrize(("path", "kind"), [("/v2/repository/index", "error"), ("/v1/none?query=secret", "type")])
def test_an_error_has_the_form_of_its_path_and_is_logged_under_it(gateway: Gateway, path: str, kind: str) -> None:
    response = gateway.client.get(path, headers={"x-request-id": f"logged-{kind}"})
    assert response.status_code == 404
    assert kind in response.json()

    def entries() -> list[dict[str, Any]]:
        return [entry for entry in gateway.log_entries if entry["request_id"] == f"logged-{kind}"]

    until(lambda: bool(entries()))
    assert [(entry["path"], entry["status"]) for entry in entries()] == [(path.partition("?")[0], 404)]


def test_a_client_with_too_many_requests_in_progress_is_refused(
    replicas: Replicas, start_gateway: StartGateway
) -> None:
    gateway = start_gateway(replicas.ports, GATEWAY_CONNECTIONS="3")
    with ExitStack() as stack:
        for _ in range(3):
            unfinished = stack.enter_context(socket.create_connection(("127.0.0.1", gateway.port), timeout=60))
            unfinished.sendall(f"POST {SCORE_PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\nx".encode())
        until(lambda: gateway.client.get("/v1/models").status_code == 429)
        response = gateway.client.get("/v1/models")
        problem(response, 429, "too-many-requests")
        assert response.headers["retry-after"] == "1"
    until(lambda: gateway.client.get("/v1/models").status_code == 200)


@pytest.mark.parametrize("framing", ["Content-Length: 1000000", "Transfer-Encoding: chunked"])
def test_large_bodies_in_progress_are_limited_and_small_requests_are_served(
    replicas: Replicas, start_gateway: StartGateway, framing: str
) -> None:
    gateway = start_gateway(replicas.ports, GATEWAY_UPLOADS="2")
    with ExitStack() as stack:

        def upload() -> socket.socket:
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", gateway.port), timeout=60))
            connection.sendall(f"POST {SCORE_PATH} HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n".encode())
            return connection

        def is_refused() -> bool:
            connection = upload()
            connection.settimeout(2)
            try:
                return connection.recv(64).startswith(b"HTTP/1.1 429 ")
            except TimeoutError:
                return False

        first, second = upload(), upload()
        # The two are counted once their headers are read.
        until(is_refused)
        assert score(gateway.client).status_code == 200
        first.close()
        second.close()


@pytest.mark.parametrize("path", ["/v1/models", "/v2/models/tiny", SCORE_PATH])
def test_with_keys_and_no_replica_clients_are_told_to_try_again(start_gateway: StartGateway, path: str) -> None:
    gateway = start_gateway([free_port()], keys=True)
    response = gateway.client.get(path, headers={"x-api-key": "any"})
    assert response.status_code == 503
    assert response.headers["retry-after"] == "1"
    if path.startswith("/v2"):
        assert response.json()["error"].startswith("unavailable: ")
    else:
        problem(response, 503, "unavailable")


def test_clients_of_one_network_share_their_limits_and_others_do_not(
    replicas: Replicas, start_gateway: StartGateway
) -> None:
    # The test sets the addresses of its clients.
    directives = "set_real_ip_from 127.0.0.1; real_ip_header X-Client;"
    rate = {"GATEWAY_RATE": "1", "GATEWAY_BURST": "1"}
    gateway = start_gateway(replicas.ports, directives=directives, **rate)

    def statuses(*addresses: str) -> list[int]:
        return [gateway.client.get("/v1/models", headers={"x-client": address}).status_code for address in addresses]

    # A network may spend its burst and, on a slow machine, a request for each second since.
    same = [f"2001:db8::{number:x}" for number in range(1, 200)]
    assert 429 in statuses(*same)
    assert 429 in statuses(*(f"2001:db8:0:1:{number:x}::7" for number in range(1, 200)))
    # Each of these is another network: one request each is within every limit.
    others = [f"2001:db8:0:{number:x}::1" for number in range(10, 60)]
    assert set(statuses(*others)) == {200}
    assert set(statuses(*(f"10.0.0.{number}" for number in range(1, 60)))) == {200}
    assert set(statuses(*(f"::ffff:10.1.0.{number}" for number in range(1, 60)))) == {200}


def test_the_open_inference_protocol_passes_in_binary_in_both_directions(gateway: Gateway) -> None:
    with InferenceServerClient(f"127.0.0.1:{gateway.port}") as client:
        images = InferInput("images", [2], "BYTES").set_data_from_numpy(np.array([picture()] * 2, dtype=np.object_))
        result = client.infer("tiny", [images])
        assert client.is_server_ready()
    assert result.as_numpy("label").tolist() == [b"red", b"red"]


def test_an_oversize_body_of_the_open_inference_protocol_gets_an_error_of_its_form(
    replicas: Replicas, gateway: Gateway
) -> None:
    body = b"x" * (MAX_BODY_BYTES + 1)
    clients = (gateway.client, replicas.services[0].client)
    of_gateway, of_service = (client.post("/v2/models/tiny/infer", content=body) for client in clients)
    assert of_gateway.status_code == of_service.status_code == 413
    assert of_gateway.json() == of_service.json()
    assert of_gateway.headers["content-type"] == of_service.headers["content-type"] == "application/json"
    assert re.fullmatch("[0-9a-f]{32}", of_gateway.headers["x-request-id"])


def test_a_client_over_its_rate_is_told_when_to_retry(replicas: Replicas, start_gateway: StartGateway) -> None:
    gateway = start_gateway(replicas.ports, GATEWAY_RATE="1", GATEWAY_BURST="2")
    start = time.monotonic()
    responses = [gateway.client.get("/v1/models") for _ in range(20)]
    seconds = time.monotonic() - start
    accepted = [response for response in responses if response.status_code == 200]
    # The burst and one request at once, then one request per second: how many depends on the speed of the machine.
    assert 3 <= len(accepted) <= 3 + seconds
    rejected = [response for response in responses if response.status_code != 200]
    for response in rejected:
        problem(response, 429, "too-many-requests")
        assert response.headers["retry-after"] == "1"
    assert rejected
    assert gateway.client.get("/healthz").status_code == 200


@pytest.mark.parametrize(
    ("request_text", "status", "kind"),
    [
        ("GET /v1/models HTTP/1.1\r\nHost: x\r\nX-Long: " + "x" * 9000 + "\r\n\r\n", 431, "headers-too-large"),
        ("GET /v1/" + "x" * 9000 + " HTTP/1.1\r\nHost: x\r\n\r\n", 414, "address-too-long"),
        ("GET /v1/models HTTP/1.1\r\n\r\n", 400, "malformed-request"),
        ("TRACE /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 405, "method-not-allowed"),
        ("GET /v1/models HTTP/3.0\r\nHost: x\r\n\r\n", 505, "unsupported-http-version"),
        (
            "POST /v1/models HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n",
            501,
            "unsupported-transfer-encoding",
        ),
        ("hello\r\n\r\n", 400, "malformed-request"),
    ],
)
def test_an_error_of_nginx_is_a_problem_too(gateway: Gateway, request_text: str, status: int, kind: str) -> None:
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=TIMEOUT_SECONDS) as connection:
        connection.sendall(request_text.encode())
        response = b"".join(iter(lambda: connection.recv(65536), b"")).decode()
    head, _, body = response.partition("\r\n\r\n")
    assert f" {status} " in head.splitlines()[0]
    assert "Content-Type: application/problem+json" in head
    content = json.loads(body)
    assert (content["type"], content["status"]) == (kind, status)
    assert f"X-Request-ID: {content['request_id']}" in head


def test_clients_that_stall_are_cut_off_while_others_are_served(
    replicas: Replicas, start_gateway: StartGateway
) -> None:
    gateway = start_gateway(replicas.ports, GATEWAY_HEADER_SECONDS="2", GATEWAY_BODY_SECONDS="2")
    beginnings = {
        "nothing": "",
        "request line": "POST /v1/mod",
        "headers": f"POST {SCORE_PATH} HTTP/1.1\r\nHost: x\r\nX-",
        "body": f"POST {SCORE_PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\nsome",
    }
    with ExitStack() as stack:
        start = time.monotonic()
        stalled = [
            (name, stack.enter_context(socket.create_connection(("127.0.0.1", gateway.port), timeout=50)))
            for name in beginnings
            for _ in range(20)
        ]
        for name, connection in stalled:
            connection.sendall(beginnings[name].encode())
        assert score(gateway.client).status_code == 200
        # The socket's timeout is below nginx's own default of 60 s.
        assert {(name, connection.recv(65536)) for name, connection in stalled} == {(name, b"") for name in beginnings}
        assert time.monotonic() - start > 1.9
    # None of these requests reached a replica.
    assert {entry["replica"] for entry in gateway.log_entries if entry["status"] != 200} <= {""}


def test_a_slow_body_without_long_pauses_is_accepted(replicas: Replicas, start_gateway: StartGateway) -> None:
    gateway = start_gateway(replicas.ports, GATEWAY_BODY_SECONDS="2")

    def slow_body() -> Iterator[bytes]:
        for byte in picture()[:5]:
            yield bytes([byte])
            # The pauses together are longer than the limit of a pause.
            time.sleep(0.5)
        yield picture()[5:]

    assert gateway.client.post(SCORE_PATH, content=slow_body(), headers=PNG).status_code == 200


def test_a_missing_replica_is_502_and_a_silent_one_504(start_gateway: StartGateway) -> None:
    missing = start_gateway([free_port()])
    response = score(missing.client)
    problem(response, 502, "no-replica")
    assert response.headers["retry-after"] == "1"
    with socket.create_server(("127.0.0.1", 0)) as replica:
        silent = start_gateway([replica.getsockname()[1]], OOD_TIMEOUT_MS="100")
        start = time.monotonic()
        problem(score(silent.client), 504, "deadline-passed")
        # The deadline and 5 s; nginx's own default is 60 s.
        assert 5 < time.monotonic() - start < 55


def test_the_services_errors_pass_unchanged(gateway: Gateway) -> None:
    problem(gateway.client.post("/v1/models/none/score", content=picture(), headers=PNG), 404, "unknown-model")
    problem(gateway.client.post(SCORE_PATH, content=b"no image", headers=PNG), 422, "undecodable-image")


def test_with_its_template_mounted_the_gateway_speaks_tls(
    replicas: Replicas, start_gateway: StartGateway, tmp_path: Path
) -> None:
    certificate, key, port = tmp_path / "tls.crt", tmp_path / "tls.key", free_port()
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost", "-addext",
         "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)],
        capture_output=True, timeout=TIMEOUT_SECONDS, check=True,
    )  # fmt: skip
    start_gateway(
        replicas.ports,
        tls=True,
        GATEWAY_TLS_PORT=f"127.0.0.1:{port}",
        GATEWAY_TLS_CERTIFICATE=str(certificate),
        GATEWAY_TLS_KEY=str(key),
    )
    trusted = ssl.create_default_context(cafile=str(certificate))
    with httpx.Client(base_url=f"https://localhost:{port}", verify=trusted, timeout=TIMEOUT_SECONDS) as client:
        assert score(client).status_code == 200


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGKILL])
def test_a_replica_that_ends_under_load_costs_no_client_an_answer(
    replicas: Replicas, gateway: Gateway, sig: signal.Signals
) -> None:
    try:
        with ScoringClients(str(gateway.client.base_url), CLIENTS, pause_seconds=PAUSE_SECONDS) as clients:
            assert replicas.end(0, sig) == (0 if sig is signal.SIGTERM else -sig)
            clients.until_more(50)
    finally:
        replicas.restart(0)
    # The gateway repeats the requests of a killed replica at another one, except those whose response had begun.
    max_failures = CLIENTS if sig is signal.SIGKILL else 0
    assert clients.outcomes.total() - clients.outcomes[200] <= max_failures, clients.outcomes


# Three processes end and start again, which takes minutes on a busy machine.
@pytest.mark.timeout(600)
def test_a_rolling_restart_under_load_costs_no_client_an_answer(replicas: Replicas, gateway: Gateway) -> None:
    with ScoringClients(str(gateway.client.base_url), CLIENTS, pause_seconds=PAUSE_SECONDS) as clients:
        for index in range(3):
            assert replicas.end(index, signal.SIGTERM) == 0
            replicas.restart(index)
            # The gateway tries the replica again after `fail_timeout`.
            until(lambda index=index: scored_inputs(replicas.services[index]) > 0)
        clients.until_more(50)
    assert set(clients.outcomes) == {200}


def test_with_keys_the_gateway_refuses_a_request_without_a_key_before_its_body(
    models: Path, start_gateway: StartGateway, tmp_path: Path
) -> None:
    key = "ood_a-key-of-alice"
    (tmp_path / "keys").write_text(f"alice sha256:{digest_of(key)}\n")
    service = ServiceProcess(models, "--port", str(port := free_port()), "--api-keys-file", str(tmp_path / "keys"))
    try:
        gateway = start_gateway([port], keys=True)
        valid = {"authorization": f"Bearer {key}"}
        assert gateway.client.post(SCORE_PATH, content=picture(), headers=PNG | valid).status_code == 200
        assert gateway.client.get("/v1/models", headers={"x-api-key": key}).status_code == 200
        for path in ("/readyz", "/docs", "/openapi.json", "/healthz"):
            assert gateway.client.get(path).status_code == 200
        for headers in ({}, {"x-api-key": "wrong"}):
            response = gateway.client.post(SCORE_PATH, content=picture(), headers=PNG | headers)
            problem(response, 401, "unauthorized")
            assert response.headers["www-authenticate"].startswith('Bearer realm="ood"')
        response = gateway.client.post("/v2/models/tiny/infer", content=b"{}")
        assert response.json()["error"].startswith("unauthorized: ")
        # The body is announced and never sent: the refusal does not wait for it.
        with closing(HTTPConnection("127.0.0.1", gateway.port, timeout=TIMEOUT_SECONDS)) as connection:
            connection.putrequest("POST", SCORE_PATH)
            connection.putheader("Content-Type", "image/png")
            connection.putheader("Content-Length", "50000")
            connection.endheaders()
            assert connection.getresponse().status == 401
    finally:
        service.close()
