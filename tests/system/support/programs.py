"""Programs that the tests run besides the service."""

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

from tests.system.support.service_process import TIMEOUT_SECONDS


def require_program(*names: str) -> str:
    """The path of the first installed program of `names`.

    It is searched in this environment, on the PATH, and in /usr/sbin, where Debian installs nginx. If none is
    installed, the test is skipped; in CI it fails.
    """
    folders = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", ""), "/usr/sbin"])
    program = next((path for name in names if (path := shutil.which(name, path=folders))), None)
    if program is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{names[0]} is not installed: see .ci/run")
    return program


def free_port() -> int:
    """A free port below the range of outgoing connections, so that a replica can restart on the same port."""
    for port in range(20000 + os.getpid() % 9000, 32000):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            if port not in _returned_ports:
                _returned_ports.add(port)
                return port
    raise AssertionError("no free port")


_returned_ports: set[int] = set()


@contextmanager
def running(command: list[str], ready_url: str, folder: Path) -> Iterator[None]:
    """Run a program in `folder` until the end of the context, once `ready_url` succeeds. A file has its output."""
    with (folder / "output.log").open("w") as output:
        process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=subprocess.STDOUT)
        try:
            end = time.monotonic() + TIMEOUT_SECONDS
            while not _succeeds(ready_url):
                if process.poll() is not None or time.monotonic() > end:
                    pytest.fail(f"{command[0]} did not start:\n{(folder / 'output.log').read_text()}")
                time.sleep(0.1)
            yield
        finally:
            process.terminate()
            try:
                process.wait(timeout=TIMEOUT_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _succeeds(url: str) -> bool:
    try:
        return httpx.get(url, timeout=TIMEOUT_SECONDS).is_success
    except httpx.HTTPError:
        return False
