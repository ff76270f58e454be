"""docs/security.md: the tests and settings that the threat model names exist."""

import re

from service.settings import Settings, env_name
from tests.system.support.service_process import ROOT


def test_every_test_that_the_threat_model_names_exists() -> None:
    names = set(re.findall(r"`(test_\w+)`", (ROOT / "docs" / "security.md").read_text()))
    tests = "\n".join(file.read_text() for file in (ROOT / "tests").rglob("test_*.py"))
    assert len(names) > 30
    assert {name for name in names if f"def {name}(" not in tests} == set()


def test_every_setting_that_the_threat_model_names_exists() -> None:
    text = (ROOT / "docs" / "security.md").read_text()
    assert set(re.findall(r"OOD_[A-Z_]+", text)) <= {env_name(name) for name in Settings.model_fields}
