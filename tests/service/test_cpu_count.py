"""The number of cores that a process may use."""

import os
from pathlib import Path

import pytest

from service.cpu_count import available_cores

ALL = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@pytest.mark.parametrize(
    ("quota", "cores"),
    [
        ("max 100000", ALL),
        ("50000 100000", 1),
        ("100000 100000", 1),
        ("100000000 100000", ALL),
        ("nonsense", ALL),
    ],
)
def test_a_container_quota_limits_the_cores(tmp_path: Path, quota: str, cores: int) -> None:
    file = tmp_path / "cpu.max"
    file.write_text(quota + "\n")
    assert available_cores(file) == cores
    assert available_cores(tmp_path / "none") == ALL
