"""Real programs that the tests run beside the service."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest


def require_program(*names: str) -> str:
    """The first of `names` that is installed. Where none is, tests are skipped; in CI, which installs it, they fail.

    Looked for in this environment, on the PATH, and where Debian keeps nginx, which only root looks at.
    """
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", ""), "/usr/sbin"])
    found = next((path for name in names if (path := shutil.which(name, path=places))), None)
    if found is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{names[0]} is not installed: see .ci/run")
    return found


def free_port() -> int:
    """A free port below those that outgoing connections get, so that a replica can come back to its own."""
    for port in range(20000 + os.getpid() % 9000, 32000):
        with socket.socket() as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trial.bind(("127.0.0.1", port))
            except OSError:
                continue
            if port not in _taken:
                _taken.add(port)
                return port
    raise AssertionError("no free port")


_taken: set[int] = set()


@contextmanager
def running(command: list[str], ready: str, folder: Path) -> Iterator[None]:
    """A program that answers 200 at the address `ready`; its output goes to a file in `folder`, where it runs."""
    with (folder / "output.log").open("w") as output:
        process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=subprocess.STDOUT)
        try:
            until = time.monotonic() + 60
            while not _answers(ready):
                if process.poll() is not None or time.monotonic() > until:
                    pytest.fail(f"{command[0]} did not start:\n{(folder / 'output.log').read_text()}")
                time.sleep(0.1)
            yield
        finally:
            process.terminate()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _answers(address: str) -> bool:
    try:
        return httpx.get(address, timeout=2).is_success
    except httpx.HTTPError:
        return False
