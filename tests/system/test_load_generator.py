"""The benchmarks' load generator sends real requests, and counts what goes wrong."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.service.pictures import picture
from tests.system.conftest import ROOT, Service, Start
from tests.tiny_bundle import make_tiny_bundle

Load = Callable[[str], dict[str, float]]


@pytest.fixture
def load(start: Start, tmp_path: Path) -> Load:
    """`load(path)`: what a short load of four connections on that path of a service measures."""
    file = tmp_path / "image.png"
    file.write_bytes(picture())
    make_tiny_bundle(tmp_path / "models")
    service: Service = start(tmp_path / "models")

    def generate(path: str) -> dict[str, float]:
        address = [service.client.base_url.host, str(service.client.base_url.port)]
        command = [sys.executable, "-m", "benchmarks.load", *address, path, str(file), "4", "0.5"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=True)
        figures: dict[str, float] = json.loads(done.stdout)
        return figures

    return generate


def test_every_connection_is_answered_over_and_over(load: Load) -> None:
    figures = load("/v1/models/tiny/score")
    assert figures["errors"] == 0
    assert figures["requests_per_second"] > 20
    assert 0 < figures["p50"] <= figures["p99"]


def test_answers_other_than_200_are_errors(load: Load) -> None:
    assert load("/v1/models/absent/score")["errors"] > 0
