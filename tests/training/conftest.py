"""Fixtures of every training test."""

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def _one_torch_thread() -> None:
    """Networks of tests are tiny: more threads would wait for each other most of the time."""
    torch.set_num_threads(1)
