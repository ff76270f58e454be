"""The shipped gateway: a real nginx in front of three real service processes."""

import json
import re
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path

import httpx
import numpy as np
import pytest
from tritonclient.http import InferenceServerClient, InferInput

from service import Settings
from service.auth.api_keys import digest_of
from service.http.request_id import ACCEPTED_ID
from tests.service.support.answers import problem
from tests.service.support.exposition import value
from tests.service.support.pictures import picture
from tests.support.tiny_bundle import make_tiny_bundle
from tests.system.conftest import Service
from tests.system.support.gateway import DEPLOY, TEMPLATES, TLS_TEMPLATES, Gateway, env_file
from tests.system.support.programs import free_port, require_program

PNG = {"content-type": "image/png"}
MAX_BODY = 100_000
SCORE = "/v1/models/tiny/score"


class Replicas:
    """Three services at ports that they keep, and come back to."""

    def __init__(self, models: Path) -> None:
        self._models = models
        self.ports = [free_port() for _ in range(3)]
        self.services = [self._start(port) for port in self.ports]

    def _start(self, port: int) -> Service:
        flags = ("--port", str(port), "--max-body-bytes", str(MAX_BODY), "--log-format", "json", "--listen-when-ready")
        return Service(self._models, *flags)

    def end(self, index: int, sig: signal.Signals) -> int:
        return self.services[index].end(sig)

    def begin_again(self, index: int) -> None:
        self.services[index].close()
        self.services[index] = self._start(self.ports[index])

    def close(self) -> None:
        for service in self.services:
            service.close()


Front = Callable[..., Gateway]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    make_tiny_bundle(root)
    return root


@pytest.fixture(scope="module")
def replicas(models: Path) -> Iterator[Replicas]:
    for name in ("nginx", "envsubst", "openssl"):
        require_program(name)
    running = Replicas(models)
    yield running
    running.close()


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    """`front(ports, GATEWAY_RATE="1")`; the gateways end with the module."""
    for name in ("nginx", "envsubst", "openssl"):
        require_program(name)
    gateways: list[Gateway] = []

    def begin(ports: list[int], *, tls: bool = False, keys: bool = False, **variables: str) -> Gateway:
        folder = tmp_path_factory.mktemp("gateway")
        gateways.append(Gateway(folder, ports, tls=tls, keys=keys, **variables))
        return gateways[-1]

    yield begin
    for gateway in gateways:
        gateway.close()


@pytest.fixture(scope="module")
def gateway(replicas: Replicas, front: Front) -> Gateway:
    return front(replicas.ports, OOD_MAX_BODY_BYTES=str(MAX_BODY))


def test_requests_go_round_the_replicas_and_their_ids_go_with_them(replicas: Replicas, gateway: Gateway) -> None:
    for number in range(12):
        sent = f"test-{number}"
        answer = gateway.client.post(SCORE, content=picture(), headers=PNG | {"x-request-id": sent})
        assert answer.status_code == 200
        assert answer.headers.get_list("x-request-id") == [sent]
    scored = [value(service.client, "ood_inputs_total", model="tiny", version="1") for service in replicas.services]
    assert scored == [4, 4, 4]
    logged = {json.loads(line).get("request_id") for service in replicas.services for line in service.log}
    assert {f"test-{number}" for number in range(12)} <= logged
    seen = [json.loads(line) for line in gateway.log.splitlines()]
    assert {f"test-{number}" for number in range(12)} <= {each["request_id"] for each in seen}
    assert {each["replica"] for each in seen} >= {f"127.0.0.1:{port}" for port in replicas.ports}


@pytest.mark.parametrize("sent", ["two words", "x" * 129, 'a"b', ""])
def test_an_id_that_the_service_would_not_keep_is_replaced_at_the_edge(gateway: Gateway, sent: str) -> None:
    answer = gateway.client.get("/v1/models", headers={"x-request-id": sent})
    assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])


def test_the_edge_and_the_service_keep_the_same_ids() -> None:
    template = (TEMPLATES / "default.conf.template").read_text()
    assert f'"~^{ACCEPTED_ID.pattern}\\z"' in template


