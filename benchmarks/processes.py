"""Processes: servers that are started, waited for and ended to the last, and measurements in processes of their own."""

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
    """The server did not become ready; the message has the end of what it printed."""


@contextmanager
def running(
    command: Sequence[str],
    environment: Mapping[str, str],
    ready: Callable[[], bool],
    patience: float = 120,
    grace: float = 10,
) -> Iterator[psutil.Process]:
    """The server `command`, `ready`, in a folder of its own for all it writes; at the end none of its processes lives.

    It has `grace` seconds to end by itself. Raises `NotReady` where it ends, or `patience` seconds pass, before.
    """
    _adopt_orphans()
    others = _below()
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
            until = time.monotonic() + patience
            while not ready():
                if process.poll() is not None or time.monotonic() > until:
                    raise NotReady(log.read_text(encoding="utf-8", errors="replace")[-2000:] or "it printed nothing")
                time.sleep(0.1)
            yield psutil.Process(process.pid)
        finally:
            _end(process, others, grace)


def run_module(module: str, *arguments: str) -> dict[str, Any]:
    """The JSON that a module of this project prints as its last argument's seconds go by."""
    patience = 60 + 4 * float(arguments[-1])
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=patience)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def memory(server: psutil.Process) -> int:
    """Resident bytes of the server and all processes below it."""
    return sum(each.memory_info().rss for each in _family(server))


def cpu_seconds(server: psutil.Process) -> float:
    """What the server and all processes below it have computed so far."""
    times = [each.cpu_times() for each in _family(server)]
    return float(sum(each.user + each.system for each in times))


def main_thread_seconds(server: psutil.Process) -> float:
    """What the server's main thread has computed so far: in a server of one process, its event loop."""
    return float(sum(each.user_time + each.system_time for each in server.threads() if each.id == server.pid))


def _family(server: psutil.Process) -> list[psutil.Process]:
    return [server, *server.children(recursive=True)]


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _adopt_orphans() -> None:
    """Whatever loses its parent becomes a child of this process: daemons in sessions of their own are found, too."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _end(process: subprocess.Popen[bytes], others: set[psutil.Process], grace: float) -> None:
    """Ask the whole group to end, then kill what is left of it and of whatever it started."""
    family = _below() - others
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        psutil.wait_procs(family, timeout=grace)
    # Until none is left: one that is being killed may have started another.
    while left := [each for each in family | _below() - others if each.is_running()]:
        for each in left:
            try:
                each.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(left, timeout=1)
        family = set()
    process.wait()


def _below() -> set[psutil.Process]:
    return set(psutil.Process().children(recursive=True))
