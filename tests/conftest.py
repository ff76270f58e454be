from pathlib import Path

import pytest

from tests.tiny_bundle import make_tiny_bundle


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real bundle, `<repository>/tiny/1`; read-only by convention, so copy it before changing anything."""
    return make_tiny_bundle(tmp_path_factory.mktemp("repository"))
