"""Fixtures for tests of real processes."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.support.service_process import ServiceProcess, Start


@pytest.fixture
def start() -> Iterator[Start]:
    """`start(models, "--grace-seconds", "1")` starts a service, which ends with the test."""
    services: list[ServiceProcess] = []

    def start_service(models: Path, *flags: str) -> ServiceProcess:
        services.append(ServiceProcess(models, *flags))
        return services[-1]

    yield start_service
    for service in services:
        service.close()
