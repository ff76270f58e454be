"""The service as one process: its start, its responses and metrics, and its end."""

import base64
import html
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from bundle import load_bundle, seal_bundle
from service.inputs.examples import sample_png
from tests.service.support.pictures import picture
from tests.support.tiny_bundle import make_tiny_bundle
from tests.support.tiny_text_bundle import make_tiny_text_bundle
from tests.system.support.accepted_requests import assert_every_accepted_request_was_answered
from tests.system.support.scoring_clients import PNG, SCORE_PATH, ScoringClients
from tests.system.support.service_process import (
    COMMAND,
    ENVIRONMENT,
    ROOT,
    TIMEOUT_SECONDS,
    Start,
    run_python,
    run_to_exit,
)
from tests.system.support.unfinished_request import unfinished_request


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the model `tiny`, and the model `broken`, whose graph has a flipped bit."""
    root = tmp_path_factory.mktemp("models")
    make_tiny_bundle(root)
    broken = make_tiny_bundle(root, name="broken")
    data = bytearray((broken / "model.onnx").read_bytes())
    data[100] ^= 1
    (broken / "model.onnx").write_bytes(data)
    return root


def run_in_shell(command: str) -> dict[str, object]:
    """The JSON object that a command prints."""
    result = subprocess.run(
        command, shell=True, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=True
    )
    content: dict[str, object] = json.loads(result.stdout)
    return content


def test_the_banner_lists_served_and_refused_bundles_and_its_curl_command_works(models: Path, start: Start) -> None:
    service = start(models)
    assert "CPUExecutionProvider" in service.banner
    assert "tiny version 1: classification of 8x8 images, score msp" in service.banner
    assert "alpha 0.05 (false flags " in service.banner
    assert "broken/1: model.onnx: its SHA-256 is" in service.banner
    content = run_in_shell(service.curl)
    assert (content["model"], content["errors"]) == ("tiny", 0)
    assert service.end() == 0


def test_the_curl_command_scores_the_bundles_sample(tmp_path: Path, start: Start) -> None:
    folder = make_tiny_bundle(tmp_path / "mo dels")
    fields = load_bundle(folder).manifest.model_dump(exclude={"files"})
    (folder / "sample.png").write_bytes(sample_png(8, 8))
    seal_bundle(folder, fields)
    service = start(tmp_path / "mo dels")
    assert "sample.png" in service.curl
    assert run_in_shell(service.curl)["errors"] == 0


@pytest.mark.parametrize("sample", ["It's the team's ball: naïve,\nbut a \"goal\" & $HOME.\n", None])
def test_the_curl_command_of_a_text_model_sends_a_text(tmp_path: Path, start: Start, sample: str | None) -> None:
    make_tiny_text_bundle(tmp_path / "mo dels", sample=sample)
    service = start(tmp_path / "mo dels")
    assert "topics version 1: classification of texts of up to 32 tokens, score msp" in service.banner
    assert ("sample.txt" in service.curl) is (sample is not None)
    assert run_in_shell(service.curl)["errors"] == 0
    page = html.unescape(service.client.get("/").text)
    assert run_in_shell(page.split("<pre>")[1].split("</pre>")[0])["errors"] == 0
    assert service.end() == 0


def test_inputs_are_scored_and_counted_although_another_bundle_is_refused(models: Path, start: Start) -> None:
    service = start(models, "--log-format", "json")
    for content in (picture("red"), picture("gray"), picture("gray"), b"", picture()[:48]):
        service.client.post(SCORE_PATH, content=content, headers=PNG)
    image = {"image": base64.b64encode(picture("blue")).decode()}
    response = service.client.post(SCORE_PATH, json={"inputs": [image, "text", image]})
    assert (response.status_code, response.json()["errors"]) == (200, 1)
    assert service.client.post("/v1/models/broken/score", content=picture()).status_code == 404
    values = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(service.client.get("/metrics").text)
        for sample in family.samples
    }
    assert values["ood_inputs_total", "1", "tiny"] == 5
    assert values["ood_flagged_inputs_total", "1", "msp", "tiny"] == 2
    assert values["ood_input_errors_total", "empty-input", "tiny"] == 1
    assert values["ood_input_errors_total", "tiny", "undecodable-image"] == 1
    assert values["ood_input_errors_total", "tiny", "unsupported-input"] == 1
    assert values["ood_http_requests_total", "/v1/models/{model}/score", "200", "POST"] == 4
    assert values["ood_http_requests_total", "/v1/models/{model}/score", "422", "POST"] == 2
    assert values["ood_http_requests_total", "/v1/models/{model}/score", "404", "POST"] == 1
    assert service.end() == 0
    assert len({entry["request_id"] for entry in service.log_entries("request")}) == 7


def test_sigterm_under_load_answers_every_accepted_request_and_exits_with_0(models: Path, start: Start) -> None:
    service = start(models, "--log-format", "json")
    clients = ScoringClients(service.address, 6, reconnect=False, pause_seconds=0)
    service.process.send_signal(signal.SIGTERM)
    clients.join()
    assert service.wait() == 0
    assert_every_accepted_request_was_answered(service, clients)
    assert service.log_entries("draining")


def test_requests_that_arrive_just_after_sigterm_are_answered_and_their_connections_closed(
    models: Path, start: Start
) -> None:
    service = start(models)
    service.client.get("/readyz")

    with socket.create_connection(("127.0.0.1", service.port), timeout=TIMEOUT_SECONDS) as kept_alive:
        kept_alive.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert kept_alive.recv(65536).startswith(b"HTTP/1.1 200 ")
        with socket.socket() as new:
            new.settimeout(TIMEOUT_SECONDS)

            def send_requests() -> None:
                new.connect(("127.0.0.1", service.port))
                new.sendall(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
                kept_alive.sendall(b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n")

            service.signal_while_stopped(signal.SIGTERM, send_requests)
            readiness, models_response = (read_to_end(connection) for connection in (new, kept_alive))
    assert readiness.startswith(b"HTTP/1.1 503 ")
    assert json.loads(readiness.partition(b"\r\n\r\n")[2]) == {"status": "draining"}
    assert models_response.startswith(b"HTTP/1.1 200 ")
    for response in (readiness, models_response):
        assert b"\r\nconnection: close\r\n" in response
    assert service.wait() == 0


def read_to_end(connection: socket.socket) -> bytes:
    """All bytes until the other end closes the connection."""
    return b"".join(iter(lambda: connection.recv(65536), b""))


def test_a_request_that_outlasts_the_grace_period_is_cancelled_and_the_exit_code_is_0(
    models: Path, start: Start
) -> None:
    service = start(models, "--grace-seconds", "1", "--receive-timeout-seconds", str(10 * TIMEOUT_SECONDS))
    with unfinished_request(service.port) as connection:
        assert service.end() == 0
        assert b"200 OK" not in read_to_end(connection)
    assert any("grace period is over" in line for line in service.log)


def test_ctrl_c_exits_with_0_and_without_a_traceback(models: Path, start: Start) -> None:
    service = start(models)
    assert service.end(signal.SIGINT) == 0
    assert "Traceback" not in "".join(service.log)


@pytest.mark.parametrize(
    ("flags", "code", "reason"),
    [
        (("--provider", "cuda"), 1, "OOD_PROVIDER=cuda needs CUDAExecutionProvider"),
        (("--models", "no-such-folder"), 1, "The model repository 'no-such-folder' is not a folder"),
        (("--models", "docs/images"), 1, "holds no bundle"),
        (("--workers", "0"), 2, "OOD_WORKERS = '0'"),
        (("--port", "http"), 2, "OOD_PORT = 'http'"),
        (("--settings", "no-such-file.yaml"), 2, "no-such-file.yaml cannot be read"),
        (("--prot", "1"), 2, "unrecognized arguments"),
    ],
)
def test_a_start_that_fails_prints_its_reason(models: Path, flags: tuple[str, ...], code: int, reason: str) -> None:
    result = run_to_exit("--models", str(models), *flags)
    assert result.returncode == code, result.stderr
    assert reason in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_start_on_a_port_in_use_ends_at_once_with_the_reason(models: Path, workers: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        result = run_to_exit("--models", str(models), "--port", port, "--workers", workers)
    assert result.returncode == 1
    last = result.stderr.splitlines()[-1]
    assert "cannot start" in last
    assert f"127.0.0.1:{port}: Address already in use" in last
    assert "OOD_PORT" in last
    # No model was loaded in vain.
    assert "model loaded" not in result.stderr


MANY_MODELS = 150
"""More than load in the time that a signal needs to arrive."""


@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("flags", [(), ("--listen-when-ready",)], ids=["listening", "not-listening"])
def test_a_signal_while_models_load_ends_the_process(
    tmp_path: Path, sig: signal.Signals, flags: tuple[str, ...]
) -> None:
    bundle = make_tiny_bundle(tmp_path)
    for i in range(MANY_MODELS):
        shutil.copytree(bundle, tmp_path / "tiny" / str(i + 2))
        manifest = tmp_path / "tiny" / str(i + 2) / "manifest.json"
        manifest.write_text(manifest.read_text().replace('"version": "1"', f'"version": "{i + 2}"'))
    process = subprocess.Popen(
        [*COMMAND, "--models", str(tmp_path), "--port", "0", *flags],
        cwd=ROOT,
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        first = next(line for line in process.stderr if "model loaded" in line)
        process.send_signal(sig)
        _, log = process.communicate(timeout=TIMEOUT_SECONDS)
    finally:
        process.kill()
    assert process.returncode == 0, first + log
    assert "Traceback" not in log
    assert log.count("model loaded") < MANY_MODELS


@pytest.mark.parametrize(("depth", "says"), [(1, "holds the versions of a model"), (2, "is a bundle")])
def test_a_repository_that_is_too_deep_is_named_with_the_right_one(models: Path, depth: int, says: str) -> None:
    folder = models.joinpath(*("tiny", "1")[:depth])
    result = run_to_exit("--models", str(folder))
    assert result.returncode == 1
    assert says in result.stderr
    assert f"OOD_MODELS (or --models) to its repository, {str(models)!r}" in result.stderr


def test_traffic_rules_are_judged_after_all_models_are_loaded(tmp_path: Path, start: Start) -> None:
    for version in ("1", "2", "3"):
        make_tiny_bundle(tmp_path, version=version)
    (tmp_path / "traffic.yaml").write_text("tiny: {serve: 1, canary: {version: 2, percent: 10}, shadow: [3, 4]}")
    service = start(tmp_path, "--log-format", "json")
    (ineffective,) = service.log_entries("traffic rule has no effect")
    assert "version 4" in ineffective["rule"]
    (effective,) = service.log_entries("traffic rule in effect")
    assert effective["shares"] == {"1 (serve)": 0.9, "2 (canary)": 0.1, "3 (shadow)": 1.0}
    assert service.end() == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_user_without_a_home_directory_is_told_the_setting() -> None:
    environment = {name: value for name, value in ENVIRONMENT.items() if name not in ("HOME", "XDG_CACHE_HOME")}
    # The user may read this checkout and its Python wherever they lie, and write nowhere.
    capabilities = "-all,+dac_read_search"
    user = ["setpriv", "--reuid=54321", "--regid=54321", "--clear-groups"]
    user += [f"--inh-caps={capabilities}", f"--ambient-caps={capabilities}"]
    if subprocess.run([*user, sys.executable, "-c", ""], check=False).returncode:
        pytest.skip("this machine gives another user no permission to read Python")
    command = [*user, sys.executable, "-m", "service", "--models", "memory://models"]
    for home in ({}, {"HOME": "/nonexistent"}):
        result = subprocess.run(
            command,
            check=False,
            cwd=ROOT,
            env=environment | home,
            timeout=TIMEOUT_SECONDS,
            capture_output=True,
            text=True,
        )
        assert result.returncode != 0
        assert "OOD_MODELS_CACHE" in result.stderr, result.stderr
        assert "Traceback" not in result.stderr


def test_the_number_of_threads_follows_the_affinity_mask() -> None:
    core = min(os.sched_getaffinity(0))
    script = f"import os; os.sched_setaffinity(0, [{core}]); from service import cpu_count as c; "
    result = run_python("-c", script + "print(c.available_cores())")
    assert result.stdout.strip() == "1", result.stderr


def test_the_service_imports_neither_training_nor_torch() -> None:
    script = "import sys, service.__main__; print({'torch', 'training', 'onnx', 'lightning'} & set(sys.modules))"
    result = run_python("-c", script)
    assert result.stdout.strip() == "set()", result.stderr
