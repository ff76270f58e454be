"""Fixtures for tests of real processes."""

from collections.abc import Iterator

import pytest

from tests.system.support.service_process import Start, starting


@pytest.fixture
def start() -> Iterator[Start]:
    """`start(models, "--grace-seconds", "1")` starts a service, which ends with the test."""
    with starting() as start_service:
        yield start_service