def test_the_gateway_and_the_service_have_one_source_of_limits() -> None:
    limits = env_file(DEPLOY / "limits.env")
    defaults = Settings()
    assert limits == {f"OOD_{name.upper()}": str(getattr(defaults, name)) for name in ("max_body_bytes", "timeout_ms")}
    templates = "".join(path.read_text() for folder in (TEMPLATES, TLS_TEMPLATES) for path in folder.iterdir())
    assert set(re.findall(r"\$\{(OOD_\w+)", templates)) == set(limits)
    assert not set(env_file(DEPLOY / "gateway" / "gateway.env")) & set(limits)


@pytest.mark.parametrize("chunked", [False, True])
def test_an_oversize_body_gets_the_services_own_error_at_the_gateway(
    replicas: Replicas, gateway: Gateway, chunked: bool
) -> None:
    body = b"x" * (MAX_BODY + 1)
    content = iter([body]) if chunked else body
    before = [value(each.client, "ood_http_requests_total", status="413") or 0 for each in replicas.services]
    at_gateway = problem(gateway.client.post(SCORE, content=content, headers=PNG), 413, "body-too-large")
    after = [value(each.client, "ood_http_requests_total", status="413") or 0 for each in replicas.services]
    assert before == after
    of_service = problem(replicas.services[0].client.post(SCORE, content=body, headers=PNG), 413, "body-too-large")
    assert {**at_gateway, "request_id": ""} == {**of_service, "request_id": ""}


def test_a_body_of_the_largest_size_reaches_the_service(gateway: Gateway) -> None:
    problem(gateway.client.post(SCORE, content=b"x" * MAX_BODY, headers=PNG), 422, "undecodable-image")


@pytest.mark.parametrize(
    "path", ["/", "/docs", "/openapi.json", "/readyz", "/healthz", "/v1/models/tiny", "/v2/models/tiny"]
)
def test_what_is_for_clients_is_open(gateway: Gateway, path: str) -> None:
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
        answer = connection.getresponse()
        content = json.loads(answer.read())
    assert (answer.status, answer.headers["content-type"]) == (404, "application/problem+json")
    assert content["type"] == "not-found"
    assert content["detail"].startswith("This path is not open to clients")


def test_the_open_inference_protocol_passes_both_ways_in_binary(gateway: Gateway) -> None:
    with InferenceServerClient(f"127.0.0.1:{gateway.port}") as client:
        images = InferInput("images", [2], "BYTES").set_data_from_numpy(np.array([picture()] * 2, dtype=np.object_))
        answer = client.infer("tiny", [images])
        assert client.is_server_ready()
    assert answer.as_numpy("label").tolist() == [b"red", b"red"]


def test_an_oversize_body_of_the_open_inference_protocol_gets_its_own_form(
    replicas: Replicas, gateway: Gateway
) -> None:
    body = b"x" * (MAX_BODY + 1)
    answers = [at.post("/v2/models/tiny/infer", content=body) for at in (gateway.client, replicas.services[0].client)]
    assert [answer.status_code for answer in answers] == [413, 413]
    assert answers[0].json() == answers[1].json()
    assert answers[0].headers["content-type"] == answers[1].headers["content-type"] == "application/json"
    assert re.fullmatch("[0-9a-f]{32}", answers[0].headers["x-request-id"])


def test_a_client_over_its_rate_is_told_when_to_come_back(replicas: Replicas, front: Front) -> None:
    slow = front(replicas.ports, GATEWAY_RATE="1", GATEWAY_BURST="2")
    answers = [slow.client.get("/v1/models") for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    problem(answers[-1], 429, "too-many-requests")
    assert answers[-1].headers["retry-after"] == "1"
    assert slow.client.get("/healthz").status_code == 200


@pytest.mark.parametrize(
    ("request_text", "status", "kind"),
    [
        ("GET /v1/models HTTP/1.1\r\nHost: x\r\nX-Long: " + "x" * 9000 + "\r\n\r\n", 431, "headers-too-large"),
        ("GET /v1/" + "x" * 9000 + " HTTP/1.1\r\nHost: x\r\n\r\n", 414, "address-too-long"),
        ("GET /v1/models HTTP/1.1\r\n\r\n", 400, "malformed-request"),
        ("hello\r\n\r\n", 400, "malformed-request"),
    ],
)
def test_what_nginx_itself_refuses_is_a_problem_too(
    gateway: Gateway, request_text: str, status: int, kind: str
) -> None:
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as connection:
        connection.sendall(request_text.encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b"")).decode()
    head, _, body = answer.partition("\r\n\r\n")
    assert f" {status} " in head.splitlines()[0]
    assert "Content-Type: application/problem+json" in head
    content = json.loads(body)
    assert (content["type"], content["status"]) == (kind, status)
    assert f"X-Request-ID: {content['request_id']}" in head


