"""docs/security.md: a threat model is worth what its evidence is."""

import re

from service.settings import Settings, env_name
from tests.system.conftest import ROOT


def test_every_test_that_the_threat_model_names_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs" / "security.md").read_text()))
    tests = "\n".join(file.read_text() for file in (ROOT / "tests").rglob("test_*.py"))
    assert len(named) > 30
    assert {name for name in named if f"def {name}(" not in tests} == set()


def test_every_setting_that_the_threat_model_names_exists() -> None:
    text = (ROOT / "docs" / "security.md").read_text()
    assert set(re.findall(r"OOD_[A-Z_]+", text)) <= {env_name(name) for name in Settings.model_fields}
