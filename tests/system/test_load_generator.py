"""The benchmarks' load generators send real requests, and count what goes wrong."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.service.support.pictures import picture
from tests.support.tiny_bundle import make_tiny_bundle
from tests.system.conftest import ROOT, Service, Start

Load = Callable[[str], dict[str, float]]
Generator = Callable[..., dict[str, Any]]


@pytest.fixture
def generator(start: Start, tmp_path: Path) -> Generator:
    """`generator(module, path, *more)`: what a generator of load measures on that path of a service."""
    file = tmp_path / "image.png"
    file.write_bytes(picture())
    make_tiny_bundle(tmp_path / "models")
    service: Service = start(tmp_path / "models")

    def generate(module: str, path: str, *more: str) -> dict[str, Any]:
        address = [service.client.base_url.host, str(service.client.base_url.port)]
        command = [sys.executable, "-m", module, *address, path, str(file), *more]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
        figures: dict[str, Any] = json.loads(done.stdout)
        return figures

    return generate


@pytest.fixture
def load(generator: Generator) -> Load:
    """`load(path)`: a short load of four connections."""
    return lambda path: generator("benchmarks.load", path, "4", "0.5")


def test_every_connection_is_answered_over_and_over(load: Load) -> None:
    figures = load("/v1/models/tiny/score")
    assert figures["errors"] == 0
    assert figures["requests_per_second"] > 20
    assert 0 < figures["p50"] <= figures["p99"]
    assert 0 < figures["cpu_seconds"] < 1 / figures["requests_per_second"]


def test_answers_other_than_200_are_errors(load: Load) -> None:
    assert load("/v1/models/absent/score")["errors"] > 0


def test_an_open_loop_sends_at_its_rate_and_loses_nothing(generator: Generator) -> None:
    figures = generator("benchmarks.open_loop", "/v1/models/tiny/score", "40", "0.5")
    assert figures["sent"] == 20
    assert figures["broken"] == 0
    assert figures["answers"]["200"]["count"] == 20


def test_an_open_loop_tells_refusals_from_successes(generator: Generator) -> None:
    figures = generator("benchmarks.open_loop", "/v1/models/absent/score", "40", "0.5")
    assert figures["goodput"] == 0
    assert figures["answers"]["404"]["count"] == 20
    assert figures["answers"]["404"]["with_retry_after"] == 0
