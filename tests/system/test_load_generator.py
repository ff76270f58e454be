"""The load generators of the benchmarks: they send real requests and count errors."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.service.support.pictures import picture
from tests.support.tiny_bundle import make_tiny_bundle
from tests.system.support.service_process import ROOT, Start

Generate = Callable[..., dict[str, Any]]


@pytest.fixture
def generate(start: Start, tmp_path: Path) -> Generate:
    """`generate(module, path, *options)`: the figures of a load generator for that path of a service."""
    file = tmp_path / "image.png"
    file.write_bytes(picture())
    make_tiny_bundle(tmp_path / "models")
    service = start(tmp_path / "models")

    def run(module: str, path: str, *options: str) -> dict[str, Any]:
        address = [service.client.base_url.host, str(service.client.base_url.port)]
        command = [sys.executable, "-m", module, *address, path, str(file), *options]
        completed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
        figures: dict[str, Any] = json.loads(completed.stdout)
        return figures

    return run


def closed_loop(generate: Generate, path: str) -> dict[str, Any]:
    """A closed loop of four connections for half a second."""
    return generate("benchmarks.load", path, "4", "0.5")


def test_every_connection_of_a_closed_loop_gets_many_responses(generate: Generate) -> None:
    figures = closed_loop(generate, "/v1/models/tiny/score")
    assert figures["errors"] == 0
    # More than the first response of each connection.
    assert figures["requests_per_second"] * 0.5 > 4
    assert 0 < figures["p50_seconds"] <= figures["p99_seconds"]
    assert 0 < figures["cpu_seconds_per_request"] < 1 / figures["requests_per_second"]


def test_statuses_other_than_200_are_errors(generate: Generate) -> None:
    assert closed_loop(generate, "/v1/models/absent/score")["errors"] > 0


def test_an_open_loop_sends_at_its_rate_and_loses_no_request(generate: Generate) -> None:
    figures = generate("benchmarks.open_loop", "/v1/models/tiny/score", "40", "0.5")
    assert figures["sent"] == 20
    assert figures["unanswered"] == 0
    assert figures["responses"]["200"]["count"] == 20


def test_an_open_loop_counts_responses_by_status(generate: Generate) -> None:
    figures = generate("benchmarks.open_loop", "/v1/models/absent/score", "40", "0.5")
    assert figures["goodput_per_second"] == 0
    assert figures["responses"]["404"]["count"] == 20
    assert figures["responses"]["404"]["with_retry_after"] == 0
