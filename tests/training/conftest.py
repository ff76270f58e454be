from pathlib import Path

import huggingface_hub.constants
import pytest
import torch

# The networks of these tests are tiny: several threads per operation would only wait for each other on a busy machine.
torch.set_num_threads(1)


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub, and no variables that forbid downloads."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(variable, raising=False)
    return tmp_path / "hub"
