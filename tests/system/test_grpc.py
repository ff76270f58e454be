"""`OOD_GRPC_PORT`: processes that accept gRPC calls, from their start to their end."""

import itertools
import json
import signal
import socket
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
from tests.system.support.programs import free_port
from tests.system.support.service_process import TIMEOUT_SECONDS, Start, run_python, run_to_exit

METHODS = "/inference.GRPCInferenceService"


@pytest.fixture
def models(tmp_path: Path) -> Path:
    make_tiny_bundle(tmp_path / "models")
    return tmp_path / "models"


def images(count: int, size: tuple[int, int] = (8, 8)) -> list[InferInput]:
    files = np.array([picture(size=size)] * count, dtype=np.object_)
    return [InferInput("images", [count], "BYTES").set_data_from_numpy(files)]


def is_ready(address: str) -> bool:
    """Whether the service reports that it is ready; False also if its port is closed."""
    with InferenceServerClient(address) as client:
        try:
            return bool(client.is_server_ready())
        except InferenceServerException:
            return False


def infer_entries(log: list[str]) -> list[dict[str, object]]:
    """The access log's entries of inference calls."""
    entries = [json.loads(line) for line in log]
    return [entry for entry in entries if entry.get("path") == f"{METHODS}/ModelInfer"]


def test_sigterm_under_load_answers_every_accepted_call_and_exits_with_0(models: Path, start: Start) -> None:
    service = start(models, "--grpc-port", "0", "--log-format", "json")
    sizes: list[int] = []
    failures: list[InferenceServerException] = []

    def call_until_failure() -> None:
        with InferenceServerClient(service.grpc_address) as client:
            while True:
                try:
                    result = client.infer("tiny", images(16, (400, 400)))
                except InferenceServerException as error:
                    failures.append(error)
                    return
                sizes.append(len(result.as_numpy("flagged")))

    threads = [threading.Thread(target=call_until_failure) for _ in range(6)]
    for thread in threads:
        thread.start()
    until(lambda: len(sizes) >= 12)
    assert is_ready(service.grpc_address)
    service.process.send_signal(signal.SIGTERM)
    until(lambda: any("draining" in line for line in service.log))
    assert not is_ready(service.grpc_address)
    for thread in threads:
        thread.join()
    assert service.wait() == 0
    assert set(sizes) == {16}
    statuses = [entry["status"] for entry in infer_entries(service.log)]
    assert statuses.count(200) == len(sizes)
    assert set(statuses) <= {200, 503}
    # A call that arrives while the port closes is cancelled before the service reads it.
    assert {failure.status() for failure in failures} <= {"StatusCode.UNAVAILABLE", "StatusCode.CANCELLED"}


def test_a_call_that_outlasts_the_grace_period_is_cancelled(models: Path, start: Start) -> None:
    service = start(models, "--grpc-port", "0", "--grace-seconds", "1")
    ended = threading.Event()
    with grpc.insecure_channel(service.grpc_address) as channel:
        call = channel.stream_unary(f"{METHODS}/ModelInfer").future(
            iter(lambda: ended.wait(TIMEOUT_SECONDS) and b"", b"")
        )
        # Once another call of the channel is answered, the first one has been sent.
        channel.unary_unary(f"{METHODS}/ServerLive")(b"")
        assert service.end() == 0
        assert call.exception(TIMEOUT_SECONDS).code() in (grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE)
        ended.set()
    assert any("grace period is over" in line for line in service.log)
    assert "Traceback" not in "".join(service.log)


def test_workers_share_the_grpc_port(models: Path, start: Start) -> None:
    service = start(models, "--workers", "2", "--grpc-port", str(free_port()), "--log-format", "json")

    def ready_workers() -> float:
        with httpx.Client(base_url=service.address, timeout=TIMEOUT_SECONDS) as client:
            return value(client, "ood_workers_ready")

    until(lambda: ready_workers() == 2)
    numbers = itertools.count()
    for _ in range(20):
        # Clients with the same options share a connection; a different option makes a new one.
        options = [("grpc.primary_user_agent", f"client-{next(numbers)}")]
        with InferenceServerClient(service.grpc_address, channel_args=options) as client:
            assert client.infer("tiny", images(2)).as_numpy("flagged").shape == (2,)
    assert value(service.client, "ood_inputs_total", model="tiny", version="1") == 40
    assert service.end() == 0
    assert {entry["worker"] for entry in infer_entries(service.log)} == {0, 1}


def test_a_compressed_message_of_much_data_is_refused_in_bounded_memory(models: Path, start: Start) -> None:
    service = start(models, "--grpc-port", "0", "--max-body-bytes", "1000000")
    bomb = bytes(200_000_000)
    with grpc.insecure_channel(service.grpc_address, compression=grpc.Compression.Gzip) as channel:
        infer = channel.unary_unary(f"{METHODS}/ModelInfer")
        # A first call of the same kind, whose memory is not returned to the system.
        for size in (10_000_000, len(bomb)):
            before = service.peak_bytes
            call = infer.future(memoryview(bomb)[:size].tobytes())
            assert call.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "body-too-large" in call.details()
    assert service.peak_bytes - before < 32 * 2**20
    with InferenceServerClient(service.grpc_address) as client:
        result = client.infer("tiny", images(3), compression_algorithm="gzip")
        assert result.as_numpy("flagged").shape == (3,)
    assert service.end() == 0


def test_a_start_on_a_port_in_use_fails_with_the_reason(models: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        result = run_to_exit("--models", str(models), "--grpc-port", str(port))
    assert result.returncode == 1
    assert f"OOD_GRPC_PORT = {port}" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_second_service_on_the_same_port_fails_to_start(models: Path, start: Start) -> None:
    port = start(models, "--grpc-port", "0").grpc_address.rsplit(":", 1)[1]
    result = run_to_exit("--models", str(models), "--grpc-port", port)
    assert result.returncode == 1
    assert f"OOD_GRPC_PORT = {port}" in result.stderr


def test_a_start_without_the_grpc_package_fails_and_names_the_extra(models: Path) -> None:
    script = "import sys; sys.modules['grpc'] = None; from service.__main__ import main; sys.exit(main())"
    result = run_python("-c", script, "--models", str(models), "--port", "0", "--grpc-port", "0")
    assert result.returncode == 2
    assert "OOD_GRPC_PORT = 0: grpc is missing. Install the extra: pip install '.[grpc]'" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_service_without_a_grpc_port_does_not_import_its_packages(models: Path) -> None:
    script = (
        "import sys; from service import Settings, create_app; create_app(Settings(models=sys.argv[1])); "
        "print({'grpc', 'tritonclient', 'google.protobuf'} & set(sys.modules))"
    )
    result = run_python("-c", script, str(models))
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "set()"
