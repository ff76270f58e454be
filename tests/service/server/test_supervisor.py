"""The supervisor's process, beside the workers that it runs (tests/system/test_workers.py)."""

import subprocess
import sys


def test_the_supervisor_does_not_import_what_only_workers_need() -> None:
    script = (
        "import sys, service.__main__, service.server.supervisor;"
        "print({'fastapi', 'numpy', 'onnxruntime', 'prometheus_client'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.strip() == "set()"
