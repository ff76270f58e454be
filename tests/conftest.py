from pathlib import Path

import pytest
from hypothesis import settings

from tests.support.tiny_bundle import make_tiny_bundle

# Without a deadline per example, because a busy machine makes some of them slow. pytest-timeout ends tests that hang.
settings.register_profile("no-deadline", deadline=None)
settings.load_profile("no-deadline")


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real bundle, `<repository>/tiny/1`; read-only by convention, so copy it before changing anything."""
    return make_tiny_bundle(tmp_path_factory.mktemp("repository"))
