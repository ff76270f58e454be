"""Installs each peer into its own virtual environment below `.peers/`, because their requirements conflict."""

import re
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version

from benchmarks.results import CONSOLE
from benchmarks.servers import ENVIRONMENTS, PEERS, ROOT, Server

MODEL_PACKAGES = ("numpy", "onnxruntime", "pillow", "tokenizers")
"""The packages that run the model, in the same versions in every environment."""


def install() -> None:
    """Create or update the environments, and name the peers that could not be installed."""
    pins = _pins()
    failed: list[str] = []
    for peer in PEERS:
        if not peer.requirements.exists():
            continue
        requirements = "\n".join([*pins, peer.requirements.read_text(encoding="utf-8")])
        if peer.installed and peer.stamp.read_text(encoding="utf-8") == requirements:
            CONSOLE.print(f"{peer.name}: is installed")
            continue
        CONSOLE.print(f"{peer.name}: installing into {peer.environment.relative_to(ROOT)}")
        if _install(peer, pins):
            peer.stamp.write_text(requirements, encoding="utf-8")
        else:
            failed.append(peer.name)
    if failed:
        CONSOLE.print(f"could not be installed, and will be excluded: {', '.join(failed)}")


def _install(peer: Server, pins: list[str]) -> bool:
    """Whether the installation succeeded. It starts from an empty environment, so that the result is reproducible."""
    shutil.rmtree(peer.environment, ignore_errors=True)
    ENVIRONMENTS.mkdir(exist_ok=True)
    created = subprocess.run([sys.executable, "-m", "venv", str(peer.environment)], check=False)
    pip = [str(peer.python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    return created.returncode == 0 and (
        subprocess.run([*pip, *pins, "-r", str(peer.requirements)], check=False).returncode == 0
    )


def _pins() -> list[str]:
    """The model's packages as pinned in constraints.txt; onnxruntime-gpu if this environment has it."""
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    versions = dict(re.findall(r"^([\w-]+)==(\S+)$", text, re.MULTILINE))
    pins = [f"{name}=={versions[name]}" for name in MODEL_PACKAGES]
    try:
        gpu = f"onnxruntime-gpu[cuda,cudnn]=={version('onnxruntime-gpu')}"
    except PackageNotFoundError:
        return pins
    return [gpu if pin.startswith("onnxruntime==") else pin for pin in pins]
