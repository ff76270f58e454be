"""An engine that builds and runs images: Podman or Docker."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.system.conftest import ROOT
from tests.system.support.programs import require_program

_MADE = "localhost/ood-test-python"
# What needs no network of its own, no systemd and no right to raise limits runs on most machines.
_MODEST = ("--network=host", "--no-healthcheck", "--ulimit=nofile=4096:4096", "--ulimit=nproc=4096:4096")


class Engine:
    """The first engine that is installed, with `base`: an image with Python to build on.

    Where this machine does not let it run one, or there is none to be had, tests are skipped with what was said.
    """

    def __init__(self, folder: Path) -> None:
        self._program = require_program("podman", "docker")
        self._podman = Path(self._program).name == "podman"
        self._if_possible("info")
        (self.base,) = re.findall("^ARG PYTHON_IMAGE=(.*)", (ROOT / "Dockerfile").read_text("utf-8"), re.MULTILINE)
        if not self._has(self.base):
            if not self._has(_MADE):
                self._if_possible("import", str(_debian_with_python(folder)), _MADE)
            self.base = _MADE
        self._if_possible("run", "--rm", *_MODEST, self.base, "true")

    def __call__(self, *arguments: str) -> str:
        """What the command printed; it must succeed."""
        done = self._call(*arguments)
        assert done.returncode == 0, f"{arguments}: {done.stdout[-4000:]}{done.stderr[-4000:]}"
        return done.stdout.strip()

    def run(self, *arguments: str) -> str:
        return self("run", *_MODEST, *arguments)

    def build(self, context: Path, target: str, tag: str) -> None:
        """Build a target of the Dockerfile, through whatever this machine reaches PyPI by."""
        flags = ["--network=host", f"--build-arg=PYTHON_IMAGE={self.base}", f"--target={target}", f"--tag={tag}"]
        if self._podman:
            # Only Docker's own format keeps the health check. Docker's builder takes no folders of this machine.
            own = [path for path in ("/etc/ssl/certs", "/etc/pip.conf") if Path(path).exists()]
            flags += ["--format=docker", *(f"--volume={path}:{path}:ro" for path in own)]
        self("build", *flags, str(context))

    def inspect(self, image: str) -> dict[str, Any]:
        (found,) = json.loads(self("image", "inspect", image))
        return dict(found)

    def _call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([self._program, *arguments], capture_output=True, text=True, timeout=900, check=False)

    def _if_possible(self, *arguments: str) -> None:
        done = self._call(*arguments)
        if done.returncode != 0:
            pytest.skip(f"{self._program} {arguments[0]} is not possible here: {done.stderr}")

    def _has(self, image: str) -> bool:
        return self._call("image", "inspect", image).returncode == 0


def _debian_with_python(folder: Path) -> Path:
    """A root file system of this Debian, from where apt takes it; as the official slim images without documentation."""
    if os.geteuid() != 0 or shutil.which("mmdebstrap") is None:
        pytest.skip("there is no base image: pull the Dockerfile's, or run as root where mmdebstrap is installed")
    system = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)
    places = (Path("/etc/apt/sources.list"), Path("/etc/apt/sources.list.d/debian.sources"))
    archive = folder / "python.tar"
    command = [
        *("mmdebstrap", "--quiet", "--variant=apt"),
        "--include=python3,python3-venv,python-is-python3,ca-certificates",
        *(f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "locale", "man")),
        *(f'--aptopt=Dir::Cache::{name} ""' for name in ("pkgcache", "srcpkgcache")),
        *(system["VERSION_CODENAME"], str(archive), *(str(place) for place in places if place.exists())),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    if done.returncode != 0:
        pytest.skip(f"no base image can be made of Debian's packages here: {done.stderr}")
    return archive
