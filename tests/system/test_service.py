"""The service as a process: start, answers, metrics, end."""

import base64
import html
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from bundle import load_bundle, seal_bundle
from service.inputs.examples import sample_png
from tests.service.support.pictures import picture
from tests.support.tiny_bundle import make_tiny_bundle
from tests.support.tiny_text_bundle import make_tiny_text_bundle
from tests.system.conftest import ROOT, Service, Start, run_to_its_end

PNG = {"content-type": "image/png"}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    make_tiny_bundle(root)
    broken = make_tiny_bundle(root, name="broken")
    data = bytearray((broken / "model.onnx").read_bytes())
    data[100] ^= 1
    (broken / "model.onnx").write_bytes(data)
    return root


def score(service: Service, content: bytes = picture()) -> httpx.Response:
    return service.client.post("/v1/models/tiny/score", content=content, headers=PNG)


def run_in_shell(command: str) -> dict[str, object]:
    done = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True, timeout=30, check=True)
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


def test_the_banner_tells_what_is_served_and_its_curl_line_works_as_shown(models: Path, start: Start) -> None:
    service = start(models)
    assert "CPUExecutionProvider" in service.banner
    assert "tiny version 1: classification of 8x8 images, score msp" in service.banner
    assert "alpha 0.05 (false flags " in service.banner
    assert "broken/1: model.onnx: its SHA-256 is" in service.banner
    answer = run_in_shell(service.curl)
    assert (answer["model"], answer["errors"]) == ("tiny", 0)
    assert service.end() == 0


def test_the_curl_line_scores_the_bundles_own_sample(tmp_path: Path, start: Start) -> None:
    folder = make_tiny_bundle(tmp_path / "mo dels")
    fields = load_bundle(folder).manifest.model_dump(exclude={"files"})
    (folder / "sample.png").write_bytes(sample_png(8, 8))
    seal_bundle(folder, fields)
    service = start(tmp_path / "mo dels")
    assert "sample.png" in service.curl
    assert run_in_shell(service.curl)["errors"] == 0


@pytest.mark.parametrize("sample", ["It's the team's ball: naïve,\nbut a \"goal\" & $HOME.\n", None])
def test_the_curl_line_of_a_text_model_sends_a_text(tmp_path: Path, start: Start, sample: str | None) -> None:
    make_tiny_text_bundle(tmp_path / "mo dels", sample=sample)
    service = start(tmp_path / "mo dels")
    assert "topics version 1: classification of texts of up to 32 tokens, score msp" in service.banner
    assert ("sample.txt" in service.curl) is (sample is not None)
    assert run_in_shell(service.curl)["errors"] == 0
    page = html.unescape(service.client.get("/").text)
    assert run_in_shell(page.split("<pre>")[1].split("</pre>")[0])["errors"] == 0
    assert service.end() == 0


def test_good_inputs_are_scored_beside_a_refused_bundle_and_the_metrics_add_up(models: Path, start: Start) -> None:
    service = start(models, "--log-format", "json")
    for content in (picture("red"), picture("gray"), picture("gray"), b"", picture()[:48]):
        score(service, content)
    image = {"image": base64.b64encode(picture("blue")).decode()}
    answer = service.client.post("/v1/models/tiny/score", json={"inputs": [image, "text", image]})
    assert (answer.status_code, answer.json()["errors"]) == (200, 1)
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
    lines = [json.loads(line) for line in service.log]
    requests = [line for line in lines if line["event"] == "request"]
    assert len({line["request_id"] for line in requests}) == 7


def test_sigterm_under_load_answers_all_that_was_accepted_and_exits_with_0(models: Path, start: Start) -> None:
    service = start(models)
    image = {"image": base64.b64encode(picture(size=(400, 400))).decode()}
    statuses: list[int] = []
    failures: list[Exception] = []

    def client() -> None:
        with httpx.Client(base_url=service.address, timeout=30) as connection:
            while True:
                try:
                    answer = connection.post("/v1/models/tiny/score", json={"inputs": [image] * 16})
                except httpx.TransportError as error:
                    failures.append(error)
                    return
                statuses.append(answer.status_code)
                if answer.headers.get("connection") == "close":
                    return

    clients = [threading.Thread(target=client) for _ in range(6)]
    for thread in clients:
        thread.start()
    while len(statuses) < 12:
        time.sleep(0.01)
    service.process.send_signal(signal.SIGTERM)
    ready = service.client.get("/readyz")
    assert (ready.status_code, ready.json()) == (503, {"status": "draining"})
    for thread in clients:
        thread.join()
    assert service.wait() == 0
    assert failures == []
    assert set(statuses) <= {200, 503}
    assert any("draining" in line for line in service.log)


def test_what_does_not_end_within_the_grace_period_is_cut_and_the_exit_code_is_0(models: Path, start: Start) -> None:
    service = start(models, "--grace-seconds", "1")
    with socket.create_connection(("127.0.0.1", int(service.address.rsplit(":", 1)[1]))) as slow:
        slow.sendall(b"POST /v1/models/tiny/score HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf")
        time.sleep(0.2)
        began = time.monotonic()
        assert service.end() == 0
        assert 1 <= time.monotonic() - began < 10
    assert any("grace period is over" in line for line in service.log)


def test_ctrl_c_ends_with_0_and_without_a_traceback(models: Path, start: Start) -> None:
    service = start(models)
    assert service.end(signal.SIGINT) == 0
    assert "Traceback" not in "".join(service.log)


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        (("--provider", "cuda"), 1, "OOD_PROVIDER=cuda needs CUDAExecutionProvider"),
        (("--models", "no-such-folder"), 1, "The model repository 'no-such-folder' is not a folder"),
        (("--models", "docs"), 1, "holds no bundle"),
        (("--workers", "0"), 2, "OOD_WORKERS = '0'"),
        (("--port", "http"), 2, "OOD_PORT = 'http'"),
        (("--settings", "no-such-file.yaml"), 2, "no-such-file.yaml cannot be read"),
        (("--prot", "1"), 2, "unrecognized arguments"),
    ],
)
def test_a_start_that_cannot_succeed_ends_with_its_reason(
    models: Path, flags: tuple[str, ...], code: int, said: str
) -> None:
    done = run_to_its_end("--models", str(models), *flags)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_taken_port_ends_the_start_with_its_reason(models: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = run_to_its_end("--models", str(models), "--port", str(taken.getsockname()[1]))
    assert done.returncode != 0
    assert "address already in use" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_service_imports_neither_training_nor_torch() -> None:
    script = "import sys, service.__main__; print({'torch', 'training', 'onnx', 'lightning'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
