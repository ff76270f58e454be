"""A virtual environment for each peer, in the ignored folder `.peers/`: none has to agree with another one, or ours."""

import re
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version

from benchmarks.results import CONSOLE
from benchmarks.servers import ENVIRONMENTS, PEERS, ROOT, Server

MODEL_PACKAGES = ("numpy", "onnxruntime", "pillow", "tokenizers")
"""What the model runs on: the same versions for everyone."""


def install() -> None:
    """Make or refresh the environments, and say which could not be."""
    pins = _pins()
    failed: list[str] = []
    for peer in PEERS:
        if not peer.requirements.exists():
            continue
        wanted = "\n".join([*pins, peer.requirements.read_text(encoding="utf-8")])
        if peer.installed and peer.stamp.read_text(encoding="utf-8") == wanted:
            CONSOLE.print(f"{peer.name}: is installed")
            continue
        CONSOLE.print(f"{peer.name}: installing into {peer.environment.relative_to(ROOT)}")
        if _install(peer, pins):
            peer.stamp.write_text(wanted, encoding="utf-8")
        else:
            failed.append(peer.name)
    if failed:
        CONSOLE.print(f"could not be installed, and will be left out: {', '.join(failed)}")


def _install(peer: Server, pins: list[str]) -> bool:
    """From nothing: what an older attempt left behind could make the newer one differ."""
    shutil.rmtree(peer.environment, ignore_errors=True)
    ENVIRONMENTS.mkdir(exist_ok=True)
    made = subprocess.run([sys.executable, "-m", "venv", str(peer.environment)], check=False)
    pip = [str(peer.python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    return made.returncode == 0 and (
        subprocess.run([*pip, *pins, "-r", str(peer.requirements)], check=False).returncode == 0
    )


def _pins() -> list[str]:
    """The model's packages as constraints.txt has them; ONNX Runtime in the build that this environment has."""
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    known = dict(re.findall(r"^([\w-]+)==(\S+)$", text, re.MULTILINE))
    pins = [f"{name}=={known[name]}" for name in MODEL_PACKAGES]
    try:
        gpu = f"onnxruntime-gpu[cuda,cudnn]=={version('onnxruntime-gpu')}"
    except PackageNotFoundError:
        return pins
    return [gpu if pin.startswith("onnxruntime==") else pin for pin in pins]
