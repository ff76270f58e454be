"""Front ends and the engine process on CUDA: only the engine process uses the device, and it never falls back."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest

from bundle import load_bundle, seal_bundle
from service.inference.providers import CUDA
from tests.gpu.conftest import ROOT
from tests.service.support.exposition import samples, value
from tests.support.waiting import until
from tests.system.support.service_process import (
    ENVIRONMENT,
    ServiceProcess,
    on_new_connection,
    run_to_exit,
    starting,
)
from tests.system.support.worker_processes import all_ready, engine_process, front_ends

NAME = "cifar10-energy"
CUDA_LIBRARY = "libonnxruntime_providers_cuda"
CLASSIFIER = {"model": NAME, "version": "1"}
FLAGS = ("--provider", "cuda", "--workers", "2", "--log-format", "json")


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A classifier with convolutions and without a sample: kernels of the stand-in compute other scores for it."""
    folder = tmp_path / "models" / NAME / "1"
    shutil.copytree(ROOT / "models" / NAME / "1", folder)
    content = load_bundle(folder).manifest.model_dump(exclude={"files", "sample", "schema_version"})
    for file in ("sample.png", "manifest.json"):
        (folder / file).unlink()
    seal_bundle(folder, content)
    return tmp_path / "models"


@pytest.fixture
def service(models: Path, request: pytest.FixtureRequest) -> Iterator[ServiceProcess]:
    """Two front ends and an engine process, which are ready."""
    with starting(*FLAGS) as start:
        service = start(models, *getattr(request, "param", ()))
        until(lambda: all_ready(service))
        yield service


def uses_cuda(process: psutil.Process) -> bool:
    return any(CUDA_LIBRARY in area.path for area in process.memory_maps())


def infer(client: httpx.Client, count: int) -> dict[str, Any]:
    response = send(client, count)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def send(client: httpx.Client, count: int) -> httpx.Response:
    pixels = np.zeros((count, 32, 32, 3), np.uint8).tobytes()
    tensor = {"name": "images", "shape": [count, 32, 32, 3], "datatype": "UINT8"}
    head = json.dumps({"inputs": [tensor | {"parameters": {"binary_data_size": len(pixels)}}]}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    return client.post(f"/v2/models/{NAME}/infer", content=head + pixels, headers=headers)


@pytest.mark.parametrize("service", [["--no-cuda-graphs"], ["--cuda-graphs"]], indirect=True)
def test_only_the_engine_process_uses_the_gpu_and_it_plans_no_convolution_again(service: ServiceProcess) -> None:
    assert uses_cuda(engine_process(service))
    assert not any(map(uses_cuda, front_ends(service)))
    for count in (1, 8, 3, 8, 5):
        answer = on_new_connection(service, lambda client, count=count: infer(client, count))
        assert answer["outputs"][0]["shape"] == [count]
    metrics = on_new_connection(service, samples)
    providers = {dict(labels)["provider"] for name, labels in metrics if name == "ood_model_info"}
    assert providers == {CUDA}
    assert value(service.client, "ood_model_nodes", **CLASSIFIER, provider=CUDA) > 0
    assert value(service.client, "ood_shape_changes_total", model=NAME) == 0
    assert service.end() == 0


def test_an_engine_process_that_dies_comes_back_on_the_gpu(service: ServiceProcess) -> None:
    engine_process(service).kill()
    until(lambda: bool(service.log_entries("engine process died")))
    until(lambda: all_ready(service))
    assert uses_cuda(engine_process(service))
    on_new_connection(service, lambda client: infer(client, 2))
    assert service.end() == 0


def test_an_engine_process_whose_cudnn_refuses_plans_fails_the_start(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ENVIRONMENT, "STAND_IN_REFUSE_PLANS", "1")
    result = run_to_exit("--models", str(models), *FLAGS)
    assert result.returncode == 1, result.stderr
    assert "the graph fails on a batch of 1" in result.stderr
    assert "Traceback" not in result.stderr


def test_an_engine_process_whose_gpu_breaks_is_replaced_and_no_front_end_is(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken"
    monkeypatch.setitem(ENVIRONMENT, "STAND_IN_BROKEN_FILE", str(broken))
    with starting(*FLAGS) as start:
        service = start(models)
        until(lambda: all_ready(service))
        before = front_ends(service)
        broken.touch()
        assert on_new_connection(service, lambda client: send(client, 1)).status_code in (500, 503)
        until(lambda: bool(service.log_entries("engine process died")))
        broken.unlink()
        until(lambda: all_ready(service))
        on_new_connection(service, lambda client: infer(client, 2))
        assert service.log_entries("engine is broken; this process ends")
        assert front_ends(service) == before
        assert service.end() == 0
