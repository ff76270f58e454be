"""Podman or Docker, which build and run container images."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.system.support.programs import require_program
from tests.system.support.service_process import ROOT

_LOCAL_BASE = "localhost/ood-test-python"
# Without a separate network, systemd and higher limits, containers run on most machines.
_RUN_FLAGS = ("--network=host", "--no-healthcheck", "--ulimit=nofile=4096:4096", "--ulimit=nproc=4096:4096")


class Engine:
    """The first installed engine.

    Attributes:
        base: A base image with Python.
    """

    def __init__(self, folder: Path) -> None:
        """Find an engine and a base image. The test is skipped if the engine cannot run containers.

        Args:
            folder: An empty folder for a base image that is made of Debian packages.
        """
        self._program = require_program("podman", "docker")
        self._podman = Path(self._program).name == "podman"
        self._call_or_skip("info")
        (self.base,) = re.findall("^ARG PYTHON_IMAGE=(.*)", (ROOT / "Dockerfile").read_text("utf-8"), re.MULTILINE)
        if not self._has(self.base):
            if not self._has(_LOCAL_BASE):
                self._call_or_skip("import", str(_debian_with_python(folder)), _LOCAL_BASE)
            self.base = _LOCAL_BASE
        self._call_or_skip("run", "--rm", *_RUN_FLAGS, self.base, "true")

    def __call__(self, *arguments: str) -> str:
        """Run a command, which must succeed, and return its output."""
        result = self._call(*arguments)
        assert result.returncode == 0, f"{arguments}: {result.stdout[-4000:]}{result.stderr[-4000:]}"
        return result.stdout.strip()

    def run(self, *arguments: str) -> str:
        return self("run", *_RUN_FLAGS, *arguments)

    def build(self, context: Path, target: str, tag: str) -> None:
        """Build a target of the Dockerfile with this machine's certificates and configuration of pip."""
        flags = ["--network=host", f"--build-arg=PYTHON_IMAGE={self.base}", f"--target={target}", f"--tag={tag}"]
        if self._podman:
            # Only Docker's format keeps the health check. Docker's builder mounts no folders of the machine.
            folders = [path for path in ("/etc/ssl/certs", "/etc/pip.conf") if Path(path).exists()]
            flags += ["--format=docker", *(f"--volume={path}:{path}:ro" for path in folders)]
        self("build", *flags, str(context))

    def inspect(self, image: str) -> dict[str, Any]:
        (description,) = json.loads(self("image", "inspect", image))
        return dict(description)

    def _call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([self._program, *arguments], capture_output=True, text=True, timeout=900, check=False)

    def _call_or_skip(self, *arguments: str) -> None:
        result = self._call(*arguments)
        if result.returncode != 0:
            pytest.skip(f"{self._program} {arguments[0]} does not work on this machine: {result.stderr}")

    def _has(self, image: str) -> bool:
        return self._call("image", "inspect", image).returncode == 0


def _debian_with_python(folder: Path) -> Path:
    """A root file system of this Debian release from apt's sources, without documentation as in the slim images."""
    if os.geteuid() != 0 or shutil.which("mmdebstrap") is None:
        pytest.skip("there is no base image: pull the Dockerfile's, or install mmdebstrap and run as root")
    release = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)
    sources = (Path("/etc/apt/sources.list"), Path("/etc/apt/sources.list.d/debian.sources"))
    archive = folder / "python.tar"
    command = [
        *("mmdebstrap", "--quiet", "--variant=apt"),
        "--include=python3,python3-venv,python-is-python3,ca-certificates",
        *(f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "locale", "man")),
        *(f'--aptopt=Dir::Cache::{name} ""' for name in ("pkgcache", "srcpkgcache")),
        *(release["VERSION_CODENAME"], str(archive), *(str(path) for path in sources if path.exists())),
    ]
    result = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    if result.returncode != 0:
        pytest.skip(f"no base image can be made of Debian packages on this machine: {result.stderr}")
    return archive