@pytest.mark.parametrize(
    "begun",
    [
        "",
        "POST /v1/mod",
        f"POST {SCORE} HTTP/1.1\r\nHost: x\r\nX-",
        f"POST {SCORE} HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\nsome",
    ],
    ids=["nothing", "request line", "headers", "body"],
)
def test_clients_that_stall_are_cut_off_while_others_are_served(replicas: Replicas, front: Front, begun: str) -> None:
    hurried = front(replicas.ports, GATEWAY_HEADER_SECONDS="1", GATEWAY_BODY_SECONDS="1")
    with ExitStack() as stack:
        began = time.monotonic()
        stalled = [
            stack.enter_context(socket.create_connection(("127.0.0.1", hurried.port), timeout=30)) for _ in range(50)
        ]
        for connection in stalled:
            connection.sendall(begun.encode())
        assert hurried.client.post(SCORE, content=picture(), headers=PNG).status_code == 200
        assert {connection.recv(65536) for connection in stalled} == {b""}
        # Much more than a second only on a busy machine.
        assert 0.9 < time.monotonic() - began < 30
    # No replica was asked.
    logged = [json.loads(line) for line in hurried.log.splitlines()]
    assert {each["replica"] for each in logged if each["status"] != 200} <= {""}


def test_a_body_that_keeps_coming_is_waited_for(replicas: Replicas, front: Front) -> None:
    hurried = front(replicas.ports, GATEWAY_HEADER_SECONDS="1", GATEWAY_BODY_SECONDS="1")

    def slowly() -> Iterator[bytes]:
        for byte in picture()[:5]:
            yield bytes([byte])
            time.sleep(0.4)
        yield picture()[5:]

    assert hurried.client.post(SCORE, content=slowly(), headers=PNG).status_code == 200


def test_no_replica_is_a_502_and_a_silent_one_a_504(front: Front) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        gone = front([free_port()])
        answer = gone.client.post(SCORE, content=picture(), headers=PNG)
        problem(answer, 502, "no-replica")
        assert answer.headers["retry-after"] == "1"
        stuck = front([silent.getsockname()[1]], OOD_TIMEOUT_MS="100")
        began = time.monotonic()
        problem(stuck.client.post(SCORE, content=picture(), headers=PNG), 504, "deadline-passed")
        assert 5 < time.monotonic() - began < 15


def test_the_services_own_errors_pass_unchanged(gateway: Gateway) -> None:
    problem(gateway.client.post("/v1/models/none/score", content=picture(), headers=PNG), 404, "unknown-model")
    problem(gateway.client.post(SCORE, content=b"no image", headers=PNG), 422, "undecodable-image")


def test_with_its_template_mounted_the_gateway_speaks_tls(replicas: Replicas, front: Front, tmp_path: Path) -> None:
    certificate, key, port = tmp_path / "tls.crt", tmp_path / "tls.key", free_port()
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost", "-addext",
         "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)],
        capture_output=True, timeout=60, check=True,
    )  # fmt: skip
    front(
        replicas.ports,
        tls=True,
        GATEWAY_TLS_PORT=f"127.0.0.1:{port}",
        GATEWAY_TLS_CERTIFICATE=str(certificate),
        GATEWAY_TLS_KEY=str(key),
    )
    trusted = ssl.create_default_context(cafile=str(certificate))
    with httpx.Client(base_url=f"https://localhost:{port}", verify=trusted) as client:
        assert client.post(SCORE, content=picture(), headers=PNG).status_code == 200


