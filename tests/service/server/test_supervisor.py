"""The supervisor's process, beside the workers that it runs (tests/system/test_workers.py)."""

import subprocess
import sys
from typing import Any

import pytest
import yaml

from service.server.supervisor import wants_engine_process
from service.settings import Settings


def test_the_supervisor_does_not_import_what_only_workers_need() -> None:
    script = (
        "import sys, service.__main__, service.server.supervisor;"
        "print({'fastapi', 'numpy', 'onnxruntime', 'prometheus_client'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"engine_process": "on", "workers": 1}, True),
        ({"engine_process": "off", "workers": 2, "provider": "cuda"}, False),
        ({"workers": 2, "provider": "cuda"}, True),
        ({"workers": 1, "provider": "cuda"}, False),
        ({"workers": 2, "provider": "cpu"}, False),
    ],
)
def test_an_engine_process_computes_for_several_workers_on_cuda_unless_the_settings_say_otherwise(
    settings: dict[str, Any], expected: bool
) -> None:
    assert wants_engine_process(Settings(**settings)) is expected


@pytest.mark.parametrize(("text", "value"), [("true", "on"), ("off", "off"), ("auto", "auto")])
def test_yaml_may_write_the_engine_process_as_a_boolean(text: str, value: str) -> None:
    assert Settings(engine_process=yaml.safe_load(text)).engine_process == value
