"""`OOD_GRPC_PORT`: real processes that take calls, through their start and their end."""

import itertools
import json
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import grpc
import httpx
import numpy as np
import pytest
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException

from tests.service.support.exposition import value
from tests.service.support.pictures import picture
from tests.support.tiny_bundle import make_tiny_bundle
from tests.support.waiting import until
from tests.system.conftest import ENVIRONMENT, ROOT, Start, run_to_its_end
from tests.system.support.programs import free_port


@pytest.fixture
def models(tmp_path: Path) -> Path:
    make_tiny_bundle(tmp_path / "models")
    return tmp_path / "models"


def images(count: int, size: tuple[int, int] = (8, 8)) -> list[InferInput]:
    files = np.array([picture(size=size)] * count, dtype=np.object_)
    return [InferInput("images", [count], "BYTES").set_data_from_numpy(files)]


def test_sigterm_under_load_answers_every_call_that_was_accepted(models: Path, start: Start) -> None:
    service = start(models, "--grpc-port", "0", "--log-format", "json")
    answered: list[int] = []
    failures: list[InferenceServerException] = []

    def call() -> None:
        with InferenceServerClient(service.grpc_address) as client:
            while True:
                try:
                    answer = client.infer("tiny", images(16, (400, 400)))
                except InferenceServerException as error:
                    failures.append(error)
                    return
                answered.append(len(answer.as_numpy("flagged")))

    clients = [threading.Thread(target=call) for _ in range(6)]
    for thread in clients:
        thread.start()
    until(lambda: len(answered) >= 12)
    service.process.send_signal(signal.SIGTERM)
    with InferenceServerClient(service.grpc_address) as client:
        assert not client.is_server_ready()
    for thread in clients:
        thread.join()
    assert service.wait() == 0
    assert set(answered) == {16}
    logged = [json.loads(line) for line in service.log]
    statuses = [line["status"] for line in logged if str(line.get("path", "")).endswith("/ModelInfer")]
    assert statuses.count(200) == len(answered)
    assert set(statuses) <= {200, 503}
    # Cancelled is what the service never saw: it came in the moment in which the port closed.
    assert {failure.status() for failure in failures} <= {"StatusCode.UNAVAILABLE", "StatusCode.CANCELLED"}


def test_a_call_that_does_not_end_within_the_grace_period_is_cut(models: Path, start: Start) -> None:
    service = start(models, "--grpc-port", "0", "--grace-seconds", "1")
    never = threading.Event()
    with grpc.insecure_channel(service.grpc_address) as channel:
        call = channel.stream_unary("/inference.GRPCInferenceService/ModelInfer").future(
            iter(lambda: never.wait(20) and b"", b"")
        )
        # The channel has connected once another call is answered.
        channel.unary_unary("/inference.GRPCInferenceService/ServerLive")(b"")
        assert service.end() == 0
        assert call.exception(timeout=10).code() in (grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE)
        never.set()
    assert any("grace period is over" in line for line in service.log)
    assert "Traceback" not in "".join(service.log)


def test_workers_take_calls_on_one_port(models: Path, start: Start) -> None:
    service = start(models, "--workers", "2", "--grpc-port", str(free_port()), "--log-format", "json")

    def ready() -> float:
        with httpx.Client(base_url=service.address) as client:
            return value(client, "ood_workers_ready")

    until(lambda: ready() == 2, 120)
    options = itertools.count()
    for _ in range(20):
        # Not the same connection as before, which clients share for the same options.
        apart = [("grpc.primary_user_agent", f"client-{next(options)}")]
        with InferenceServerClient(service.grpc_address, channel_args=apart) as client:
            assert client.infer("tiny", images(2)).as_numpy("flagged").shape == (2,)
    assert value(service.client, "ood_inputs_total", model="tiny", version="1") == 40
    assert service.end() == 0
    logged = [json.loads(line) for line in service.log]
    assert {line["worker"] for line in logged if str(line.get("path", "")).endswith("/ModelInfer")} == {0, 1}


def test_a_taken_port_ends_the_start_with_its_reason(models: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run_to_its_end("--models", str(models), "--grpc-port", str(port))
    assert done.returncode == 1
    assert f"OOD_GRPC_PORT = {port}" in done.stderr
    assert "Traceback" not in done.stderr


def test_two_services_do_not_share_a_port_without_a_word(models: Path, start: Start) -> None:
    port = start(models, "--grpc-port", "0").grpc_address.rsplit(":", 1)[1]
    done = run_to_its_end("--models", str(models), "--grpc-port", port)
    assert done.returncode == 1
    assert f"OOD_GRPC_PORT = {port}" in done.stderr


def test_without_its_packages_the_start_ends_with_how_to_get_them(models: Path) -> None:
    script = "import sys; sys.modules['grpc'] = None; from service.__main__ import main; sys.exit(main())"
    command = [sys.executable, "-c", script, "--models", str(models), "--port", "0", "--grpc-port", "0"]
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "OOD_GRPC_PORT = 0: grpc is missing. Install the extra: pip install '.[grpc]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_service_without_the_setting_imports_none_of_its_packages(models: Path) -> None:
    script = (
        "import sys; from service import Settings, create_app; create_app(Settings(models=sys.argv[1])); "
        "print({'grpc', 'tritonclient', 'google.protobuf'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", script, str(models)]
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "set()"