CLIENTS = 3
"""Each with one request at a time."""


@contextmanager
def load(gateway: Gateway) -> Iterator[Counter[int | str]]:
    """Clients that score one picture after the other; yields how often which status, or failure, came back so far."""
    outcomes: Counter[int | str] = Counter()
    ended = threading.Event()

    def client() -> None:
        with httpx.Client(base_url=str(gateway.client.base_url), timeout=30) as connection:
            while not ended.is_set():
                try:
                    outcomes[connection.post(SCORE, content=picture(), headers=PNG).status_code] += 1
                except httpx.TransportError as error:
                    outcomes[type(error).__name__] += 1
                # Clients at full speed would leave the replicas that start no processor to do it on.
                time.sleep(0.05)

    threads = [threading.Thread(target=client) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        _more(outcomes)
        yield outcomes
        _more(outcomes)
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def _more(outcomes: Counter[int | str], answers: int = 50) -> None:
    """Wait until that many more have come back."""
    goal, until = outcomes.total() + answers, time.monotonic() + 60
    while outcomes.total() < goal:
        assert time.monotonic() < until, f"no answers any more: {outcomes}"
        time.sleep(0.01)


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGKILL])
def test_a_replica_that_ends_under_load_costs_no_client_an_answer(
    replicas: Replicas, gateway: Gateway, sig: signal.Signals
) -> None:
    try:
        with load(gateway) as outcomes:
            assert replicas.end(0, sig) == (0 if sig is signal.SIGTERM else -sig)
    finally:
        replicas.begin_again(0)
    # What a killed one had in its hands is tried again at another replica, but for answers that had begun.
    in_hands = CLIENTS if sig is signal.SIGKILL else 0
    assert outcomes.total() - outcomes[200] <= in_hands, outcomes


# Three processes end and start again: on a busy machine that takes minutes.
@pytest.mark.timeout(600)
def test_a_rolling_restart_under_load_costs_no_client_an_answer(replicas: Replicas, gateway: Gateway) -> None:
    with load(gateway) as outcomes:
        for index in range(3):
            assert replicas.end(index, signal.SIGTERM) == 0
            replicas.begin_again(index)
            # Longer than `fail_timeout`: from then on the new process gets its share.
            time.sleep(1.5)
            _more(outcomes)
            assert value(replicas.services[index].client, "ood_inputs_total", model="tiny", version="1") > 0
    assert set(outcomes) == {200}


def test_with_keys_the_gateway_turns_away_who_has_none_before_taking_a_body(
    models: Path, front: Front, tmp_path: Path
) -> None:
    key = "ood_a-key-of-alice"
    (tmp_path / "keys").write_text(f"alice sha256:{digest_of(key)}\n")
    service = Service(models, "--port", str(port := free_port()), "--api-keys-file", str(tmp_path / "keys"))
    try:
        gateway = front([port], keys=True)
        good = {"authorization": f"Bearer {key}"}
        assert gateway.client.post(SCORE, content=picture(), headers=PNG | good).status_code == 200
        assert gateway.client.get("/v1/models", headers={"x-api-key": key}).status_code == 200
        for path in ("/readyz", "/docs", "/openapi.json", "/healthz"):
            assert gateway.client.get(path).status_code == 200
        for headers in ({}, {"x-api-key": "wrong"}):
            answer = gateway.client.post(SCORE, content=picture(), headers=PNG | headers)
            problem(answer, 401, "unauthorized")
            assert answer.headers["www-authenticate"].startswith('Bearer realm="ood"')
        assert gateway.client.post("/v2/models/tiny/infer", content=b"{}").json()["error"].startswith("unauthorized: ")
        # A body that is announced and never sent: the refusal does not wait for it.
        with closing(HTTPConnection("127.0.0.1", gateway.port, timeout=10)) as connection:
            connection.putrequest("POST", SCORE)
            connection.putheader("Content-Type", "image/png")
            connection.putheader("Content-Length", "50000")
            connection.endheaders()
            assert connection.getresponse().status == 401
    finally:
        service.close()
