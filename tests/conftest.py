from pathlib import Path

import pytest
from hypothesis import settings

from tests.support.tiny_bundle import make_tiny_bundle

# A busy machine makes any one example slow; pytest-timeout catches what really hangs.
settings.register_profile("no-deadline", deadline=None)
settings.load_profile("no-deadline")


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real bundle, `<repository>/tiny/1`; read-only by convention, so copy it before changing anything."""
    return make_tiny_bundle(tmp_path_factory.mktemp("repository"))
