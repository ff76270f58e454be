"""Resident memory of the service: without models, with each bundle alone, and with all of them."""

import base64
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
from PIL import Image

from benchmarks.processes import free_port, running
from benchmarks.results import report
from benchmarks.servers import ROOT

CONNECTIONS = 8
SAMPLES = 5
_LONGEST_SIDE = 512
_MOST_INPUTS = 256
_MOST_WORDS = 600
_IMPORTS = "import service.server.worker, sys; print(flush=True); sys.stdin.read()"


def measure(models: Path, seconds: float, *, together_only: bool) -> None:
    """Report the resident memory after the warm-up and during mixed load.

    Args:
        models: The repository.
        seconds: Length of the load on all bundles together; each bundle alone gets a quarter of it.
        together_only: Whether to skip the bundles alone.
    """
    bundles = sorted(manifest.parent for manifest in models.resolve().glob("*/*/manifest.json"))
    figures: dict[str, Any] = {"load_seconds": seconds, "connections": CONNECTIONS, "no_model": _without_models()}
    if not together_only:
        figures["alone"] = {bundle.parent.name: _served([bundle], seconds / 4) for bundle in bundles}
    figures["together"] = _served(bundles, seconds)
    report("memory", figures, ("onnxruntime", "fastapi", "uvicorn", "numpy"))


def _without_models() -> Mapping[str, float]:
    """The memory of a process that has imported the service."""
    with subprocess.Popen(
        [sys.executable, "-c", _IMPORTS], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        memory = _memory(psutil.Process(process.pid))
        process.kill()
    return memory


def _served(bundles: Sequence[Path], seconds: float) -> Mapping[str, Any]:
    """The memory of a service of `bundles`: warm, and at equal distances during the load."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as folder:
        for bundle in bundles:
            target = Path(folder) / bundle.parent.name / bundle.name
            target.parent.mkdir(exist_ok=True)
            target.symlink_to(bundle)
        command = [sys.executable, "-m", "service", "--models", folder, "--port", str(port), "--log-level", "warning"]
        with running(
            command, {"PYTHONPATH": str(ROOT)}, ready=lambda: _succeeds(f"{url}/readyz"), start_timeout=1200
        ) as process:
            warm = _memory(process)
            return {"warm": warm, **_under_load(process, url, seconds), "loaded": _memory(process)}


def _under_load(process: psutil.Process, url: str, seconds: float) -> Mapping[str, Any]:
    """Send inputs of all sizes to all models, and sample the resident memory."""
    models = httpx.get(f"{url}/v1/models", timeout=60).json()["models"]
    statuses: list[int] = []
    end = time.monotonic() + seconds
    clients = [
        threading.Thread(target=_send, args=(url, models, random.Random(seed), end, statuses))  # noqa: S311 - no secret
        for seed in range(CONNECTIONS)
    ]
    for client in clients:
        client.start()
    during: list[float] = []
    for _ in range(SAMPLES):
        time.sleep(seconds / SAMPLES)
        during.append(_memory(process)["resident_mib"])
    for client in clients:
        client.join()
    errors = sum(status not in (200, 503, 504) for status in statuses)
    return {"resident_mib_during_load": during, "requests": len(statuses), "errors": errors}


def _send(url: str, models: Sequence[Mapping[str, Any]], rng: random.Random, end: float, statuses: list[int]) -> None:
    with httpx.Client(base_url=url, timeout=120) as client:
        while time.monotonic() < end:
            model = rng.choice(models)
            # As many requests of a few inputs as of many.
            count = int(_MOST_INPUTS ** rng.random())
            make = _image if model["modality"] == "image" else _text
            answer = client.post(
                f"/v1/models/{model['name']}/score", json={"inputs": [make(rng) for _ in range(count)]}
            )
            statuses.append(answer.status_code)


def _image(rng: random.Random) -> dict[str, str]:
    width, height = (int(8 * (_LONGEST_SIDE / 8) ** rng.random()) for _ in range(2))
    pixels = np.frombuffer(rng.randbytes(width * height * 3), np.uint8).reshape(height, width, 3)
    file = BytesIO()
    Image.fromarray(pixels).save(file, "JPEG")
    return {"image": base64.b64encode(file.getvalue()).decode()}


def _text(rng: random.Random) -> dict[str, str]:
    words = int(_MOST_WORDS ** rng.random())
    return {"text": " ".join("".join(rng.choices("etaoinsr", k=rng.randint(1, 9))) for _ in range(words))}


def _memory(process: psutil.Process) -> Mapping[str, float]:
    """Resident, anonymous and highest resident memory."""
    lines = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii").splitlines()
    kibibytes = {line.split(":")[0]: float(line.split()[1]) for line in lines if line.endswith(" kB")}
    keys = {"resident_mib": "VmRSS", "anonymous_mib": "RssAnon", "highest_resident_mib": "VmHWM"}
    return {name: kibibytes[key] / 1024 for name, key in keys.items()}


def _succeeds(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).is_success
    except httpx.HTTPError:
        return False
