"""Starts servers and ends all their processes; runs measurements in processes of their own."""

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

_PR_SET_CHILD_SUBREAPER = 36


class NotReady(Exception):
    """The server did not become ready. The message holds the end of its output."""


@contextmanager
def running(
    command: Sequence[str],
    environment: Mapping[str, str],
    ready: Callable[[], bool],
    start_timeout: float = 120,
    stop_timeout: float = 10,
) -> Iterator[psutil.Process]:
    """Run a server in a temporary folder, and end it with all its descendants.

    Args:
        command: The command line.
        environment: Variables to add to those of this process.
        ready: Whether the server is ready; called until it is.
        start_timeout: Seconds to wait for `ready`.
        stop_timeout: Seconds from SIGTERM to SIGKILL.

    Raises:
        NotReady: The server ends before it is ready, or `start_timeout` passes.
    """
    _adopt_orphans()
    unrelated = _descendants()
    with tempfile.TemporaryDirectory(prefix="bench", ignore_cleanup_errors=True) as folder:
        log = Path(folder) / "output.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                cwd=folder,
                env={**os.environ, **environment, "TMPDIR": folder},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            end = time.monotonic() + start_timeout
            while not ready():
                if process.poll() is not None or time.monotonic() > end:
                    raise NotReady(log.read_text(encoding="utf-8", errors="replace")[-2000:] or "it printed nothing")
                time.sleep(0.1)
            yield psutil.Process(process.pid)
        finally:
            _end(process, unrelated, stop_timeout)


def run_module(module: str, *arguments: str) -> dict[str, Any]:
    """Run a module of this project in a new process and return the JSON object that it prints.

    The last argument must be the length of the measurement in seconds: the timeout depends on it.
    """
    timeout = 60 + 4 * float(arguments[-1])
    command = [sys.executable, "-m", module, *arguments]
    completed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=timeout)
    result: dict[str, Any] = json.loads(completed.stdout)
    return result


def memory(server: psutil.Process) -> int:
    """Resident bytes of the server and its descendants."""
    return sum(process.memory_info().rss for process in _with_descendants(server))


def cpu_seconds(server: psutil.Process) -> float:
    """Processor time of the server and its descendants so far."""
    times = [process.cpu_times() for process in _with_descendants(server)]
    return float(sum(time.user + time.system for time in times))


def main_thread_seconds(server: psutil.Process) -> float:
    """Processor time of the server's main thread so far. In a server of one process it runs the event loop."""
    return float(sum(thread.user_time + thread.system_time for thread in server.threads() if thread.id == server.pid))


def _with_descendants(server: psutil.Process) -> list[psutil.Process]:
    return [server, *server.children(recursive=True)]


def free_port() -> int:
    """A port of the loopback interface that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _adopt_orphans() -> None:
    """Make this process the parent of orphaned descendants, so that daemons in other sessions are found."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _end(process: subprocess.Popen[bytes], unrelated: set[psutil.Process], stop_timeout: float) -> None:
    """Send SIGTERM to the process group, then SIGKILL to all remaining descendants except `unrelated`."""
    family = _descendants() - unrelated
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        psutil.wait_procs(family, timeout=stop_timeout)
    # Repeated, because a process can start another one before it is killed.
    while remaining := [member for member in family | _descendants() - unrelated if member.is_running()]:
        for member in remaining:
            try:
                member.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(remaining, timeout=1)
        family = set()
    process.wait()


def _descendants() -> set[psutil.Process]:
    return set(psutil.Process().children(recursive=True))
